# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""repair: mend what can be mended, without a new generation."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.options import domain_argument, timeout_argument
from vdsm_ovfstore.cli.outcome import healed_lines, warn_degraded
from vdsm_ovfstore.cli.store import Document, open_store
from vdsm_ovfstore.cli.text import count


def repair_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Mend a store: finish what was interrupted, take in what a host "
        "without this program wrote, rewrite damaged heads and segments from "
        "what is sound, and bring every copy to the newest generation. What "
        "is replaced is kept in the log. Every upload does the same for the "
        "newest two generations."
    )
    domain_argument(parser)
    timeout_argument(parser)
    parser.add_argument(
        "--collect-orphans",
        action="store_true",
        help="remove the logs that no volume has used for a month, unless "
        "they have a VM that no generation has",
    )


def run_repair(args: Any, console: Console) -> int:
    with open_store(args, console) as store:
        answer = store.repair(args.timeout, args.collect_orphans)
    console.answer(answer, lambda: _repaired(answer, console))
    warn_degraded(answer, console)
    return errors.EXIT_DAMAGED if answer["degraded"] else errors.EXIT_OK


def _repaired(answer: Document, console: Console) -> Iterator[str]:
    yield from healed_lines(answer)
    if not answer["healed"]:
        yield "There was nothing to mend"
    if answer["generation"] is not None:
        there = count(len(answer["copies"]), "copy")
        yield f"Generation {answer['generation']} is complete on {there}"
    yield console.next_line("ovfstore verify DOMAIN")
