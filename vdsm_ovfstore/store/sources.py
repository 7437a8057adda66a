# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Where the content of a generation can be had, and whether it is sound."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import seal as fmt
from vdsm_ovfstore.format.seal import Entry, Head, Identity
from vdsm_ovfstore.store import retention
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.prepare import Prepared
from vdsm_ovfstore.store.salvage import Holder, salvage
from vdsm_ovfstore.store.stored import StoredSegment

log = logging.getLogger("ovfstore.store")


class Sources:
    """
    The segments of all copies, members or not, and of logs set aside.

    What was verified is not read again: nobody else writes to the logs while
    the leases are held.
    """

    def __init__(self, copies: Sequence[Holder]) -> None:
        self._copies = copies
        self._sound: set[tuple[str, Entry]] = set()

    def is_sound(self, copy: Holder, entry: Entry) -> bool:
        """
        True when every byte of that segment is right.

        Raises errors.StorageFailed.
        """
        if (copy.id, entry) in self._sound:
            return True
        try:
            copy.segment(entry).verify()
        except errors.Damaged as e:
            log.warning("DAMAGED volume=%s %s", copy.id, e)
            return False
        self.add_sound(copy, entry)
        return True

    def add_sound(self, copy: Holder, entry: Entry) -> None:
        """The segment was just written and read back."""
        self._sound.add((copy.id, entry))

    def is_complete(self, copy: Copy, mine: Entry) -> bool:
        """
        True when the head shows that generation, sealed, its segment sound,
        under the description that stock readers want.
        """
        seal = copy.seal
        if seal is None or seal.head is None or seal.replacing:
            return False
        if seal.head.identity != mine.identity:
            return False
        if not self.is_sound(copy, mine):
            return False
        _, described = copy.description()
        if described is None or not described.updated:
            return False
        return described.size == mine.length and copy.shows(seal.head)

    def find(self, identity: Identity) -> Optional[StoredSegment]:
        """A sound segment of that generation, on any copy."""
        return self._first_sound(
            (c, e)
            for c in self._copies
            for e in c.entries()
            if e.shown and e.identity == identity
        )

    def find_head(self, head: Head) -> Optional[StoredSegment]:
        """A sound segment with the content of a head, a suspect's too."""
        return self.find(head.identity) or self._first_sound(
            (c, e)
            for c in self._copies
            for e in c.entries()
            if e.sha256 == head.sha256
        )

    def salvage(self, entry: Entry) -> Optional[Prepared]:
        """See salvage.py; the caller closes it."""
        return salvage(self._copies, entry)

    def newest(self, copies: Iterable[Holder]) -> Optional[Entry]:
        """The newest generation named on copies that can really be had."""
        found: dict[Identity, Entry] = {}
        for copy in copies:
            for entry in copy.entries():
                if entry.shown:
                    found.setdefault(entry.identity, entry)
        for entry in retention.by_age(found.values()):
            if self.find(entry.identity) is not None:
                return entry
        return None

    def kind_of(self, identity: Identity) -> str:
        """Proven as soon as one copy says so."""
        for copy in self._copies:
            entry = copy.find(identity)
            if entry is not None and entry.kind == fmt.GENERATION:
                return fmt.GENERATION
        return fmt.UNPROVEN

    def entries(self) -> list[Entry]:
        """All segments that are named, or were found."""
        return [e for c in self._copies for e in c.entries()]

    def highest_number(self) -> int:
        return max((e.generation for e in self.entries()), default=0)

    def _first_sound(
        self, places: Iterable[tuple[Holder, Entry]]
    ) -> Optional[StoredSegment]:
        for copy, entry in places:
            try:
                if self.is_sound(copy, entry):
                    return copy.segment(entry)
            except errors.Error as e:
                log.warning("UNREADABLE volume=%s %s", copy.id, e)
        return None
