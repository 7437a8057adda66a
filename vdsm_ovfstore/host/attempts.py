# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Joins, or leaves, of lockspaces: each in a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection
from typing import Callable, Optional

from vdsm_ovfstore import errors

log = logging.getLogger("ovfstore.host")

# Seconds from a failure to the next try. A join that failed since another
# host has our number fails for good, but that may be mended any time; so
# does a leave while a process holds a lease.
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 300.0


class _Attempt:
    """One that runs in its thread, or when to try again."""

    def __init__(self) -> None:
        self.thread: Optional[threading.Thread] = None
        self.error: Optional[errors.Error] = None
        self.pause = FIRST_PAUSE
        self.again = 0.0  # time.monotonic()


class Attempts:
    """
    What is tried for lockspaces, by name. Thread-safe.

    Each may take minutes, and waits for other storage than the next one.

    Arguments:
        what: JOIN or LEAVE, for the log.
        ended: called after each, in its thread.
    """

    def __init__(self, what: str, ended: Callable[[], object]) -> None:
        self._what = what
        self._ended = ended
        self._all: dict[str, _Attempt] = {}
        self._lock = threading.Lock()

    def begin(
        self, name: str, work: Callable[[], None], at_once: bool = False
    ) -> None:
        """
        Try it, unless that happens already.

        Arguments:
            work: raises errors.Error.
            at_once: also if it failed a short time ago.
        """
        with self._lock:
            attempt = self._all.setdefault(name, _Attempt())
            early = time.monotonic() < attempt.again
            if attempt.thread or (early and not at_once):
                return
            attempt.thread = threading.Thread(
                target=self._run, args=(name, attempt, work), daemon=True
            )
            try:
                attempt.thread.start()
            except RuntimeError as e:
                # There are too many threads: a limit, or no memory.
                self._note(name, attempt, errors.Error(reason=str(e)))

    def error(self, name: str) -> Optional[errors.Error]:
        """How the last try failed; None before its end."""
        with self._lock:
            attempt = self._all.get(name)
            if attempt is None or attempt.thread:
                return None
            return attempt.error

    def keep(self, names: Collection[str]) -> None:
        """Forget how the others went."""
        with self._lock:
            for name, attempt in list(self._all.items()):
                if not attempt.thread and name not in names:
                    del self._all[name]

    def wait(self, deadline: float) -> None:
        """Until all that run have ended, or time.monotonic() is there."""
        with self._lock:
            threads = [a.thread for a in self._all.values() if a.thread]
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _run(
        self, name: str, attempt: _Attempt, work: Callable[[], None]
    ) -> None:
        error: Optional[errors.Error] = None
        try:
            work()
        except errors.Error as e:
            error = e
        except Exception as e:
            log.exception("%s lockspace=%s", self._what, name)
            error = errors.Unexpected(kind=type(e).__name__, reason=str(e))
        with self._lock:
            self._note(name, attempt, error)
        self._ended()

    def _note(
        self, name: str, attempt: _Attempt, error: Optional[errors.Error]
    ) -> None:
        # Once, and not with each try.
        if error is not None and str(error) != str(attempt.error):
            log.warning("%s lockspace=%s error=%s", self._what, name, error)
        attempt.error = error
        attempt.thread = None
        attempt.again = time.monotonic() + attempt.pause
        attempt.pause = min(2 * attempt.pause, LONGEST_PAUSE)
