# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Segments: their bytes, and what is not believed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import struct
import zlib
from collections.abc import Iterator
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import record, segment
from vdsm_ovfstore.format.seal import GENERATION, Entry
from vdsm_ovfstore.format.segment import Frame, Header, Index
from vdsm_ovfstore.store.content import Part, Segment, segment_size
from vdsm_ovfstore.store.stored import StoredSegment

DOMAIN = "5ba1c94e-9b3c-4b3a-8c8f-0c6ecb3a8f11"
DISK = "69a2b8c2-8d1c-4014-8f75-a85c16bc5b71"
TAR = b"an archive " * 100  # 1100 bytes
SHA = "fcf6233523359ac4dc8206ddfb0b5366258db345e7655bd258969be6a95c88fa"
WHEN = 1593603787


def stored_zlib(data: bytes) -> bytes:
    """zlib data that any zlib makes: one stored block."""
    length = struct.pack("<HH", len(data), 0xFFFF ^ len(data))
    adler = struct.pack(">I", zlib.adler32(data))
    return b"\x78\x01\x01" + length + data + adler


INDEX = segment.index_line(
    "a.ovf", "vm", "web", 512, 20, "ab" * 32, (DISK,)
) + segment.index_line("b.ovf", "template", "ü", 1024, 30, "cd" * 32, ())


class Tiny:
    """Content of two frames, 700 and 400 bytes of tar."""

    length = len(TAR)
    sha256 = SHA
    entities = 2
    parts = [Part(0, 700, 711), Part(700, 400, 411)]
    index_length = len(INDEX)

    def tar(self) -> Iterator[bytes]:
        yield TAR

    def payload(self, number: int) -> bytes:
        part = self.parts[number]
        return stored_zlib(TAR[part.offset : part.offset + part.length])

    def index_data(self) -> bytes:
        return stored_zlib(INDEX)


def tiny(generation: int = 7, domain: str = DOMAIN) -> bytes:
    made = Segment(Tiny(), domain, generation, WHEN)
    data = b"".join(made.chunks())
    assert len(data) == made.size == 5 * 4096
    return data


class Log:
    """A log in memory."""

    log_path = "log"

    def __init__(self, data: bytes) -> None:
        self.data = data

    def log_read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


def stored(data: bytes, **other: Any) -> StoredSegment:
    entry = Entry(7, GENERATION, 0, 20480, len(TAR), SHA, WHEN, 2)
    return StoredSegment(Log(data), DOMAIN, entry._replace(**other))


# -- golden


def test_golden_header() -> None:
    data = tiny()[:4096]
    text = (
        '{"magic":"OVFSTORE-SEGMENT","version":1,'
        '"domain":"5ba1c94e-9b3c-4b3a-8c8f-0c6ecb3a8f11","generation":7,'
        f'"sha256":"{SHA}","length":1100,"time":"2020-07-01T11:43:07Z",'
        '"entities":2,"frames":2,'
        '"table":'
        '"6ca112bd91a68f46e18f7083bc681aa09bc8c3cbea9c83e491d561a090df6eeb",'
        '"index":{"stored":255,"length":244,"sha256":'
        '"ac27a6b50a62f6b2384dbb2709791140dd677eb1023952bbbe627bd23c1821de"},'
        '"stored":20480}'
    )
    assert data[: len(text)].decode("ascii") == text
    assert data[len(text) : -32] == bytes(4096 - 32 - len(text))
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()


def test_golden_table() -> None:
    data = tiny()
    table = data[4096 : 4096 + 96]
    frame_1, frame_2 = data[12288:13255], data[16384:17051]
    assert table == (
        struct.pack(">QII", 0, 700, 967)
        + hashlib.sha256(frame_1).digest()
        + struct.pack(">QII", 700, 400, 667)
        + hashlib.sha256(frame_2).digest()
    )
    assert not any(data[4192:8192])
    preimage = f"OVFSTORE-TABLE {DOMAIN} 7 {SHA}\n".encode() + table
    assert json.loads(data[: data.index(b"\0")])["table"] == (
        hashlib.sha256(preimage).hexdigest()
    )


