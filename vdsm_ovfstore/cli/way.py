# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Through which host a command goes.

    --host ADDRESS, OVFSTORE_HOST   that one and no other
    none of them                    the one that listens on this machine and
                                    serves the domain; else nobody
    --direct, --host none           nobody: this process reads the storage
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple, Optional

from vdsm_ovfstore import errors

# Of the plugin in vdsmd, and of ovfstored, unless they are configured.
SOCKETS = ("/run/vdsm-ovfstore/socket", "/run/ovfstored/socket")

_VARIABLE = "OVFSTORE_HOST"
_NOBODY = "none"


class Host(NamedTuple):
    """is_named: somebody wants this host, and not just any way that works."""

    address: str
    is_named: bool


def chosen(args: Any) -> Optional[Host]:
    """
    The host to go through, if it serves the domain.

    Raises errors.UsageError.
    """
    if args.direct and args.host not in (None, _NOBODY):
        raise errors.UsageError(
            reason=f"{args.verb}: give either --host or --direct"
        )
    if wants_nobody(args):
        return None
    named = args.host or os.environ.get(_VARIABLE)
    if named:
        return Host(named, True)
    # How the storage is read is said for this process.
    if args.allow_buffered_io:
        return None
    for socket in SOCKETS:
        if os.path.exists(socket):
            return Host(socket, False)
    return None


def refuse_named(args: Any, option: str) -> None:
    """
    For what no host does: it must not be asked for one.

    Raises errors.UsageError.
    """
    host = chosen(args)
    if host is not None and host.is_named:
        raise errors.UsageError(
            reason=f"{args.verb}: {option} looks at the domain itself; leave "
            "out the host, or add --direct"
        )


def wants_nobody(args: Any) -> bool:
    """Somebody wants to go through no host."""
    named = args.host or os.environ.get(_VARIABLE)
    return bool(args.direct or named == _NOBODY)
