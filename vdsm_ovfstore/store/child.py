# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The inside of a short-lived process that does one thing for its parent.

    stdin    a socket: what to do, one line of JSON, and descriptors with it.
             Then held open: when it is closed our parent is gone, or will
             not wait for us. Any byte asks us to stop, unless we hold a lock
    stdout   lines of JSON: {"progress": text}, at last {"answer": ...} or
             {"error": {"type": ..., "fields": ...}}
    stderr   the log

process.py is the outside.
"""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import threading
import time
from typing import Any, Callable, NoReturn, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.lease import Lock
from vdsm_ovfstore.store import journal

log = logging.getLogger("ovfstore.worker")

# The progress of a worker that has not got the leases: nothing is written
# yet, and it may be stopped without leaving work to others.
WAITING = "waiting for the lease"

_MAX_FDS = 8

# How the process ends when it does not finish.
STATUS_ORPHANED = 81  # the parent is gone, or told us to stop
STATUS_LOCK_LOST = 82  # the lock's daemon is gone: others may write now
STATUS_TIMED_OUT = 83


class Watcher(threading.Thread):
    """
    Ends the process when the parent, the lock or the time is gone.

    A thread, since the main one may be inside a system call that takes
    minutes on bad storage.
    """

    def __init__(self, control: int, seconds: float) -> None:
        super().__init__(name="watcher", daemon=True)
        self._control = control
        self._deadline = time.monotonic() + seconds
        self._lock: Optional[Lock] = None
        self._has_held = False
        # Wakes the poll when there is another lock to watch.
        self._wake_read, self._wake_write = os.pipe()

    def watch(self, lock: Optional[Lock]) -> None:
        self._has_held = self._has_held or lock is not None
        self._lock = lock
        os.write(self._wake_write, b"w")

    def run(self) -> None:
        while True:
            poller = select.poll()
            poller.register(self._control, select.POLLIN)
            poller.register(self._wake_read, select.POLLIN)
            lock = self._lock
            fd = lock.fd if lock else None
            if fd is not None:
                poller.register(fd, 0)
            left = max(0.0, self._deadline - time.monotonic())
            events = dict(poller.poll(left * 1000))
            if self._wake_read in events:
                os.read(self._wake_read, 16)
                continue  # what was polled may have been closed since
            if self._control in events:
                if not os.read(self._control, 4096):
                    _end(STATUS_ORPHANED, "nobody waits for us")
                if not self._has_held:
                    _end(STATUS_ORPHANED, "told to stop")
            elif fd is not None and fd in events and lock is self._lock:
                _end(STATUS_LOCK_LOST, "connection with the lock lost")
            elif time.monotonic() >= self._deadline:
                _end(STATUS_TIMED_OUT, "deadline passed")


Run = Callable[[dict[str, Any], Watcher], dict[str, Any]]


def serve(run: Run) -> int:
    """
    Do what the parent asks; returns the exit status.

    run is given the request and the watcher; it returns the answer, or
    raises errors.Error. A request has at least "deadline", in seconds,
    "log_level", and "fds".
    """
    request = _receive()
    journal.set_up(request["log_level"])
    watcher = Watcher(0, request["deadline"])
    watcher.start()
    try:
        answer = run(request, watcher)
    except errors.Error as e:
        # Our parent says what matters of it; this may be a caller's typo.
        log.info("ERROR code=%d %s", e.code, e)
        _send({"error": {"type": e.public_name(), "fields": e.fields()}})
        return 1
    except Exception as e:
        log.exception("UNEXPECTED")
        failed = errors.WorkerFailed(reason=f"{type(e).__name__}: {e}")
        _send({"error": {"type": "WorkerFailed", "fields": failed.fields()}})
        return 1
    _send({"answer": answer})
    return 0


def progress(step: str) -> None:
    """Tell the parent what begins."""
    _send({"progress": step})


def _send(message: dict[str, Any]) -> None:
    view = memoryview(json.dumps(message).encode("ascii") + b"\n")
    try:
        while view:
            view = view[os.write(1, view) :]
    except BrokenPipeError:
        _end(STATUS_ORPHANED, "nobody reads the answer")


def _receive() -> dict[str, Any]:
    """The request, with the descriptors that came with it as "fds"."""
    # Not sys.stdin: it would read ahead, and it is to be watched.
    with socket.socket(fileno=os.dup(0)) as control:
        data, fds, _, _ = socket.recv_fds(control, 65536, _MAX_FDS)
        while data and b"\n" not in data:
            more = control.recv(65536)
            data = data + more if more else b""
    request, _, asked_to_stop = data.partition(b"\n")
    if not data or asked_to_stop:
        # As a rule the first: it was started in case of need, and there was
        # none. Who is told to stop early may get both in one piece.
        os._exit(STATUS_ORPHANED)
    return {**json.loads(request), "fds": fds}


def _end(status: int, reason: str) -> NoReturn:
    log.error("END status=%d reason=%s", status, reason)
    os._exit(status)
