# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Telling systemd how we are: sd_notify(3), without its library."""

from __future__ import annotations

import logging
import os
import socket
import threading
from typing import Callable, Optional

log = logging.getLogger("ovfstore.host")


def notify(**states: object) -> None:
    """
    Send states such as READY=1 or STATUS="..."; nothing without systemd.

    A service manager that does not listen is no reason to stop.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    message = "\n".join(f"{key}={value}" for key, value in states.items())
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(message.encode(), address)
    except OSError as e:
        log.warning("NOTIFY error=%s", e)


def watchdog_interval() -> Optional[float]:
    """
    Seconds between two signs of life; None if nobody waits for them.

    Half of what systemd allows, as sd_watchdog_enabled(3) recommends.
    """
    try:
        interval = int(os.environ["WATCHDOG_USEC"]) / 2e6
        pid = int(os.environ.get("WATCHDOG_PID", os.getpid()))
    except (KeyError, ValueError):
        return None
    return interval if interval > 0 and pid == os.getpid() else None


class Heartbeat(threading.Thread):
    """
    Tells systemd that we live, as long as `check` returns in time.

    A thread of its own: the main one waits for signals, or for the last
    writers at a stop. As a context manager it ends with the block.
    """

    def __init__(self, check: Callable[[], object]) -> None:
        super().__init__(name="heartbeat", daemon=True)
        self._check = check
        self._end = threading.Event()

    def run(self) -> None:
        interval = watchdog_interval()
        while interval and not self._end.wait(interval):
            try:
                self._check()
                notify(WATCHDOG=1)
            except Exception:
                # Without a sign of life: if it goes on, we are not well.
                log.exception("HEARTBEAT failed")

    def __enter__(self) -> Heartbeat:
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
