# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""vms and show: the VMs and templates of a generation."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console, is_terminal
from vdsm_ovfstore.cli.options import domain_argument, generation_argument
from vdsm_ovfstore.cli.store import Document, open_store
from vdsm_ovfstore.cli.text import escaped, size


def vms_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "List the VMs and templates of a generation."
    domain_argument(parser)
    generation_argument(parser)


def run_vms(args: Any, console: Console) -> int:
    with open_store(args, console) as store:
        result = store.vms(args.generation)

    def row(entity: Document) -> tuple[object, ...]:
        disks, length = len(entity["disks"]), size(entity["length"])
        return entity["name"], entity["id"], entity["kind"], disks, length

    console.answer(
        result,
        lambda: console.table(
            "NAME ID KIND DISKS SIZE",
            map(row, result["entities"]),
            right="DISKS SIZE",
        ),
    )
    for name in result["invalid"]:
        console.warn(f"member {name!r} is not a valid OVF")
    return errors.EXIT_OK


def show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Print the OVF of one VM or template, verified, byte for byte. With "
        "--json: what the store knows of it, and its OVF as text."
    )
    domain_argument(parser)
    parser.add_argument("vm", metavar="VM", help="its id or name")
    generation_argument(parser)


def run_show(args: Any, console: Console) -> int:
    with open_store(args, console) as store:
        if console.as_json:
            result = store.vm(args.vm, args.generation)
            console.answer(result, lambda: ())
            return errors.EXIT_OK
        data = store.read(args.vm, args.generation)
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
