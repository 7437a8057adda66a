# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The lockspaces of the domains that are served, joined in the background.

What somebody else joined (VDSM, when it activated the domain) is used and
never left. What we joined is left when the domain is gone and at a graceful
stop; after a kill the next start finds in a file what was ours. The join of
a lockspace that was left and joined again by another has another generation,
so it is not taken for ours.
"""

from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import Iterable
from functools import partial
from typing import Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.host.attempts import Attempts
from vdsm_ovfstore.host.ownership import Ownership
from vdsm_ovfstore.host.scan import Found
from vdsm_ovfstore.lease import lockspace

log = logging.getLogger("ovfstore.host")

READY = "ready"
JOINING = "joining"
FAILED = "failed"

# Seconds between two questions to the sanlock daemon, on a local socket:
# how late we see that VDSM activated a domain.
POLL = 1.0

# Seconds after which who wants to write may ask again: what a join takes, two
# of sanlock's time-outs and one more, with its default of 10.
RETRY_AFTER = 21


class Lockspaces:
    """
    Arguments:
        host_id: our number; 0: join nothing, and use what is joined.
        io_timeout: seconds, of what we join; 0 for sanlock's default.
        state: file that keeps what we joined, for the next start.
    """

    def __init__(self, host_id: int, io_timeout: int, state: str) -> None:
        self._host_id = host_id
        self._io_timeout = io_timeout
        self._owned = Ownership(state)
        # None before the first look for domains.
        self._served: Optional[dict[str, Found]] = None
        self._joined: dict[str, lockspace.Lockspace] = {}
        self._unavailable: Optional[errors.Error] = None
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._joins = Attempts("JOIN", self._wake.set)
        self._leaves = Attempts("LEAVE", self._wake.set)
        self._stopping = False
        self._thread = threading.Thread(
            target=self._run, name="lockspaces", daemon=True
        )

    def start(self) -> None:
        """Raises errors.ConfigInvalid: the state cannot be kept."""
        self._owned.load()
        self._thread.start()

    def serve(self, domains: Iterable[Found]) -> None:
        """Those whose lockspaces are needed, from now on."""
        with self._lock:
            self._served = {d.domain: d for d in domains}
        self._wake.set()

    def state(self, domain: str) -> tuple[str, str]:
        """READY, JOINING or FAILED, and why it is not ready."""
        with self._lock:
            error, joining = self._reason(domain)
        if error is None:
            return READY, ""
        reason = getattr(error, "reason", str(error))
        return (JOINING if joining else FAILED), reason

    def check(self, domain: str) -> None:
        """
        Returns if the lockspace of a domain is joined.

        Raises:
            errors.HostBusy: it is being joined.
            errors.LockspaceMissing, errors.SanlockUnavailable
        """
        with self._lock:
            error, _ = self._reason(domain)
        if error is not None:
            # One that is raised again and again would grow each time.
            raise copy.copy(error)

    def stop(self, timeout: float) -> None:
        """
        Leave what we joined, or is being joined, in `timeout` seconds.

        Call it when no worker of ours runs any more. Where somebody else
        holds a lease, or storage hangs, we stay, and the next start knows.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        if self._thread.is_alive():
            log.warning("LEAVE error=sanlock does not answer")
            return
        try:
            joined = lockspace.lockspaces() if self._owned else {}
        except errors.Error as e:
            log.warning("LEAVE error=%s", e)
            return
        for one in joined.values():
            self._begin_to_leave(one, at_once=True)
        self._leaves.wait(deadline)

    def _reason(self, domain: str) -> tuple[Optional[errors.Error], bool]:
        """Why it is not ready, and if that will pass by itself."""
        if self._unavailable is not None:
            return self._unavailable, False
        joined = self._joined.get(domain)
        if joined is not None and not joined.moving:
            return None, False
        error = self._joins.error(domain)
        if error is not None:
            return error, False
        if joined is None and not self._host_id:
            missing = errors.LockspaceMissing(
                domain=domain,
                reason="nobody has joined it, and [sanlock] join is no",
                way_out="Activate the storage domain on this host, or let "
                "ovfstored join: [sanlock] join",
            )
            return missing, False
        busy = errors.HostBusy(
            reason=f"it is joining the lockspace of domain {domain}",
            retry_after=RETRY_AFTER,
        )
        return busy, True

    # -- the thread

    def _run(self) -> None:
        while not self._stopping:
            self._wake.wait(POLL)
            self._wake.clear()
            # A host with LocalFS only may have no sanlock at all.
            if not self._served and not self._owned:
                continue
            try:
                self._look()
                self._join_and_leave()
            except errors.SanlockUnavailable as e:
                self._lost(e)
            except Exception:
                log.exception("LOCKSPACES failed")

    def _look(self) -> None:
        """Ask sanlock what is joined. Raises errors.SanlockUnavailable."""
        joined = lockspace.lockspaces()
        self._owned.compare(joined)
        with self._lock:
            if self._unavailable is not None:
                log.info("SANLOCK is back")
            self._unavailable = None
            self._joined = joined

    def _lost(self, error: errors.Error) -> None:
        with self._lock:
            if self._unavailable is None:
                log.warning("SANLOCK error=%s", error)
            self._unavailable = error
            self._joined = {}

    def _join_and_leave(self) -> None:
        with self._lock:
            if self._stopping or self._served is None:
                return
            served = dict(self._served)
        self._joins.keep(served.keys() - self._joined.keys())
        self._leaves.keep(self._joined.keys() - served.keys())
        for name, domain in served.items():
            if name not in self._joined and self._host_id:
                self._joins.begin(name, partial(self._join, domain))
        for name, joined in self._joined.items():
            if name not in served:
                self._begin_to_leave(joined)

    def _join(self, domain: Found) -> None:
        name = domain.domain
        ids = os.path.join(domain.path, "dom_md", "ids")
        ours = False
        # Noted before: a kill in the middle does not stop sanlock.
        self._owned.joining(name, self._host_id)
        try:
            ours = lockspace.join(name, self._host_id, ids, self._io_timeout)
            log.info("JOINED lockspace=%s ours=%s", name, ours)
        except errors.LockspaceMissing as e:
            e.way_out = "Mend that; ovfstored goes on trying to join"
            raise
        finally:
            if ours:
                self._owned.joined(name)
            else:
                self._owned.drop(name)

    def _begin_to_leave(
        self, joined: lockspace.Lockspace, at_once: bool = False
    ) -> None:
        """If it is ours."""
        if self._owned.has(joined.name):
            work = partial(self._leave, joined)
            self._leaves.begin(joined.name, work, at_once)

    def _leave(self, joined: lockspace.Lockspace) -> None:
        lockspace.leave(joined)
        log.info("LEFT lockspace=%s", joined.name)
        self._owned.drop(joined.name)
