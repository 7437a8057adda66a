# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Is one segment of one copy right? What verify asks of each."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.seal import Entry
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.salvage import UNUSABLE
from vdsm_ovfstore.store.stored import StoredSegment

OK = "ok"
DAMAGED = "damaged"


class SegmentReport(NamedTuple):
    """
    One generation, or suspect, on one copy.

    entities are those that cannot be read from this copy.
    """

    generation: int
    sha256: str
    verdict: str
    reason: str
    entities: list[str]


def check_segment(copy: Copy, entry: Entry, deep: bool) -> SegmentReport:
    segment = copy.segment(entry)
    reason, entities = "", []
    try:
        segment.index()
        assert segment.frames is not None
        if deep:
            _check_bytes(segment)
    except UNUSABLE as e:
        reason = str(e)
        entities = _damaged_entities(segment)
    return SegmentReport(
        entry.generation,
        entry.sha256,
        DAMAGED if reason else OK,
        reason,
        entities,
    )


def _check_bytes(segment: StoredSegment) -> None:
    segment.verify()
    digest = hashlib.sha256()
    for data in segment.tar():
        digest.update(data)
    if digest.hexdigest() != segment.sha256:
        raise errors.Damaged(
            what=f"Generation {segment.header.generation}",
            reason="the archive does not match its digest",
        )


def _damaged_entities(segment: StoredSegment) -> list[str]:
    """Which members cannot be read; all of them when even that is lost."""
    try:
        index, bad = segment.index(), segment.damaged_frames()
    except UNUSABLE:
        return ["*"]
    return [
        member.entity or member.name
        for member in index
        if any(
            member.offset < frame.end
            and frame.offset < member.offset + member.length
            for frame in bad
        )
    ]
