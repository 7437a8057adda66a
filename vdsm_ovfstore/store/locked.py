# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The leases of a store, and a tenure under them.

Everything is found anew once the leases are held: what was seen before may
have changed, and only what is locked may be written.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.lease import Lock, lock_for
from vdsm_ovfstore.lease.address import LeaseAddress
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.storage.filevolume import FileVolume
from vdsm_ovfstore.store import left, membership, retention
from vdsm_ovfstore.store.child import WAITING
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.left import Aside
from vdsm_ovfstore.store.salvage import Holder
from vdsm_ovfstore.store.tenure import Absent, Progress, Tenure

log = logging.getLogger("ovfstore.store")

# Bytes of a volume that is used as a copy: the seal ring and some room; and
# far more than any engine sends, far less than what breaks a file system.
CAPACITY_MIN = 2 * 1024**2
CAPACITY_MAX = 1024**4

# How often members may turn up between discovery and lease before we give
# up: once is a race with `create`, more is a domain in turmoil.
_DISCOVERIES = 3


class Locked:
    """
    One write to the store of one domain.

    Arguments:
        path: the domain.
        timeout: seconds to wait for the leases.
        buffered: the development switch for file systems without O_DIRECT.
        settings: what retention keeps.
        progress: is told what begins.
        watch: is given the lock as soon as it is held, None when it is
            released; who watches must end the process when the lock is lost.
    """

    def __init__(
        self,
        path: str,
        timeout: float = 60,
        buffered: bool = False,
        settings: Optional[retention.Settings] = None,
        progress: Progress = lambda step: None,
        watch: Callable[[Optional[Lock]], None] = lambda lock: None,
    ) -> None:
        self._domain = FileDomain.open(path, buffered=buffered)
        self._domain.writable()
        self._deadline = time.monotonic() + timeout
        self._settings = settings
        self._progress = progress
        self._watch = watch
        self._locked_at = 0.0
        self._lease_seconds = 0.0

    # -- locks ----------------------------------------------------------------

    @contextlib.contextmanager
    def _tenure(
        self, make: Optional[Callable[..., Tenure]] = None, **how: Any
    ) -> Iterator[Tenure]:
        """
        Hold the leases of all members; begin a tenure under them.

        make: makes another one than Tenure; how: its arguments.
        """
        make = functools.partial(make or Tenure, **how)
        broken: dict[str, errors.Error] = {}
        for _ in range(_DISCOVERIES):
            addresses = [
                v.lease for v in self._volumes() if v.id not in broken
            ]
            if not addresses:
                raise _first(broken) or errors.VolumeNotFound(
                    domain=self._domain.id, what="", path=self._domain.path
                )
            try:
                with self._locked(addresses):
                    held = {a.resource for a in addresses}
                    copies, absent, new = self._open(held, broken)
                    try:
                        if self._is_member(copies, new):
                            continue
                        deep = bool(how.get("deep"))
                        with self._asides(copies, deep) as asides:
                            yield self._begin(copies, asides, absent, make)
                        return
                    finally:
                        for copy in copies:
                            copy.close()
            except errors.LeaseFailed as e:
                # A member without a usable lease is excluded, as one that
                # cannot be read; the leases of the others keep out others.
                if e.resource not in {a.resource for a in addresses}:
                    raise
                log.error("LEASE volume=%s %s", e.resource, e)
                broken[e.resource] = e
        raise _first(broken) or errors.Error(
            reason=f"The members of domain {self._domain.id} keep changing"
        )

    @contextlib.contextmanager
    def _locked(self, addresses: list[LeaseAddress]) -> Iterator[None]:
        self._progress(WAITING)
        # Also the directory that flock takes: it must exist.
        os.close(self._domain.store_directory(create=True))
        lock = lock_for(
            self._domain.id,
            self._domain.lock_kind,
            addresses,
            os.path.join(self._domain.path, "dom_md", "ids"),
            os.path.join(self._domain.path, "ovf_store"),
            self._domain.block_size,
            self._domain.alignment,
        )
        log.info(
            "ACQUIRE domain=%s leases=%d", self._domain.id, len(addresses)
        )
        lock.acquire(self._deadline)
        start = time.monotonic()
        self._watch(lock)
        try:
            yield
        finally:
            self._watch(None)
            lock.release()
            held = time.monotonic() - start
            self._lease_seconds += held
            log.info("RELEASE domain=%s held=%.3f", self._domain.id, held)

    def _domain_lease(self) -> list[LeaseAddress]:
        if self._domain.lock_kind == "flock":
            return []
        from vdsm_ovfstore.lease.format import domain_lease

        return [domain_lease(self._domain)]

    # -- copies ---------------------------------------------------------------

    def _volumes(self) -> list[FileVolume]:
        """
        The volumes of the domain, each once.

        Somebody who copies an image directory makes a second volume of the
        same id; the true one is that whose metadata names its image.
        """
        found: dict[str, FileVolume] = {}
        for volume in self._domain.volumes():
            other = found.get(volume.id)
            if other is None or not _names_its_image(other):
                found[volume.id] = volume
        return list(found.values())

    def _open(
        self, held: set[str], broken: dict[str, errors.Error]
    ) -> tuple[list[Copy], dict[str, Absent], set[str]]:
        """
        Discover again, and open what may be written.

        Returns the copies, the volumes that cannot be opened, and the ids of
        those that were not there when the leases were asked for.
        """
        copies, absent, new = [], {}, set()
        for volume in self._volumes():
            if volume.id in broken:
                absent[volume.id] = Absent(volume.image, broken[volume.id])
                continue
            if volume.id not in held:
                new.add(volume.id)
                continue
            copy = Copy(volume)
            try:
                metadata = volume.read_metadata()
                metadata.enforce(volume.id, self._domain.id, volume.image)
                _check_capacity(volume)
                copy.load(write=True)
                if left.is_lost(copy):
                    copy.set_aside_log()
            except errors.Error as e:
                log.error("FAILED volume=%s code=%d %s", volume.id, e.code, e)
                copy.close()
                absent[volume.id] = Absent(volume.image, e)
                continue
            copies.append(copy)
        return copies, absent, new

    @contextlib.contextmanager
    def _asides(
        self, copies: list[Copy], deep: bool
    ) -> Iterator[list[Holder]]:
        """
        Logs that were set aside, where what they hold may be needed.

        By who mends everything; or where no copy tells which numbers were
        given before.
        """
        logs = self._domain.left_logs()
        names = [c.set_aside for c in copies if c.set_aside]
        if deep or not any(c.seal for c in copies):
            names = logs.set_aside()
        found: list[Holder] = []
        with contextlib.ExitStack() as stack:
            for name in names:
                try:
                    opened = stack.enter_context(logs.opened(name))
                    found.append(Aside(opened, self._domain.id))
                except errors.StorageFailed as e:
                    log.error("UNREADABLE name=%s %s", name, e)
            yield found

    @staticmethod
    def _is_member(copies: list[Copy], new: set[str]) -> bool:
        """True when one of the new volumes is a member: it must be held."""
        newest = membership.newest_seal([c.seal for c in copies if c.seal])
        return newest is not None and bool(newest.member_ids() & new)

    def _begin(
        self,
        copies: list[Copy],
        asides: list[Holder],
        absent: dict[str, Absent],
        make: Callable[..., Tenure],
    ) -> Tenure:
        tenure = make(
            self._domain.id,
            copies,
            host=os.uname().nodename,
            asides=asides,
            absent=absent,
            settings=self._settings,
            progress=self._progress,
        )
        tenure.begin()
        return tenure

    def _strangers(self) -> tuple[list[str], bool]:
        """
        The volumes that are no members of a store that has members; and
        whether members are gone.
        """
        found, seals = [], []
        for volume in self._volumes():
            found.append(volume.id)
            copy = Copy(volume)
            try:
                copy.load()
                if copy.seal is not None:
                    seals.append(copy.seal)
            except errors.Error as e:
                log.warning("UNREADABLE volume=%s %s", volume.id, e)
            finally:
                copy.close()
        newest = membership.newest_seal(seals)
        if newest is None:
            return [], False
        members = newest.member_ids()
        # What cannot be read now may be a member that is there after all.
        gone = bool(members - set(found)) and not self._domain.problems
        return [v for v in found if v not in members], gone

    def _report(self, tenure: Tenure) -> dict[str, Any]:
        return {
            "degraded": [
                {"volume": volume, "code": e.code, "reason": str(e)}
                for volume, e in sorted(tenure.degraded.items())
            ],
            "healed": tenure.healed,
            "lease_seconds": round(self._lease_seconds, 3),
        }


def _check_capacity(volume: FileVolume) -> None:
    """CAP says how long the log will be: it must be a sane number."""
    if not CAPACITY_MIN <= volume.capacity <= CAPACITY_MAX:
        raise errors.VolumeRefused(
            volume=volume.id,
            key="CAP",
            found=volume.capacity,
            expected=f"{CAPACITY_MIN} to {CAPACITY_MAX}",
        )


def _names_its_image(volume: FileVolume) -> bool:
    try:
        return volume.read_metadata().image == volume.image
    except errors.Error:
        return False


def _first(found: dict[str, errors.Error]) -> Optional[errors.Error]:
    return next(iter(found.values()), None)
