# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Who writes to which domain now.

VDSM lets a pool be disconnected, and the SPM be stopped, while a process of
ours has leases (proved in a real vdsmd). Then it has to end: another host may
become SPM, and write without any lease.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Collection, Iterator
from typing import Callable, Protocol

from vdsm_ovfstore import errors

log = logging.getLogger("ovfstore.plugin")


_LOOK = 0.2  # seconds between two looks for a lockspace


class Abortable(Protocol):
    @property
    def what(self) -> str: ...
    @property
    def aborted(self) -> bool: ...

    def abort(self, force: bool = False) -> None: ...

    def check(self) -> None: ...


class Writers:
    """
    The tasks whose workers write, or are about to.

    Arguments:
        check: raises errors.Error when a domain may not be written now.
    """

    def __init__(self, check: Callable[[str], object]) -> None:
        self._check = check
        self._changed = threading.Condition()
        self._tasks: list[tuple[str, Abortable]] = []

    @contextlib.contextmanager
    def writing(
        self, domain: str, task: Abortable, timeout: float = 0
    ) -> Iterator[None]:
        """
        The task writes to the domain until the end of the with.

        timeout: seconds that it waits for VDSM to join the lockspace.

        Raises errors.Error when it may not write: while it was received, or
        waited, the domain may have been deactivated; and what task.check()
        raises.
        """
        mine = (domain, task)
        with self._changed:
            self._tasks.append(mine)
        try:
            # Only now: from here on it is seen by end().
            self._wait(domain, task, time.monotonic() + timeout)
            yield
        finally:
            with self._changed:
                self._tasks.remove(mine)
                self._changed.notify_all()

    def _wait(self, domain: str, task: Abortable, deadline: float) -> None:
        while True:
            try:
                self._check(domain)
                return
            except errors.LockspaceMissing:
                # It comes some 20 s after the domain was activated, and the
                # engine uploads to a new one at once.
                task.check()
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_LOOK)

    def end(self, may_write: Callable[[str], bool]) -> None:
        """Abort the tasks of domains that may not be written any more."""
        with self._changed:
            tasks = list(self._tasks)
        for domain, task in tasks:
            if not may_write(domain):
                if not task.aborted:
                    log.warning("END domain=%s %s", domain, task.what)
                task.abort(force=True)

    def leave(self, domains: Collection[str], timeout: float) -> bool:
        """
        Abort the tasks of these domains, and wait for their end, no longer
        than timeout seconds. Returns whether there were any.
        """
        if not self._writes_to(domains):
            return False
        self.end(lambda domain: domain not in domains)
        with self._changed:
            self._changed.wait_for(
                lambda: not self._writes_to(domains), timeout
            )
        return True

    def _writes_to(self, domains: Collection[str]) -> bool:
        return any(domain in domains for domain, _ in self._tasks)
