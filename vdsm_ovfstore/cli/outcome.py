# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What the verbs that write tell beside their own answer."""

from __future__ import annotations

from collections.abc import Iterator

from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.store import Document
from vdsm_ovfstore.cli.text import escaped


def healed_lines(answer: Document) -> Iterator[str]:
    for what in answer.get("healed", ()):
        yield f"Mended: {escaped(what)}"


def warn_degraded(answer: Document, console: Console) -> None:
    """A success that did not reach every copy."""
    degraded = answer.get("degraded", ())
    for copy in degraded:
        console.warn(
            f"copy {copy['volume']} was not written: error {copy['code']}: "
            f"{copy['reason']}"
        )
    if degraded:
        console.warn(console.next_step("run: ovfstore verify DOMAIN"))
