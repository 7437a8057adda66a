# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Reading the next piece while the last one is looked at, or hashed."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from typing import Optional

from vdsm_ovfstore.rescue.source import Source


def read_ahead(
    source: Source, pieces: Iterable[tuple[int, int]]
) -> Iterator[tuple[int, bytes]]:
    """
    Arguments:
        pieces: (offset, length) of each.

    Yields the offset and the bytes of each. Raises errors.StorageFailed.
    """
    ahead = source.again()
    reading: Optional[_Read] = None
    try:
        for offset, length in pieces:
            ready, reading = reading, None
            if ready is not None:
                data = ready.result()
            reading = _Read(ahead, offset, length)
            if ready is not None:
                yield ready.offset, data
        if reading is not None:
            yield reading.offset, reading.result()
    finally:
        if reading is not None:
            reading.join()
        ahead.close()


class _Read(threading.Thread):
    """One piece, read by a thread: reads need no interpreter."""

    def __init__(self, source: Source, offset: int, length: int) -> None:
        super().__init__(name="read ahead", daemon=True)
        self.offset = offset
        self._source = source
        self._length = length
        self._data = b""
        self._error: Optional[BaseException] = None
        self.start()

    def run(self) -> None:
        try:
            self._data = self._source.read(self.offset, self._length)
        except BaseException as e:
            self._error = e

    def result(self) -> bytes:
        self.join()
        if self._error is not None:
            raise self._error
        return self._data
