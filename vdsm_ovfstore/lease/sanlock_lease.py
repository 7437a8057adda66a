# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The store lock among hosts: the sanlock leases of all members, together.

The process that writes is the one that registers, so that sanlock kills it,
and not vdsmd, when the storage is lost. The lockspace must have been joined
by the host (VDSM does so when the domain is activated); this module never
joins or leaves one.

    acquire   register; then lease after lease in sorted order, as VDSM's
              storage jobs take theirs, so that two holders of several cannot
              lock each other out. The binding takes one resource a call.
              Each is a try. If one is busy, those taken in this round are
              given back, and the next round follows after a pause.
    release   give back in reverse, then close the connection: sanlock drops
              what could not be given back (the volume may be gone), and
              forgets this process, so it is not killed for storage it no
              longer uses.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

from vdsm_ovfstore import errors
from vdsm_ovfstore.lease import daemon
from vdsm_ovfstore.lease.address import LeaseAddress
from vdsm_ovfstore.lease.cutoff import Cutoff
from vdsm_ovfstore.lease.hosts import host_name

log = logging.getLogger("ovfstore.lease")

# Seconds between rounds. A loser costs the storage a few reads a round.
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0

# A round may take this many seconds although the deadline is nearer: with a
# deadline of "now" a free lease must still be had on slow storage.
LEAST_ROUND = 5.0

_ELSEWHERE = "another host"
_HERE = "another process on this host"


class _Busy(NamedTuple):
    address: LeaseAddress
    errno: int


