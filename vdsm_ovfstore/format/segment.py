# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Segments: one generation each, compressed, immutable, self-describing.

    0      +--------------------------------------------------+
           | header, a record of 4 KiB (see record.py)        |
    4096   +--------------------------------------------------+
           | frame table, 48 bytes a frame                    |
           |   tar offset      8 bytes, big endian            |
           |   tar length      4                              |
           |   stored length   4, frame head and zlib data    |
           |   SHA-256        32, of frame head and zlib data |
           +--------------------------------------------------+
           | member index, zlib of one JSON array a line:     |
           |   [name, kind, entity, offset, length, sha256,   |
           |    [disk, ...]]                                  |
           +--------------------------------------------------+
           | frame 1: head of 256 bytes, zlib data            |
           +--------------------------------------------------+
           | frame 2 ...                                      |
           +--------------------------------------------------+

Each part is padded with zeros to 4 KiB. A frame holds at most 1 MiB of the
tar and is compressed by itself: a flipped bit costs one frame. The head of a
frame is a line of text,

    OVFSTORE-FRAME 1 <domain> <generation> <archive sha256> <number>
        <tar offset> <tar length> <zlib length>

(one line, ended by a newline and NULs), so that a frame can be found and
placed when nothing else of the segment is left. Table and index are hashed
together with the same identity. So domain, generation and archive stand
inside every checksummed unit, and a misdirected or cloned block is never
taken for ours.

A segment says nothing about the volume it lies on: a generation is the same
bytes on every copy.

Header fields, in this order:

    magic        "OVFSTORE-SEGMENT"
    version      1
    domain
    generation   0 for a suspect
    sha256       of the archive
    length       of the archive
    time         when the segment was made
    entities     VMs and templates
    frames       how many
    table        SHA-256 of the frame table, bound to the identity
    index        {stored, length, sha256}: bytes in the log, bytes of JSON,
                 SHA-256 of the stored bytes, bound to the identity
    stored       bytes of the whole segment
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import record
from vdsm_ovfstore.format.record import BLOCK, align

MAGIC = "OVFSTORE-SEGMENT"
HEADER_SIZE = BLOCK
FRAME_HEAD = 256
FRAME_TAR = 1024 * 1024  # bytes of tar in one frame, at most

# zlib grows data that does not compress by 5 bytes for each 16 KiB and 6 in
# all; this bounds what a reader allocates for one frame.
MAX_FRAME_STORED = FRAME_HEAD + FRAME_TAR + 1024

# A line of the index takes 250 bytes for a VM with two disks; this is room
# for 65,536 members with more disks than anyone has.
MAX_INDEX = 64 * 1024 * 1024

_TABLE_ENTRY = struct.Struct(">QII32s")
TABLE_ENTRY = _TABLE_ENTRY.size

# 128 GiB of tar in frames of 1 MiB: the largest volume is far smaller.
_MAX_FRAMES = 128 * 1024


class SegmentInvalid(errors.Damaged):
    """A part of a segment is not what its header says."""

    def __init__(self, reason: str) -> None:
        super().__init__(what="A segment", reason=reason)


class Frame(NamedTuple):
    """
    One frame: where its tar bytes belong, and where it lies.

    offset and length are in the tar; position is in the segment; stored
    counts frame head and zlib data, without padding.
    """

    offset: int
    length: int
    position: int
    stored: int
    sha256: bytes

    @property
    def end(self) -> int:
        return self.offset + self.length


class Header(NamedTuple):
    domain: str
    generation: int
    sha256: str
    length: int
    time: int
    entities: int
    frames: int
    table_sha256: str
    index_stored: int
    index_length: int
    index_sha256: str
    stored: int

    @property
    def table_size(self) -> int:
        return self.frames * TABLE_ENTRY

    @property
    def index_position(self) -> int:
        return HEADER_SIZE + align(self.table_size)

    @property
    def frames_position(self) -> int:
        return self.index_position + align(self.index_stored)


def bound_sha256(
    part: str, domain: str, generation: int, archive: str, data: bytes
) -> str:
    """SHA-256 of a part together with the identity it belongs to."""
    digest = hashlib.sha256(bound_line(part, domain, generation, archive))
    digest.update(data)
    return digest.hexdigest()


def bound_line(part: str, domain: str, generation: int, archive: str) -> bytes:
    """What is hashed before a part: the identity it belongs to."""
    line = f"OVFSTORE-{part} {domain} {generation} {archive}\n"
    return line.encode("ascii")


def frame_head(
    domain: str,
    generation: int,
    archive: str,
    number: int,
    offset: int,
    length: int,
    zlib_length: int,
) -> bytes:
    """The first 256 bytes of a frame; numbers count from 1."""
    line = (
        f"OVFSTORE-FRAME {record.VERSION} {domain} {generation} {archive} "
        f"{number} {offset} {length} {zlib_length}\n"
    )
    return line.encode("ascii").ljust(FRAME_HEAD, b"\0")


def frame_sha256(data: bytes) -> bytes:
    """The digest of a frame, head and zlib data, as the table holds it."""
    return hashlib.sha256(data).digest()


def pack_header(header: Header) -> bytes:
    fields = {
        "magic": MAGIC,
        "version": record.VERSION,
        "domain": header.domain,
        "generation": header.generation,
        "sha256": header.sha256,
        "length": header.length,
        "time": record.isotime(header.time),
        "entities": header.entities,
        "frames": header.frames,
        "table": header.table_sha256,
        "index": {
            "stored": header.index_stored,
            "length": header.index_length,
            "sha256": header.index_sha256,
        },
        "stored": header.stored,
    }
    return record.pack(fields, HEADER_SIZE)


