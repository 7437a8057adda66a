# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""diff: two generations, or a generation and the disks on its domain."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.options import (
    domain_argument,
    generation,
    generation_argument,
)
from vdsm_ovfstore.cli.store import Document, open_direct, open_store
from vdsm_ovfstore.cli.text import count, generation_name, size
from vdsm_ovfstore.cli.way import refuse_named


def diff_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Compare two generations, VM by VM: what was added, removed, changed. "
        "With --disks: compare a generation with the disks that are on the "
        "domain: VMs without their disks, and disks without a VM."
    )
    domain_argument(parser)
    parser.add_argument(
        "old",
        metavar="OLD",
        nargs="?",
        type=generation,
        help="the older generation (the one before NEW)",
    )
    parser.add_argument(
        "new",
        metavar="NEW",
        nargs="?",
        type=generation,
        help="the newer generation (the newest)",
    )
    parser.add_argument(
        "--disks",
        action="store_true",
        help="compare with the disks on the domain",
    )
    generation_argument(parser)


def run_diff(args: Any, console: Console) -> int:
    if args.disks:
        return _run_disks(args, console)
    if args.generation is not None:
        raise errors.UsageError(
            reason="diff: give generations as OLD and NEW; --generation is "
            "for --disks"
        )
    with open_store(args, console) as store:
        found = store.diff(args.old, args.new)
    console.answer(found, lambda: diff_lines(found, console))
    return errors.EXIT_OK


def diff_lines(found: Document, console: Console) -> Iterator[str]:
    """The changes, and how many they are."""
    rows = [
        *(("removed", e["name"], e["id"], e["kind"], None)
          for e in found["removed"]),
        *(("added", e["name"], e["id"], e["kind"], None)
          for e in found["added"]),
        *(("changed", e["name"], e["id"], e["kind"], _what(e))
          for e in found["changed"]),
    ]  # fmt: skip
    if rows:
        yield from console.table("CHANGE NAME ID KIND WHAT", rows)
        yield ""
    old, new = generation_name(found["old"]), generation_name(found["new"])
    yield (
        f"From generation {old} to {new}: {len(found['added'])} added, "
        f"{len(found['removed'])} removed, {len(found['changed'])} changed, "
        f"{found['same']} as before"
    )


def _what(change: Document) -> str:
    """What is different, as far as the index tells."""
    what = []
    if change["old_name"] != change["name"]:
        what.append(f"was {change['old_name']}")
    if change["disks_added"]:
        what.append(f"{count(len(change['disks_added']), 'disk')} more")
    if change["disks_removed"]:
        what.append(f"{count(len(change['disks_removed']), 'disk')} less")
    return ", ".join(what) or "configuration"


# -- disks --------------------------------------------------------------------


def _run_disks(args: Any, console: Console) -> int:
    if args.old is not None:
        raise errors.UsageError(
            reason="diff: --disks takes one generation, with --generation"
        )
    refuse_named(args, "--disks")
    with open_direct(args, console) as store:
        found = store.diff_disks(args.generation)
    console.answer(found, lambda: _disk_lines(found, console))
    return errors.EXIT_OK


def _disk_lines(found: Document, console: Console) -> Iterator[str]:
    if found["absent"]:
        yield from console.table(
            "VM ID KIND DISKS ABSENT",
            (
                (e["name"], e["id"], e["kind"], len(e["disks"]), disk)
                for e in found["absent"]
                for disk in e["absent"]
            ),
            right="DISKS",
        )
        yield ""
    if found["unused"]:
        yield from console.table(
            "UNUSED ALIAS TYPE SIZE VOLUMES",
            (
                (
                    d["image"],
                    d["alias"] or None,
                    d["type"] or None,
                    size(d["capacity"]) if d["volumes"] else None,
                    d["volumes"],
                )
                for d in found["unused"]
            ),
            right="SIZE VOLUMES",
        )
        yield ""
    name = generation_name(found["generation"])
    absent = sum(len(e["absent"]) for e in found["absent"])
    yield (
        f"Generation {name} and this domain: {found['present']} disks of VMs "
        f"are there, {absent} are not; {len(found['unused'])} belong to no VM"
    )
    if found["absent"] or found["unused"]:
        yield console.next_line("ovfstore recover DOMAIN")