class SanlockLock:
    """
    Sanlock leases that are held all together or not at all.

    Arguments:
        domain_id: the storage domain's id
        addresses: the leases; duplicates count once
        ids_path: the domain's lockspace, to tell the name of an owner
        sector: sector size of the domain in bytes, 512 or 4096
        alignment: lease size of the domain in bytes

    Not thread-safe; one object is one connection with sanlock.
    """

    def __init__(
        self,
        domain_id: str,
        addresses: Iterable[LeaseAddress],
        ids_path: str,
        sector: int = 512,
        alignment: int = 1024**2,
    ) -> None:
        self._domain = domain_id
        self._addresses = sorted(set(addresses))
        if not self._addresses:
            raise ValueError("No lease to take")
        self._ids_path = ids_path
        self._sector = sector
        self._alignment = alignment
        self._sanlock: Any = None
        self._fd: int | None = None
        self._held: list[LeaseAddress] = []

    @property
    def fd(self) -> int | None:
        """
        The connection with sanlock, None when not acquired.

        For poll(): POLLHUP means that the daemon died. Nobody kills us
        then, and another host gets the leases 140 seconds later: stop
        writing at once.
        """
        return self._fd

    @property
    def held(self) -> bool:
        """True while all leases are ours and the daemon lives."""
        return bool(self._held) and not self._hung_up()

    def acquire(self, deadline: float) -> None:
        """
        Take all leases.

        Arguments:
            deadline: in time.monotonic(). One round is always made; it is
                cut off at the deadline, or after 5 seconds if that is later.

        Raises:
            LeaseBusy: the deadline passed; names the owner
            LockspaceMissing: this host has not joined the lockspace
            SanlockUnavailable: no binding, no daemon, or no permission
            LeaseFailed: anything else; nothing is held
        """
        if self._fd is not None:
            raise RuntimeError("The lock is acquired already")
        self._sanlock = daemon.binding()
        self._fd = daemon.register(self._sanlock)
        try:
            self._retry(deadline)
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """
        Give all leases back.

        Never raises: it often runs while another error is on its way, and
        the end of the connection releases everything anyhow.
        """
        self._give_back()
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _retry(self, deadline: float) -> None:
        began = time.monotonic()
        pause = FIRST_PAUSE
        owner = ""
        while True:
            cutoff_at = max(deadline, time.monotonic() + LEAST_ROUND)
            busy = self._round(cutoff_at)
            if busy is None:
                return
            now = time.monotonic()
            if now >= deadline:
                # Another one may have it by now; if it is free again while
                # we ask, the owner we waited for is the better answer.
                owner = self._owner(busy) or owner or _ELSEWHERE
                raise errors.LeaseBusy(
                    domain=self._domain,
                    owner=owner,
                    waited=time.monotonic() - began,
                    path=busy.address.path,
                )
            if not owner:
                owner = self._owner(busy)
                log.info(
                    "waiting for lease resource=%s path=%s owner=%r",
                    busy.address.resource,
                    busy.address.path,
                    owner,
                )
            time.sleep(max(0, min(_jitter(pause), deadline - now)))
            pause = min(pause * 2, LONGEST_PAUSE)

    def _round(self, cutoff_at: float) -> _Busy | None:
        """Try all leases once; return the busy one, if there is one."""
        assert self._fd is not None
        failure: Exception | None = None
        address = self._addresses[0]
        cutoff = Cutoff(self._fd, cutoff_at - time.monotonic())
        try:
            for address in self._addresses:
                self._acquire_one(address)
        except (self._sanlock.SanlockException, ValueError) as e:
            failure = e
        finally:
            intact = cutoff.disarm()
        if not intact:
            # The daemon gives back what we had.
            self._held.clear()
            return _Busy(address, errno.EAGAIN)
        if failure is None:
            return None
        code = getattr(failure, "errno", None)
        if code not in daemon.BUSY:
            raise self._failure(address, failure) from failure
        log.debug("lease busy resource=%s errno=%s", address.resource, code)
        self._give_back()
        return _Busy(address, code)

    def _acquire_one(self, address: LeaseAddress) -> None:
        log.info(
            "acquiring lease lockspace=%s resource=%s path=%s offset=%s",
            *address,
        )
        self._sanlock.acquire(
            *daemon.resource(address),
            slkfd=self._fd,
        )
        self._held.append(address)

    def _give_back(self) -> None:
        while self._held:
            address = self._held.pop()
            log.info(
                "releasing lease lockspace=%s resource=%s path=%s offset=%s",
                *address,
            )
            try:
                self._sanlock.release(
                    *daemon.resource(address),
                    slkfd=self._fd,
                )
            except self._sanlock.SanlockException as e:
                log.warning(
                    "cannot release lease resource=%s path=%s error=%s",
                    address.resource,
                    address.path,
                    daemon.explain(e),
                )

    def _failure(self, address: LeaseAddress, e: Any) -> errors.Error:
        if self._hung_up():
            return errors.SanlockUnavailable(reason="its daemon ended")
        if getattr(e, "errno", None) == errno.ENOSPC:
            return errors.LockspaceMissing(
                domain=self._domain,
                reason=f"sanlock has no lockspace {address.lockspace}",
            )
        return errors.LeaseFailed(
            resource=address.resource,
            path=address.path,
            reason=daemon.explain(e),
        )

    def _owner(self, busy: _Busy) -> str:
        """Say who holds a lease, "" if that is not known."""
        if busy.errno == errno.EEXIST:
            return _HERE
        address = busy.address
        try:
            owners = self._sanlock.read_resource_owners(
                *daemon.resource(address),
                align=self._alignment,
                sector=self._sector,
            )
        except (self._sanlock.SanlockException, ValueError) as e:
            log.debug("cannot read owners error=%s", daemon.explain(e))
            return ""
        if not owners and busy.errno in daemon.LOCAL:
            return _HERE
        return ", ".join(self._host(owner["host_id"]) for owner in owners)

    def _host(self, host_id: int) -> str:
        name = host_name(
            self._ids_path, self._addresses[0].lockspace, host_id, self._sector
        )
        return f"host {host_id} ({name})" if name else f"host {host_id}"

    def _hung_up(self) -> bool:
        if self._fd is None:
            return True
        poller = select.poll()
        poller.register(self._fd, 0)
        return bool(poller.poll(0))


def _jitter(pause: float) -> float:
    # Losers of one race shall not meet again in the next: 50 to 100 %.
    return pause * (0.5 + os.urandom(1)[0] / 510)
