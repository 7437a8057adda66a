# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Is everything there, and is it right? Reads only, takes no lock.

    quick  records and indexes, and what the head of each copy shows
    deep   besides, every byte of every generation on every copy
"""

from __future__ import annotations

import logging
from typing import Callable, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.store import classify, left
from vdsm_ovfstore.store import segments as single
from vdsm_ovfstore.store.carve import newer
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.reader import Generation, Reader
from vdsm_ovfstore.store.segments import SegmentReport, check_segment
from vdsm_ovfstore.store.sources import Sources

log = logging.getLogger("ovfstore.store")

# The verdict on a copy.
OK = single.OK
DAMAGED = single.DAMAGED
BEHIND = "behind"  # sound, but not at the newest generation
INTERRUPTED = "interrupted"  # the next writer finishes it
FOREIGN = "foreign"  # a stock host wrote it; the next writer adopts it
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
                found.append(check_segment(copy, entry, deep))
                done += 1
            found += _unnamed(copy)
        copies.append(_check_copy(reader, copy, newest, found))
    progress("", total, total)
    for volume, error in reader.problems.items():
        copies.append(_unreadable(reader, volume, error))
    copies.sort(key=lambda c: c.volume)
    problems = _problems(reader, newest, copies)
    verdict = OK
    if newest is None:
        verdict = EMPTY if _is_empty(copies) else LOST
        if any(s.verdict == OK for c in copies for s in c.segments):
            verdict = DAMAGED  # repair finds them
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
        notes=_notes(reader, generations, segments),
    )


def _notes(
    reader: Reader, generations: list[Generation], segments: bool
) -> list[str]:
    return [*_single(reader, generations), *_orphans(reader, segments)]


def _single(reader: Reader, generations: list[Generation]) -> list[str]:
    """Generations that not every member has: no fault, but to be known."""
    sealed = {
        c.id for c in reader.copies if c.seal and reader.is_member(c.id)
    }
    few = [
        str(g.number)
        for g in generations
        if g.copies and not sealed <= set(g.copies)
    ]
    if not few:
        return []
    return [f"not on every copy: generation {', '.join(few)}"]


def _orphans(reader: Reader, segments: bool) -> list[str]:
    """Logs that no volume uses: still readable, and nobody's."""
    if reader.other_problems or reader.problems:
        return []  # what cannot be read may be there
    volumes = {c.id for c in reader.copies}
    if segments:
        found = left.examine(reader.domain, volumes, reader.copies)
        return [one.text() for one in found]
    names = reader.domain.left_logs().names(volumes)
    return [left.title(name) for name in names]


def _newest(reader: Reader) -> Optional[Generation]:
    try:
        return reader.newest()
    except errors.StoreEmpty:
        return None


def _unnamed(copy: Copy) -> list[SegmentReport]:
    """
    The generations in a log that has no seal, or has lost newer ones.

    The space between segments holds what was evicted, too: that is not asked
    for, and in a log whose seals are sound nobody looks.
    """
    ring = copy.ring
    if ring is None or copy.seal is not None and not ring.unsound():
        return []
    return [
        SegmentReport(e.generation, e.sha256, OK, "no seal names it", [])
        for e in newer(copy.volume, copy.volume.domain, copy.entries())
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
    elif head in (OK, EMPTY, UNSEALED, DAMAGED):
        reason = _doubts(reader, copy, head, segments)
        judged = DAMAGED if reason else head
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


def _doubts(
    reader: Reader, copy: Copy, head: str, segments: list[SegmentReport]
) -> str:
    """What is wrong with the log of a copy whose head is right; or ""."""
    ring = copy.ring
    if copy.seal is not None:
        slots = ring.unsound() if ring else []
        if slots:
            numbers = ", ".join(map(str, slots))
            return f"no sound seal in slot {numbers} of its log"
    elif len(segments) > 1 or segments and head == DAMAGED:
        return "there is no seal in its log, but there are generations"
    elif reader.seal is not None and head != EMPTY:
        if reader.is_member(copy.id):
            return "there is no seal in its log" if ring else "it has no log"
    return ""


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
