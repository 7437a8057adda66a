# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What the unchanged engine downloads, verified before its first byte."""

from __future__ import annotations

import os
from collections.abc import Iterator

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.spool import Reservation

_PIECE = 256 * 1024


class StockDownload:
    """
    A verified archive, followed by zeros.

    Attributes:
        length: bytes in all, as the engine asked for.
    """

    def __init__(
        self, fd: int, stored: int, length: int, room: Reservation
    ) -> None:
        self._fd = fd
        self._stored = stored
        self.length = length
        self._room = room

    def chunks(self) -> Iterator[bytes]:
        """All of it, in pieces."""
        done = 0
        while done < self.length:
            if done >= self._stored:
                data = bytes(min(_PIECE, self.length - done))
            else:
                wanted = min(_PIECE, self._stored - done)
                data = os.pread(self._fd, wanted, done)
            if not data:
                raise errors.SourceUnreadable(
                    path="the spool file", reason=f"it ends at byte {done}"
                )
            done += len(data)
            yield data

    def close(self) -> None:
        """Idempotent."""
        self._room.close()