def test_golden_index() -> None:
    data = tiny()
    header = json.loads(data[: data.index(b"\0")])["index"]
    packed = data[8192 : 8192 + header["stored"]]
    preimage = f"OVFSTORE-INDEX {DOMAIN} 7 {SHA}\n".encode() + packed
    assert hashlib.sha256(preimage).hexdigest() == header["sha256"]
    lines = zlib.decompress(packed)
    assert len(lines) == header["length"]
    assert lines.decode("ascii") == (
        f'["a.ovf","vm","web",512,20,"{"ab" * 32}",["{DISK}"]]\n'
        f'["b.ovf","template","\\u00fc",1024,30,"{"cd" * 32}",[]]\n'
    )


def test_golden_frames() -> None:
    data = tiny()
    for number, at, offset, length in (
        (1, 12288, 0, 700),
        (2, 16384, 700, 400),
    ):
        line = (
            f"OVFSTORE-FRAME 1 {DOMAIN} 7 {SHA} {number} {offset} {length} "
            f"{length + 11}\n"
        ).encode("ascii")
        assert data[at : at + 256] == line.ljust(256, b"\0")
        end = at + 256 + length + 11
        assert (
            zlib.decompress(data[at + 256 : end])
            == (TAR[offset : offset + length])
        )
        assert not any(data[end : at + 4096])


def test_golden_whole() -> None:
    assert hashlib.sha256(tiny()).hexdigest() == (
        "5c7ca08a12b764c8d600e16465bab75b4b97070e72678ea4d05c4aae95d34859"
    )


def test_reads_back() -> None:
    assert hashlib.sha256(TAR).hexdigest() == SHA
    found = stored(tiny())
    assert b"".join(found.tar()) == TAR
    assert [tuple(e)[:3] for e in found.index()] == [
        ("a.ovf", "vm", "web"),
        ("b.ovf", "template", "ü"),
    ]
    assert found.parts == Tiny.parts
    assert found.entities == 2
    found.verify()
    assert segment_size(Tiny.parts, len(Tiny().index_data())) == 20480


def test_made_again_of_a_stored_one_it_is_the_same() -> None:
    again = Segment(stored(tiny()), DOMAIN, 7, WHEN)
    assert b"".join(again.chunks()) == tiny()


def test_longest_frame_head_fits() -> None:
    numbers = [2**63 - 1, SHA, 128 * 1024, 2**63 - 1, 2**20, 2**21]
    head = segment.frame_head(DOMAIN, *numbers)  # type: ignore[arg-type]
    assert len(head) == 256 and head.count(b"\n") == 1


# -- damage


def outcome(data: bytes, **other: Any) -> list[Optional[bytes]]:
    """What can be had: index, first frame, second frame; None if not."""
    found: list[Optional[bytes]] = []
    for part in ("index", "first", "second"):
        source = stored(data, **other)
        try:
            if part == "index":
                found.append(repr(list(source.index())).encode())
            elif part == "first":
                found.append(b"".join(source.tar_range(0, 700)))
            else:
                found.append(b"".join(source.tar_range(700, 400)))
        except errors.Damaged:
            found.append(None)
    return found


