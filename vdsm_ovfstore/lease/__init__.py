# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Who may write: sanlock leases, flock. Knows format only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from vdsm_ovfstore.lease.address import LeaseAddress

SANLOCK = "sanlock"
FLOCK = "flock"


class Lock(Protocol):
    """
    The store lock of one domain.

    `fd` is for poll(): POLLHUP says that the lock may be lost; None when
    there is nothing to watch. `held` is true from a successful acquire() to
    release(), or until the loss of the lock was noticed.
    """

    @property
    def fd(self) -> int | None: ...

    @property
    def held(self) -> bool: ...

    def acquire(self, deadline: float) -> None:
        """Take the lock or raise; `deadline` is in time.monotonic()."""

    def release(self) -> None:
        """Give the lock back. Never raises: what goes wrong is logged."""


def lock_for(
    domain_id: str,
    kind: str,
    addresses: Iterable[LeaseAddress],
    ids_path: str,
    store_path: str,
    sector: int = 512,
    alignment: int = 1024**2,
) -> Lock:
    """
    Make the lock that a domain wants.

    Arguments:
        domain_id: the storage domain's id
        kind: SANLOCK or FLOCK, as FileDomain.lock_kind says
        addresses: the leases of all members (or the domain lease); for
            SANLOCK only
        ids_path: the lockspace, `<domain>/dom_md/ids`; names the hosts in
            errors; for SANLOCK only
        store_path: `<domain>/ovf_store`, which must exist; for FLOCK only
        sector: sector size of the domain in bytes, 512 or 4096
        alignment: lease size of the domain in bytes
    """
    # Imported here: a worker needs one of them, and its start-up counts.
    if kind == FLOCK:
        from vdsm_ovfstore.lease.flock import FlockLock

        return FlockLock(domain_id, store_path)
    if kind == SANLOCK:
        from vdsm_ovfstore.lease.sanlock_lease import SanlockLock

        return SanlockLock(domain_id, addresses, ids_path, sector, alignment)
    raise ValueError(f"Unknown kind of lock: {kind!r}")
