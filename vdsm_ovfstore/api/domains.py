# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The storage domains that a host serves, as the service asks for them."""

from __future__ import annotations

from typing import Any, Protocol


class Domains(Protocol):
    """
    Answers from memory: none of this may wait for storage.

    The standalone host looks for domains in configured places; inside VDSM
    it is VDSM that knows them.
    """

    def path(self, domain: str, write: bool = False) -> str:
        """
        The directory of a domain.

        Raises:
            errors.DomainNotServed: no such domain here.
            errors.HostBusy: it is to be written, and this host is joining
                its lockspace.
            errors.LockspaceMissing: the same, and nobody joins it.
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
