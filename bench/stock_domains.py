# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Domains of two volumes: with flock, and with the leases of a sanlock."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from bench.run import say
from scripts.processes import locked, sanlock_command, sanlock_daemon
from vdsm_ovfstore.storage.filedomain import FileDomain, create_domain

_CAPACITY = 128 * 1024**2


def local(directory: str) -> FileDomain:
    domain = create_domain(directory, "LOCALFS")
    for _ in range(2):
        domain.create_volume(_CAPACITY)
    return domain


def leased(directory: str) -> FileDomain:
    """A POSIX-FS domain, whose lockspace the sanlock that runs has joined."""
    from vdsm_ovfstore.lease import lockspace
    from vdsm_ovfstore.lease.format import format_lease, format_lockspace

    how: Any = {
        "format_lockspace": format_lockspace,
        "format_lease": format_lease,
    }
    domain = create_domain(directory, "POSIXFS", **how)
    for _ in range(2):
        domain.create_volume(_CAPACITY, format_lease)
    ids = os.path.join(domain.path, "dom_md", "ids")
    say("joining the lockspace, which takes 20 s")
    lockspace.join(domain.id, 1, ids, 0)
    return domain


@contextlib.contextmanager
def sanlock(directory: str) -> Iterator[None]:
    """One of our own runs."""
    program = sanlock_command()
    assert program is not None
    with locked(directory) as lock, sanlock_daemon(program, directory, lock):
        yield
