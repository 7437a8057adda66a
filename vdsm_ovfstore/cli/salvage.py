# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""salvage: OVFs out of damaged storage, a device or an image of one."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.directory import make_directory
from vdsm_ovfstore.cli.text import count, escaped, size
from vdsm_ovfstore.client.targets import TargetExists, new_file
from vdsm_ovfstore.format.ids import is_uuid
from vdsm_ovfstore.rescue.document import Document, document
from vdsm_ovfstore.rescue.salvage import Report, salvage
from vdsm_ovfstore.rescue.sources import open_sources
from vdsm_ovfstore.rescue.target import check_target
from vdsm_ovfstore.rescue.versions import (
    GRADES,
    PARTIAL,
    VERIFIED,
    Version,
)

_SHOWN = 20  # names on a line


def salvage_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Rescue OVFs from what is left of stores: damaged, overwritten or cut "
        "files, whole devices, or images of them. Needs no host and no lock, "
        "and never writes to what it reads. Grades each OVF: verified (a "
        "digest proves it), unverified (complete), partial. Ends with 3 when "
        "not all that is named is there and verified, with 4 when nothing "
        "is."
    )
    parser.add_argument(
        "paths",
        metavar="PATH",
        nargs="+",
        help="a storage domain, a file, a block device or an image",
    )
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        help="write the best version of each OVF there, as <id>.ovf; of one "
        "that is partial, what there is, as <id>.partial",
    )
    parser.add_argument(
        "--versions",
        action="store_true",
        help="all versions of each, the others as <id>.1.ovf and so on",
    )
    parser.add_argument(
        "--domain",
        metavar="ID",
        type=_id,
        dest="only",
        help="leave out what belongs to another storage domain",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace files that exist"
    )


def run_salvage(args: Any, console: Console) -> int:
    problems: list[errors.Error] = []
    with open_sources(args.paths, problems) as sources:
        if args.output is not None:
            # Before hours are spent on a large disk.
            check_target(args.output, args.paths, sources)
            make_directory(args.output)
        report = salvage(
            sources,
            args.only,
            args.versions,
            lambda what, done, total: console.progress.part(what, done, total),
        )
        found = document(report)
        failed: list[tuple[Version, errors.Error]] = []
        if args.output is not None:
            failed = _write(report, found, args, console)
    found["directory"] = args.output and os.path.abspath(args.output)
    found["failed"] = [
        {"id": v.entity, "name": v.text.name, "error": console.error(why)}
        for v, why in failed
    ]
    found["unreadable"] = [console.error(e) for e in problems]
    step = _next_step(found, args)
    found["next_step"] = step
    console.answer(found, lambda: _lines(found, step, console))
    for error in problems:
        console.warn(f"error {error.code}: {error}")
    for version, why in failed:
        console.warn(
            f"{version.entity} ({version.text.name}) was not written: "
            f"error {why.code}: {why}"
        )
    return _exit_status(found)


# -- writing ------------------------------------------------------------------


def _write(
    report: Report, found: Document, args: Any, console: Console
) -> list[tuple[Version, errors.Error]]:
    """Each OVF read again, and compared with its digest again."""
    failed: list[tuple[Version, errors.Error]] = []
    wanted = list(_files(report, found))
    # As they lie: a disk should not seek more than it must.
    wanted.sort(key=lambda one: one[0].place)
    for number, (version, fields, name) in enumerate(wanted):
        console.progress.part("writing", number, len(wanted))
        path = os.path.join(args.output, name)
        try:
            data = version.read()
            if data is None:
                raise errors.Damaged(
                    what=f"OVF {version.entity}",
                    reason="it is not what it was a moment ago",
                )
            with new_file(path, args.force) as write:
                write(data)
        except (errors.Damaged, errors.StorageFailed, TargetExists) as e:
            failed.append((version, e))
        else:
            fields["file"] = name
    return failed


