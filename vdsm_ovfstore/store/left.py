# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Logs that no copy uses any more: what they hold, and when they may go.

A log outlives its volume, for the engine deletes OVF_STORE disks that nobody
meant to lose. After a month one is removed, by who holds the store's lock and
was asked to; but never one that has a VM which no generation of the store
has, nor one of which a part cannot be read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import record, seal
from vdsm_ovfstore.format.member import ENTITIES
from vdsm_ovfstore.format.seal import (
    RING_SIZE,
    SLOT_SIZE,
    Entry,
    Identity,
    Seal,
)
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.storage.leftlogs import LeftLog, is_aside, volume_of
from vdsm_ovfstore.store import classify
from vdsm_ovfstore.store.carve import carve
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.salvage import UNUSABLE
from vdsm_ovfstore.store.stored import StoredSegment

log = logging.getLogger("ovfstore.store")

MONTH = 30 * 86400  # seconds

_SHOWN = 10  # names of VMs in one line


class Left(NamedTuple):
    """
    One such log.

    since is Unix seconds, None when it was never noted; generations are the
    numbers of those that are sound; whole is False when it names one that is
    not, or holds bytes that nobody understands; only_here are the names of
    VMs and templates that no generation of the store has.
    """

    name: str
    since: Optional[int]
    generations: list[int]
    whole: bool
    only_here: list[str]

    @property
    def worthless(self) -> bool:
        """Nothing would be lost with it."""
        return self.whole and not self.only_here

    def text(self) -> str:
        """What status and verify say of it."""
        text = title(self.name)
        if self.since is not None:
            text += f", seen {record.isotime(self.since)}"
        if self.generations:
            numbers = ", ".join(map(str, sorted(self.generations)))
            text += f"; it holds generation {numbers}"
        if not self.whole:
            text += "; a part of it cannot be read"
        if self.only_here:
            names = sorted(self.only_here)
            more = len(names) - _SHOWN
            text += "; no generation of the store has " + ", ".join(
                ascii(name)[1:-1] for name in names[:_SHOWN]
            )
            text += f" and {more} more" if more > 0 else ""
        return text


def is_lost(copy: Copy) -> bool:
    """
    True for a log of which nothing tells what it holds: it is to be kept, and
    the copy gets a new one.

    Somebody cut it or made it longer, and its ring is not where it was; or
    all seals are gone. Its segments would look like free space. One alone is
    what a crash leaves in a new store, where the head is empty or an archive.
    Raises errors.StorageFailed.
    """
    if copy.ring is None or copy.seal is not None:
        return False
    size = copy.volume.log_size
    if size <= RING_SIZE or size % record.BLOCK:
        return True
    found = len(carve(copy.volume, copy.volume.domain))
    if found != 1:
        return found > 1
    head = classify.classify(copy, lambda head: None)
    return head.kind == classify.UNSEALED


def title(name: str) -> str:
    """What it is, and no more."""
    volume = volume_of(name)
    if is_aside(name):
        return f"a log of volume {volume} was set aside as {name}"
    return f"the log of volume {volume} is left, the volume is gone"


class Aside:
    """
    A log as a source of generations; what salvage.Holder asks for.

    Only what is sound is in it, whatever its seals named.
    """

    seal: Optional[Seal] = None

    def __init__(self, left: LeftLog, domain: str) -> None:
        self.id = left.name
        self._log = left
        self._domain = domain
        self._entries = tuple(carve(left, domain))

    def entries(self) -> tuple[Entry, ...]:
        return self._entries

    def find(self, identity: Identity) -> Optional[Entry]:
        return next((e for e in self._entries if e.identity == identity), None)

    def segment(self, entry: Entry) -> StoredSegment:
        return StoredSegment(self._log, self._domain, entry)


def examine(
    domain: FileDomain, volumes: set[str], copies: Iterable[Copy]
) -> list[Left]:
    """
    The logs that none of these volumes uses; copies are those of the store.

    Raises errors.StorageFailed.
    """
    copies = list(copies)
    logs = domain.left_logs()
    found = []
    for name in logs.names(volumes):
        since = logs.since(name)
        try:
            with logs.opened(name) as left:
                found.append(_examine(left, since, domain.id, copies))
        except errors.StorageFailed as e:
            log.warning("UNREADABLE name=%s %s", name, e)
            found.append(Left(name, since, [], False, []))
    return found


def _examine(
    left: LeftLog, since: Optional[int], domain: str, copies: list[Copy]
) -> Left:
    aside = Aside(left, domain)
    entries = aside.entries()
    named = _named(left, domain)
    whole = named <= {e.identity for e in entries} and (
        bool(named or entries) or left.is_zero()
    )
    missing = _entities(map(aside.segment, entries))
    for segment in _segments(copies):
        if not missing:
            break
        for entity in _entities([segment]):
            missing.pop(entity, None)
    generations = [e.generation for e in entries]
    return Left(left.name, since, generations, whole, list(missing.values()))


def tend(
    domain: FileDomain,
    volumes: set[str],
    copies: Iterable[Copy],
    collect: bool,
    now: int,
) -> list[str]:
    """
    Note which logs are left; with collect remove those whose time has come.

    Call it with the store's lock held, and only when every volume of the
    domain was seen. Returns what was done, in words.
    Raises errors.StorageFailed.
    """
    logs = domain.left_logs()
    logs.forget(volumes)
    done = []
    for left in examine(domain, volumes, copies):
        log.info("LEFT domain=%s name=%s %s", domain.id, left.name, left)
        if left.since is None or left.since > now:
            logs.note(left.name, now)
        elif collect and now - left.since >= MONTH and left.worthless:
            logs.remove(left.name)
            done.append(f"removed a log that is not used: {left.text()}")
    return done


def _named(left: LeftLog, domain: str) -> set[Identity]:
    """The generations that its newest seal names."""
    size = left.log_size
    if size < RING_SIZE:
        return set()
    ring = left.log_read(size - RING_SIZE, RING_SIZE)
    seals = []
    for at in range(0, RING_SIZE, SLOT_SIZE):
        try:
            one = seal.unpack(ring[at : at + SLOT_SIZE])
        except record.UnknownVersion:
            # Newer than we are: whatever it holds, it is not ours to judge.
            return {(0, "")}
        if one and (one.domain, one.volume) == (domain, volume_of(left.name)):
            seals.append(one)
    newest = max(seals, key=lambda s: s.sequence, default=None)
    return {e.identity for e in newest.entries if e.shown} if newest else set()


def _segments(copies: Iterable[Copy]) -> Iterator[StoredSegment]:
    """One of each generation; where that is damaged, another copy's."""
    for copy in copies:
        for entry in copy.entries():
            if entry.shown:
                yield copy.segment(entry)


def _entities(segments: Iterable[StoredSegment]) -> dict[str, str]:
    """The VMs and templates in these: member name, and what it is called."""
    found: dict[str, str] = {}
    for segment in segments:
        try:
            for entry in segment.index():
                if entry.kind in ENTITIES:
                    found[entry.name] = entry.entity
        except UNUSABLE:
            continue
    return found
