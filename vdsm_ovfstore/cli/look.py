# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""status: what is there, and how old it is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.options import domain_argument
from vdsm_ovfstore.cli.store import SOUND, Document, open_store
from vdsm_ovfstore.cli.text import (
    age,
    generation_name,
    remark_lines,
    size,
)


def status_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Show the state of a store and of each of its copies. Ends with 3 "
        "when something is wrong; verify looks closer. Without DOMAIN: what "
        "of this program runs on this machine, the plugin in vdsmd and the "
        "daemon; ends with 1 when vdsmd runs without a plugin that is "
        "installed, or a host does not answer."
    )
    domain_argument(parser, needed=False)


def run_status(args: Any, console: Console) -> int:
    if args.domain is None:
        from vdsm_ovfstore.cli import here

        return here.run(args, console)
    with open_store(args, console) as store:
        found = store.info()
    step = _next_step(found["verdict"])
    console.answer(
        {**found, "next_step": console.next_step(step)},
        lambda: _status_lines(found, step, console),
    )
    return _exit_status(found["verdict"])


def _status_lines(
    found: Document, step: str, console: Console
) -> Iterator[str]:
    yield from console.table(
        "DOMAIN TYPE VERSION LOCK GENERATION AGE ENTITIES VERDICT",
        [_store_row(found)],
        right="VERSION GENERATION AGE ENTITIES",
    )
    yield ""
    yield from console.table(
        "COPY GENERATION VERDICT HEAD DESCRIPTION SIZE LOG",
        map(_copy_row, found["copies"]),
        right="GENERATION SIZE LOG",
    )
    if found["buffered"]:
        yield ""
        yield "Buffered I/O is allowed: for development only"
    yield from remark_lines(found)
    yield ""
    yield console.next_line(step)


def _store_row(found: Document) -> tuple[object, ...]:
    newest, seconds = found["newest"], found["age"]
    return (
        found["domain"],
        found["type"].lower(),
        found["domain_version"],
        found["lock"],
        generation_name(newest) if newest else None,
        None if seconds is None else age(seconds),
        newest["entities"] if newest else None,
        found["verdict"],
    )


def _copy_row(copy: Document) -> tuple[object, ...]:
    described = "current" if copy["description_updated"] else "not updated"
    if copy["description_updated"] is None:
        described = "none"
    log = None
    if copy["log_size"] > 0:
        log = f"{size(copy['log_used'])} of {size(copy['log_size'])}"
    return (
        copy["volume"],
        copy["generation"] or None,
        copy["verdict"],
        copy["head"],
        described,
        size(copy["capacity"]),
        log,
    )


def _next_step(verdict: str) -> str:
    """The command to type next."""
    if verdict == "empty":
        return "ovfstore upload DOMAIN SOURCE"
    if verdict == "ok":
        return "ovfstore vms DOMAIN"
    return "ovfstore verify DOMAIN"


def _exit_status(verdict: str) -> int:
    if verdict in SOUND:
        return errors.EXIT_OK
    return errors.EXIT_LOST if verdict == "lost" else errors.EXIT_DAMAGED
