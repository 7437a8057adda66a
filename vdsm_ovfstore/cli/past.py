# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""restore, pin, unpin: what to do with an older generation."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.diff import diff_lines
from vdsm_ovfstore.cli.options import (
    domain_argument,
    generation,
    timeout_argument,
)
from vdsm_ovfstore.cli.outcome import healed_lines, warn_degraded
from vdsm_ovfstore.cli.store import Document, Store, open_store
from vdsm_ovfstore.cli.text import count, generation_key

# -- restore ------------------------------------------------------------------


def restore_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make an older generation the newest again: its content is written "
        "under a new number, and what is the newest now stays in the "
        "history. Without --yes nothing is written: the VMs are shown that "
        "would come, go and change."
    )
    _arguments(parser)
    parser.add_argument(
        "--yes", action="store_true", help="do it; without, only show it"
    )


def run_restore(args: Any, console: Console) -> int:
    with open_store(args, console) as store:
        if not args.yes:
            return _preview(store, args.wanted, console)
        answer = store.restore(args.wanted, args.timeout)
    document = {"dry_run": False, **answer}
    console.answer(document, lambda: _restored(answer, console))
    warn_degraded(answer, console)
    return errors.EXIT_OK


def _preview(store: Store, wanted: str, console: Console) -> int:
    newest = store.info()["newest"]
    old = generation_key(newest) if newest else None
    found = store.diff(old, wanted)
    step = f"ovfstore restore DOMAIN {wanted} --yes"
    same = found["new"]["sha256"] == found["old"]["sha256"]
    if same:
        step = "ovfstore history DOMAIN"

    def lines() -> Iterator[str]:
        if same:
            yield f"Generation {wanted} is what the newest one is already"
        else:
            yield from diff_lines(found, console)
            yield "Nothing was written"
        yield console.next_line(step)

    document = {**found, "dry_run": True}
    console.answer(
        {**document, "next_step": console.next_step(step)}, lines
    )
    return errors.EXIT_OK


def _restored(answer: Document, console: Console) -> Iterator[str]:
    yield from healed_lines(answer)
    if answer["unchanged"]:
        yield (
            f"Generation {answer['restored']} is what the newest one is "
            "already"
        )
    else:
        yield (
            f"Generation {answer['generation']} is what generation "
            f"{answer['restored']} was: {count(answer['entities'], 'entity')}"
            f", on {count(len(answer['copies']), 'copy')}"
        )
    yield console.next_line("ovfstore history DOMAIN")


# -- pin, unpin ---------------------------------------------------------------


def pin_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Keep a generation: retention leaves it alone until it is unpinned."
    )
    _arguments(parser)


def unpin_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Let a generation go in its time, whoever pinned it. Nothing is "
        "removed by that."
    )
    _arguments(parser)


def run_pin(args: Any, console: Console) -> int:
    return _pin(args, console, True)


def run_unpin(args: Any, console: Console) -> int:
    return _pin(args, console, False)


def _pin(args: Any, console: Console, keep: bool) -> int:
    with open_store(args, console) as store:
        answer = store.pin(args.wanted, keep, args.timeout)
    console.answer(answer, lambda: _pinned(answer, console))
    warn_degraded(answer, console)
    return errors.EXIT_OK


def _pinned(answer: Document, console: Console) -> Iterator[str]:
    yield from healed_lines(answer)
    there = count(len(answer["copies"]), "copy")
    what = "is kept" if answer["pinned"] else "goes in its time"
    yield f"Generation {answer['generation']} {what}, on {there}"
    yield console.next_line("ovfstore history DOMAIN")


def _arguments(parser: argparse.ArgumentParser) -> None:
    domain_argument(parser)
    parser.add_argument(
        "wanted",
        metavar="G",
        type=generation,
        help="number of the generation, or NUMBER:DIGEST",
    )
    timeout_argument(parser)
