# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Joining and leaving a lockspace: what a host does once for all its processes.

On a host with VDSM that is VDSM's business. A lockspace belongs to the
sanlock daemon, not to the process that asked for it: it outlives both the
process and its death.
"""

from __future__ import annotations

import errno
import logging
from typing import NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.lease import daemon

log = logging.getLogger("ovfstore.lease")


class Lockspace(NamedTuple):
    """
    A lockspace that this host has joined, or is joining.

    moving: it is being joined or left at this moment.
    """

    name: str
    host_id: int
    path: str
    offset: int
    moving: bool


def lockspaces() -> dict[str, Lockspace]:
    """
    The lockspaces of this host by name, whoever joined them.

    Raises errors.SanlockUnavailable.
    """
    sanlock = daemon.binding()
    try:
        found = sanlock.get_lockspaces()
    except sanlock.SanlockException as e:
        raise daemon.unreachable(e) from e
    # A name may be any bytes; those of domains are ids.
    names = (ls["lockspace"].decode("ascii", "replace") for ls in found)
    return {
        name: Lockspace(
            name, ls["host_id"], ls["path"], ls["offset"], bool(ls["flags"])
        )
        for name, ls in zip(names, found)
    }


def generation(lockspace: Lockspace) -> Optional[int]:
    """
    How often this host's number was used there, which tells one join from
    the next. None while sanlock does not know yet: for some seconds after
    the join.

    Raises errors.SanlockUnavailable.
    """
    sanlock = daemon.binding()
    name = daemon.name(lockspace.name)
    try:
        hosts = sanlock.get_hosts(name, lockspace.host_id)
    except sanlock.SanlockException as e:
        # ENOENT: left since. Without a daemon there are other numbers.
        if e.errno in (errno.EAGAIN, errno.ENOENT):
            return None
        raise daemon.unreachable(e) from e
    known: int = hosts[0]["generation"] if hosts else 0
    return known or None


def join(name: str, host_id: int, ids_path: str, io_timeout: int) -> bool:
    """
    Join the lockspace of a domain; takes 20 to 140 s with sanlock's defaults.

    Arguments:
        name: the domain's id
        host_id: this host's number there, 1 to 2000
        ids_path: `<domain>/dom_md/ids`
        io_timeout: seconds, 0 for sanlock's default

    Returns:
        False when somebody else on this host joined it meanwhile, or does.

    Raises:
        errors.LockspaceMissing: sanlock refuses; says why
        errors.SanlockUnavailable: no binding, no daemon, or no permission
    """
    sanlock = daemon.binding()
    log.info("joining lockspace=%s host_id=%d", name, host_id)
    try:
        sanlock.add_lockspace(
            daemon.name(name), host_id, ids_path, iotimeout=io_timeout
        )
    except sanlock.SanlockException as e:
        if e.errno in (errno.EEXIST, errno.EINPROGRESS):
            return False
        if e.errno in (errno.ECONNREFUSED, errno.EPIPE):
            raise daemon.unreachable(e) from e
        reason = f"cannot join as host {host_id}: {daemon.explain(e)}"
        raise errors.LockspaceMissing(domain=name, reason=reason) from e
    except ValueError as e:  # such as a path that the binding cannot send
        raise errors.LockspaceMissing(domain=name, reason=str(e)) from e
    return True


def leave(lockspace: Lockspace) -> None:
    """
    Leave a lockspace, unless a process holds a lease in it.

    A join that has not come to its end is called off. One that was left
    already is no error.

    Raises:
        errors.LeaseFailed: it is in use, or sanlock refuses; says why
        errors.SanlockUnavailable: no binding, no daemon, or no permission
    """
    sanlock = daemon.binding()
    try:
        # Not without `unused`: sanlock would kill who holds a lease.
        sanlock.rem_lockspace(
            daemon.name(lockspace.name),
            lockspace.host_id,
            lockspace.path,
            lockspace.offset,
            unused=True,
        )
    except sanlock.SanlockException as e:
        if e.errno == errno.ENOENT:
            return
        busy = e.errno == errno.EBUSY
        raise errors.LeaseFailed(
            resource=lockspace.name,
            path=lockspace.path,
            reason="a process holds it" if busy else daemon.explain(e),
        ) from e
