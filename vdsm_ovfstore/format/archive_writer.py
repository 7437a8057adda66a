# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Making the archive: a plain ustar stream, as the engine's.

    info.json       when, and of which storage domain
    <uuid>.ovf      one per VM or template
    metadata.json   the status of the VMs that are not down
    <uuid>.ovf      those that no engine has registered
    manifest.json   ours, if there is more to say; the engine ignores it
    two zero blocks

Padded to 512 bytes only, as the engine's commons-compress does: `Size` in the
description is this length.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import description, member, tarheader


def write_archive(
    members: Iterable[tuple[str, int, Iterable[bytes]]], mtime: int
) -> Iterator[bytes]:
    """
    Make an archive as a stream, holding one chunk at a time.

    Arguments:
        members: (name, length in bytes, the data in chunks of any size).
        mtime: Time of all members, seconds since the epoch.

    Yields:
        The archive, in chunks.

    Raises:
        errors.MemberRefused: A name that an archive must not have, twice the
            same name, or a member that is too large.
        errors.ArchiveMismatch: A member's data is not as long as announced.
    """
    names = set()
    for name, length, chunks in members:
        limit = member.size_limit(member.member_kind(name))
        if limit == 0:
            raise errors.MemberRefused(name=name, reason="unknown name")
        if not 0 <= length <= limit:
            raise errors.MemberRefused(
                name=name,
                reason=f"it takes {length} bytes, the limit is {limit}",
            )
        if name in names:
            raise errors.MemberRefused(name=name, reason="duplicate name")
        names.add(name)
        yield tarheader.make(name, length, mtime)
        yield from _exactly(name, length, chunks)
        if length % tarheader.BLOCK:
            yield bytes(-length % tarheader.BLOCK)
    yield bytes(2 * tarheader.BLOCK)


def engine_members(
    domain: str,
    ovfs: Iterable[tuple[str, int, Iterable[bytes]]],
    when: int,
    statuses: Mapping[str, int],
    unregistered: Iterable[tuple[str, int, Iterable[bytes]]] = (),
    manifest: Optional[dict[str, Any]] = None,
) -> Iterator[tuple[str, int, Iterable[bytes]]]:
    """
    List the members that the engine makes for one domain, in its order.

    Arguments:
        domain: The id of the storage domain.
        ovfs: (id of the entity, length of its OVF in bytes, the OVF).
        when: Time of the update, seconds since the epoch.
        statuses: The engine's VMStatus number by VM id. As in the engine's
            archives, 0 (down) is left out.
        unregistered: As ovfs; written after metadata.json.
        manifest: Of manifest.json, the last member; None for an archive
            without one.
    """
    yield _json_member(
        "info.json",
        {
            "Last Updated": description.format_date(when),
            "Storage Domains": [{"uuid": domain}],
        },
    )
    for entity, length, chunks in ovfs:
        yield f"{entity}.ovf", length, chunks
    running = {vm: status for vm, status in statuses.items() if status != 0}
    yield _json_member("metadata.json", {"VM Status": running})
    for entity, length, chunks in unregistered:
        yield f"{entity}.ovf", length, chunks
    if manifest is not None:
        text = json.dumps(manifest, separators=(",", ":"), sort_keys=True)
        yield "manifest.json", len(text), (text.encode("ascii"),)


def _exactly(
    name: str, length: int, chunks: Iterable[bytes]
) -> Iterator[bytes]:
    left = length
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            break
        yield chunk
    if left != 0:
        relation = "longer" if left < 0 else "shorter"
        raise errors.ArchiveMismatch(
            reason=f"member {name} is {relation} than its {length} bytes"
        )


def _json_member(
    name: str, content: dict[str, Any]
) -> tuple[str, int, Iterable[bytes]]:
    # As the engine's JSON library indents: a space before the colon.
    text = json.dumps(content, indent=2, separators=(",", " : "))
    data = text.encode("ascii")
    return name, len(data), (data,)
