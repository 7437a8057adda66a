# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Seals: the records that say which generations exist and which one the head
shows.

They lie in a ring, the last 1 MiB of the log:

    log size - 1 MiB                                           log size
    +---------+---------+---------+---------+-- ... --+---------+
    | slot 0  | slot 1  | slot 2  | slot 3  |         | slot 15 |
    | even    | odd     | even    | odd     |         | odd     |
    +---------+---------+---------+---------+-- ... --+---------+
      64 KiB each, a record (see record.py)

A seal's sequence is (epoch, counter). A tenure of odd epoch writes odd slots
only, one of even epoch even slots only, so that a late write of a fenced
worker cannot hit what its successor wrote. The sound seal of this volume
with the highest sequence is the newest; all others are history of no effect.

Fields of a seal, in this order:

    magic        "OVFSTORE-SEAL"
    version      1
    sequence     [epoch, counter]
    domain, image, volume
    members      [[volume, image, reason for exclusion or ""], ...]
    kind         why it was written: claim, evict, replacing or current
    introduces   [generation, sha256] or null: named in no earlier seal, so
                 readers show it only when a later seal names it too
    head         {generation, length, sha256} or null
    previous     the same of the head that is being replaced, else null
    description  DESCRIPTION of the volume when the seal was written
    segments     [{generation, kind, offset, stored, length, sha256, time,
                 entities, pinned}, ...], at most 128
    host, tool, time
"""

from __future__ import annotations

from typing import Any, NamedTuple, Optional

from vdsm_ovfstore.format import record

MAGIC = "OVFSTORE-SEAL"
SLOT_SIZE = 64 * 1024
SLOTS = 16
RING_SIZE = SLOTS * SLOT_SIZE

# 128 segments of at most 330 bytes of JSON leave room for 16 members.
MAX_SEGMENTS = 128
MAX_MEMBERS = 16

# Characters of a volume's DESCRIPTION; VDSM cuts it at 210.
MAX_DESCRIPTION = 512

# Why a seal was written.
CLAIM = "claim"
EVICT = "evict"
REPLACING = "replacing"
CURRENT = "current"
_KINDS = (CLAIM, EVICT, REPLACING, CURRENT)

# What a segment holds.
GENERATION = "generation"  # committed by us, or seen on two copies
UNPROVEN = "unproven"  # written by a stock host, seen on one copy only
SUSPECT = "suspect"  # a head that nobody vouches for; never shown
_SEGMENT_KINDS = (GENERATION, UNPROVEN, SUSPECT)

Sequence = tuple[int, int]
Identity = tuple[int, str]


class Head(NamedTuple):
    """What a head shows: the first `length` bytes of the volume."""

    generation: int
    length: int
    sha256: str

    @property
    def identity(self) -> Identity:
        return self.generation, self.sha256


# A volume that holds nothing yet: the SHA-256 of no bytes.
EMPTY_HEAD = Head(
    0, 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)


class Member(NamedTuple):
    """A copy that belongs to the store; excluded holds the reason, or ""."""

    volume: str
    image: str
    excluded: str = ""


class Entry(NamedTuple):
    """
    A segment in the log.

    offset and stored (bytes, whole blocks) place it; length and sha256 are
    the archive's; time is when it was committed (Unix seconds); pinned is the
    reason why retention must leave it, or "".
    """

    generation: int
    kind: str
    offset: int
    stored: int
    length: int
    sha256: str
    time: int
    entities: int
    pinned: str = ""

    @property
    def identity(self) -> Identity:
        return self.generation, self.sha256

    @property
    def end(self) -> int:
        return self.offset + self.stored

    @property
    def shown(self) -> bool:
        """A suspect is kept for the expert, but is no generation."""
        return self.kind != SUSPECT


class Seal(NamedTuple):
    sequence: Sequence
    domain: str
    image: str
    volume: str
    members: tuple[Member, ...]
    kind: str
    introduces: Optional[Identity]
    head: Optional[Head]
    previous: Optional[Head]
    description: str
    entries: tuple[Entry, ...]
    host: str
    tool: str
    time: int

    @property
    def replacing(self) -> bool:
        """The head may be the previous one, the new one or a mixture."""
        return self.previous is not None

    def member_ids(self) -> frozenset[str]:
        return frozenset(m.volume for m in self.members)

    def excluded_ids(self) -> frozenset[str]:
        return frozenset(m.volume for m in self.members if m.excluded)

    def generations(self) -> tuple[Entry, ...]:
        """The segments that are generations, suspects left out."""
        return tuple(e for e in self.entries if e.shown)

    def find(self, identity: Identity) -> Optional[Entry]:
        for entry in self.entries:
            if entry.identity == identity and entry.shown:
                return entry
        return None


def pack(seal: Seal) -> bytes:
    """Return the slot's 64 KiB. Raises record.RecordOverflow."""
    if len(seal.entries) > MAX_SEGMENTS or len(seal.members) > MAX_MEMBERS:
        raise record.RecordOverflow("too many segments or members")
    fields = {
        "magic": MAGIC,
        "version": record.VERSION,
        "sequence": list(seal.sequence),
        "domain": seal.domain,
        "image": seal.image,
        "volume": seal.volume,
        "members": [list(m) for m in seal.members],
        "kind": seal.kind,
        "introduces": list(seal.introduces) if seal.introduces else None,
        "head": seal.head._asdict() if seal.head else None,
        "previous": seal.previous._asdict() if seal.previous else None,
        "description": seal.description,
        "segments": [_pack_entry(e) for e in seal.entries],
        "host": seal.host,
        "tool": seal.tool,
        "time": record.isotime(seal.time),
    }
    return record.pack(fields, SLOT_SIZE)


