# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
An archive put together from what is left of it.

Each frame of a segment is verified by itself, and a head as a whole, so what
is damaged in one place may be sound in another: on the other copy, or in the
head that shows the very generation.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Optional, Protocol

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.seal import Entry, Identity
from vdsm_ovfstore.store import heads
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.heads import Place
from vdsm_ovfstore.store.prepare import Prepared, prepare
from vdsm_ovfstore.store.stored import StoredSegment, twinned

log = logging.getLogger("ovfstore.store")

# What makes one place useless, and not the others.
UNUSABLE = (errors.Damaged, errors.FormatUnknown, errors.StorageFailed)


class Holder(Protocol):
    """What has segments: a copy, or a log that was one's (left.Aside)."""

    @property
    def id(self) -> str: ...

    def entries(self) -> tuple[Entry, ...]: ...

    def find(self, identity: Identity) -> Optional[Entry]: ...

    def segment(self, entry: Entry) -> StoredSegment: ...


def salvage(copies: Iterable[Holder], entry: Entry) -> Optional[Prepared]:
    """
    The archive of a generation, or None when a part is nowhere sound.

    The caller closes it. Raises errors.TargetRefused when there is no room
    for local files.
    """
    segments: list[StoredSegment] = []
    heads_of: list[Place] = []
    for copy in copies:
        mine = copy.find(entry.identity)
        if mine is not None:
            segments.append(copy.segment(mine))
        if not isinstance(copy, Copy) or copy.seal is None:
            continue
        for head in (copy.seal.head, copy.seal.previous):
            if head is not None and head.identity == entry.identity:
                heads_of.append(
                    heads.HeadArchive(copy, head.length, head.sha256)
                )
    twinned(segments)
    places: list[Place] = [*segments, *heads_of]
    try:
        found = prepare(
            pieces(places, cuts(places, entry.length)), strict=False
        )
    except errors.TargetRefused:
        raise
    except errors.Error as e:
        log.warning("LOST generation=%d %s", entry.generation, e)
        return None
    if (found.length, found.sha256) == (entry.length, entry.sha256):
        return found
    found.close()
    return None


def pieces(places: Sequence[Place], ends: Iterable[int]) -> Iterator[bytes]:
    """
    The tar's bytes up to each of these offsets, each piece from the first
    place that has it sound. Raises what the last place raised.
    """
    offset = 0
    for end in ends:
        yield _first(places, offset, end - offset)
        offset = end


def cuts(places: Iterable[Place], length: int) -> list[int]:
    """Where frames end; they are the same on all copies."""
    for place in places:
        try:
            if isinstance(place, StoredSegment):
                return [frame.end for frame in place.frames]
        except UNUSABLE:
            continue
    return [*range(heads.PIECE, length, heads.PIECE), length]


def _first(places: Iterable[Place], offset: int, length: int) -> bytes:
    problem: errors.Error = errors.Damaged(
        what=f"Byte {offset} of the archive", reason="nobody has it"
    )
    for place in places:
        try:
            data = b"".join(place.tar_range(offset, length))
        except UNUSABLE as e:
            problem = e
            continue
        if len(data) == length:
            return data
    raise problem
