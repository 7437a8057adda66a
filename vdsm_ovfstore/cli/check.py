# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""verify: is every byte right, and what can still be recovered?"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.options import domain_argument
from vdsm_ovfstore.cli.store import SOUND, Document, open_store
from vdsm_ovfstore.cli.text import (
    count,
    escaped,
    generation_name,
    remark_lines,
)

_COPIES = 2  # what create makes without being told
_SALVAGE = "ovfstore salvage DOMAIN -o DIR"
_SHOWN = 10  # names of damaged VMs on one line


def verify_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Check a store: every byte of every generation on every copy. "
        "Nothing is locked and nothing written. Ends with 3 when something "
        "is damaged and with 4 when nothing can be recovered."
    )
    domain_argument(parser)
    parser.add_argument(
        "--quick",
        action="store_true",
        help="only the records, the indexes and the heads",
    )


def run_verify(args: Any, console: Console) -> int:
    with open_store(args, console) as store:
        found = store.verify(args.quick)
    step = _next_step(found)
    console.answer(
        {**found, "next_step": console.next_step(step)},
        lambda: _lines(found, step, console),
    )
    return _exit_status(found)


def _lines(found: Document, step: str, console: Console) -> Iterator[str]:
    yield f"Store of domain {found['domain']}: {found['verdict']}"
    yield ""
    yield from console.table(
        "COPY VERDICT HEAD SEGMENTS DAMAGED NEXT",
        map(_copy_row, found["copies"]),
        right="SEGMENTS DAMAGED",
    )
    generations = found["generations"]
    if generations:
        yield ""
        yield from console.table(
            "GENERATION DIGEST KIND VERDICT RECOVERABLE NEXT",
            map(_generation_row, generations),
            right="GENERATION RECOVERABLE",
        )
        yield ""
        total = count(len(generations), "generation")
        yield f"Recoverable as a whole: {found['recoverable']} of {total}"
    for generation in generations:
        if generation["lost"]:
            name = generation_name(generation)
            yield f"Lost of generation {name}: {_lost(generation)}"
    yield from remark_lines(found)
    yield ""
    yield console.next_line(step)


def _copy_row(copy: Document) -> tuple[object, ...]:
    segments = copy["segments"]
    damaged = sum(s["verdict"] == "damaged" for s in segments)
    return (
        copy["volume"],
        copy["verdict"],
        copy["head"],
        len(segments),
        damaged,
        _copy_step(copy),
    )


def _copy_step(copy: Document) -> str:
    if not copy["member"]:
        return "create"
    mended = copy["verdict"] in ("ok", "empty", "unsealed")
    return "-" if mended and not copy["excluded"] else "repair"


def _generation_row(generation: Document) -> tuple[object, ...]:
    recoverable = generation["recoverable_entities"]
    return (
        generation_name(generation),
        generation["sha256"][:12],
        generation["kind"],
        generation["verdict"],
        f"{recoverable} of {generation['entities']}",
        _generation_step(generation),
    )


def _generation_step(generation: Document) -> str:
    if generation["whole"]:
        return "repair" if generation["damaged_on"] else "-"
    return "extract" if generation["recoverable_entities"] else "salvage"


def _lost(generation: Document) -> str:
    """Names; the document may have some of them only."""
    names = generation["lost"]
    shown = ", ".join(map(escaped, names[:_SHOWN]))
    if len(names) <= _SHOWN:
        return shown
    lost = generation["entities"] - generation["recoverable_entities"]
    return f"{shown} and {lost - _SHOWN} more"


def _exit_status(found: Document) -> int:
    if found["verdict"] in SOUND:
        return errors.EXIT_OK
    if any(map(_has_some, found["generations"])) or _holds_any(found):
        return errors.EXIT_DAMAGED
    return errors.EXIT_LOST


def _next_step(found: Document) -> str:
    """The command to type next."""
    if found["verdict"] == "ok":
        return "ovfstore vms DOMAIN"
    if found["verdict"] == "empty":
        return "ovfstore upload DOMAIN SOURCE"
    newest = found["newest"]
    if newest is None:
        return "ovfstore repair DOMAIN" if _holds_any(found) else _SALVAGE
    generations = found["generations"]
    first = next(
        g for g in generations if _identity(g) == _identity(newest)
    )
    if not first["whole"] or not _can_be_mended(found):
        return _SALVAGE
    # Only create makes copies, and members of those that are none.
    copies = found["copies"]
    members = sum(c["member"] for c in copies)
    wanting = members < max(_COPIES, len(copies))
    return f"ovfstore {'create' if wanting else 'repair'} DOMAIN"


def _holds_any(found: Document) -> bool:
    """A log holds sound generations, though nothing names them."""
    return any(
        s["verdict"] == "ok" for c in found["copies"] for s in c["segments"]
    )


def _can_be_mended(found: Document) -> bool:
    """Is there more than segments of which nobody has the whole?"""
    broken = {_identity(g) for g in found["generations"] if not g["whole"]}
    if not broken:
        return True
    for copy in found["copies"]:
        bad = {
            (s["generation"], s["sha256"])
            for s in copy["segments"]
            if s["verdict"] != "ok"
        }
        if bad - broken or copy["head"] != "ok" or not copy["member"]:
            return True
        if copy["verdict"] != "ok" and not bad:
            return True
    return False


def _has_some(generation: Document) -> bool:
    return bool(generation["whole"] or generation["recoverable_entities"])


def _identity(generation: Document) -> tuple[int, str]:
    return generation["number"], generation["sha256"]
