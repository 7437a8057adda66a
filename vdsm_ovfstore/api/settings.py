# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What a service may take of its host."""

from __future__ import annotations

import dataclasses
import logging
from typing import Optional

from vdsm_ovfstore.store import guard, retention
from vdsm_ovfstore.store.launch import DEADLINE
from vdsm_ovfstore.store.process import Process


@dataclasses.dataclass(frozen=True)
class Settings:
    """
    Limits of one service. Sizes are in bytes, times in seconds.

    A time-out of a verb that waits for leases is the caller's own parameter.
    """

    # Uploads and downloads that are under way or still to come. The engine
    # updates one domain after the other; ten domains at once are many.
    transfers: int = 16

    # From the verb that gives a transfer to its first byte.
    transfer_expires: float = 300

    # Spool files of all transfers, on the host's own disk: an upload takes
    # twice its length (the tar, and at worst as much again compressed), a
    # download once. 16 uploads for stores of the default 128 MiB.
    spool_bytes: int = 4 * 1024**3
    spool: str = "/var/tmp"

    # Processes of each kind (reading verbs; checking uploads; verifying and
    # downloads) at the same time. Each takes up to 40 MiB and a processor.
    readers: int = 4

    # Keep four processes ready, which saves an update 0.2 s. Each holds 12
    # MiB of its own.
    spares: bool = True

    # A reading verb in all, the wait for its process included. The engine
    # waits 180 s for a verb (vdsTimeout).
    read_timeout: float = 60

    # Checking every byte of a store, or reading a generation for a download:
    # 16 generations of 128 MiB on two copies, at 10 MB/s.
    scan_timeout: float = 600

    # Jobs that run or wait. Jobs and transfers that have ended are
    # remembered so long, and no more than so many of each: a result has up
    # to 100 KiB.
    jobs: int = 16
    remember: float = 3600
    remembered: int = 100

    # Per cent of the VMs and templates that an upload may lack before it is
    # asked whether that is meant, and what of the history is kept.
    guard_drop: int = guard.DROP
    history: retention.Settings = retention.Settings()

    # The longest that a worker may take after it has the leases.
    deadline: float = DEADLINE

    # For development, on file systems without direct I/O.
    buffered: bool = False

    # Of the workers and errands, and where they write it: a descriptor; None
    # is our stderr.
    log_level: int = logging.WARNING
    log_fd: Optional[int] = None

    # They are no more urgent than this, however urgent we are; see nice(2).
    niceness: int = -20

    def process(self, module: str) -> Process:
        """Start one of them. Raises errors.WorkerFailed."""
        return Process(module, self.log_fd, self.niceness)
