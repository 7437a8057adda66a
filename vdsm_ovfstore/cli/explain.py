# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""explain: what an error code means."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console

_FIELD = re.compile(r"\{self\.(\w+)[^}]*\}")


def explain_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = "Explain an error code, or list them all."
    parser.add_argument(
        "code", metavar="CODE", type=int, nargs="?", help="the number"
    )


def run_explain(args: Any, console: Console) -> int:
    # One code may have two names: VDSM makes no difference between them.
    kinds = sorted(_kinds(errors.Error), key=lambda kind: kind.code)
    found = [_fields(k) for k in kinds if args.code in (None, k.code)]
    if not found:
        raise errors.UsageError(
            reason=f"explain: there is no error code {args.code}; "
            "see: ovfstore explain"
        )

    def lines() -> Iterator[str]:
        if args.code is None:
            yield from console.table(
                "CODE NAME MEANING",
                [(f["code"], f["name"], f["meaning"]) for f in found],
                right="CODE",
            )
            return
        for number, one in enumerate(found):
            if number:
                yield ""
            yield f"{one['code']} {one['name']}: {one['meaning']}"
            if one["next_step"]:
                yield f"What to do: {one['next_step']}"
            if one["exit_status"] is not None:
                yield f"Exit status: {one['exit_status']}"

    console.answer({"codes": found}, lines)
    return errors.EXIT_OK


def _kinds(kind: type[errors.Error]) -> Iterator[type[errors.Error]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _fields(kind: type[errors.Error]) -> dict[str, Any]:
    # Interrupted has another one with each signal.
    status = None if kind is errors.Interrupted else kind.exit_status
    return {
        "code": kind.code,
        "name": kind.__name__,
        "meaning": _template(kind.msg) or kind.__name__,
        "next_step": _next_step(kind.hint),
        "exit_status": status,
    }


def _next_step(hint: str) -> str:
    if _FIELD.fullmatch(hint):  # another one each time
        return "What the error itself proposes"
    return _template(hint)


def _template(text: str) -> str:
    """A message with the names of its fields where they go."""
    return _FIELD.sub(lambda m: m[1].upper(), text)
