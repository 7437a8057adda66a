# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Opening the domain and the store that a command names."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.text import isotime
from vdsm_ovfstore.format.segment import IndexEntry, SegmentInvalid
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.reader import Generation, GenerationReader, Reader


def open_domain(args: Any) -> FileDomain:
    """Raises errors.DomainNotFound and the like."""
    return FileDomain.open(args.domain, buffered=args.allow_buffered_io)


@contextlib.contextmanager
def open_store(domain: FileDomain) -> Iterator[Reader]:
    """
    The store of a domain; at least one copy of it can be read.

    Raises:
        errors.VolumeNotFound: there is none.
        errors.Error: why no copy can be read.
    """
    try:
        reader = Reader(domain)
    except errors.VolumeNotFound:
        # It may be there, behind metadata that cannot be read.
        if domain.problems:
            raise domain.problems[0] from None
        raise
    with reader:
        if not reader.copies:
            raise next(iter(reader.problems.values()))
        yield reader


def entries(generation: GenerationReader) -> list[IndexEntry]:
    """All members of a generation. Raises errors.Damaged."""
    try:
        return list(generation.index())
    except SegmentInvalid as e:
        number = generation.generation.number
        raise errors.Damaged(
            what=f"The index of generation {number}", reason=str(e)
        ) from None


def generation_fields(generation: Optional[Generation]) -> Any:
    """A generation for machines."""
    if generation is None:
        return None
    fields = generation._asdict()
    fields["time"] = isotime(generation.time)
    fields["copies"] = list(generation.copies)
    return fields


def entity_fields(entry: IndexEntry) -> dict[str, Any]:
    """A VM or template for machines."""
    return {
        "id": entity_id(entry),
        "name": entry.entity,
        "kind": entry.kind,
        "disks": list(entry.disks),
        "length": entry.length,
        "sha256": entry.sha256,
    }


def entity_id(entry: IndexEntry) -> str:
    return entry.name[: -len(".ovf")]


def generation_name(generation: Generation) -> str:
    """How people call it: its number, or that it has none."""
    if generation.kind == "unsealed":
        return "unsealed"
    return str(generation.number)
