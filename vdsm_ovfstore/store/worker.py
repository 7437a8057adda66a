# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The worker: the short-lived process that alone touches storage.

    stdin    the job, one line of JSON; then nothing, held open: when it is
             closed our parent is gone, and we stop
    stdout   lines of JSON: {"progress": text}, at last {"answer": ...} or
             {"error": {"type": ..., "fields": ...}}
    stderr   the log

It owns the leases: if storage is lost sanlock kills this process and not the
one that serves users, and a process stuck in the kernel hangs nobody else.
Stopping at any point is safe, that is what the commit protocol is for; so
whoever must stop simply ends the process.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
import threading
import time
from typing import Any, NoReturn, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.lease import Lock
from vdsm_ovfstore.store.job import Job
from vdsm_ovfstore.store.prepare import Prepared
from vdsm_ovfstore.store.retention import Settings

log = logging.getLogger("ovfstore.worker")

# How this process ends when it does not finish its job.
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
        # Wakes the poll when there is another lock to watch.
        self._wake_read, self._wake_write = os.pipe()

    def watch(self, lock: Optional[Lock]) -> None:
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
                    _end(STATUS_ORPHANED, "control pipe closed")
            elif fd is not None and fd in events and lock is self._lock:
                _end(STATUS_LOCK_LOST, "connection with the lock lost")
            elif time.monotonic() >= self._deadline:
                _end(STATUS_TIMED_OUT, "deadline passed")


def _end(status: int, reason: str) -> NoReturn:
    log.error("END status=%d reason=%s", status, reason)
    os._exit(status)


def _send(message: dict[str, Any]) -> None:
    data = json.dumps(message).encode("ascii") + b"\n"
    try:
        os.write(1, data)
    except BrokenPipeError:
        _end(STATUS_ORPHANED, "nobody reads the answer")


def _run(request: dict[str, Any]) -> dict[str, Any]:
    watcher = Watcher(0, request["deadline"])
    watcher.start()
    job = Job(
        request["path"],
        timeout=request["timeout"],
        buffered=request["buffered"],
        settings=Settings(**request["settings"]),
        progress=lambda step: _send({"progress": step}),
        watch=watcher.watch,
    )
    if request["verb"] == "upload":
        tar, body = request["fds"]
        return job.upload(Prepared(tar, body, request["facts"]))
    if request["verb"] == "repair":
        return job.repair()
    if request["verb"] == "create":
        from vdsm_ovfstore.lease.format import format_lease

        return job.create(request["copies"], request["capacity"], format_lease)
    raise errors.WorkerFailed(reason=f"no such verb: {request['verb']}")


def main() -> int:
    request = json.loads(_read_line(0))
    logging.basicConfig(
        stream=sys.stderr,
        level=request["log_level"],
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )
    try:
        answer = _run(request)
    except errors.Error as e:
        log.error("ERROR code=%d %s", e.code, e)
        _send({"error": {"type": type(e).__name__, "fields": e.fields()}})
        return 1
    except Exception as e:
        log.exception("UNEXPECTED")
        failed = errors.WorkerFailed(reason=f"{type(e).__name__}: {e}")
        _send({"error": {"type": "WorkerFailed", "fields": failed.fields()}})
        return 1
    _send({"answer": answer})
    return 0


def _read_line(fd: int) -> bytes:
    # Not sys.stdin: it would read ahead, and the pipe is to be watched.
    data = bytearray()
    while not data.endswith(b"\n"):
        chunk = os.read(fd, 65536)
        if not chunk:
            _end(STATUS_ORPHANED, "no job came")
        data += chunk
    return bytes(data)


if __name__ == "__main__":
    sys.exit(main())
