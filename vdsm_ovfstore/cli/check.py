# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""verify: is every byte right, and what can still be recovered?"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, NamedTuple

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.look import remark_lines
from vdsm_ovfstore.cli.opened import (
    entries,
    generation_fields,
    generation_name,
    open_domain,
    open_store,
)
from vdsm_ovfstore.cli.options import domain_argument
from vdsm_ovfstore.cli.reports import HEAL, copy_fields
from vdsm_ovfstore.cli.text import count, escaped
from vdsm_ovfstore.format.member import ENTITIES
from vdsm_ovfstore.store import verify as verdicts
from vdsm_ovfstore.store.reader import Generation, GenerationReader, Reader
from vdsm_ovfstore.store.verify import CopyReport, Report, verify

_COPIES = 2  # what create makes without being told
_SHOWN = 10  # names of damaged VMs on one line


class _Recovery(NamedTuple):
    """
    What can be had of one generation, all copies taken together.

    verdict is ok, damaged (the whole or some VMs can be had) or lost.
    damaged_on are volumes; lost are VMs that no copy has sound.
    """

    generation: Generation
    verdict: str
    whole: bool
    damaged_on: list[str]
    entities: int
    lost: list[str]


def verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check a store: every byte of every generation on every copy. "
        "Nothing is locked and nothing written. Ends with 3 when something "
        "is damaged and with 4 when nothing can be recovered."
    )
    domain_argument(parser)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="only the records, the indexes and the heads",
    )


def run_verify(args: Any, console: Console) -> int:
    with open_store(open_domain(args)) as reader:
        report = verify(
            reader,
            deep=not args.quick,
            progress=lambda what, done, total: console.progress.part(
                "verifying", done, total
            ),
        )
        found = [_examine(reader, report, g) for g in report.generations]
    step = _next_step(report, found)
    whole = sum(r.whole for r in found)
    result = {
        "domain": report.domain,
        "path": report.path,
        "quick": args.quick,
        "verdict": report.verdict,
        "newest": generation_fields(report.newest),
        "generations": [_recovery_fields(r) for r in found],
        "recoverable": whole,
        "copies": [_copy_fields(c) for c in report.copies],
        "problems": report.problems,
        "notes": report.notes,
        "next_step": console.next_step(step),
    }
    console.answer(result, lambda: _lines(report, found, step, console))
    return _exit_status(report, found)


def _lines(
    report: Report, found: list[_Recovery], step: str, console: Console
) -> Iterator[str]:
    yield f"Store of domain {report.domain}: {report.verdict}"
    yield ""
    yield from console.table(
        "COPY VERDICT HEAD SEGMENTS DAMAGED",
        [
            (c.volume, c.verdict, c.head, len(c.segments), _damaged(c))
            for c in report.copies
        ],
        right="SEGMENTS DAMAGED",
    )
    if found:
        yield ""
        yield from console.table(
            "GENERATION DIGEST KIND VERDICT RECOVERABLE",
            map(_recovery_row, found),
            right="GENERATION RECOVERABLE",
        )
        yield ""
        whole = sum(r.whole for r in found)
        total = count(len(found), "generation")
        yield f"Recoverable as a whole: {whole} of {total}"
    for one in found:
        if one.lost:
            name = generation_name(one.generation)
            yield f"Lost of generation {name}: {_names(one.lost)}"
    yield from remark_lines(report)
    yield ""
    yield console.next_line(step)


def _names(names: list[str]) -> str:
    shown = ", ".join(map(escaped, names[:_SHOWN]))
    more = len(names) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _damaged(copy: CopyReport) -> int:
    return sum(s.verdict == verdicts.DAMAGED for s in copy.segments)


# -- what can be recovered ----------------------------------------------------


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
        return _Recovery(generation, verdict, True, damaged_on, count, [])
    try:
        members = [e for e in entries(opened) if e.kind in ENTITIES]
    except (errors.Damaged, errors.StorageFailed, errors.GenerationNotFound):
        return _Recovery(
            generation, verdicts.LOST, False, damaged_on, 0, ["*"]
        )
    lost = []
    for entry in members:
        try:
            opened.read(entry)
        except (errors.Damaged, errors.StorageFailed):
            lost.append(entry.entity or entry.name)
    count = len(members) - len(lost)
    verdict = verdicts.DAMAGED if count else verdicts.LOST
    return _Recovery(generation, verdict, False, damaged_on, count, lost)


def _can_be_read(opened: GenerationReader) -> bool:
    try:
        for _ in opened.tar():
            pass
    except (errors.Damaged, errors.StorageFailed, errors.GenerationNotFound):
        return False
    return True


def _exit_status(report: Report, found: list[_Recovery]) -> int:
    if report.verdict in (verdicts.OK, verdicts.EMPTY):
        return errors.EXIT_OK
    if any(r.whole or r.entities for r in found):
        return errors.EXIT_DAMAGED
    return errors.EXIT_LOST


def _next_step(report: Report, found: list[_Recovery]) -> str:
    """The command to type next."""
    if report.verdict == verdicts.OK:
        return "ovfstore vms DOMAIN"
    newest = report.newest
    if report.verdict == verdicts.EMPTY or newest is None:
        return "ovfstore upload DOMAIN SOURCE"
    first = next(r for r in found if r.generation == newest)
    if first.whole:
        # Only create makes copies, and members of those that are none.
        members = sum(c.member for c in report.copies)
        wanting = members < max(_COPIES, len(report.copies))
        return "ovfstore create DOMAIN" if wanting else HEAL
    partial = next((r for r in found if r.whole or r.entities), None)
    if partial is None:
        return "ovfstore upload DOMAIN SOURCE"
    number = ""
    if partial is not first:
        number = f" --generation {partial.generation.number}"
    return f"ovfstore extract DOMAIN{number} -o DIR"


# -- for machines and tables --------------------------------------------------


def _recovery_row(one: _Recovery) -> tuple[object, ...]:
    generation = one.generation
    return (
        generation_name(generation),
        generation.sha256[:12],
        generation.kind,
        one.verdict,
        f"{one.entities} of {generation.entities}",
    )


def _recovery_fields(one: _Recovery) -> dict[str, Any]:
    return {
        **generation_fields(one.generation),
        "verdict": one.verdict,
        "whole": one.whole,
        "damaged_on": one.damaged_on,
        "recoverable_entities": one.entities,
        "lost": one.lost,
    }


def _copy_fields(copy: CopyReport) -> dict[str, Any]:
    segments = [s._asdict() for s in copy.segments]
    return {**copy_fields(copy), "segments": segments}
