# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What is done when: the looks at the source, and the updates of the stores.

    a look      a thread: the source is listed, what has changed is marked
    a question  a thread for each host: which domains does it serve?
    an update   a thread for each: one domain, on one host

Nothing waits for all of anything: what has ended is put into one queue, and
the one thread that reads it starts what can be started then. A host gets as
many updates at the same time as [hosts] updates says; one that hangs has
these, and no others.
"""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.engine import marks
from vdsm_ovfstore.engine.delivery import Policy
from vdsm_ovfstore.engine.hosts import Host, Hosts
from vdsm_ovfstore.engine.look import Look, hosts_told
from vdsm_ovfstore.engine.state import State, meta
from vdsm_ovfstore.engine.survey import SURVEYED
from vdsm_ovfstore.engine.updates import Updates

log = logging.getLogger("ovfstore.updater")

# Seconds. How often the state is read for what another process has asked
# for: a forced update, a choice.
_POLL = 1.0

# Seconds for which stores wait for a look at the source to end, so that they
# are written once and not in the middle of it.
_PATIENCE = 30.0

# Seconds without a turn of the loop, which takes milliseconds, or as long as
# another process may lock the state.
_STUCK = 60.0


class Times(NamedTuple):
    """
    Seconds, but for updates: at the same time, of one host.

    retry: the first pause after a failure, and the longest one.
    """

    interval: float
    check_interval: float
    retry: tuple[float, float]
    updates: int
    stop: float


class Loop:
    """
    See run() and once(), each to be called once.

    Arguments:
        addresses: Of hosts, where the source gives none.
        stores: Whether domains have stores that nobody has chosen.
    """

    def __init__(
        self,
        state: State,
        look: Look,
        hosts: Hosts,
        addresses: Sequence[str],
        policy: Policy,
        times: Times,
        stores: bool,
    ) -> None:
        self._state = state
        self._look = look
        self._hosts = hosts
        self._addresses = addresses
        self._times = times
        self._updates = Updates(
            state, hosts, policy, times.updates, times.retry
        )
        self._stores = stores
        self._events: queue.Queue[Callable[[], None]] = queue.Queue()
        self._db: sqlite3.Connection
        self._looks = 0
        self._looking_since: Optional[float] = None
        self._next_look = 0.0
        self._turned = time.monotonic()
        self._once = False
        self._stopping = False
        self._broken: Optional[errors.Error] = None

    # -- from outside ---------------------------------------------------------

    def run(self) -> None:
        """Until stop(). Raises errors.StateUnusable."""
        self._go()

    def once(self) -> None:
        """
        One look, and one try for each store. Raises errors.StateUnusable.
        """
        self._once = True
        self._go()

    def stop(self) -> None:
        """Start nothing new; from any thread."""
        self._events.put(self._stop)

    def wake(self) -> None:
        """Look at the source now; from any thread."""
        self._events.put(self._hurry)

    @property
    def is_looking(self) -> bool:
        """Whether the source is in use."""
        return self._looking_since is not None

    def check(self) -> None:
        """
        Whether the loop still turns; from any thread.

        Raises errors.Unexpected.
        """
        silent = time.monotonic() - self._turned
        if silent > _STUCK:
            raise errors.Unexpected(
                kind="standstill", reason=f"no turn for {silent:.0f} seconds"
            )

    # -- the thread that decides ----------------------------------------------

    def _go(self) -> None:
        with self._state.connect() as self._db:
            self._set_hosts()
            while not self._stopping:
                self._turned = time.monotonic()
                self._start_look()
                self._update()
                if self._once and self._is_done():
                    break
                self._wait(_POLL)
            self._let_end()
        if self._broken is not None:
            raise self._broken

    def _wait(self, seconds: float) -> None:
        if self._looking_since is None and not self._once:
            left = self._next_look - time.monotonic()
            seconds = min(seconds, max(left, 0.001))
        try:
            self._events.get(timeout=seconds)()
            while True:
                self._events.get_nowait()()
        except queue.Empty:
            pass

    def _let_end(self) -> None:
        deadline = time.monotonic() + self._times.stop
        while self._updates.running and time.monotonic() < deadline:
            self._wait(0.1)
        if self._updates.running:
            # They may be left: hosts go on without us, or do not begin.
            log.warning("LEAVE updates=%s", ",".join(self._updates.running))

    def _is_done(self) -> bool:
        if not self._looks or self.is_looking or self._updates.running:
            return False
        if meta(self._db, SURVEYED) is None:
            return True
        return not self._updates.wanted(self._due(), once=True)

    def _stop(self) -> None:
        self._stopping = True
        self._updates.stop()

    def _hurry(self) -> None:
        self._next_look = 0.0

    def _thread(
        self, name: str, work: Callable[[], None], then: Callable[[], None]
    ) -> None:
        def main() -> None:
            try:
                work()
            except errors.Error as e:
                # Of the state: without it nothing can go on.
                log.error("BROKEN thread=%r error=%s", name, e)
                self._broken = e
                self.stop()
            except Exception as e:
                log.exception("BROKEN thread=%r", name)
                kind, reason = type(e).__name__, str(e) or "no details"
                self._broken = errors.Unexpected(kind=kind, reason=reason)
                self.stop()
            finally:
                self._events.put(then)

        threading.Thread(target=main, name=name, daemon=True).start()

    # -- looking --------------------------------------------------------------

    def _start_look(self) -> None:
        if self._looking_since is not None:
            return
        if time.monotonic() < self._next_look or (self._once and self._looks):
            return
        self._looking_since = time.monotonic()
        self._thread("look", self._look.run, self._looked)

    def _looked(self) -> None:
        self._looking_since = None
        self._looks += 1
        pause = self._times.interval
        if self._look.retry_after:
            pause = min(pause, self._look.retry_after)
        self._next_look = time.monotonic() + pause
        self._set_hosts()

    def _set_hosts(self) -> None:
        self._hosts.set_addresses(self._addresses or self._look.hosts)
        for host in self._hosts.all():
            self._ask(host)

    def _ask(self, host: Host) -> None:
        if host.is_asked:
            return
        host.is_asked = True

        def answered() -> None:
            host.is_asked = False
            if not self._look.names_domains:
                hosts_told(self._db, *self._hosts.seen())

        self._thread(f"ask {host.address}", host.ask, answered)

    # -- updating -------------------------------------------------------------

    def _due(self) -> list[str]:
        age = 0.0 if self._once else self._times.check_interval
        longest = None if self._once else self._times.retry[1]
        return marks.due(self._db, self._stores, age, longest)

    def _update(self) -> None:
        since = self._looking_since
        if since is not None and time.monotonic() < since + _PATIENCE:
            return
        # Before the source was listed once to its end, what is in a store and
        # not in the source cannot be told from what was not listed yet.
        if meta(self._db, SURVEYED) is None:
            return
        for domain in self._updates.wanted(self._due(), self._once):
            self._updates.start(self._db, domain, self._thread, self._ask)
