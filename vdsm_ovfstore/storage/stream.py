# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Pieces of any length into a file that wants whole blocks."""

from __future__ import annotations

from vdsm_ovfstore.storage.directio import BUFFER_SIZE, DirectFile, round_up


class StreamWriter:
    """Writes pieces of any length one after the other, from offset 0."""

    def __init__(self, file: DirectFile) -> None:
        self._file = file
        self._pending = bytearray()
        self._offset = 0
        self.length = 0
        """Bytes given so far."""

    def write(self, data: bytes) -> None:
        """
        Raises:
            errors.StorageFailed: or StorageFull.
        """
        self.length += len(data)
        if not self._pending and data and len(data) % BUFFER_SIZE == 0:
            self._file.write(self._offset, data)  # spared three copies
            self._offset += len(data)
            return
        self._pending += data
        whole = len(self._pending) - len(self._pending) % BUFFER_SIZE
        if whole:
            self._put(whole)

    def finish(self) -> None:
        """Write the rest, padded with zeros to 4 KiB."""
        rest = len(self._pending)
        self._pending += bytes(round_up(rest) - rest)
        self._put(len(self._pending))

    def _put(self, length: int) -> None:
        self._file.write(self._offset, bytes(self._pending[:length]))
        del self._pending[:length]
        self._offset += length
