# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""history: the generations of a store, and which of them go next."""

from __future__ import annotations

import argparse
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.options import domain_argument
from vdsm_ovfstore.cli.store import Document, open_direct, open_store
from vdsm_ovfstore.cli.text import (
    age,
    count,
    generation_name,
    seconds_since,
    size,
)
from vdsm_ovfstore.cli.way import refuse_named
from vdsm_ovfstore.store.retention import Settings

_COLUMNS = "GENERATION DIGEST TIME AGE ENTITIES SIZE COPIES KIND PINNED"
_RIGHT = "GENERATION AGE ENTITIES SIZE COPIES"


def history_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the generations of a store, newest first. With --preview: "
        "which of them the next upload lets go, if it is as large as the "
        "newest."
    )
    domain_argument(parser)
    parser.add_argument(
        "--preview", action="store_true", help="tell which of them go next"
    )
    parser.add_argument(
        "--keep",
        metavar="N,H,D,M",
        type=_settings,
        help="with --preview: as if the newest N were kept, and one of each "
        "of H hours, D days and M months (24,24,30,12)",
    )


def run_history(args: Any, console: Console) -> int:
    if args.preview:
        return _preview(args, console)
    if args.keep is not None:
        raise errors.UsageError(reason="history: --keep is for --preview")
    with open_store(args, console) as store:
        found = store.history()
    rows = (_row(g, found["copies"]) for g in found["generations"])
    console.answer(
        found, lambda: console.table(_COLUMNS, rows, right=_RIGHT)
    )
    return errors.EXIT_OK


def _row(generation: Document, copies: int) -> tuple[object, ...]:
    when = generation["time"]
    return (
        generation_name(generation),
        generation["sha256"][:12],
        when,
        None if when is None else age(seconds_since(when)),
        generation["entities"],
        size(generation["length"]),
        f"{len(generation['copies'])} of {copies}",
        generation["kind"],
        generation["pinned"] or None,
    )


def _preview(args: Any, console: Console) -> int:
    refuse_named(args, "--preview")
    with open_direct(args, console) as store:
        found = store.preview(args.keep or Settings())
    generations = found["generations"]

    def lines() -> Any:
        yield from console.table(
            _COLUMNS + " NEXT",
            (
                (*_row(g, found["copies"]), _WORDS[g["next"]])
                for g in generations
            ),
            right=_RIGHT,
        )
        yield ""
        gone = sum(g["next"] != "stays" for g in generations)
        yield (
            f"The next upload lets {count(gone, 'generation')} go, if it is "
            "as large as the newest"
        )

    console.answer({"preview": True, **found}, lines)
    return errors.EXIT_OK


_WORDS = {"stays": "stays", "expired": "expired", "crowded": "no room"}


def _settings(text: str) -> Settings:
    try:
        newest, hourly, daily, monthly = map(int, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected four numbers, as 24,24,30,12, not {text!r}"
        ) from None
    settings = Settings(newest, hourly, daily, monthly)
    if min(settings) < 0 or sum(settings) > 120:
        raise argparse.ArgumentTypeError(
            f"expected 120 in all at most, not {text!r}"
        )
    return settings
