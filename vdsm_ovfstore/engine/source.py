# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Where the VMs come from: the one interface that a source has.

A source lists all that it has, each time; what has changed since is found by
comparing. Hand-placed notes of what has changed miss cases, a comparison
does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional, Protocol

# Of the engine's VMStatus, as metadata.json has them.
DOWN = 0
IMAGE_LOCKED = 15

# Begins the reason why an OVF cannot be read that a source never has.
NOT_GIVEN = "the source gives no OVF of it"


class Item(NamedTuple):
    """
    A VM or template, as a listing has it.

    Attributes:
        id: A UUID in lower case.
        version: Another one whenever the OVF may be another one; "" where
            that is not known.
        status: The engine's VMStatus.
        locked: Why it cannot be taken now, in words; "" if it can.
        data: Its OVF, where the listing has it.
        pool: Its data center, where that is known. What belongs everywhere
            belongs to all data domains of it.
    """

    id: str
    version: str
    status: int = DOWN
    locked: str = ""
    data: Optional[bytes] = None
    pool: str = ""


class DataDomain(NamedTuple):
    """
    A data domain of the source; one that is not active has no host.

    pool: its data center, where that is known.
    """

    id: str
    name: str
    active: bool = True
    pool: str = ""


class Source(Protocol):
    """
    All methods may raise errors.SourceFailed.

    Attributes:
        name: For people.
        is_engine: An engine that runs, and updates stores by itself unless
            somebody has told it not to.
    """

    name: str
    is_engine: bool

    def pages(self, count: int) -> Iterator[Sequence[Item]]:
        """All VMs and templates, up to `count` at a time."""
        ...

    def read(self, item: Item) -> bytes:
        """
        The OVF of an item, at most one byte longer than format.ovf.MAX_OVF.

        Raises errors.EntityChanging, and SourceUnreadable for what is wrong
        with this one only.
        """
        ...

    def is_gone(self, entity: str) -> bool:
        """
        Whether one that was not listed is not there.

        A listing of many pages, of what changes meanwhile, may miss one.
        """
        ...

    def domains(self) -> Optional[Sequence[DataDomain]]:
        """Its data domains; None: all that hosts serve."""
        ...

    def hosts(self) -> Sequence[str]:
        """Addresses of hosts, the best ones first; empty: as configured."""
        ...

    def close(self) -> None: ...
