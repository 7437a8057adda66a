# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What the verbs that start a worker have in common."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.options import log_level


def options(args: Any, console: Console) -> Any:
    """How the worker is to be run."""
    from vdsm_ovfstore.store import launch

    return launch.Options(
        timeout=args.timeout,
        buffered=args.allow_buffered_io,
        progress=console.progress.step,
        log_level=log_level(args),
    )


def healed_lines(answer: dict[str, Any]) -> Iterator[str]:
    for what in answer.get("healed", ()):
        yield f"Mended: {what}"


def warn_degraded(answer: dict[str, Any], console: Console) -> None:
    """A success that did not reach every copy."""
    degraded = answer.get("degraded", ())
    for copy in degraded:
        console.warn(
            f"copy {copy['volume']} was not written: error {copy['code']}: "
            f"{copy['reason']}"
        )
    if degraded:
        console.warn(console.next_step("run: ovfstore verify DOMAIN"))
