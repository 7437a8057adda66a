# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The storage domains that a standalone host serves.

A thread looks for them now and then; verbs are answered from what it found
last. A domain that was there and is not any more stays in the list as
failed, until the host is started again or the domain is back: who asks shall
see that it is missing.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.task import Task
from vdsm_ovfstore.host.lockspaces import FAILED, READY, Lockspaces
from vdsm_ovfstore.host.scan import Found, Look, Scanner

log = logging.getLogger("ovfstore.host")

# Who asks for an unknown domain makes us look, at most so often (seconds),
# and waits so long for it. A look takes a fraction of a second, or its
# whole time limit when storage hangs: then nobody waits for it.
LEAST_PAUSE = 3.0
PATIENCE = 3.0


class _Known(NamedTuple):
    found: Found
    top: str  # the configured path below which it was found
    problem: str  # why it cannot be used, or what is odd about it
    gone: bool


class FoundDomains:
    """
    Implements api.domains.Domains.

    Arguments:
        interval: seconds between two looks.
    """

    def __init__(
        self, scanner: Scanner, lockspaces: Lockspaces, interval: float
    ) -> None:
        self._scanner = scanner
        self._lockspaces = lockspaces
        self._interval = interval
        self._known: dict[str, _Known] = {}
        self._problems: list[str] = []
        self._changed = threading.Condition()
        self._wanted = True
        self._stopping = False
        self._begun = 0  # looks; the next has this number plus one
        self._ended = 0
        self._last = float("-inf")
        self._thread = threading.Thread(
            target=self._run, name="domains", daemon=True
        )

    def start(self) -> None:
        """Begin to look. Returns after the first look, or a short time."""
        self._thread.start()
        self._wait_for(1)

    def stop(self) -> None:
        """No more looks. One that hangs ends with us."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()

    def rescan(self) -> None:
        """Look soon; does not wait."""
        with self._changed:
            self._wanted = True
            self._changed.notify_all()

    # -- api.domains.Domains

    def path(self, domain: str, write: bool = False) -> str:
        """
        The directory of a domain.

        Raises:
            errors.DomainNotServed: no such domain here.
            errors.HostBusy: it is to be written, and its lockspace is being
                joined.
            errors.LockspaceMissing: the same, and nobody joins it.
            errors.SanlockUnavailable: the same, and it cannot be.
        """
        found = self._find(domain)
        if write and found.lock == "sanlock":
            self._lockspaces.check(domain)
        return found.path

    def writing(
        self, domain: str, timeout: float, task: Task
    ) -> AbstractContextManager[None]:
        """The leases are all that is needed here."""
        return contextlib.nullcontext()

    def make_volumes(
        self, domain: str, copies: int, size: int, timeout: float, task: Task
    ) -> Optional[list[str]]:
        """The worker makes them."""
        return None

    def check_pool(self, domain: str, pool: str) -> None:
        """
        Raises errors.DomainNotServed, errors.PoolMismatch.
        """
        found = self._find(domain)
        if found.pool != pool:
            raise errors.PoolMismatch(
                domain=domain, found=found.pool or "none", asked=pool
            )

    def problems(self) -> list[str]:
        """What the last look could not see, in words."""
        return self._problems

    def list(self) -> list[dict[str, Any]]:
        """What the verb `list` answers as "domains", sorted by path."""
        with self._changed:
            known = list(self._known.values())
        return [
            self._document(k)
            for k in sorted(known, key=lambda k: k.found.path)
        ]

    def _document(self, known: _Known) -> dict[str, Any]:
        found = known.found
        state, problem = READY, known.problem
        if known.gone:
            state = FAILED
        elif found.lock == "sanlock":
            state, reason = self._lockspaces.state(found.domain)
            problem = "; ".join(filter(None, (reason, problem)))
        return {
            "domain": found.domain,
            "path": found.path,
            "type": found.type,
            "domain_version": found.domain_version,
            "lock": found.lock,
            "state": state,
            "problem": problem,
        }

    def _find(self, domain: str) -> Found:
        known = self._usable(domain)
        if known is None:
            with self._changed:
                number = self._begun + 1
                due = time.monotonic() - self._last >= LEAST_PAUSE
                if due:
                    self._wanted = True
                    self._changed.notify_all()
            if due:
                self._wait_for(number)
                known = self._usable(domain)
        if known is None:
            raise errors.DomainNotServed(domain=domain)
        return known.found

    def _usable(self, domain: str) -> Optional[_Known]:
        with self._changed:
            known = self._known.get(domain)
        return None if known is None or known.gone else known

    # -- the thread

    def _wait_for(self, number: int) -> None:
        with self._changed:
            self._changed.wait_for(
                lambda: self._ended >= number or self._stopping, PATIENCE
            )

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._wanted or self._stopping, self._interval
                )
                if self._stopping:
                    return
                self._wanted = False
                self._begun += 1
                self._last = time.monotonic()
            try:
                self._take(self._scanner.scan())
            except Exception:
                # What it knew stays; the next look may be better.
                log.exception("SCAN failed")
            with self._changed:
                self._ended = self._begun
                self._changed.notify_all()

    def _take(self, looks: dict[str, Look]) -> None:
        before = self._known
        known: dict[str, _Known] = {}
        for top, look in looks.items():
            for found in look.found:
                new = _Known(found, top, "", gone=False)
                first = known.setdefault(found.domain, new)
                if first.found.path != found.path:
                    problem = f"found at {found.path} as well, not used there"
                    known[found.domain] = first._replace(problem=problem)
        for domain, old in before.items():
            if domain not in known:
                known[domain] = _missing(old, looks[old.top])
        for domain, now in known.items():
            self._tell(before.get(domain), now)
        problems = [p for look in looks.values() for p in look.problems]
        for problem in problems:
            if problem not in self._problems:
                log.warning("SCAN problem=%r", problem)
        self._problems = problems
        with self._changed:
            self._known = known
        self._lockspaces.serve(
            [
                k.found
                for k in known.values()
                if k.found.lock == "sanlock" and not k.gone
            ]
        )

    def _tell(self, old: Optional[_Known], now: _Known) -> None:
        if old == now:
            return
        log.log(
            logging.WARNING if now.problem else logging.INFO,
            "DOMAIN domain=%s path=%s type=%s lock=%s problem=%r",
            now.found.domain,
            now.found.path,
            now.found.type,
            now.found.lock,
            now.problem,
        )


def _missing(old: _Known, look: Look) -> _Known:
    """A domain that a look did not show: it is gone, or hidden."""
    if old.gone:
        return old
    for path in look.hidden:
        if _within(old.found.path, path) or _within(path, old.found.path):
            return old._replace(problem=f"cannot look at {path} any more")
    return old._replace(problem="it is not there any more", gone=True)


def _within(path: str, top: str) -> bool:
    return path == top or path.startswith(top.rstrip("/") + "/")
