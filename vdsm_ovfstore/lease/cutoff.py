# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
An end to sanlock calls that would outlive a deadline.

acquire() blocks while sanlock finds out if the owner of a lease is alive: a
renewal interval (20 s) for a live host, up to 140 s for a dead one. The
binding knows no time-out, but our connection can be shut down: the call
returns, and the daemon gives back whatever it still acquires for us.
"""

from __future__ import annotations

import os
import threading


class Cutoff:
    """Shut down the connection `fd` after `seconds`, unless disarmed."""

    def __init__(self, fd: int, seconds: float) -> None:
        self._fd = fd
        self._armed = True
        self._fired = False
        self._lock = threading.Lock()
        self._timer = threading.Timer(seconds, self._fire)
        self._timer.daemon = True
        self._timer.start()

    def disarm(self) -> bool:
        """
        Stop the clock; the fd may be closed from now on.

        Returns:
            True if the connection was left alone. False if it is shut down:
            whatever the calls returned, nothing is held.
        """
        with self._lock:
            self._armed = False
        self._timer.cancel()
        return not self._fired

    def _fire(self) -> None:
        with self._lock:
            if not self._armed:
                return
            self._fired = True
            # Rarely needed, and slow to import.
            import socket

            with socket.socket(fileno=os.dup(self._fd)) as connection:
                connection.shutdown(socket.SHUT_RDWR)
