# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""status, list and history: what is there, and how old it is."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.opened import (
    generation_fields,
    generation_name,
    open_domain,
    open_store,
)
from vdsm_ovfstore.cli.options import domain_argument
from vdsm_ovfstore.cli.reports import (
    copy_fields,
    exit_status,
    next_after_status,
)
from vdsm_ovfstore.cli.text import age, escaped, isotime, size
from vdsm_ovfstore.storage.filedomain import FileDomain, find_domains
from vdsm_ovfstore.store.reader import Generation
from vdsm_ovfstore.store.verify import CopyReport, Report, verify

MOUNTS = "/rhev/data-center/mnt"  # where VDSM mounts its domains


# -- status -------------------------------------------------------------------


def status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show the state of a store and of each of its copies. Ends with 3 "
        "when something is wrong; verify looks closer."
    )
    domain_argument(parser)


def run_status(args: Any, console: Console) -> int:
    domain = open_domain(args)
    report = _status(domain)
    step = next_after_status(report)
    result = {
        **_store_fields(domain, report),
        "generations": len(report.generations),
        "copies": [copy_fields(c) for c in report.copies],
        "problems": report.problems,
        "notes": report.notes,
        "next_step": console.next_step(step),
    }

    def lines() -> Iterator[str]:
        yield from console.table(
            "DOMAIN TYPE VERSION LOCK GENERATION AGE ENTITIES VERDICT",
            [_store_row(domain, report)],
            right="VERSION GENERATION AGE ENTITIES",
        )
        yield ""
        yield from console.table(
            "COPY GENERATION VERDICT HEAD DESCRIPTION SIZE LOG",
            map(_copy_row, report.copies),
            right="GENERATION SIZE LOG",
        )
        if domain.buffered:
            yield ""
            yield "Buffered I/O is allowed: for development only"
        yield from remark_lines(report)
        yield ""
        yield console.next_line(step)

    console.answer(result, lines)
    return exit_status(report)


def _status(domain: FileDomain) -> Report:
    with open_store(domain) as reader:
        return verify(reader, segments=False)


def remark_lines(report: Report) -> Iterator[str]:
    """What is wrong, then what is only worth knowing."""
    if report.problems or report.notes:
        yield ""
    for problem in report.problems:
        yield f"Problem: {escaped(problem)}"
    for note in report.notes:
        yield f"Note: {escaped(note)}"


def _store_fields(domain: FileDomain, report: Report) -> dict[str, Any]:
    return {
        "domain": domain.id,
        "path": domain.path,
        "type": domain.type,
        "domain_version": domain.version,
        "lock": domain.lock_kind,
        "buffered": domain.buffered,
        "verdict": report.verdict,
        "newest": generation_fields(report.newest),
        "age": _seconds(report.newest),
    }


def _store_row(domain: FileDomain, report: Report) -> tuple[object, ...]:
    newest = report.newest
    return (
        domain.id,
        domain.type.lower(),
        domain.version,
        domain.lock_kind,
        generation_name(newest) if newest else None,
        _age(newest),
        newest.entities if newest else None,
        report.verdict,
    )


def _copy_row(copy: CopyReport) -> tuple[object, ...]:
    described = "current" if copy.description_updated else "not updated"
    if copy.description_updated is None:
        described = "none"
    log = None
    if copy.log_size > 0:
        log = f"{size(copy.log_used)} of {size(copy.log_size)}"
    return (
        copy.volume,
        copy.generation or None,
        copy.verdict,
        copy.head,
        described,
        size(copy.capacity),
        log,
    )


def _seconds(generation: Optional[Generation]) -> Optional[int]:
    if generation is None or not generation.time:
        return None
    return max(0, int(time.time()) - generation.time)


def _age(generation: Optional[Generation]) -> Optional[str]:
    seconds = _seconds(generation)
    return None if seconds is None else age(seconds)


# -- list ---------------------------------------------------------------------


def list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the storage domains that have a store, below a directory. "
        "Ends with 1 when something could not be read."
    )
    parser.add_argument(
        "directory",
        metavar="PATH",
        nargs="?",
        default=MOUNTS,
        help=f"where to look ({MOUNTS})",
    )


def run_list(args: Any, console: Console) -> int:
    if not os.path.isdir(args.directory):
        raise errors.DomainNotFound(
            path=args.directory, reason="no such directory"
        )
    problems: list[errors.Error] = []
    domains = find_domains(
        args.directory, buffered=args.allow_buffered_io, problems=problems
    )
    found: list[tuple[FileDomain, Report]] = []
    where: dict[int, str] = {}  # the domains of problems
    for number, domain in enumerate(domains):
        console.progress.part("reading", number, len(domains))
        try:
            found.append((domain, _status(domain)))
        except errors.VolumeNotFound:
            pass  # a domain without a store
        except errors.Error as e:
            problems.append(e)
            where[id(e)] = domain.path
    result = {
        "directory": args.directory,
        "stores": [
            {**_store_fields(d, r), "copies": len(r.copies)} for d, r in found
        ],
        "unreadable": [
            console.error(e, where.get(id(e), args.directory))
            for e in problems
        ],
    }

    def lines() -> Iterator[str]:
        if not found:
            yield f"No store found below {escaped(args.directory)}"
            return
        yield from console.table(
            "DOMAIN TYPE GENERATION AGE ENTITIES COPIES VERDICT PATH",
            [_list_row(d, r) for d, r in found],
            right="GENERATION AGE ENTITIES COPIES",
        )

    console.answer(result, lines)
    for error in problems:
        console.warn(f"error {error.code}: {error}")
    return errors.EXIT_ERROR if problems else errors.EXIT_OK


def _list_row(domain: FileDomain, report: Report) -> tuple[object, ...]:
    newest = report.newest
    return (
        domain.id,
        domain.type.lower(),
        generation_name(newest) if newest else None,
        _age(newest),
        newest.entities if newest else None,
        len(report.copies),
        report.verdict,
        domain.path,
    )


# -- history ------------------------------------------------------------------


def history_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the generations of a store, newest first."
    domain_argument(parser)


def run_history(args: Any, console: Console) -> int:
    with open_store(open_domain(args)) as reader:
        generations = reader.generations()
        there = len(reader.copies) + len(reader.problems)
    result = {
        "domain": reader.domain.id,
        "path": reader.domain.path,
        "generations": [generation_fields(g) for g in generations],
    }

    def row(generation: Generation) -> tuple[object, ...]:
        return (
            generation_name(generation),
            generation.sha256[:12],
            isotime(generation.time),
            _age(generation),
            generation.entities,
            size(generation.length),
            f"{len(generation.copies)} of {there}",
            generation.kind,
            generation.pinned or None,
        )

    console.answer(
        result,
        lambda: console.table(
            "GENERATION DIGEST TIME AGE ENTITIES SIZE COPIES KIND PINNED",
            map(row, generations),
            right="GENERATION AGE ENTITIES SIZE COPIES",
        ),
    )
    return errors.EXIT_OK