def test_every_flipped_bit_of_the_header_is_detected() -> None:
    data = bytearray(tiny()[:4096])
    for bit in range(4096 * 8):
        data[bit // 8] ^= 1 << bit % 8
        assert segment.unpack_header(bytes(data)) is None, bit
        data[bit // 8] ^= 1 << bit % 8
    assert segment.unpack_header(bytes(data)) is not None


@pytest.mark.parametrize(
    "start, length, intact",
    [(0, 250, []), (4096, 96, [0]), (8192, 255, [1, 2])],
    ids=["header", "table", "index"],
)
def test_every_flipped_bit_is_detected(
    start: int, length: int, intact: list[int]
) -> None:
    data = bytearray(tiny())
    whole = outcome(bytes(data))
    assert None not in whole
    expected = [w if i in intact else None for i, w in enumerate(whole)]
    for bit in range(start * 8, (start + length) * 8):
        data[bit // 8] ^= 1 << bit % 8
        assert outcome(bytes(data)) == expected, bit
        data[bit // 8] ^= 1 << bit % 8


def test_every_flipped_bit_of_a_frame_costs_that_frame() -> None:
    sound = tiny()
    whole = outcome(sound)
    data = bytearray(sound)
    for at in [*range(12288, 13255), *range(16384, 17051)]:
        data[at] ^= 1 << at % 8
        found = outcome(bytes(data))
        bad = stored(bytes(data)).damaged_frames()
        data[at] ^= 1 << at % 8
        hit = 1 if at < 16384 else 2
        expected = [None if i == hit else w for i, w in enumerate(whole)]
        assert found == expected, at
        assert [f.offset for f in bad] == [0 if hit == 1 else 700]


@given(st.integers(0, 20479), st.binary(min_size=1, max_size=4096))
@settings(max_examples=200, deadline=None)
def test_overwritten_anywhere(at: int, junk: bytes) -> None:
    data = bytearray(tiny())
    data[at : at + len(junk)] = junk
    whole = outcome(tiny())
    for found, right in zip(outcome(bytes(data[:20480])), whole):
        assert found is None or found == right


@pytest.mark.parametrize("length", [0, 100, 4095, 4096, 8192, 12287, 16384])
def test_cut(length: int) -> None:
    found = outcome(tiny()[:length])
    assert found[2] is None
    assert found[1] is None or length >= 16384


@pytest.mark.parametrize(
    "other",
    [
        {"generation": 8},
        {"sha256": "ab" * 32},
        {"length": 1101},
        {"stored": 24576},
        {"stored": 16384},
    ],
    ids=lambda o: next(iter(o)),
)
def test_header_of_another_segment(other: dict[str, Any]) -> None:
    assert outcome(tiny() + bytes(4096), **other) == [None, None, None]


def test_parts_of_another_generation_are_not_taken() -> None:
    """Each part alone, at its very place, with right checksums inside."""
    mine, other = tiny(7), tiny(8)
    whole = outcome(mine)
    for start, end, lost in (
        (0, 4096, [0, 1, 2]),
        (4096, 8192, [1, 2]),
        (12288, 16384, [1]),
        (16384, 20480, [2]),
    ):
        mixed = mine[:start] + other[start:end] + mine[end:]
        expected = [None if i in lost else w for i, w in enumerate(whole)]
        assert outcome(mixed) == expected, start


def test_segment_of_another_domain_is_not_taken() -> None:
    foreign = "11111111-1111-4111-8111-111111111111"
    assert outcome(tiny(domain=foreign)) == [None, None, None]


# -- right digests, but hostile numbers

HEADER = Header(
    DOMAIN, 7, SHA, 1100, WHEN, 2, 2, "ab" * 32, 10, 20, "cd" * 32, 20480
)  # fmt: skip


def header_with(**more: Any) -> bytes:
    data = segment.pack_header(HEADER)
    fields = {**json.loads(data[: data.index(b"\0")]), **more}
    fields = {k: v for k, v in fields.items() if v is not ...}
    return record.pack(fields, segment.HEADER_SIZE)


def test_header_reads_back() -> None:
    assert segment.unpack_header(header_with()) == HEADER
    assert segment.unpack_header(header_with(colour="red")) == HEADER


WRONG: list[Any] = [
    ..., None, True, -1, 2**63, 10**40, 0.5, "x", [], ["x"], {}, float("inf"),
    {"stored": True, "length": 0, "sha256": SHA},
    {"stored": -1, "length": 0, "sha256": SHA},
    {"stored": 0, "length": 64 * 2**20 + 1, "sha256": SHA},
    {"stored": 64 * 2**20 + 1, "length": 0, "sha256": SHA},
    {"stored": 0, "length": 0, "sha256": 7},
    {"stored": 0, "length": 0},
]  # fmt: skip


@pytest.mark.parametrize("value", WRONG, ids=lambda v: repr(v)[:24])
@pytest.mark.parametrize(
    "key",
    ["domain", "generation", "sha256", "length", "time", "entities", "frames",
     "table", "index", "stored"],
)  # fmt: skip
def test_wrong_value_in_header(key: str, value: Any) -> None:
    assert segment.unpack_header(header_with(**{key: value})) is None


@pytest.mark.parametrize(
    "key, value",
    [("frames", 128 * 1024 + 1), ("stored", 4097)],
)
def test_out_of_bounds_in_header(key: str, value: int) -> None:
    assert segment.unpack_header(header_with(**{key: value})) is None


def test_header_of_another_version() -> None:
    data = header_with(version=2) + tiny()[4096:]
    with pytest.raises(record.UnknownVersion):
        segment.unpack_header(data[:4096])
    with pytest.raises(errors.FormatUnknown):
        stored(data).header  # noqa: B018


def table_of(*frames: tuple[int, int, int]) -> tuple[Header, bytes]:
    """A table of (offset, length, stored) with its right digest."""
    table = segment.pack_table(
        [Frame(o, n, 0, s, bytes(32)) for o, n, s in frames]
    )
    digest = segment.bound_sha256("TABLE", DOMAIN, 7, SHA, table)
    header = HEADER._replace(frames=len(frames), table_sha256=digest)
    size = header.frames_position
    size += sum(record.align(min(s, 2**21)) for _, _, s in frames)
    total = sum(n for _, n, _ in frames)
    return header._replace(stored=size, length=total), table


def test_table_reads_back() -> None:
    header, table = table_of((0, 2**20, 300), (2**20, 5, 257))
    assert segment.unpack_table(header, table) == [
        Frame(0, 2**20, 12288, 300, bytes(32)),
        Frame(2**20, 5, 16384, 257, bytes(32)),
    ]
    empty, nothing = table_of()
    assert segment.unpack_table(empty, nothing) == []


@pytest.mark.parametrize(
    "frames",
    [
        [(1, 10, 300)],
        [(0, 10, 300), (11, 10, 300)],
        [(0, 10, 300), (9, 10, 300)],
        [(0, 10, 300), (0, 10, 300)],
        [(2**64 - 1, 10, 300)],
        [(0, 0, 300)],
        [(0, 2**20 + 1, 300)],
        [(0, 2**32 - 1, 300)],
        [(0, 10, 256)],
        [(0, 10, 0)],
        [(0, 10, segment.MAX_FRAME_STORED + 1)],
        [(0, 10, 2**32 - 1)],
    ],
    ids=["late", "gap", "overlap", "twice", "far", "empty", "long", "huge",
         "no data", "no head", "swollen", "boundless"],
)  # fmt: skip
def test_hostile_table(frames: list[tuple[int, int, int]]) -> None:
    header, table = table_of(*frames)
    with pytest.raises(segment.SegmentInvalid):
        segment.unpack_table(header, table)


@pytest.mark.parametrize("change", [{"length": 21}, {"stored": 32768}])
def test_table_that_does_not_make_up_the_archive(
    change: dict[str, Any],
) -> None:
    header, table = table_of((0, 10, 300), (10, 10, 300))
    segment.unpack_table(header, table)
    with pytest.raises(segment.SegmentInvalid):
        segment.unpack_table(header._replace(**change), table)


def test_incompressible_frame_is_within_the_bound() -> None:
    """By the worst case that zlib's documentation gives."""
    worst = 2**20 + 5 * (2**20 // 16383 + 1) + 6
    assert segment.FRAME_HEAD + worst <= segment.MAX_FRAME_STORED


# -- bombs


class Bomb(Tiny):
    """Zlib data that expands to far more than was announced."""

    data = zlib.compress(bytes(64 * 2**20), 9)  # 64 MiB in 64 KiB
    parts = [Part(0, 1100, len(data))]

    def payload(self, number: int) -> bytes:
        return self.data

    def index_data(self) -> bytes:
        return self.data


@pytest.mark.parametrize("part", ["index", "tar"])
def test_bomb_is_not_expanded(part: str) -> None:
    import tracemalloc

    made = Segment(Bomb(), DOMAIN, 7, WHEN)
    found = stored(b"".join(made.chunks()), stored=made.size)
    tracemalloc.start()
    try:
        with pytest.raises(errors.Damaged):
            list(found.index() if part == "index" else found.tar())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("announced", [1099, 1101])
def test_frame_of_another_length(announced: int) -> None:
    content = Tiny()
    content.parts = [Part(0, announced, 1111)]
    content.length = announced
    content.payload = lambda number: stored_zlib(TAR)  # type: ignore[method-assign]
    made = Segment(content, DOMAIN, 7, WHEN)
    found = stored(b"".join(made.chunks()), stored=made.size, length=announced)
    with pytest.raises(errors.Damaged):
        list(found.tar())


def test_frame_that_is_no_zlib_data() -> None:
    content = Tiny()
    content.payload = (  # type: ignore[method-assign]
        lambda number: bytes(content.parts[number].zlib_length)
    )
    found = stored(b"".join(Segment(content, DOMAIN, 7, WHEN).chunks()))
    with pytest.raises(errors.Damaged):
        list(found.tar())
    assert len(found.damaged_frames()) == 2


# -- the member index


def test_find() -> None:
    index = Index(INDEX)
    found = index.find("b.ovf")
    assert found is not None and found.entity == "ü" and found.disks == ()
    assert index.find("c.ovf") is None
    assert [e.name for e in index.find_entity("web")] == ["a.ovf"]
    assert index.find_entity("vm") == []
    assert index.find_entity("a.ovf") == []


NAMES = st.text(max_size=12) | st.sampled_from(
    ['","', '["', "\n", '\\"', ',"vm",', "]", "web", "\u2028", "\x00"]
)


@given(st.lists(st.tuples(NAMES, NAMES), max_size=6))
@settings(deadline=None)
def test_find_is_what_a_scan_finds(members: list[tuple[str, str]]) -> None:
    index = Index(
        b"".join(
            segment.index_line(n, "vm", e, 0, 1, SHA, (DISK,))
            for n, e in members
        )
    )
    assert [(e.name, e.entity) for e in index] == members
    for name, entity in [*members, ("web", "web")]:
        found = index.find(name)
        first = next((m for m in members if m[0] == name), None)
        assert (found and (found.name, found.entity)) == first
        same = [m for m in members if m[1] == entity]
        assert [(e.name, e.entity) for e in index.find_entity(entity)] == same


GOOD_LINE = ["a.ovf", "vm", "web", 512, 20, "ab" * 32, [DISK]]


NO_ITEMS: list[Any] = [None, True, -1, 2**63, 1.5, {}, ["x"], "x" * 1025]


@pytest.mark.parametrize("value", NO_ITEMS, ids=lambda v: repr(v)[:20])
@pytest.mark.parametrize("at", range(7))
def test_hostile_index_line(at: int, value: Any) -> None:
    line = [*GOOD_LINE[:at], value, *GOOD_LINE[at + 1 :]]
    index = Index(json.dumps(line).encode())
    if at == 6 and value == {}:
        return  # no disks
    with pytest.raises(segment.SegmentInvalid):
        list(index)


@pytest.mark.parametrize(
    "line",
    [b"x", b"{}", b"[]", b"[1,2]", b'"abcdefg"', b"null", b"[" * 100_000,
     b"\xff", b"", b"9" * 10_000],
    ids=lambda b: repr(b[:10]),
)  # fmt: skip
def test_line_that_is_none(line: bytes) -> None:
    good = json.dumps(GOOD_LINE, separators=(",", ":")).encode()
    with pytest.raises(segment.SegmentInvalid):
        list(Index(line + b"\n" + good + b"\n"))


def test_damaged_line_is_met_by_find() -> None:
    with pytest.raises(segment.SegmentInvalid):
        Index(b'["a.ovf",1,2]\n').find("a.ovf")
    with pytest.raises(segment.SegmentInvalid):
        Index(b'["a.ovf","vm","web",1]\n').find_entity("web")


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_any_bytes(data: bytes) -> None:
    assert segment.unpack_header(data) is None
    with contextlib.suppress(segment.SegmentInvalid):
        list(Index(data))
    with pytest.raises(segment.SegmentInvalid):
        segment.unpack_table(HEADER, data)
