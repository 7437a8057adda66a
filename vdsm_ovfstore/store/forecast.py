# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What the next upload will let go of the history."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from vdsm_ovfstore.format.seal import Entry, Identity
from vdsm_ovfstore.store import retention, space
from vdsm_ovfstore.store.copy import Copy

# The best first.
STAYS, EXPIRED, CROWDED = FATES = ("stays", "expired", "crowded")


class Forecast(NamedTuple):
    """
    Of one copy: all its generations, those for which the settings do not ask
    any more, and those for which there is no room beside what comes.
    """

    all: frozenset[Identity]
    expired: frozenset[Identity]
    crowded: frozenset[Identity]

    def knows(self, identity: Identity) -> bool:
        return identity in self.all

    def fate(self, identity: Identity) -> str:
        if identity in self.expired:
            return EXPIRED
        return CROWDED if identity in self.crowded else STAYS


def forecast(copy: Copy, settings: retention.Settings) -> Forecast:
    """
    Of one copy, for an archive that takes as much as the newest; as Room
    decides it (room.py), but for what must be moved. Nothing for a copy
    without a log.
    """
    entries = copy.entries()
    newest = next(iter(retention.by_age(entries)), None)
    if newest is None:
        return Forecast(frozenset(), frozenset(), frozenset())
    gone = retention.expired(entries, settings)
    plan = space.plan(entries, copy.segment_room(), newest.stored, True, gone)
    if plan is not None:
        crowded = plan.evict - gone
    else:  # what is left must be moved as well
        crowded = frozenset(
            retention.victims([e for e in entries if e not in gone])
        )
    return Forecast(
        _identities(entries), _identities(gone), _identities(crowded)
    )


def _identities(entries: Iterable[Entry]) -> frozenset[Identity]:
    return frozenset(e.identity for e in entries if e.shown)
