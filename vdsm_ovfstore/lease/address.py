# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Where a sanlock lease lies."""

from __future__ import annotations

from typing import NamedTuple

# A domain's own lease: VDSM's sd.py, SDM_LEASE_NAME and SDM_LEASE_SLOT.
SDM_LEASE_NAME = "SDM"
SDM_LEASE_SLOT = 1


class LeaseAddress(NamedTuple):
    """
    One sanlock resource: what its name is, and where its disk area begins.

    Sorting addresses gives the order in which leases are taken.
    """

    lockspace: str
    """Name of the lockspace: the id of the storage domain."""

    resource: str
    """Name of the resource: a volume id, or `SDM` for the domain itself."""

    path: str
    """Absolute path of the file or device; sanlock opens it itself."""

    offset: int
    """Byte offset of the lease in `path`, a multiple of the alignment."""
