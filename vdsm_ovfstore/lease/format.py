# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Writing new leases and lockspaces, as VDSM's clusterlock.py does.

The local sanlock daemon does the writing; it needs no joined lockspace. What
was at the address before is lost, also a lease that somebody holds: these
functions are for files that were made a moment ago.
"""

from __future__ import annotations

import logging
import os
from typing import Any, Protocol

from vdsm_ovfstore import errors
from vdsm_ovfstore.lease import daemon
from vdsm_ovfstore.lease.address import (
    SDM_LEASE_NAME,
    SDM_LEASE_SLOT,
    LeaseAddress,
)

log = logging.getLogger("ovfstore.lease")


class _Domain(Protocol):
    @property
    def id(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def alignment(self) -> int: ...


def domain_lease(domain: _Domain) -> LeaseAddress:
    """
    Return the address of a file domain's own lease.

    VDSM takes it for changes of the domain's structure.
    """
    path = os.path.join(domain.path, "dom_md", "leases")
    offset = SDM_LEASE_SLOT * domain.alignment
    return LeaseAddress(domain.id, SDM_LEASE_NAME, path, offset)


def format_lease(
    lockspace: str,
    resource: str,
    path: str,
    offset: int,
    align: int = 1024**2,
    sector: int = 512,
) -> None:
    """
    Write an empty lease.

    Arguments:
        lockspace: the domain's id
        resource: the volume's id, or SDM
        path: the file or device, which must exist
        offset: bytes from its start
        align: lease size in bytes: 1, 2, 4 or 8 MiB
        sector: sector size of the domain in bytes: 512 or 4096

    Raises:
        SanlockUnavailable: no binding, no daemon, or no permission
        LeaseFailed: sanlock could not write it
    """
    sanlock = daemon.binding()
    address = LeaseAddress(lockspace, resource, path, offset)
    log.info(
        "writing lease lockspace=%s resource=%s path=%s offset=%s align=%s "
        "sector=%s",
        *address,
        align,
        sector,
    )
    try:
        sanlock.write_resource(
            *daemon.resource(address),
            align=align,
            sector=sector,
        )
    except (sanlock.SanlockException, ValueError) as e:
        raise _failure(e, resource, path) from e


def format_lockspace(
    lockspace: str,
    path: str,
    align: int = 1024**2,
    sector: int = 512,
) -> None:
    """
    Write an empty lockspace at the start of `path`.

    Arguments and errors are those of format_lease().
    """
    sanlock = daemon.binding()
    log.info(
        "writing lockspace lockspace=%s path=%s align=%s sector=%s",
        lockspace,
        path,
        align,
        sector,
    )
    try:
        sanlock.write_lockspace(
            daemon.name(lockspace), path, align=align, sector=sector
        )
    except (sanlock.SanlockException, ValueError) as e:
        raise _failure(e, lockspace, path) from e


def _failure(e: Any, resource: str, path: str) -> errors.Error:
    # ENOENT may mean the daemon's socket or the file: the file is there for
    # us, or it is the file.
    if getattr(e, "errno", None) in daemon.NO_DAEMON and os.path.exists(path):
        return daemon.unreachable(e)
    return errors.LeaseFailed(
        resource=resource, path=path, reason=daemon.explain(e)
    )