# What a field that is not what it must be leads to.
_NO_SEAL = (
    record.RecordInvalid,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
)


class Sketch:
    """
    A sound slot of which only sequence and identity were looked at.

    A ring holds 16 seals of up to 128 segments, and only the newest counts:
    seal() looks at the rest.
    """

    def __init__(self, fields: dict[str, Any]) -> None:
        self._fields = fields
        self.sequence = _parse_sequence(fields["sequence"])
        self.identity = tuple(
            record.uuid(fields, key) for key in ("domain", "image", "volume")
        )

    def seal(self) -> Optional[Seal]:
        """The seal, or None when a field is not what it must be."""
        try:
            return _parse(self._fields)
        except _NO_SEAL:
            return None


def sketch(data: bytes) -> Optional[Sketch]:
    """
    Return what is in a slot, or None when there is no sound record.

    Raises record.UnknownVersion.
    """
    fields = record.unpack(data, MAGIC)
    if fields is None:
        return None
    try:
        return Sketch(fields)
    except _NO_SEAL:
        return None


def unpack(data: bytes) -> Optional[Seal]:
    """
    Return the seal in a slot, or None when there is no sound one.

    Raises record.UnknownVersion.
    """
    found = sketch(data)
    return found.seal() if found else None


def _parse(fields: dict[str, Any]) -> Seal:
    kind = record.text(fields, "kind")
    if kind not in _KINDS:
        raise record.RecordInvalid("kind")
    segments = record.items(fields, "segments", MAX_SEGMENTS)
    members = record.items(fields, "members", MAX_MEMBERS)
    return Seal(
        sequence=_parse_sequence(fields["sequence"]),
        domain=record.uuid(fields, "domain"),
        image=record.uuid(fields, "image"),
        volume=record.uuid(fields, "volume"),
        members=tuple(_parse_member(*m) for m in members),
        kind=kind,
        introduces=_parse_identity(fields["introduces"]),
        head=_parse_head(fields["head"]),
        previous=_parse_head(fields["previous"]),
        description=record.text(fields, "description", MAX_DESCRIPTION),
        entries=tuple(_parse_entry(e) for e in segments),
        host=record.text(fields, "host"),
        tool=record.text(fields, "tool"),
        time=record.timestamp(fields, "time"),
    )


def _parse_sequence(value: Any) -> Sequence:
    epoch, counter = value
    fields = {"epoch": epoch, "counter": counter}
    return record.number(fields, "epoch"), record.number(fields, "counter")


def _parse_member(volume: str, image: str, excluded: str) -> Member:
    fields = {"volume": volume, "image": image, "excluded": excluded}
    return Member(
        record.uuid(fields, "volume"),
        record.uuid(fields, "image"),
        record.text(fields, "excluded"),
    )


def _parse_identity(value: Any) -> Optional[Identity]:
    if value is None:
        return None
    generation, sha256 = value
    fields = {"generation": generation, "sha256": sha256}
    return record.number(fields, "generation"), record.sha256(fields, "sha256")


def _parse_head(fields: Any) -> Optional[Head]:
    if fields is None:
        return None
    return Head(
        record.number(fields, "generation"),
        record.number(fields, "length"),
        record.sha256(fields, "sha256"),
    )


def _pack_entry(entry: Entry) -> dict[str, Any]:
    fields = entry._asdict()
    fields["time"] = record.isotime(entry.time)
    return fields


def _parse_entry(fields: Any) -> Entry:
    kind = record.text(fields, "kind")
    if kind not in _SEGMENT_KINDS:
        raise record.RecordInvalid("kind")
    return Entry(
        generation=record.number(fields, "generation"),
        kind=kind,
        offset=record.number(fields, "offset", multiple=record.BLOCK),
        stored=record.number(fields, "stored", multiple=record.BLOCK),
        length=record.number(fields, "length"),
        sha256=record.sha256(fields, "sha256"),
        time=record.timestamp(fields, "time"),
        entities=record.number(fields, "entities"),
        pinned=record.text(fields, "pinned", 64),
    )
