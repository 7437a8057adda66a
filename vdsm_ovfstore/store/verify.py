# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Is everything there, and is it right? Reads only, takes no lock.

    quick  records and indexes, and what the head of each copy shows
    deep   besides, every byte of every generation on every copy
"""

from __future__ import annotations

import hashlib
import logging
from typing import Callable, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.seal import Entry
from vdsm_ovfstore.store import classify
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.reader import Generation, Reader
from vdsm_ovfstore.store.salvage import UNUSABLE
from vdsm_ovfstore.store.sources import Sources
from vdsm_ovfstore.store.stored import StoredSegment

log = logging.getLogger("ovfstore.store")

# The verdict on a copy.
OK = "ok"
BEHIND = "behind"  # sound, but not at the newest generation
INTERRUPTED = "interrupted"  # the next writer finishes it
FOREIGN = "foreign"  # a stock host wrote it; the next writer adopts it
DAMAGED = "damaged"
UNREADABLE = "unreadable"
UNSEALED = "unsealed"  # written by stock hosts only
EMPTY = "empty"

# The verdict on the whole.
LOST = "lost"  # no generation can be had from anywhere

_HEADS = {
    classify.EMPTY: EMPTY,
    classify.UNSEALED: DAMAGED,
    classify.CLEAN: OK,
    classify.ROLL: INTERRUPTED,
    classify.ADOPT: FOREIGN,
    classify.SUSPECT: DAMAGED,
}


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


class CopyReport(NamedTuple):
    """
    One copy. updated, size and last_updated stand in its DESCRIPTION;
    log_used counts the bytes of segments; excluded is the reason, or "".
    """

    volume: str
    image: str
    path: str
    member: bool
    excluded: str
    verdict: str
    reason: str
    head: str
    generation: Optional[int]
    description_updated: Optional[bool]
    description_size: Optional[int]
    last_updated: Optional[int]
    legality: str
    capacity: int
    log_used: int
    log_size: int
    segments: list[SegmentReport]


class Report(NamedTuple):
    """
    The store. generations are those that seals name, whether they can be
    read or not. problems and notes are in words; notes ask for nothing.
    """

    domain: str
    path: str
    verdict: str
    newest: Optional[Generation]
    generations: list[Generation]
    copies: list[CopyReport]
    problems: list[str]
    notes: list[str]


Progress = Callable[[str, int, int], None]


def verify(
    reader: Reader,
    deep: bool = True,
    segments: bool = True,
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """
    Check a store; segments=False looks at records and heads only (status).

    progress is told what is being checked, and how far it is.
    """
    generations = reader.generations()
    newest = _newest(reader)
    total = sum(len(c.entries()) for c in reader.copies) if segments else 0
    copies: list[CopyReport] = []
    done = 0
    for copy in reader.copies:
        found = []
        if segments:
            for entry in copy.entries():
                progress(copy.id, done, total)
                found.append(_check_segment(copy, entry, deep))
                done += 1
        copies.append(_check_copy(reader, copy, newest, found))
    progress("", total, total)
    for volume, error in reader.problems.items():
        copies.append(_unreadable(reader, volume, error))
    copies.sort(key=lambda c: c.volume)
    problems = _problems(reader, newest, copies)
    verdict = OK
    if newest is None:
        verdict = EMPTY if _is_empty(copies) else LOST
    elif segments and _is_lost(reader, generations, copies):
        verdict = LOST
    elif problems:
        verdict = DAMAGED
    return Report(
        domain=reader.domain.id,
        path=reader.domain.path,
        verdict=verdict,
        newest=newest,
        generations=generations,
        copies=copies,
        problems=problems,
        notes=_notes(reader),
    )


def _notes(reader: Reader) -> list[str]:
    """Logs whose volume is gone: still readable, and nobody's."""
    if reader.other_problems or reader.problems:
        return []  # what cannot be read may be there
    volumes = {c.id for c in reader.copies}
    return [
        f"the log of volume {volume} is left, the volume is gone"
        for volume in sorted(set(reader.domain.logs()) - volumes)
    ]


def _newest(reader: Reader) -> Optional[Generation]:
    try:
        return reader.newest()
    except errors.StoreEmpty:
        return None


