# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""wait: until a store has what somebody waits for."""

from __future__ import annotations

import argparse
import time
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.options import domain_argument, seconds
from vdsm_ovfstore.cli.store import Document, open_store
from vdsm_ovfstore.cli.text import age, generation_name, seconds_since
from vdsm_ovfstore.format import record

# Seconds between two looks; a commit takes a half.
_LOOK = 1.0


def wait_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Wait until the newest generation has a number, or is younger than a "
        "time. For scripts that need a store up to date before they go on. "
        "Ends with 1 when that does not come in time."
    )
    domain_argument(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--generation",
        "-g",
        metavar="N",
        type=_number,
        help="the newest generation has this number, or a higher one",
    )
    what.add_argument(
        "--newer-than",
        metavar="T",
        type=_time,
        help="it was committed after that time: 2026-03-14T15:09:26Z, or "
        "Unix seconds",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=600.0,
        help="how long to wait (600)",
    )


def run_wait(args: Any, console: Console) -> int:
    deadline = time.monotonic() + args.timeout
    newest = _newest(args, console)
    while not _reached(newest, args):
        left = deadline - time.monotonic()
        if left <= 0:
            raise errors.NotReached(
                what=_wanted(args), seconds=args.timeout, newest=_name(newest)
            )
        console.progress.step(f"waiting, generation {_name(newest)}")
        time.sleep(min(_LOOK, left))
        newest = _newest(args, console)
    assert newest is not None
    found = newest
    console.answer(
        {"generation": found},
        lambda: [
            f"Generation {_name(found)}, {age(seconds_since(found['time']))} "
            "old"
        ],
    )
    return errors.EXIT_OK


def _newest(args: Any, console: Console) -> Optional[Document]:
    """Anew each time: a store that was opened stays as it was."""
    with open_store(args, console) as store:
        newest: Optional[Document] = store.info()["newest"]
    return newest


def _reached(newest: Optional[Document], args: Any) -> bool:
    if newest is None or newest["kind"] == "unsealed":
        return False
    if args.generation is not None:
        return bool(newest["number"] >= args.generation)
    newer_than: float = args.newer_than
    return record.timestamp({"time": newest["time"]}, "time") > newer_than


def _wanted(args: Any) -> str:
    if args.generation is not None:
        return f"generation {args.generation}"
    return f"a generation after {record.isotime(args.newer_than)}"


def _name(newest: Optional[Document]) -> str:
    return "none" if newest is None else generation_name(newest)


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 16:
        raise ValueError(text)
    return int(text)


def _time(text: str) -> float:
    if text.isascii() and text.isdigit() and len(text) < 12:
        return float(text)
    try:
        return record.timestamp({"time": text}, "time")
    except record.RecordInvalid:
        raise argparse.ArgumentTypeError(
            f"expected a time as 2026-03-14T15:09:26Z, not {text!r}"
        ) from None
