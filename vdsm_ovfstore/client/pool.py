# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The connections with a host that are kept for the next call.

A connection that is idle here may have been closed by the host, and that
may show only when something was sent on it already. Who cannot send twice
takes one that was used just now, or a new one.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Callable, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.client.address import Address
from vdsm_ovfstore.client.message import Response
from vdsm_ovfstore.client.transport import Connection

if TYPE_CHECKING:
    import ssl

# Seconds for which an idle connection counts as open: a crowded host closes
# those that were idle for one.
_FRESH = 0.5

# More than an upload and a look at it at the same time is rare.
_KEPT = 2


class Pool:
    """
    The connections with one host; for any number of threads.

    tls: makes the context, by need: importing ssl costs more than all else
    here.
    """

    def __init__(
        self,
        address: Address,
        tls: Callable[[], ssl.SSLContext],
        cert: Optional[str],
        timeout: float,
    ) -> None:
        self.address = address
        self.timeout = timeout
        self._make_tls = tls
        self._cert = cert
        self._lock = threading.Lock()
        self._idle: list[Connection] = []
        self._tls: Optional[ssl.SSLContext] = None

    def take(
        self, fresh: bool = False, deadline: Optional[float] = None
    ) -> Connection:
        """
        Return a connection that is nobody else's until put() or close().

        fresh: one that the host has surely not closed for being idle.
        """
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._connect(deadline)
            old = time.monotonic() - connection.used > _FRESH
            if (old and fresh) or _is_stale(connection):
                connection.close()
                continue
            connection.deadline = deadline
            return connection

    def put(self, connection: Connection, response: Response) -> None:
        """Give back a connection after an answer that was read whole."""
        connection.used = time.monotonic()
        with self._lock:
            if response.is_reusable and len(self._idle) < _KEPT:
                self._idle.append(connection)
                return
        connection.close()

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _connect(self, deadline: Optional[float]) -> Connection:
        tls = None
        if self.address.tls:
            with self._lock:
                if self._tls is None:
                    self._tls = self._make_tls()
                tls = self._tls
        return Connection(
            self.address, tls, self._cert, self.timeout, deadline
        )


def _is_stale(connection: Connection) -> bool:
    try:
        return connection.is_stale()
    except errors.HostUnreachable:
        return True
