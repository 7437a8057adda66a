# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The way to the local sanlock daemon: its Python binding and its errors.

The binding is imported late: a host with LocalFS domains only has none. Its
client library reads SANLOCK_RUN_DIR at the first call and never again, so one
process speaks with one daemon.
"""

from __future__ import annotations

import errno
import importlib
import os
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.lease.address import LeaseAddress

# sanlock_rv.h: the lease is another host's, or just became another host's.
# In a race of many hosts each of them is seen.
ACQUIRE_IDLIVE = -243
ACQUIRE_OWNED = -244
ACQUIRE_OTHER = -245
ACQUIRE_OWNED_RETRY = -247

# Another process of this host has the lease, is taking it (perhaps it waits
# for the death of another host), or is giving it back (resource.c:
# resources_held, resources_add, resources_rem).
LOCAL = (errno.EEXIST, errno.EBUSY, errno.EAGAIN)
BUSY = LOCAL + (
    ACQUIRE_IDLIVE,
    ACQUIRE_OWNED,
    ACQUIRE_OTHER,
    ACQUIRE_OWNED_RETRY,
)

# sanlock.h: SANLK_NAME_LEN
NAME_LENGTH = 48
MAX_OFFSET = 2**63 - 1

Disk = tuple[str, int]

_UNREACHABLE = {
    errno.ENOENT: "its socket is missing, the daemon does not run",
    errno.ECONNREFUSED: "the daemon does not run",
    errno.EACCES: "no permission on its socket",
    errno.EPERM: "no permission on its socket",
}

NO_DAEMON = tuple(_UNREACHABLE)


def binding() -> Any:
    """
    Return the module `sanlock`.

    Raises:
        SanlockUnavailable: the binding is not installed for this Python
    """
    try:
        return importlib.import_module("sanlock")
    except ImportError as e:
        raise errors.SanlockUnavailable(
            reason=f"its Python binding cannot be imported ({e})"
        ) from e


def register(sanlock: Any) -> int:
    """
    Connect this process with the daemon; return the connection's fd.

    What is acquired through it is held until it is released or the fd is
    closed, also by the end of the process.

    Raises:
        SanlockUnavailable: there is no daemon, or we may not speak with it
    """
    try:
        fd: int = sanlock.register()
    except sanlock.SanlockException as e:
        raise unreachable(e) from e
    # A child that inherits it would keep the leases after our death.
    os.set_inheritable(fd, False)
    return fd


def resource(address: LeaseAddress) -> tuple[bytes, bytes, list[Disk]]:
    """
    Return an address as the binding wants it: lockspace, resource, disks.

    Raises:
        ValueError: what the binding would shorten without a word, and so
            speak of another lease
    """
    lockspace = name(address.lockspace)
    if not 0 <= address.offset <= MAX_OFFSET:
        raise ValueError(f"Invalid offset {address.offset}")
    disks = [(address.path, address.offset)]
    return lockspace, name(address.resource), disks


def name(text: str) -> bytes:
    """
    Return the name of a lockspace or a resource as sanlock stores it.

    Raises:
        ValueError: it does not fit
    """
    data = text.encode("ascii")
    if not 0 < len(data) <= NAME_LENGTH or b"\0" in data:
        raise ValueError(f"Invalid name {text!r}")
    return data


def unreachable(e: Any) -> errors.SanlockUnavailable:
    """The error for a daemon that does not answer."""
    return errors.SanlockUnavailable(
        reason=_UNREACHABLE.get(e.errno, explain(e))
    )


def explain(e: Any) -> str:
    """Say in words what an exception of the binding means."""
    # The binding itself refuses what cannot be sent, such as a long path.
    if isinstance(e, ValueError):
        return str(e)
    # args are (errno, what the binding tried, the daemon's words). Errors of
    # sanlock itself are below -200, those of the system are positive.
    words = str(e.args[-1]) if e.args else ""
    return f"{words or e} ({e.errno})"