def _files(
    report: Report, found: Document
) -> Iterator[tuple[Version, Document, str]]:
    """Each version that is to be written, its fields, its file's name."""
    for fields in found["entities"]:
        best = report.versions.best[fields["id"]]
        versions = [best, *report.versions.others(best.entity)]
        for number, (version, one) in enumerate(
            zip(versions, [fields, *fields["others"]])
        ):
            # An id is hex digits and hyphens, whatever was found.
            name = f"{version.entity}.{number}" if number else version.entity
            suffix = "partial" if version.grade == PARTIAL else "ovf"
            yield version, one, f"{name}.{suffix}"


# -- showing ------------------------------------------------------------------


def _lines(found: Document, step: str, console: Console) -> Iterator[str]:
    if found["generations"]:
        yield from console.table(
            "DOMAIN GENERATION DIGEST TIME ENTITIES VERIFIED UNVERIFIED "
            "PARTIAL LOST",
            map(_generation_row, found["generations"]),
            right="GENERATION ENTITIES VERIFIED UNVERIFIED PARTIAL LOST",
        )
        yield ""
    if found["entities"]:
        yield from console.table(
            "NAME ID KIND GRADE PROOF GENERATION TIME SIZE VERSIONS",
            map(_entity_row, found["entities"]),
            right="GENERATION SIZE VERSIONS",
        )
        yield ""
    grades = [entity["grade"] for entity in found["entities"]]
    counts = ", ".join(
        f"{grades.count(grade)} {grade}" for grade in reversed(GRADES)
    )
    yield f"Found {count(len(grades), 'OVF')}: {counts}"
    if found["lost"]:
        yield f"Lost: {_names(found['lost'])}"
    for note in found["notes"]:
        yield f"Note: {escaped(note)}"
    if found["directory"] is not None:
        written = sum(
            one["file"] is not None
            for entity in found["entities"]
            for one in (entity, *entity["others"])
        )
        yield f"Wrote {count(written, 'file')} to {found['directory']}"
    if step:
        yield f"Next: {step}"


def _generation_row(one: Document) -> tuple[object, ...]:
    number: object = one["generation"] or "suspect"
    return (
        one["domain"],
        number,
        one["sha256"][:12],
        one["time"],
        one["entities"],
        one["verified"],
        one["unverified"],
        one["partial"],
        one["lost"],
    )


def _entity_row(entity: Document) -> tuple[object, ...]:
    length = size(entity["length"])
    if entity["length"] < entity["size"]:
        length = f"{length} of {size(entity['size'])}"
    return (
        entity["name"] or None,
        entity["id"],
        entity["kind"],
        entity["grade"],
        entity["proof"] or None,
        entity["generation"],
        entity["time"],
        length,
        entity["versions"],
    )


def _names(lost: list[Document]) -> str:
    shown = ", ".join(
        escaped(one["name"] or one["id"]) for one in lost[:_SHOWN]
    )
    more = len(lost) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _next_step(found: Document, args: Any) -> str:
    """The command to type next, or nothing."""
    if not found["entities"] or found["directory"] is not None:
        return ""
    paths = " ".join(map(shlex.quote, args.paths))
    only = f" --domain {args.only}" if args.only else ""
    return f"ovfstore salvage {paths}{only} -o DIR"


def _exit_status(found: Document) -> int:
    if not found["entities"]:
        return errors.EXIT_LOST
    wanting = (
        found["lost"]
        or found["failed"]
        or found["unreadable"]
        or any(one["unreadable"] for one in found["sources"])
        or any(one["grade"] != VERIFIED for one in found["entities"])
    )
    return errors.EXIT_DAMAGED if wanting else errors.EXIT_OK


def _id(text: str) -> str:
    """The id of a storage domain."""
    if not is_uuid(text.lower()):
        raise argparse.ArgumentTypeError(f"{text!r} is no id")
    return text.lower()
