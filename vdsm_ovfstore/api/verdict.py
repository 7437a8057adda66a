# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What verify answers: is every byte right, and what can be recovered?"""

from __future__ import annotations

from typing import Any, NamedTuple

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.documents import copy_fields, generation_fields
from vdsm_ovfstore.store import verify as verdicts
from vdsm_ovfstore.store.entities import entities
from vdsm_ovfstore.store.reader import Generation, GenerationReader, Reader
from vdsm_ovfstore.store.verify import CopyReport, Progress, Report, verify

# Names in all lists together. A generation may have 10,000 VMs on each of 16
# copies, and an answer must not grow with the damage; the numbers beside them
# are exact.
MAX_NAMES = 100

_UNREADABLE = (errors.Damaged, errors.StorageFailed)
_GONE = (*_UNREADABLE, errors.GenerationNotFound)


class _Recovery(NamedTuple):
    """
    What can be had of one generation, all copies taken together.

    verdict is ok, damaged (the whole or some VMs can be had) or lost.
    damaged_on are volumes; entities counts those that can be had; lost are
    VMs that no copy has sound.
    """

    verdict: str
    whole: bool
    damaged_on: list[str]
    entities: int
    lost: list[str]


def check(
    reader: Reader,
    quick: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """
    Check a store; reads only.

    Arguments:
        quick: only the records, the indexes and the heads.
        progress: is told the volume, and how many segments are done, of
            how many.
    """
    report = verify(reader, deep=not quick, progress=progress)
    found = [(g, _examine(reader, report, g)) for g in report.generations]
    names = _Names()
    return {
        "domain": report.domain,
        "path": report.path,
        "quick": quick,
        "verdict": report.verdict,
        "newest": generation_fields(report.newest),
        "generations": [_recovery_fields(g, r, names) for g, r in found],
        "recoverable": sum(r.whole for _, r in found),
        "copies": [_copy_fields(c, names) for c in report.copies],
        "problems": report.problems,
        "notes": report.notes,
    }


def _examine(
    reader: Reader, report: Report, generation: Generation
) -> _Recovery:
    """Several copies together may have what none has alone."""
    mine = [
        (c.volume, s.verdict)
        for c in report.copies
        for s in c.segments
        if (s.generation, s.sha256) == generation.identity
    ]
    damaged_on = [v for v, verdict in mine if verdict == verdicts.DAMAGED]
    opened = reader.open(generation)
    count = generation.entities
    sound = any(verdict == verdicts.OK for _, verdict in mine)
    if sound or _can_be_read(opened):
        verdict = verdicts.DAMAGED if damaged_on else verdicts.OK
        return _Recovery(verdict, True, damaged_on, count, [])
    try:
        wanted = entities(opened)
    except _GONE:
        return _Recovery(verdicts.LOST, False, damaged_on, 0, ["*"])
    lost = []
    for entry in wanted:
        try:
            opened.read(entry)
        except _UNREADABLE:
            lost.append(entry.entity or entry.name)
    count = len(wanted) - len(lost)
    verdict = verdicts.DAMAGED if count else verdicts.LOST
    return _Recovery(verdict, False, damaged_on, count, lost)


def _can_be_read(opened: GenerationReader) -> bool:
    try:
        for _ in opened.tar():
            pass
    except _GONE:
        return False
    return True


class _Names:
    """As many names as an answer may have."""

    def __init__(self) -> None:
        self._left = MAX_NAMES

    def some(self, names: list[str]) -> list[str]:
        """The first of these; at least one, for it says what is meant."""
        shown = names[: max(self._left, 1)]
        self._left -= len(shown)
        return shown


def _recovery_fields(
    generation: Generation, recovery: _Recovery, names: _Names
) -> dict[str, Any]:
    return {
        **generation_fields(generation),
        "verdict": recovery.verdict,
        "whole": recovery.whole,
        "damaged_on": recovery.damaged_on,
        "recoverable_entities": recovery.entities,
        "lost": names.some(recovery.lost),
    }


def _copy_fields(copy: CopyReport, names: _Names) -> dict[str, Any]:
    segments = [
        {**s._asdict(), "entities": names.some(s.entities)}
        for s in copy.segments
    ]
    return {**copy_fields(copy), "segments": segments}
