# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""vms and show: the VMs and templates of a generation."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console, is_terminal
from vdsm_ovfstore.cli.opened import (
    entity_fields,
    entity_id,
    entries,
    generation_fields,
    open_domain,
    open_store,
)
from vdsm_ovfstore.cli.options import domain_argument, generation_argument
from vdsm_ovfstore.cli.text import escaped, size
from vdsm_ovfstore.format.member import ENTITIES, INVALID
from vdsm_ovfstore.format.segment import IndexEntry


def vms_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the VMs and templates of a generation."
    domain_argument(parser)
    generation_argument(parser)


def run_vms(args: Any, console: Console) -> int:
    with open_store(open_domain(args)) as reader:
        generation = reader.find(args.generation)
        members = entries(reader.open(generation))
    found = [e for e in members if e.kind in ENTITIES]
    found.sort(key=lambda e: (e.entity, e.name))
    invalid = [e.name for e in members if e.kind == INVALID]
    result = {
        "domain": reader.domain.id,
        "path": reader.domain.path,
        "generation": generation_fields(generation),
        "entities": [entity_fields(e) for e in found],
        "invalid": invalid,
    }

    def row(entry: IndexEntry) -> tuple[object, ...]:
        disks, length = len(entry.disks), size(entry.length)
        return entry.entity, entity_id(entry), entry.kind, disks, length

    console.answer(
        result,
        lambda: console.table(
            "NAME ID KIND DISKS SIZE", map(row, found), right="DISKS SIZE"
        ),
    )
    for name in invalid:
        console.warn(f"member {name!r} is not a valid OVF")
    return errors.EXIT_OK


def show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print the OVF of one VM or template, verified, byte for byte. With "
        "--json: what the store knows of it."
    )
    domain_argument(parser)
    parser.add_argument("vm", metavar="VM", help="its id or name")
    generation_argument(parser)


def run_show(args: Any, console: Console) -> int:
    with open_store(open_domain(args)) as reader:
        generation = reader.find(args.generation)
        opened = reader.open(generation)
        entry = opened.find(args.vm)
        data = b"" if console.as_json else opened.read(entry)
    if console.as_json:
        result = {
            "domain": reader.domain.id,
            "path": reader.domain.path,
            "generation": generation_fields(generation),
            "entity": entity_fields(entry),
        }
        console.answer(result, lambda: ())
        return errors.EXIT_OK
    if is_terminal(sys.stdout.fileno()):
        data = _harmless(data)
    console.data(data)
    console.flush()
    return errors.EXIT_OK


def _harmless(data: bytes) -> bytes:
    """For a terminal: it must not be steered by an OVF."""
    text = data.decode("utf-8", "backslashreplace")
    lines = text.replace("\r\n", "\n").split("\n")
    shown = ("\t".join(map(escaped, line.split("\t"))) for line in lines)
    encoding = sys.stdout.encoding or "utf-8"
    return "\n".join(shown).encode(encoding, "backslashreplace")
