# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""recover: the report that an operator wants before importing a domain."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.directory import make_directory
from vdsm_ovfstore.cli.options import domain_argument, generation_argument
from vdsm_ovfstore.cli.store import Document, open_direct
from vdsm_ovfstore.cli.text import (
    age,
    count,
    escaped,
    generation_name,
    seconds_since,
    size,
)
from vdsm_ovfstore.client.targets import TargetExists, new_file
from vdsm_ovfstore.format.ids import is_uuid
from vdsm_ovfstore.rescue.target import check_target
from vdsm_ovfstore.storage.filedomain import FileDomain, find_domains
from vdsm_ovfstore.store.entities import entity_id
from vdsm_ovfstore.store.recovery import BROKEN, LOST, READY, Prospect

# Below the directory: what the engine imports in part only.
_INCOMPLETE = "incomplete"


def recover_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Tell what an import of this storage domain would bring back: each VM "
        "and template, whether its OVF and all its disks are there, and what "
        "will not come back and why. Reads every OVF, and changes nothing. "
        "Ends with 3 when something will not come back as it was."
    )
    domain_argument(parser)
    generation_argument(parser)
    parser.add_argument(
        "--also",
        metavar="PATH",
        action="append",
        default=[],
        help="look for disks on this storage domain, or the domains below "
        "this directory, too; as often as you like",
    )
    parser.add_argument(
        "--to",
        metavar="DIR",
        help="write the OVFs there, as <id>.ovf; those of which a disk is "
        f"missing to DIR/{_INCOMPLETE}",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace files that exist"
    )


def run_recover(args: Any, console: Console) -> int:
    problems: list[errors.Error] = []
    others = _others(args, problems)
    writer = _Writer(args.to, args.force)
    with open_direct(args, console) as store:
        if args.to is not None:
            paths = [store.path, *(other.path for other in others)]
            check_target(args.to, paths, [])
            make_directory(args.to)
        found = store.recover(args.generation, others, writer.take)
    failed = [
        {"id": entity_id(one.entry), "name": one.entry.entity,
         "error": console.error(why)}
        for one, why in writer.failed
    ]  # fmt: skip
    step = _next_step(found, args)
    answer = {
        **found,
        "directory": args.to and os.path.abspath(args.to),
        "failed": failed,
        "unreadable": [console.error(e) for e in problems],
        "next_step": console.next_step(step),
    }
    console.answer(answer, lambda: _lines(answer, step, writer, console))
    for error in problems:
        console.warn(f"error {error.code}: {error}")
    for one, why in writer.failed:
        console.warn(
            f"{entity_id(one.entry)} ({one.entry.entity}) was not written: "
            f"error {why.code}: {why}"
        )
    return _exit_status(answer)


def _others(args: Any, problems: list[errors.Error]) -> list[FileDomain]:
    found = {}
    for path in args.also:
        if not os.path.isdir(path):
            raise errors.DomainNotFound(path=path, reason="no such directory")
        domains = find_domains(
            path, buffered=args.allow_buffered_io, problems=problems
        )
        if not domains and not problems:
            raise errors.DomainNotFound(
                path=path, reason="there is none, nor below it"
            )
        found.update({domain.id: domain for domain in domains})
    return list(found.values())


class _Writer:
    """Writes the OVFs as they are read."""

    def __init__(self, directory: Any, replace: bool) -> None:
        self.failed: list[tuple[Prospect, errors.Error]] = []
        self.written = 0
        self._directory = directory
        self._replace = replace

    def take(self, one: Prospect) -> Document:
        if self._directory is None or one.data is None:
            return {"file": None}
        entity = entity_id(one.entry)
        # The index comes from the storage; a name must not be a path.
        if not is_uuid(entity):
            raise errors.MemberRefused(
                name=one.entry.name, reason="not <uuid>.ovf"
            )
        name = f"{entity}.ovf"
        try:
            if one.verdict == BROKEN:
                make_directory(os.path.join(self._directory, _INCOMPLETE))
                name = os.path.join(_INCOMPLETE, name)
            path = os.path.join(self._directory, name)
            with new_file(path, self._replace) as write:
                write(one.data)
        except TargetExists as e:
            self.failed.append((one, e))
            return {"file": None}
        self.written += 1
        return {"file": name}


def _lines(
    found: Document, step: str, writer: _Writer, console: Console
) -> Iterator[str]:
    generation = found["generation"]
    when = generation["time"]
    how_old = f", {age(seconds_since(when))} old" if when else ""
    yield (
        f"Generation {generation_name(generation)} of {when or 'no date'}"
        f"{how_old}: {count(generation['entities'], 'entity')}"
    )
    yield ""
    yield from console.table(
        "NAME ID KIND DISKS REVISION EXPORTED VERDICT WHY",
        map(_row, found["entities"]),
        right="DISKS REVISION",
    )
    if found["unused"]:
        yield ""
        yield from console.table(
            "UNUSED ALIAS TYPE SIZE WAS",
            map(_unused_row, found["unused"]),
            right="SIZE",
        )
    yield ""
    entities = len(found["entities"])
    yield (
        f"Of {entities}: {found['ready']} ready, {found['waiting']} waiting "
        f"for others, {found['broken']} with disks that are gone, "
        f"{found['lost']} lost"
    )
    for name in found["invalid"]:
        yield f"Note: member {escaped(name)} is no valid OVF, and is left out"
    if found["directory"] is not None:
        yield f"Wrote {count(writer.written, 'OVF')} to {found['directory']}"
    if step:
        yield console.next_line(step)


def _row(entity: Document) -> tuple[object, ...]:
    return (
        entity["name"],
        entity["id"],
        entity["kind"],
        len(entity["disks"]),
        entity["revision"],
        entity["exported"],
        entity["verdict"],
        "; ".join(entity["reasons"]) or None,
    )


def _unused_row(disk: Document) -> tuple[object, ...]:
    was = disk["last_of"]
    return (
        disk["image"],
        disk["alias"] or None,
        disk["type"] or None,
        size(disk["capacity"]) if disk["volumes"] else None,
        f"{was['name']} in generation {was['generation']}" if was else None,
    )


def _next_step(found: Document, args: Any) -> str:
    """The command to type next, or nothing."""
    if found["lost"]:
        return "ovfstore verify DOMAIN"
    was = [disk["last_of"] for disk in found["unused"] if disk["last_of"]]
    here = {entity["id"] for entity in found["entities"]}
    gone = [one for one in was if one["id"] not in here]
    if gone:
        # Its disk is here, and its OVF is in the history only.
        number = gone[0]["generation"]
        return f"ovfstore extract DOMAIN {gone[0]['id']} -g {number} -o DIR"
    if args.to is None and found["entities"]:
        return "ovfstore recover DOMAIN --to DIR"
    return ""


def _exit_status(found: Document) -> int:
    if found["entities"] and found[LOST] == len(found["entities"]):
        return errors.EXIT_LOST
    if found[READY] < len(found["entities"]) or found["failed"]:
        return errors.EXIT_DAMAGED
    return errors.EXIT_DAMAGED if found["unreadable"] else errors.EXIT_OK
