# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Which segments stay, and which go first when room is short."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from vdsm_ovfstore.format.seal import Entry, Identity

# Why a segment is pinned. USER outlives everything; the others are ours and
# give way when an archive needs the room.
USER = "user"
SHRINK = "shrink"  # the next generation dropped many entities
DOUBT = "doubt"  # the next one is older, or of another domain: guard.py
ADOPTED = "adopted"  # the next generation came from a stock host
RETURNED = "returned"  # only this copy has it, and it was away
FORK = "fork"  # another content has the same number

# A fork that its users have no use for: as one that nobody pinned, and nobody
# pins it again.
RELEASED = "released"

# These outlive the settings.
LASTING = (USER, RETURNED, FORK)

# Suspects kept: enough to adopt the latest one when its description arrives,
# and the one before it for the expert.
SUSPECTS = 2


class Settings(NamedTuple):
    """
    How many generations to keep: the newest in full, then one an hour, a
    day, a month. Together below the 128 segments that a seal holds.
    """

    newest: int = 24
    hourly: int = 24
    daily: int = 30
    monthly: int = 12


def pin_of(entry: Entry) -> str:
    """Why it is pinned; "" if it is not."""
    return "" if entry.pinned == RELEASED else entry.pinned


def by_age(entries: Iterable[Entry]) -> list[Entry]:
    """Generations, newest first. Of a fork, the later one is the newer."""
    shown = [e for e in entries if e.shown]
    return sorted(
        shown, key=lambda e: (e.generation, e.time, e.sha256), reverse=True
    )


def protected(entries: Iterable[Entry], newest: int = 2) -> set[Entry]:
    """
    What no shortage may evict: the newest two, and what users pinned.

    newest=1 when an adoption must have room: with what is adopted, there are
    two again.
    """
    entries = list(entries)
    pinned = {e for e in entries if e.pinned == USER}
    return pinned | set(by_age(entries)[:newest])


def expired(entries: Iterable[Entry], settings: Settings) -> set[Entry]:
    """What the settings no longer ask for."""
    entries = list(entries)
    aged = by_age(entries)
    keep = set(aged[: max(2, settings.newest)])
    for pattern, count in (
        ("%Y-%m-%dT%H", settings.hourly),
        ("%Y-%m-%d", settings.daily),
        ("%Y-%m", settings.monthly),
    ):
        periods: dict[str, Entry] = {}
        for entry in aged:  # the newest of each period
            period = time.strftime(pattern, time.gmtime(entry.time))
            periods.setdefault(period, entry)
        keep.update(list(periods.values())[:count])
    keep.update(e for e in entries if e.pinned in LASTING)
    keep.update(_kept_pins(aged))
    suspects = [e for e in entries if not e.shown]
    suspects.sort(key=lambda e: e.time, reverse=True)
    keep.update(suspects[:SUSPECTS])
    return set(entries) - keep


def victims(entries: Iterable[Entry], newest: int = 2) -> list[Entry]:
    """What may be evicted when room is short, the least missed first."""
    entries = list(entries)
    spared = protected(entries, newest)

    pins = {e for e in entries if e.pinned in LASTING}
    pins.update(_kept_pins(by_age(entries)))
    suspects = [e for e in entries if not e.shown]
    latest = max(suspects, key=lambda e: e.time, default=None)

    def loss(entry: Entry) -> tuple[bool, bool, bool, int, int]:
        return (
            entry in pins,
            # Its description may arrive yet.
            entry == latest,
            entry.shown,
            entry.generation,
            entry.time,
        )

    return sorted((e for e in entries if e not in spared), key=loss)


def dropped_many(before: int, dropped: int) -> bool:
    """
    True when so many of the entities are gone that an accident is likely.

    A fifth: an operator who removes VMs does it one by one; a fresh engine
    or a failed listing empties a store at once.
    """
    return dropped > 0 and dropped * 5 >= before


def single_pins(
    entries: Iterable[Entry],
    others: Iterable[Entry],
    newest: Entry,
    was_away: bool,
) -> dict[Identity, str]:
    """
    The pins for what only one copy has, by identity.

    Forks are pinned on whichever copy the other content is; of a copy that
    was away, all that the others do not have.

    Arguments:
        entries: of the copy.
        others: of all other copies.
        newest: the newest generation; the others get it anyway.
        was_away: the copy has just come back.
    """
    theirs = {e.identity for e in others if e.shown}
    numbers = {number for number, _ in theirs}
    pins = {}
    for entry in entries:
        known = entry.identity in theirs or entry.identity == newest.identity
        if not entry.shown or known or entry.pinned in (*LASTING, RELEASED):
            continue
        if entry.generation in numbers:
            pins[entry.identity] = FORK
        elif was_away:
            pins[entry.identity] = RETURNED
    return pins


def _kept_pins(aged: list[Entry]) -> list[Entry]:
    """Of our own pins: the newest, and the one with most entities."""
    pins = [e for e in aged if e.pinned in (SHRINK, DOUBT, ADOPTED)]
    if not pins:
        return []
    return [pins[0], max(pins, key=lambda e: e.entities)]
