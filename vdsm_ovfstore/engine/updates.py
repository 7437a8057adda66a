# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The updates of stores that run: which domain, on which host, and what next.

An error that is the host's sends the domain to the next host that serves it,
as when the SPM has moved. All others are noted, and tried again later.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.engine import marks
from vdsm_ovfstore.engine.delivery import Delivery, Policy
from vdsm_ovfstore.engine.hosts import Host, Hosts, is_of_the_host
from vdsm_ovfstore.engine.state import State, writing

log = logging.getLogger("ovfstore.updater")

# Runs the first in a thread of that name; the second in ours, after it.
Spawn = Callable[[str, Callable[[], None], Callable[[], None]], None]


class _Task(NamedTuple):
    """An update that runs, and the hosts to be asked after this one."""

    host: Host
    rest: list[Host]


class Updates:
    """
    To be used by one thread.

    Arguments:
        at_once: updates of one host at the same time.
        retry: seconds of the first pause after a failure, and of the longest
            one.

    Attributes:
        running: by domain.
    """

    def __init__(
        self,
        state: State,
        hosts: Hosts,
        policy: Policy,
        at_once: int,
        retry: tuple[float, float],
    ) -> None:
        self.running: dict[str, _Task] = {}
        self._state = state
        self._hosts = hosts
        self._policy = policy
        self._at_once = at_once
        self._retry = retry
        self._rest: dict[str, list[Host]] = {}
        self._tried: set[str] = set()
        self._stopping = False

    def stop(self) -> None:
        """Go to no other host."""
        self._stopping = True

    def wanted(self, due: Sequence[str], once: bool) -> list[str]:
        """
        Those of the domains that are due for which one could be started.

        once: each has one try, on as many hosts as it takes.
        """
        return [
            domain
            for domain in due
            if domain not in self.running
            and (not once or domain not in self._tried or domain in self._rest)
        ]

    def start(
        self,
        connection: sqlite3.Connection,
        domain: str,
        spawn: Spawn,
        ask: Callable[[Host], None],
    ) -> None:
        """Start one, if there is a host that has room for it."""
        hosts = self._rest.get(domain)
        if hosts is None:
            last = marks.last_host(connection, domain)
            hosts = self._hosts.serving(domain, last)
        if not hosts:
            if any(host.is_asked for host in self._hosts.all()):
                return  # one of them may serve it
            reason = self._hosts.why_not(domain)
            error = errors.NoHost(domain=domain, reason=reason)
            self._failed(connection, domain, error, "")
            for host in self._hosts.all():
                if host.error is not None:
                    ask(host)
            return
        free = [host for host in hosts if self._has_room(host)]
        if not free:
            return
        host = free[0]
        self._rest.pop(domain, None)
        self._tried.add(domain)
        self.running[domain] = _Task(host, [h for h in hosts if h != host])
        outcome: list[Optional[errors.Error]] = []
        spawn(
            f"update {domain}",
            lambda: outcome.append(self._update(domain, host)),
            lambda: self._ended(connection, domain, *outcome),
        )

    def _has_room(self, host: Host) -> bool:
        mine = [task for task in self.running.values() if task.host is host]
        return len(mine) < self._at_once

    def _update(self, domain: str, host: Host) -> Optional[errors.Error]:
        try:
            with self._state.connect() as connection:
                Delivery(
                    *(self._state, connection, host.client, host.address),
                    *(domain, self._policy),
                ).run()
        except errors.StateUnusable:
            raise
        except errors.Error as e:
            return e
        except Exception as e:
            # Of one domain; the others go on.
            log.exception("BROKEN update domain=%s", domain)
            kind, reason = type(e).__name__, str(e) or "no details"
            return errors.Unexpected(kind=kind, reason=reason)
        return None

    def _ended(
        self,
        connection: sqlite3.Connection,
        domain: str,
        error: Optional[errors.Error] = None,
    ) -> None:
        task = self.running.pop(domain)
        if error is None:
            return
        if is_of_the_host(error) and task.rest and not self._stopping:
            log.info(
                "NEXT domain=%s host=%s error=%s",
                *(domain, task.host.address, error),
            )
            self._rest[domain] = task.rest
            return
        # The next try begins with the host that did it last: not with this
        # one, if that is what was wrong.
        host = "" if is_of_the_host(error) else task.host.address
        self._failed(connection, domain, error, host)

    def _failed(
        self,
        connection: sqlite3.Connection,
        domain: str,
        error: errors.Error,
        host: str,
    ) -> None:
        log.error("FAILED domain=%s host=%s error=%s", domain, host, error)
        self._tried.add(domain)
        with writing(connection):
            marks.failed(connection, domain, error, host, self._retry)