def _check_segment(copy: Copy, entry: Entry, deep: bool) -> SegmentReport:
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


def _check_copy(
    reader: Reader,
    copy: Copy,
    newest: Optional[Generation],
    segments: list[SegmentReport],
) -> CopyReport:
    sources = Sources(reader.copies)
    reason = ""
    try:
        metadata = copy.volume.read_metadata()
        _, described = copy.description()
        legality = metadata.legality
        metadata.enforce(copy.id, reader.domain.id, copy.volume.image)
        verdict = classify.classify(copy, sources.find_head).kind
        head = _HEADS[verdict]
        if copy.seal is None and head == FOREIGN:
            head = UNSEALED
    except errors.Error as e:
        reason, head, described, legality = str(e), UNREADABLE, None, ""
    shown = copy.seal.head if copy.seal else None
    judged = head
    if any(s.verdict == DAMAGED for s in segments):
        judged = DAMAGED
        reason = next(s.reason for s in segments if s.verdict == DAMAGED)
    elif head == OK and newest and shown and shown.identity != newest.identity:
        judged = BEHIND
    seal = reader.seal
    excluded = ""
    if seal is not None:
        excluded = next(
            (m.excluded for m in seal.members if m.volume == copy.id), ""
        )
    ring = copy.ring
    return CopyReport(
        volume=copy.id,
        image=copy.volume.image,
        path=copy.volume.path,
        member=reader.is_member(copy.id),
        excluded=excluded,
        verdict=judged,
        reason=reason,
        head=head,
        generation=shown.generation if shown else None,
        description_updated=described.updated if described else None,
        description_size=described.size if described else None,
        last_updated=described.last_updated if described else None,
        legality=legality,
        capacity=copy.volume.capacity,
        log_used=sum(e.stored for e in copy.entries()),
        log_size=ring.offset if ring else 0,
        segments=segments,
    )


def _unreadable(
    reader: Reader, volume: str, error: errors.Error
) -> CopyReport:
    return CopyReport(
        volume=volume,
        image="",
        path="",
        member=reader.is_member(volume),
        excluded="",
        verdict=UNREADABLE,
        reason=str(error),
        head=UNREADABLE,
        generation=None,
        description_updated=None,
        description_size=None,
        last_updated=None,
        legality="",
        capacity=0,
        log_used=0,
        log_size=0,
        segments=[],
    )


def _is_lost(
    reader: Reader, generations: list[Generation], copies: list[CopyReport]
) -> bool:
    """No generation is whole: on a copy, or from several together."""
    sound = {
        (s.generation, s.sha256)
        for c in copies
        for s in c.segments
        if s.verdict == OK
    }
    return not any(
        g.identity in sound or _is_readable(reader, g) for g in generations
    )


def _is_readable(reader: Reader, generation: Generation) -> bool:
    try:
        for _ in reader.open(generation).tar():
            pass
    except errors.Error:
        return False
    return True


def _is_empty(copies: list[CopyReport]) -> bool:
    return bool(copies) and all(c.verdict == EMPTY for c in copies)


def _problems(
    reader: Reader, newest: Optional[Generation], copies: list[CopyReport]
) -> list[str]:
    found = []
    lengths = {
        c.id: c.seal.head.length
        for c in reader.copies
        if c.seal and c.seal.head
    }
    for copy in copies:
        if copy.excluded:
            found.append(f"copy {copy.volume} is excluded: {copy.excluded}")
        elif not copy.member:
            found.append(f"copy {copy.volume} is not a member of the store")
        if copy.verdict not in (OK, UNSEALED, EMPTY):
            text = f"copy {copy.volume} is {copy.verdict}"
            found.append(f"{text}: {copy.reason}" if copy.reason else text)
        elif copy.verdict == EMPTY and newest is not None:
            found.append(f"copy {copy.volume} is empty")
        elif copy.generation is not None and (
            not copy.description_updated
            or copy.description_size != lengths.get(copy.volume)
        ):
            found.append(
                f"copy {copy.volume} has a description that stock readers "
                "refuse"
            )
    seal = reader.seal
    if seal is not None:
        there = {c.volume for c in copies}
        for member in seal.members:
            if member.volume not in there:
                found.append(f"copy {member.volume} is missing")
    found += [str(e) for e in reader.other_problems]
    return found
