# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What the unchanged engine downloads, verified before its first byte."""

from __future__ import annotations

from collections.abc import Iterator

from vdsm_ovfstore.api.spool import Reservation
from vdsm_ovfstore.store.prepare import spooled

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
        yield from spooled(self._fd, self._stored)
        for done in range(self._stored, self.length, _PIECE):
            yield bytes(min(_PIECE, self.length - done))

    def close(self) -> None:
        """Idempotent."""
        self._room.close()
