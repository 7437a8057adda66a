# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""maintain: check every byte of the stores of this machine, and mend them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli import everywhere
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.options import timeout_argument
from vdsm_ovfstore.cli.store import SOUND, Document
from vdsm_ovfstore.cli.text import escaped
from vdsm_ovfstore.format.record import isotime

# What keeps this host from mending, and is no fault: another one has to.
_NOT_OURS = (
    errors.NotSpm,
    errors.LeaseBusy,
    errors.LockspaceMissing,
    errors.DomainNotServed,
    errors.StorageReadOnly,
    errors.SanlockUnavailable,
)


def maintain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check every byte of each store below PATH, and repair those that "
        "are not sound, through the host that serves the domain. For a timer. "
        "What was found is kept for metrics. Ends with 3 when something "
        "could not be mended, and with 1 when a store could not be read."
    )
    everywhere.place_arguments(parser)
    parser.add_argument(
        "--check-only", action="store_true", help="repair nothing"
    )
    timeout_argument(parser)


def run_maintain(args: Any, console: Console) -> int:
    problems: list[errors.Error] = []
    known = everywhere.load(args.state)
    found: list[Document] = []
    for domain in everywhere.domains(args.place, args, problems):
        path = domain.path
        console.progress.step(f"checking {path}")
        try:
            one = _maintain(path, args, console)
        except errors.VolumeNotFound:
            continue  # a domain without a store
        except errors.Error as e:
            problems.append(e)
            continue
        found.append(one)
        known[one["domain"]] = one
        # Each when it is known: the next one may take long.
        everywhere.save(args.state, known)
    console.answer(
        {
            "domains": found,
            "unreadable": [console.error(e, args.place) for e in problems],
        },
        lambda: _lines(found, args, console),
    )
    for error in problems:
        console.warn(f"error {error.code}: {error}")
    if any(one["verdict"] not in SOUND for one in found):
        return errors.EXIT_DAMAGED
    return errors.EXIT_ERROR if problems else errors.EXIT_OK


def _maintain(path: str, args: Any, console: Console) -> Document:
    with everywhere.opened(path, args, console) as store:
        report = store.verify(quick=False)
    healed: list[str] = []
    kept = ""
    damaged = report["verdict"] not in SOUND
    # Notes: what only one copy has, and logs that nobody uses any more.
    if (damaged or report["notes"]) and not args.check_only:
        try:
            with everywhere.opened(path, args, console) as store:
                healed = store.repair(args.timeout, collect=True)["healed"]
            # What was sound, and left alone, is so still.
            if damaged or healed:
                with everywhere.opened(path, args, console) as store:
                    report = store.verify(quick=False)
        except _NOT_OURS as e:
            kept = str(e) if damaged else ""
    return {
        "domain": report["domain"],
        "path": report["path"],
        "time": isotime(time.time()),
        "verdict": report["verdict"],
        "problems": report["problems"],
        "healed": healed,
        "not_mended": kept,
    }


def _lines(
    found: list[Document], args: Any, console: Console
) -> Iterator[str]:
    if not found:
        yield f"No store found below {escaped(args.place)}"
        return
    yield from console.table(
        "DOMAIN VERDICT MENDED PATH",
        (
            (one["domain"], one["verdict"], len(one["healed"]), one["path"])
            for one in found
        ),
        right="MENDED",
    )
    for one in found:
        for what in one["healed"]:
            yield f"Mended in {one['domain']}: {escaped(what)}"
        if one["not_mended"]:
            reason = escaped(one["not_mended"])
            yield f"Not mended by this host, {one['domain']}: {reason}"
