# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What workers and errands log, in VDSM's log.

vdsmd's stderr, where they would write it, leads nowhere.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading

log = logging.getLogger("ovfstore.child")

# As store/journal.py writes them: date, time, level, name, message.
_FIELDS = 5
_LEVEL = 2

_LINE = 8192  # bytes; what is longer is cut into several


class ChildLog:
    """
    Attributes:
        fd: the descriptor that they get for their log.
    """

    def __init__(self) -> None:
        self._read, self.fd = os.pipe()
        self._thread = threading.Thread(
            target=self._main, name="ovfstore-childlog", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """No more; children that are left keep their end."""
        os.close(self.fd)
        self._thread.join(0.2)

    def _main(self) -> None:
        left = b""
        while True:
            data = os.read(self._read, 65536)
            if not data:
                break
            *lines, left = (left + data).split(b"\n")
            if len(left) > _LINE:
                lines, left = [*lines, left], b""
            for line in lines:
                # The thread must go on: they wait for it when the pipe is
                # full.
                with contextlib.suppress(Exception):
                    _tell(line.decode("utf-8", "replace"))
        os.close(self._read)


def _tell(line: str) -> None:
    if not line:
        return
    words = line.split(" ", _FIELDS - 1)
    level = logging.WARNING  # a traceback, the interpreter itself
    if len(words) == _FIELDS and words[_LEVEL].isupper():
        found = logging.getLevelName(words[_LEVEL])
        if isinstance(found, int):
            level, line = found, " ".join(words[_LEVEL + 1 :])
    log.log(level, "%s", line)
