# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What is being done, and how far it is: one line on stderr."""

from __future__ import annotations

import os
import time
from typing import Optional, TextIO

from vdsm_ovfstore.cli.text import escaped, size

_BAR = 20
_PAUSE = 0.1  # seconds between two updates of a bar


class Progress:
    """A line that is written over; nothing at all when not enabled."""

    def __init__(self, stream: TextIO, enabled: bool) -> None:
        self._stream = stream
        self._enabled = enabled
        self._next = 0.0
        self._dirty = False

    def step(self, what: str) -> None:
        """Something begins."""
        self._show(f"{what} ...")

    def part(self, what: str, done: int, total: int) -> None:
        """Some of a number of things are done."""
        if self._due(done >= total):
            self._show(f"{what} {_bar(done, total)} {done} of {total}")

    def data(self, what: str, done: int, total: Optional[int]) -> None:
        """Some bytes are done, of a number that may not be known."""
        if not self._due(done == total):
            return
        if total:
            amount = f"{_bar(done, total)} {size(done)} of {size(total)}"
        else:
            amount = size(done)
        self._show(f"{what} {amount}")

    def clear(self) -> None:
        """Make room for other output."""
        if self._dirty:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._dirty = False

    def _due(self, last: bool) -> bool:
        if not self._enabled:
            return False
        now = time.monotonic()
        if now < self._next and not last:
            return False
        self._next = now + _PAUSE
        return True

    def _show(self, line: str) -> None:
        if not self._enabled:
            return
        try:
            columns = os.get_terminal_size(self._stream.fileno()).columns
        except OSError:
            columns = 0
        line = escaped(line)[: (columns or 80) - 1]
        self._stream.write(f"\r\x1b[K{line}")
        self._stream.flush()
        self._dirty = True


def _bar(done: int, total: int) -> str:
    filled = _BAR * min(done, total) // max(1, total)
    return f"[{'#' * filled}{'-' * (_BAR - filled)}]"
