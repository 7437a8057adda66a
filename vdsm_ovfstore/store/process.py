# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A short-lived process that does one thing: the worker, or an errand.

child.py is its inside, and tells how the two speak.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, Callable, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.store import child

log = logging.getLogger("ovfstore.store")

# By name: the process that starts it does without what it imports.
WORKER = "vdsm_ovfstore.store.worker"

Progress = Callable[[str], None]

# One answer. The largest is a page of 1,000 VMs with hundreds of disks each;
# what names and disks come from the storage must not fill our memory.
MAX_LINE = 16 * 1024**2

# Seconds that the process may take to end after it was told to, or after its
# own deadline, before it is killed; and then for the kernel to end it.
_GRACE = 5.0

# Where the package lies: it may not be installed, but run from a checkout.
_HERE = os.path.dirname(os.path.abspath(__file__))
_PACKAGES = os.path.dirname(os.path.dirname(_HERE))


class Process:
    """
    Starts a process, which waits for what it is to do; see give().

    It may be started long before: its interpreter is up when it is needed.

    Arguments:
        module: WORKER, or another with a main() that calls child.serve.
        log_fd: descriptor for its log; None is our stderr.
        niceness: it is to be no more urgent than this; see nice(2).

    Raises errors.WorkerFailed.
    """

    def __init__(
        self, module: str, log_fd: Optional[int] = None, niceness: int = -20
    ) -> None:
        self._deadline = float("inf")
        self._cancelled = False
        self._asked = False
        self.is_stuck = False
        """True after wait() if the kernel does not let it go."""
        self._lock = threading.Lock()
        try:
            self._control, theirs = socket.socketpair()
        except OSError as e:
            raise _not_started(e) from None
        try:
            self._child: subprocess.Popen[bytes] = subprocess.Popen(
                # -c and not -m: runpy alone takes 10 ms.
                [sys.executable, "-c", _main(module)],
                stdin=theirs.fileno(),
                stdout=subprocess.PIPE,
                stderr=log_fd,
                # An interrupt from the terminal is for us; the child is told
                # by the end of its stdin.
                start_new_session=True,
            )
        except OSError as e:
            self._control.close()
            raise _not_started(e) from None
        finally:
            theirs.close()
        _make_nice(self._child.pid, niceness)

    def give(
        self, request: dict[str, Any], fds: tuple[int, ...] = ()
    ) -> Process:
        """
        Tell it what to do, once; returns the process.

        Arguments:
            request: "deadline" (seconds) and "log_level" are among it.
            fds: descriptors for the process; it finds them as "fds", under
                numbers of its own.
        """
        self._deadline = time.monotonic() + request["deadline"] + _GRACE
        data = json.dumps(request).encode("ascii") + b"\n"
        # It stays open: its end tells the child that we are gone. If it
        # ended early already, how it ended tells more.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            sent = socket.send_fds(self._control, [data], fds)
            self._control.sendall(data[sent:])
        return self

    @property
    def pid(self) -> int:
        return self._child.pid

    def wait(self, progress: Progress = lambda step: None) -> dict[str, Any]:
        """
        Wait for the answer.

        Raises errors.Error: what the process met; Aborted after cancel();
        WorkerFailed when it ended without an answer.
        """
        try:
            last = self._read(progress)
        finally:
            status = self._reap()
        if last is not None and "answer" in last:
            answer: dict[str, Any] = last["answer"]
            return answer
        if last is not None and "error" in last:
            kind = getattr(errors, last["error"]["type"], errors.Error)
            raise kind(**last["error"]["fields"])
        orphaned = status == child.STATUS_ORPHANED
        if self._cancelled or (self._asked and orphaned):
            raise errors.Aborted(what="the work of a process")
        raise errors.WorkerFailed(reason=_reason(status))

    def stop(self) -> None:
        """Ask it to end, which it does unless it holds a lock."""
        self._asked = True
        with contextlib.suppress(OSError):
            self._control.send(b"s")

    def is_alive(self) -> bool:
        """False for one that has ended; it did not wait for its work."""
        return self._child.poll() is None

    def cancel(self) -> None:
        """Tell it to end; from any thread, at any time."""
        with self._lock:
            self._cancelled = True
            self._deadline = min(self._deadline, time.monotonic() + _GRACE)
            self._control.close()

    def kill(self) -> None:
        """End it now, if the kernel lets it."""
        self.cancel()
        self._deadline = time.monotonic()
        self._child.kill()

    def discard(self) -> None:
        """Tell it to end, and forget it; nobody waits for its answer."""
        self.cancel()
        self._reap()

    def _read(self, progress: Progress) -> Optional[dict[str, Any]]:
        """The last line; what it says of its progress is passed on."""
        assert self._child.stdout is not None
        fd = self._child.stdout.fileno()
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        data = bytearray()
        last: Optional[dict[str, Any]] = None
        while True:
            left = self._deadline - time.monotonic()
            # In short steps: cancel() moves the deadline.
            if left > 0 and not poller.poll(min(left, 1.0) * 1000):
                continue
            chunk = os.read(fd, 65536) if left > 0 else b""
            if not chunk:
                return last
            data += chunk
            if len(data) > MAX_LINE:
                raise errors.WorkerFailed(
                    reason=f"its answer is longer than {MAX_LINE} bytes"
                )
            if b"\n" not in chunk:
                continue
            *lines, data = data.split(b"\n")
            for line in lines:
                last = _parsed(line)
                if "progress" in last:
                    progress(last["progress"])

    def _reap(self) -> Optional[int]:
        """Its exit status; None for one that the kernel does not let go."""
        assert self._child.stdout is not None
        with self._lock:
            self._control.close()
        self._child.stdout.close()
        for _ in range(2):
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self._child.wait(_GRACE)
            self._child.kill()
        log.error("STUCK pid=%d", self._child.pid)
        self.is_stuck = True
        return None


def _make_nice(pid: int, niceness: int) -> None:
    with contextlib.suppress(OSError):
        if os.getpriority(os.PRIO_PROCESS, pid) < niceness:
            os.setpriority(os.PRIO_PROCESS, pid, niceness)


def _not_started(e: OSError) -> errors.WorkerFailed:
    return errors.WorkerFailed(reason=f"it cannot be started: {e.strerror}")


def _parsed(line: bytearray) -> dict[str, Any]:
    try:
        message: dict[str, Any] = json.loads(line)
    except ValueError:
        raise errors.WorkerFailed(
            reason=f"it said {bytes(line[:80])!r}"
        ) from None
    return message


def _main(module: str) -> str:
    # Not sys.exit: an interpreter takes 10 ms to tidy up, more with many
    # objects, and whoever waits for the answer waits for the end as well.
    return (
        f"import os, sys; sys.path.insert(0, {_PACKAGES!r}); "
        f"from {module} import main; os._exit(main())"
    )


def _reason(status: Optional[int]) -> str:
    if status is None:
        return "it hangs in a call to the storage"
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    known = {
        child.STATUS_ORPHANED: "it was told to stop",
        child.STATUS_LOCK_LOST: "it lost the lock on the store",
        child.STATUS_TIMED_OUT: "it took too long",
    }
    return known.get(status, f"exit status {status}")
