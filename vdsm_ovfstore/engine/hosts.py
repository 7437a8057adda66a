# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The hosts: a client of each, and which domains each of them serves.

A host tells that in a thread of its own, so that one that hangs delays only
what nobody else serves.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.client import Client

log = logging.getLogger("ovfstore.updater")

# VDSM's codes for a host that is not the SPM (another one is, and writes),
# and for one that has just started.
_NOT_NOW = (654, 99)

_LOOK = 90.0  # seconds, [limits] read_timeout of a host and more

# The oldest version of a data domain that is written. ISO and export domains
# have 0.
_OLDEST = 4

# What another host may do better. All else is about the store, and would
# fail there as well.
_OF_THE_HOST = (
    errors.HostUnreachable,
    errors.HostBusy,
    errors.DomainNotServed,
    errors.DomainNotFound,
    errors.LockspaceMissing,
    errors.SanlockUnavailable,
    errors.SpoolFull,
    errors.StorageReadOnly,
    errors.WorkerFailed,
    errors.DirectIOUnsupported,
)


def is_of_the_host(error: errors.Error) -> bool:
    """Whether it is worth asking the next host."""
    return isinstance(error, _OF_THE_HOST) or error.code in _NOT_NOW


class Access(NamedTuple):
    """Files, "" for none, and the seconds that a host may be silent."""

    ca: str
    cert: str
    key: str
    timeout: float


class Host:
    """
    One host.

    Attributes:
        address: As it was configured.
        client: Of it; its methods may be called by several threads.
        serves: What it serves, and is ready to write, when it was last
            asked; None before the first answer.
        reasons: Why it is not ready to write others that it serves.
        unfit: Those that nobody writes: ISO and export domains, and data
            domains that are too old; with the reason.
        error: Why it has not answered, when it has not.
        is_asked: It is being asked now.
    """

    def __init__(self, address: str, access: Access) -> None:
        self.address = address
        files = (access.ca or None, access.cert or None, access.key or None)
        timeout = access.timeout
        # A look at a store may take a host a minute, and is waited for.
        total = max(timeout, _LOOK)
        self.client = Client(address, *files, timeout=timeout, total=total)
        # What it serves it knows by heart.
        self._quick = Client(address, *files, timeout=timeout, total=timeout)
        self.serves: Optional[frozenset[str]] = None
        self.reasons: dict[str, str] = {}
        self.unfit: dict[str, str] = {}
        self.error: Optional[errors.Error] = None
        self.is_asked = False

    def ask(self) -> None:
        """
        Which domains does it serve?

        Without an answer, what it said before still holds: an update will
        tell.
        """
        try:
            self._ask()
            self.error = None
        except errors.Error as e:
            log.warning("SILENT host=%s error=%s", self.address, e)
            self.error = e

    def _ask(self) -> None:
        ready, reasons, unfit = set(), {}, {}
        for domain in self._quick.list_domains():
            ident, version = domain["domain"], domain["domain_version"]
            if version < _OLDEST:
                unfit[ident] = f"it has version {version}, and is only read"
            elif domain["state"] == "ready":
                ready.add(ident)
            else:
                reasons[ident] = domain["problem"] or str(domain["state"])
        self.reasons, self.unfit = reasons, unfit
        self.serves = frozenset(ready)

    def close(self) -> None:
        self.client.close()
        self._quick.close()


class Hosts:
    """All of them, the preferred ones first."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._hosts: dict[str, Host] = {}

    def set_addresses(self, addresses: Sequence[str]) -> None:
        """
        These are the hosts from now on, in this order.

        Raises errors.UsageError for an address that is none.
        """
        known = self._hosts
        self._hosts = {
            address: known.get(address) or Host(address, self._access)
            for address in addresses
        }

    def all(self) -> list[Host]:
        return list(self._hosts.values())

    def serving(self, domain: str, last: str) -> list[Host]:
        """Those that can be asked about a domain; `last` did it before."""
        found = [h for h in self.all() if h.serves and domain in h.serves]
        return sorted(found, key=lambda host: host.address != last)

    def seen(self) -> tuple[list[str], bool]:
        """The domains that hosts tell of, and whether all hosts have told."""
        told = [h for h in self.all() if h.serves is not None]
        found = {d for h in told for d in (*(h.serves or ()), *h.reasons)}
        complete = len(told) == len(self.all()) and not any(
            h.error for h in told
        )
        return sorted(found), complete

    def why_not(self, domain: str) -> str:
        """Why nobody serves a domain, in words."""
        reasons = []
        for host in self.all():
            if host.error is not None:
                reasons.append(str(host.error))
                continue
            why = host.reasons.get(domain) or host.unfit.get(domain)
            if why:
                reasons.append(f"{host.address}: {why}")
        if not reasons:
            addresses = ", ".join(h.address for h in self.all())
            reasons = [f"none of {addresses or 'no hosts at all'} does"]
        return "; ".join(reasons)

    def close(self) -> None:
        for host in self.all():
            host.close()
