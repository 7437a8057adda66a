# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Where the time of an upload of the engine's own goes, by the log."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from typing import IO

# What a step ends with, in the order of a commit. Each line is written before
# what it tells of.
_STEPS = (
    ("worker: wakes", r"ACQUIRE"),
    ("leases, looking, rings", r"SEAL .* kind=claim"),
    ("claims; verify segments, heads", r"SEGMENT|SEAL .* kind=replacing"),
    ("segment, flushed, read back", r"SEAL .* kind=replacing"),
    ("seal", r"HEAD"),
    ("head, flushed", r"Renaming"),
    ("names flushed; head read back", r"SEAL .* kind=current"),
    ("seal; leases given back", r"RELEASE"),
)
LAST = "answer, end of the worker"

_LINE = re.compile(r"(?m)^(\d{4}-\d\d-\d\d [\d:]{8},\d{3}) \w+ \S+ (.*)$")
_STAMP = "%Y-%m-%d %H:%M:%S,%f"


class Log:
    """What processes that were started in the block write to stderr."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def steps(self, began: float, ended: float) -> dict[str, float]:
        """
        Seconds of each step of the one job in the log, which is emptied.

        began, ended: of time.time(), of who waited for it.
        """
        fd = self._file.fileno()
        text = os.pread(fd, 1 << 24, 0).decode("utf-8", "replace")
        os.ftruncate(fd, 0)
        lines = [
            (datetime.strptime(when, _STAMP).timestamp(), what)
            for when, what in _LINE.findall(text)
        ]
        found, last, at = {}, began, 0
        for name, ends in _STEPS:
            for number in range(at, len(lines)):
                if re.match(ends, lines[number][1]):
                    when, at = lines[number][0], number
                    # The log has milliseconds only.
                    found[name] = max(when - last, 0.0)
                    last = when
                    break
        found[LAST] = max(ended - last, 0.0)
        return found


@contextlib.contextmanager
def logged() -> Iterator[Log]:
    """Let the processes that are started inherit a stderr to read."""
    before = os.dup(2)
    with tempfile.TemporaryFile() as file:
        # As a pipe would be: each appends, whatever it is emptied to.
        path = f"/proc/self/fd/{file.fileno()}"
        fd = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(fd, 2)
        os.close(fd)
        try:
            yield Log(file)
        finally:
            os.dup2(before, 2)
            os.close(before)


def now() -> float:
    return time.time()
