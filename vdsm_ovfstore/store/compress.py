# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Compressing an archive frame by frame, several at once."""

from __future__ import annotations

import contextlib
import os
import threading
import zlib
from collections import deque
from typing import Callable, Optional

from vdsm_ovfstore.store.content import Part

# By `python -m bench.run --levels`, on 16 MiB of OVFs as the engine writes
# them: level 1 takes 6.9 ms a MiB and stores 15.0 %, 4: 11.1 ms and 11.8 %,
# 6: 13.6 ms and 10.9 %, 9: 16.1 ms and 10.7 %. From 6 on the room hardly
# shrinks, and the time disappears behind that of the XML check, 20 ms a MiB
# (class Frames).
ZLIB_LEVEL = 6

# Where the OVFs are known, for the most part, and somebody waits: 3 takes half
# of the time of 6, and a quarter more of room.
ZLIB_QUICK = 3

# Frames in work. Of OVFs that are known there is little else to do. Each takes
# 1 MiB, and its share when it is compressed.
_AT_ONCE = min(4, len(os.sched_getaffinity(0)))


class Frames:
    """
    Takes frames of tar, and gives their zlib data to `write` in that order.

    parts are those that were written.
    """

    def __init__(
        self, write: Callable[[bytes], None], level: int = ZLIB_LEVEL
    ) -> None:
        self.parts: list[Part] = []
        self._write = write
        self._level = level
        self._in_work: deque[_Frame] = deque()

    def add(self, offset: int, tar: bytearray) -> None:
        """tar: a frame, which begins at that offset of the archive."""
        self._take(_AT_ONCE - 1)
        self._in_work.append(_Frame(offset, tar, self._level))

    def finish(self) -> None:
        self._take(0)

    def close(self) -> None:
        """Idempotent; what is in work is thrown away."""
        while self._in_work:
            self._in_work.popleft().end()

    def _take(self, left: int) -> None:
        """Write the oldest ones, until so many are left."""
        while len(self._in_work) > left:
            frame = self._in_work.popleft()
            data = frame.result()
            self._write(data)
            self.parts.append(Part(frame.offset, frame.length, len(data)))


class _Frame(threading.Thread):
    """
    Compresses one frame while the next ones are received and checked.

    zlib works without the interpreter's lock: with a second processor its
    time disappears behind that of the XML check.
    """

    def __init__(self, offset: int, tar: bytearray, level: int) -> None:
        super().__init__(name="compress", daemon=True)
        self.offset = offset
        self.length = len(tar)
        self._tar = tar
        self._level = level
        self._data: Optional[bytes] = None
        # Where no thread can be had, result() does the work.
        with contextlib.suppress(RuntimeError):
            self.start()

    def run(self) -> None:
        self._data = zlib.compress(self._tar, self._level)

    def end(self) -> None:
        if self.ident is not None:
            self.join()

    def result(self) -> bytes:
        self.end()
        if self._data is None:
            self.run()
        assert self._data is not None
        return self._data
