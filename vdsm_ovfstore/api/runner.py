# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The processes of a service: errands in slots, workers in turns."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Callable

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.settings import Settings
from vdsm_ovfstore.api.spares import Spares
from vdsm_ovfstore.api.task import Task
from vdsm_ovfstore.api.turns import Turns
from vdsm_ovfstore.store import launch
from vdsm_ovfstore.store.process import WORKER, Process

# Not imported: that would bring all that reads storage into this process.
ERRAND = "vdsm_ovfstore.api.errand"

# The kinds of errands. Each has slots of its own: who verifies all day must
# not keep others from a quick look, nor uploads from being checked.
READ = "read"  # records and an index or two
CHECK = "check"  # an archive that was received
SCAN = "scan"  # whole generations

# What an upload takes one after the other: a look at the store, the check,
# the worker; and the engine sends an archive to two volumes.
_SPARES = {ERRAND: 2, WORKER: 2}

_LOOK = 0.5  # seconds between two looks if a task was aborted
_RETRY_AFTER = 5  # seconds; most errands take less than one


class _Slots:
    """
    So many errands at a time, and half of them for one domain at most.

    Each of those that ask for storage that hangs waits for its time limit;
    they must not take the slots of who asks for another.
    """

    def __init__(self, count: int) -> None:
        self._left = count
        self._each = max(1, count // 2)
        self._taken: Counter[str] = Counter()
        self._changed = threading.Condition()

    def acquire(self, path: str, timeout: float = 0) -> bool:
        """path: the domain's directory. False if the time was up."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._fits(path), timeout):
                return False
            self._left -= 1
            self._taken[path] += 1
            return True

    def release(self, path: str) -> None:
        with self._changed:
            self._left += 1
            self._taken[path] -= 1
            # No domain stays in it for ever.
            self._taken += Counter()
            self._changed.notify_all()

    def _fits(self, path: str) -> bool:
        return self._left > 0 and self._taken[path] < self._each


Writing = Callable[[str, float, Task], AbstractContextManager[None]]


class Runner:
    """
    Starts processes for tasks, no more at a time than settings allow.

    writing: see api.domains.Domains.
    """

    def __init__(self, settings: Settings, writing: Writing) -> None:
        self._settings = settings
        self._writing = writing
        self._slots = {
            kind: _Slots(settings.readers) for kind in (READ, CHECK, SCAN)
        }
        self._lock = threading.Lock()
        self._started: list[tuple[str, Process]] = []
        self._spares = Spares(
            _SPARES if settings.spares else {},
            lambda: bool(self._alive()),
            settings.process,
        )
        self.turns = Turns()

    def close(self) -> None:
        """End all that is left; nothing will be started any more."""
        self._spares.close()
        for _, process in self._alive():
            process.kill()

    @contextlib.contextmanager
    def writer(
        self, task: Task, domain: str, path: str, timeout: float
    ) -> Iterator[launch.Options]:
        """
        Be the only writer of a domain on this host; gives the options of a
        worker.

        Arguments:
            path: the domain's directory.
            timeout: seconds to wait in all: for the turn, for what the host
                needs, and for the leases.

        Raises errors.LeaseBusy, Aborted; what the host needs.
        """
        end = time.monotonic() + timeout
        with self.turns.turn(domain, timeout, task.check):
            left = max(end - time.monotonic(), 0)
            with self._writing(domain, left, task):
                task.check()
                left = max(end - time.monotonic(), 0)
                yield self.options(task, path, left)

    def options(self, task: Task, path: str, timeout: float) -> launch.Options:
        """
        For a worker.

        Arguments:
            path: the domain's directory.
            timeout: seconds that it may wait for its leases.
        """
        return launch.Options(
            timeout=timeout,
            deadline=self._settings.deadline,
            buffered=self._settings.buffered,
            settings=self._settings.history,
            progress=task.write,
            log_level=self._settings.log_level,
            process=lambda module: self._take(module, path),
            started=task.started,
        )

    def is_free(self, kind: str, path: str) -> bool:
        """True if an errand for a domain would not have to wait now."""
        slots = self._slots[kind]
        if slots.acquire(path):
            slots.release(path)
            return True
        return False

    def start(
        self,
        task: Task,
        request: dict[str, Any],
        fds: tuple[int, ...] = (),
        kind: str = READ,
    ) -> Errand:
        """
        Start an errand; it has to be closed.

        Raises:
            errors.HostBusy: no slot got free in time.
            errors.StorageFailed: an earlier process hangs at that path.
            errors.Aborted: the task was.
        """
        path = request["path"]
        slots = self._slots[kind]
        waited = self._wait_for_slot(task, slots, kind, path)
        try:
            limit = self._settings.read_timeout
            if kind != READ:
                limit, waited = self._settings.scan_timeout, 0
            request = {
                **request,
                "deadline": limit - waited,
                "buffered": self._settings.buffered,
                "log_level": self._settings.log_level,
            }
            process = self._take(ERRAND, path)
            process.give(request, fds)
        except BaseException:
            slots.release(path)
            raise
        task.started(process)
        return Errand(process, task, lambda: slots.release(path))

    def run(
        self,
        task: Task,
        request: dict[str, Any],
        fds: tuple[int, ...] = (),
        kind: str = READ,
    ) -> dict[str, Any]:
        """Start an errand, and wait for its answer."""
        with self.start(task, request, fds, kind) as errand:
            return errand.wait()

    def _wait_for_slot(
        self, task: Task, slots: _Slots, kind: str, path: str
    ) -> float:
        """Returns the seconds that it took."""
        # Who has received an archive does not give up as soon as others.
        limit = self._settings.read_timeout
        if kind == CHECK:
            limit = self._settings.scan_timeout
        waited = 0.0
        while not slots.acquire(path, _LOOK):
            task.check()
            waited += _LOOK
            if waited >= limit:
                raise errors.HostBusy(
                    reason="others read this store, or "
                    f"{self._settings.readers} others some store",
                    retry_after=_RETRY_AFTER,
                )
        return waited

    def _take(self, module: str, path: str) -> Process:
        """
        A process for a domain.

        One that the kernel does not let go, since its storage is dead, is
        the last one there until that is over: else each call would leave
        another.
        """
        for where, process in self._alive():
            if process.is_stuck and where == path:
                raise errors.StorageFailed(
                    operation="use",
                    path=path,
                    reason=f"process {process.pid} hangs in a call to it",
                )
        process = self._spares.take(module)
        with self._lock:
            self._started.append((path, process))
        return process

    def _alive(self) -> list[tuple[str, Process]]:
        with self._lock:
            self._started = [s for s in self._started if s[1].is_alive()]
            return list(self._started)


class Errand:
    """An errand that runs; ended gives its slot back."""

    def __init__(
        self, process: Process, task: Task, ended: Callable[[], None]
    ) -> None:
        self._process = process
        self._task = task
        self._ended = ended
        self._waited = False
        self._closed = False

    def __enter__(self) -> Errand:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def wait(self) -> dict[str, Any]:
        """Raises errors.Error, see Process.wait."""
        self._waited = True
        return self._process.wait(self._task.read)

    def close(self) -> None:
        """End it, whatever it is doing; idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            if not self._waited:
                self._waited = True
                self._process.discard()
        finally:
            self._ended()
