# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Work under way: how far it is, and how it is stopped."""

from __future__ import annotations

import threading
from typing import Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.store.child import WAITING
from vdsm_ovfstore.store.process import Process


class Task:
    """
    What runs for a job or a transfer.

    It may be aborted until its worker has the leases: to stop it then is
    safe, but leaves work for the next writer, and its deadline ends it
    anyway. The worker itself decides which of the two came first.

    domain is the one that it works with; changes, whether it writes there.
    """

    domain = ""
    changes = False

    def __init__(self, what: str) -> None:
        self.what = what
        self.step = ""
        self._lock = threading.Lock()
        self._process: Optional[Process] = None
        self._aborted = False
        self._writes = False

    @property
    def aborted(self) -> bool:
        return self._aborted

    @property
    def writes(self) -> bool:
        """True from the moment at which its worker has the leases."""
        return self._writes

    def check(self) -> None:
        """Raises errors.Aborted after abort()."""
        if self._aborted:
            raise errors.Aborted(what=self.what)

    def started(self, process: Process) -> None:
        """A process works for us now; abort() will end it."""
        with self._lock:
            self._process = process
            aborted = self._aborted
        if aborted:
            process.stop()

    def read(self, step: str) -> None:
        """Progress of an errand."""
        self.step = step

    def write(self, step: str) -> None:
        """Progress of a worker."""
        with self._lock:
            self.step = step
            if step != WAITING and not self._writes:
                self._writes = True
                # An abort that came later than the leases.
                self._aborted = False

    def abort(self, force: bool = False) -> None:
        """
        Stop it; force: also while its worker writes.

        Raises errors.AbortRefused.
        """
        with self._lock:
            if self._writes and not force:
                raise self.not_aborted()
            self._aborted = True
            process = self._process
        if process is None:
            return
        if force:
            process.cancel()
        else:
            process.stop()

    def not_aborted(self) -> errors.AbortRefused:
        return errors.AbortRefused(
            what=self.what, reason="the storage is being written"
        )
