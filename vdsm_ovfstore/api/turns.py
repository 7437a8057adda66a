# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Writers of one domain take turns, in the order in which they came.

The lease would keep them apart as well, but who tries for it again and again
has no order, and each of them would cost a process.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Callable

from vdsm_ovfstore import errors

# How often a waiting writer looks if it was aborted meanwhile, in seconds.
_LOOK = 0.5


class Turns:
    """The queues of all domains."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._queues: dict[str, deque[object]] = {}

    @contextlib.contextmanager
    def turn(
        self,
        domain: str,
        timeout: float,
        check: Callable[[], None] = lambda: None,
    ) -> Iterator[None]:
        """
        Be the only writer of a domain on this host.

        Arguments:
            timeout: seconds to wait.
            check: raises if there is nothing to wait for any more.

        Raises errors.LeaseBusy when the time is up, and what check raises.
        """
        me = object()
        started = time.monotonic()
        with self._changed:
            queue = self._queues.setdefault(domain, deque())
            queue.append(me)
        try:
            with self._changed:
                while queue[0] is not me:
                    check()
                    waited = time.monotonic() - started
                    if waited >= timeout:
                        raise errors.LeaseBusy(
                            domain=domain,
                            owner=f"another job of this host, with "
                            f"{queue.index(me)} before this one",
                            waited=waited,
                        )
                    self._changed.wait(min(_LOOK, timeout - waited))
            check()
            yield
        finally:
            with self._changed:
                queue.remove(me)
                if not queue:
                    del self._queues[domain]
                self._changed.notify_all()

    def waiting(self) -> dict[str, int]:
        """How many write or wait, by domain; those without are left out."""
        with self._changed:
            return {domain: len(q) for domain, q in self._queues.items()}
