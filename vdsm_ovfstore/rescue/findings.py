# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What a scan found, and where.

A seal or a segment's header is in here only if its own digest is right. The
rest is what looks like something: nothing of it is believed yet. All of it is
bounded, since whoever filled a disk may have filled it with this.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from typing import NamedTuple, Optional

from vdsm_ovfstore.format import segment
from vdsm_ovfstore.format.seal import GENERATION, SUSPECT, Seal
from vdsm_ovfstore.format.segment import Header

# Heads of 10,000 VMs, thirty of them; 30 bytes of memory each.
MAX_MEMBERS = 300_000
# Frames of 1 MiB of 200 generations of 128 MiB, on two copies.
MAX_FRAMES = 50_000
MAX_KEYS = 20_000
MAX_SEGMENTS = 64  # of one generation: copies, and where they were before
MAX_LOOSE = 50_000

# What a tar header announces. Only ENTITY has an id.
ENTITY, INFO, OTHER = 0, 1, 2
_NO_ID = bytes(16)


class Key(NamedTuple):
    """A generation: its domain, number (0: a suspect) and digest."""

    domain: str
    number: int
    sha256: str


class Known(NamedTuple):
    """
    What a sound record says of a generation.

    length is that of the archive in bytes, time in Unix seconds, kind as in
    a seal.
    """

    length: int
    time: int
    entities: int
    kind: str


class Place(NamedTuple):
    """source counts from 0, in the order in which they were given."""

    source: int
    offset: int


class FoundFrame(NamedTuple):
    """What the head of a frame says, and where it lies."""

    place: Place
    offset: int
    length: int
    zlib_length: int


class FoundMember(NamedTuple):
    """A tar header: of an OVF (entity is its id), or of another member."""

    place: Place
    kind: int
    entity: str
    size: int


class Members:
    """Tar headers in the order in which they lie, a few bytes for each."""

    def __init__(self) -> None:
        self._sources = array("H")
        self._offsets = array("Q")
        self._sizes = array("I")
        self._kinds = array("B")
        self._ids = bytearray()

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, number: int) -> FoundMember:
        raw = self._ids[16 * number : 16 * number + 16].hex()
        kind = self._kinds[number]
        entity = ""
        if kind == ENTITY:
            entity = "-".join(
                (raw[:8], raw[8:12], raw[12:16], raw[16:20], raw[20:])
            )
        place = Place(self._sources[number], self._offsets[number])
        return FoundMember(place, kind, entity, self._sizes[number])

    def add(self, member: FoundMember) -> None:
        self._sources.append(member.place.source)
        self._offsets.append(member.place.offset)
        self._sizes.append(member.size)
        self._kinds.append(member.kind)
        self._ids += bytes.fromhex(member.entity.replace("-", "")) or _NO_ID

    def by_entity(self) -> dict[str, list[int]]:
        """The numbers of the members of each OVF."""
        found: dict[str, list[int]] = {}
        for number in range(len(self)):
            if self._kinds[number] == ENTITY:
                found.setdefault(self[number].entity, []).append(number)
        return found


class Findings:
    """What was found in all sources."""

    def __init__(self) -> None:
        self.seals = 0
        self.known: dict[Key, Known] = {}
        self.headers: dict[Key, list[tuple[Place, Header]]] = {}
        self.frames: dict[Key, list[FoundFrame]] = {}
        self.members = Members()
        self.loose: list[Place] = []
        self.newer_formats = 0
        """Sound records of a format version that this code does not know."""
        self.left_out = 0
        """What was found beyond the bounds."""
        self._frames = 0
        self._sealed: set[Key] = set()

    def add_seal(self, seal: Seal) -> None:
        self.seals += 1
        for e in seal.entries:
            kind = SUSPECT if e.generation == 0 else e.kind
            self._learn(
                Key(seal.domain, e.generation, e.sha256),
                Known(e.length, e.time, e.entities, kind),
                sealed=True,
            )

    def add_header(self, place: Place, header: Header) -> None:
        key = Key(header.domain, header.generation, header.sha256)
        kind = SUSPECT if header.generation == 0 else GENERATION
        known = Known(header.length, header.time, header.entities, kind)
        if not self._learn(key, known):
            return
        places = self.headers.setdefault(key, [])
        if len(places) == MAX_SEGMENTS:
            self.left_out += 1
            return
        places.append((place, header))

    def add_frame(self, key: Key, frame: FoundFrame) -> None:
        if self._frames == MAX_FRAMES:
            self.left_out += 1
            return
        self._frames += 1
        self.frames.setdefault(key, []).append(frame)

    def add_member(self, member: FoundMember) -> None:
        if len(self.members) == MAX_MEMBERS:
            self.left_out += 1
            return
        self.members.add(member)

    def add_loose(self, place: Place) -> None:
        if len(self.loose) == MAX_LOOSE:
            self.left_out += 1
            return
        self.loose.append(place)

    def settle(self) -> None:
        """
        Put frames to the generation that a sound record knows.

        The head of a frame is not believed alone: of a flipped bit in it,
        only the archive's digest may be left.
        """
        by_digest = {key.sha256: key for key in self.known}
        for key in list(self.frames):
            better = by_digest.get(key.sha256)
            if key not in self.known and better is not None:
                self.frames.setdefault(better, []).extend(self.frames.pop(key))

    def generations(self) -> Iterator[Key]:
        """All generations, the newest of each domain first."""
        every = {*self.known, *self.frames}
        yield from sorted(every, key=self._age, reverse=True)

    def newest(self) -> dict[str, Key]:
        """The newest generation of each domain; suspects are none."""
        found: dict[str, Key] = {}
        for key in self.generations():
            if key.number and key in self.known:
                found.setdefault(key.domain, key)
        return found

    def _age(self, key: Key) -> tuple[str, int, int, str]:
        known = self.known.get(key)
        return key.domain, key.number, known.time if known else 0, key.sha256

    def _learn(self, key: Key, known: Known, sealed: bool = False) -> bool:
        before = self.known.get(key)
        if before is None and len(self.known) == MAX_KEYS:
            self.left_out += 1
            return False
        if before is None or (sealed and self._knows_more(key, known)):
            self.known[key] = known
        if sealed:
            self._sealed.add(key)
        return True

    def _knows_more(self, key: Key, known: Known) -> bool:
        """A seal more than a segment; of seals the one that it is proven."""
        return key not in self._sealed or known.kind == GENERATION


def frame_limit(frame: FoundFrame) -> Optional[int]:
    """Bytes that a frame takes, or None when no frame is like that."""
    if not 0 < frame.length <= segment.FRAME_TAR:
        return None
    stored = segment.FRAME_HEAD + frame.zlib_length
    return stored if stored <= segment.MAX_FRAME_STORED else None
