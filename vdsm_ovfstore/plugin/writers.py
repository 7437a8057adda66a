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
from collections.abc import Iterator
from typing import Callable, Protocol

log = logging.getLogger("ovfstore.plugin")


class Abortable(Protocol):
    @property
    def what(self) -> str: ...
    @property
    def aborted(self) -> bool: ...

    def abort(self, force: bool = False) -> None: ...


class Writers:
    """
    The tasks whose workers write, or are about to.

    Arguments:
        check: raises errors.Error when a domain may not be written now.
    """

    def __init__(self, check: Callable[[str], object]) -> None:
        self._check = check
        self._lock = threading.Lock()
        self._tasks: list[tuple[str, Abortable]] = []

    @contextlib.contextmanager
    def writing(self, domain: str, task: Abortable) -> Iterator[None]:
        """
        The task writes to the domain until the end of the with.

        Raises errors.Error when it may not: while it was received, or waited,
        the domain may have been deactivated.
        """
        mine = (domain, task)
        with self._lock:
            self._tasks.append(mine)
        try:
            # Only now: from here on it is seen by end().
            self._check(domain)
            yield
        finally:
            with self._lock:
                self._tasks.remove(mine)

    def end(self, may_write: Callable[[str], bool]) -> None:
        """Abort the tasks of domains that may not be written any more."""
        with self._lock:
            tasks = list(self._tasks)
        for domain, task in tasks:
            if not may_write(domain):
                if not task.aborted:
                    log.warning("END domain=%s %s", domain, task.what)
                task.abort(force=True)
