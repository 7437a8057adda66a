# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The storage domains that a host serves, as the service asks for them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Optional, Protocol

from vdsm_ovfstore.api.task import Task


class Domains(Protocol):
    """
    What it says of them comes from memory, and does not wait for storage.

    The standalone host looks for domains in configured places; inside VDSM
    it is VDSM that knows them, and that makes volumes.
    """

    def path(self, domain: str, write: bool = False) -> str:
        """
        The directory of a domain.

        Raises:
            errors.DomainNotServed: no such domain here.
            errors.HostBusy: it is to be written, and this host is joining
                its lockspace.
            errors.LockspaceMissing: the same, and nobody joins it.
            errors.NotSpm: the same, and only another host may write.
        """

    def writing(
        self, domain: str, timeout: float, task: Task
    ) -> AbstractContextManager[None]:
        """
        What must be held on this host, besides leases, while a worker of
        the task writes to the domain. May wait, timeout seconds at most.

        Raises errors.LeaseBusy, NotSpm.
        """

    def make_volumes(
        self, domain: str, copies: int, size: int, timeout: float, task: Task
    ) -> Optional[list[str]]:
        """
        Make volumes until the store has so many copies of size bytes.

        Called before writing(), may wait. Returns the new ones, which are no
        members yet; None if a worker is to make them. Raises errors.Error.
        """

    def check_pool(self, domain: str, pool: str) -> None:
        """
        Raises:
            errors.DomainNotServed: no such domain here.
            errors.PoolMismatch: the domain's metadata names another pool.
        """

    def problems(self) -> list[str]:
        """What could not be looked at, in words; for the status."""

    def list(self) -> list[dict[str, Any]]:
        """What the verb `list` answers as "domains", sorted by path."""