def unpack_header(data: bytes) -> Optional[Header]:
    """
    Return the header, or None when there is no sound one.

    Raises record.UnknownVersion.
    """
    fields = record.unpack(data, MAGIC)
    if fields is None:
        return None
    try:
        index: dict[str, Any] = fields["index"]
        return Header(
            domain=record.uuid(fields, "domain"),
            generation=record.number(fields, "generation"),
            sha256=record.sha256(fields, "sha256"),
            length=record.number(fields, "length"),
            time=record.timestamp(fields, "time"),
            entities=record.number(fields, "entities"),
            frames=record.number(fields, "frames", limit=_MAX_FRAMES),
            table_sha256=record.sha256(fields, "table"),
            index_stored=record.number(index, "stored", limit=MAX_INDEX),
            index_length=record.number(index, "length", limit=MAX_INDEX),
            index_sha256=record.sha256(index, "sha256"),
            stored=record.number(fields, "stored", multiple=BLOCK),
        )
    except (record.RecordInvalid, AttributeError, TypeError, KeyError):
        return None


def pack_table(frames: list[Frame]) -> bytes:
    return b"".join(
        _TABLE_ENTRY.pack(f.offset, f.length, f.stored, f.sha256)
        for f in frames
    )


def unpack_table(header: Header, data: bytes) -> list[Frame]:
    """
    Return the frames that the table names.

    Raises SegmentInvalid unless the digest is right and the frames make up
    exactly the archive.
    """
    digest = bound_sha256(
        "TABLE", header.domain, header.generation, header.sha256, data
    )
    if digest != header.table_sha256:
        raise SegmentInvalid("frame table does not match its digest")
    frames = []
    offset, position = 0, header.frames_position
    for start, length, stored, sha256 in _TABLE_ENTRY.iter_unpack(data):
        if start != offset or not 0 < length <= FRAME_TAR:
            raise SegmentInvalid("frames do not follow one another")
        if not FRAME_HEAD < stored <= MAX_FRAME_STORED:
            raise SegmentInvalid("frame of impossible size")
        frames.append(Frame(start, length, position, stored, sha256))
        offset += length
        position += align(stored)
    if offset != header.length or position != header.stored:
        raise SegmentInvalid("frames do not make up the archive")
    return frames


# -- the member index ---------------------------------------------------------


# json.dumps() would make one for each of 10,000 lines.
_ENCODER = json.JSONEncoder(separators=(",", ":"))


def index_line(
    name: str,
    kind: str,
    entity: str,
    offset: int,
    length: int,
    sha256: str,
    disks: tuple[str, ...],
) -> bytes:
    line = [name, kind, entity, offset, length, sha256, list(disks)]
    return _ENCODER.encode(line).encode("ascii") + b"\n"


class IndexEntry(NamedTuple):
    """A member of the archive: where its data lies and what it is."""

    name: str
    kind: str
    entity: str
    offset: int
    length: int
    sha256: str
    disks: tuple[str, ...]


# What index_line() makes of an entity; counting 10,000 of them must not cost
# 10,000 JSON documents.
_ENTITY_LINE = re.compile(
    rb'^\["([0-9a-f-]{36})\.ovf","(?:vm|template)",', re.MULTILINE
)


class Index:
    """
    The member index of one generation.

    Keeps the lines as they are and parses what is asked for: finding one VM
    among 10,000 must not cost 10,000 JSON documents.
    """

    def __init__(self, lines: bytes) -> None:
        self._lines = lines

    def __iter__(self) -> Iterator[IndexEntry]:
        """Raises SegmentInvalid."""
        for line in self._lines.splitlines():
            yield _parse_line(line)

    def entities(self) -> frozenset[bytes]:
        """The ids of all VMs and templates."""
        return frozenset(_ENTITY_LINE.findall(self._lines))

    def find(self, name: str) -> Optional[IndexEntry]:
        """The member of that name, or None."""
        # JSON escapes quotes inside strings, so that these bytes can only be
        # the beginning of a line.
        for entry in self._search(b"[%s," % _quoted(name)):
            if entry.name == name:
                return entry
        return None

    def find_entity(self, entity: str) -> list[IndexEntry]:
        """All members whose entity has that name."""
        found = self._search(b",%s," % _quoted(entity))
        return [e for e in found if e.entity == entity]

    def find_disk(self, disk: str) -> list[IndexEntry]:
        """All members that have this image id among their disks."""
        return [e for e in self._search(_quoted(disk)) if disk in e.disks]

    def _search(self, wanted: bytes) -> Iterator[IndexEntry]:
        at = self._lines.find(wanted)
        while at >= 0:
            start = self._lines.rfind(b"\n", 0, at) + 1
            end = self._lines.find(b"\n", at)
            if end < 0:
                end = len(self._lines)
            yield _parse_line(self._lines[start:end])
            at = self._lines.find(wanted, end)


def _quoted(value: str) -> bytes:
    return json.dumps(value).encode("ascii")


def _parse_line(line: bytes) -> IndexEntry:
    try:
        name, kind, entity, offset, length, sha256, disks = json.loads(line)
        fields = {
            "name": name,
            "kind": kind,
            "entity": entity,
            "offset": offset,
            "length": length,
            "sha256": sha256,
        }
        return IndexEntry(
            record.text(fields, "name"),
            record.text(fields, "kind", 16),
            record.text(fields, "entity"),
            record.number(fields, "offset"),
            record.number(fields, "length"),
            record.sha256(fields, "sha256"),
            tuple(record.uuid({"disk": d}, "disk") for d in disks),
        )
    except (record.RecordInvalid, ValueError, TypeError, RecursionError):
        raise SegmentInvalid("member index has a line that is none") from None
