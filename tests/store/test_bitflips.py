# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
One flipped bit, anywhere: it is seen, and costs nothing.

Of a store of two copies: every bit of the newest two seals and of the
header, the table and the index of a segment, and 100,000 random ones of what
is in the frames, one at a time. Each is detected, no OVF that is read is a
wrong one, and repair makes all good again.

A sample of them by default, all with `pytest -m campaign`; the counts are
printed (pytest -s). What is read of bytes in memory is all that a reader
does but for the system calls; repair runs on files.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, cast

import pytest

from tests.rescue.builders import rescue
from tests.store import builders
from vdsm_ovfstore import errors
from vdsm_ovfstore.format import seal, segment
from vdsm_ovfstore.format.seal import RING_SIZE, SLOT_SIZE, SLOTS, Entry
from vdsm_ovfstore.format.segment import IndexEntry
from vdsm_ovfstore.rescue.versions import VERIFIED
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.entities import entities
from vdsm_ovfstore.store.job import Job
from vdsm_ovfstore.store.reader import Generation, GenerationReader, Reader
from vdsm_ovfstore.store.stored import StoredSegment
from vdsm_ovfstore.store.verify import DAMAGED, OK, verify

KIB = 1024
NAMES = tuple(f"vm{n}" for n in range(12))

# How many bits: of each slot, of a header and the rest, of the payload; and
# of those, with how many a store is mended.
SAMPLE = {"slot": 2000, "parts": 2000, "payload": 4000, "repair": 20}
WHOLE = {"slot": 0, "parts": 0, "payload": 100_000, "repair": 150}

amounts = pytest.mark.parametrize(
    "amount",
    [
        pytest.param(SAMPLE, id="sample"),
        pytest.param(
            WHOLE,
            id="whole",
            marks=[pytest.mark.campaign, pytest.mark.timeout(3600)],
        ),
    ],
)


class Memory:
    """The bytes of a log; see stored.Log."""

    log_path = "memory"

    def __init__(self, path: str) -> None:
        self.data = bytearray(Path(path).read_bytes())

    def log_read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def flip(self, bit: int) -> None:
        self.data[bit // 8] ^= 1 << bit % 8


class Places:
    """As much of a Reader as a GenerationReader asks for."""

    loads = 1

    def __init__(self, *found: StoredSegment) -> None:
        self._found = list(found)

    def places(self, generation: Generation) -> list[StoredSegment]:
        return self._found

    def refresh(self) -> None:
        pass


class Store(NamedTuple):
    """A store of two copies, and what is in it."""

    domain: FileDomain
    logs: list[Memory]
    entries: list[list[Entry]]  # of each copy, the newest first
    ovfs: dict[int, dict[str, bytes]]  # by generation and name of the member

    def segment(self, copy: int, number: int) -> StoredSegment:
        log, entry = self.logs[copy], self.entries[copy][number]
        return StoredSegment(log, self.domain.id, entry)

    def opened(self, number: int) -> GenerationReader:
        """From what is in memory, the first copy first."""
        entry = self.entries[0][number]
        generation = Generation(
            entry.generation, entry.sha256, entry.length, entry.time,
            entry.entities, entry.kind, "", (),
        )  # fmt: skip
        places = Places(self.segment(0, number), self.segment(1, number))
        return GenerationReader(cast(Reader, places), generation)


@pytest.fixture(scope="module")
def small_frames() -> Iterator[None]:
    """Of 8 KiB in place of 1 MiB, so that there are some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "FRAME_TAR", 8 * KIB)
        yield


@pytest.fixture(scope="module")
def store(
    small_frames: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Store]:
    path = tmp_path_factory.mktemp("flips")
    domain = builders.make_domain(path, capacity=4 * KIB**2)
    ovfs: dict[int, dict[str, bytes]] = {}
    for number in (1, 2):
        notes = {
            name: builders.incompressible(2500, 100 * number + n)
            for n, name in enumerate(NAMES)
        }
        tar = builders.archive(domain, notes, builders.EPOCH + number)
        builders.upload(domain, tar)
        ovfs[number] = {
            f"{builders.vm_id(name)}.ovf": builders.ovf(name, text)
            for name, text in notes.items()
        }
    logs = [Memory(volume.log_path) for volume in domain.volumes()]
    with builders.opened(domain) as copies:
        entries = [
            sorted(c.entries(), key=lambda e: -e.generation) for c in copies
        ]
    yield Store(domain, logs, entries, ovfs)
    shutil.rmtree(path)


@pytest.fixture
def scratch(store: Store, tmp_path: Path) -> Iterator[FileDomain]:
    """A copy of the store on files, to be damaged and mended."""
    target = tmp_path / store.domain.id
    subprocess.run(
        ["cp", "-a", "--sparse=always", store.domain.path, str(target)],
        check=True,
    )
    yield FileDomain.open(str(target))
    shutil.rmtree(target)


def chosen(bits: range, count: int) -> list[int]:
    """All of them, or so many."""
    if count == 0 or count >= len(bits):
        return list(bits)
    return random.Random(len(bits)).sample(bits, count)


def span(offset: int, length: int) -> range:
    """The bits of these bytes."""
    return range(8 * offset, 8 * (offset + length))


def slots(log: Memory) -> list[int]:
    """Where the seals lie, the newest first."""
    start = len(log.data) - RING_SIZE
    found = []
    for number in range(SLOTS):
        at = start + number * SLOT_SIZE
        one = seal.unpack(log.log_read(at, SLOT_SIZE))
        if one is not None:
            found.append((one.sequence, at))
    return [at for _, at in sorted(found, reverse=True)]


def parts_of(store: Store, number: int) -> list[tuple[int, int]]:
    """Offset and length of header, table and index in a segment."""
    header = store.segment(0, number).header
    return [
        (0, segment.HEADER_SIZE),
        (segment.HEADER_SIZE, header.table_size),
        (header.index_position, header.index_stored),
    ]


def frame_bits(store: Store, copy: int, number: int) -> list[range]:
    at = store.entries[copy][number].offset
    frames = store.segment(copy, number).frames
    assert len(frames) > 3
    return [span(at + f.position, f.stored) for f in frames]


# -- what is detected ---------------------------------------------------------


@amounts
def test_seals(store: Store, amount: dict[str, int]) -> None:
    """A slot with a flipped bit holds no seal: an older one is believed."""
    count = 0
    for log in store.logs if amount is SAMPLE else store.logs[:1]:
        for at in slots(log)[:2]:
            slot = bytearray(log.log_read(at, SLOT_SIZE))
            for bit in chosen(span(0, SLOT_SIZE), amount["slot"]):
                slot[bit // 8] ^= 1 << bit % 8
                assert seal.unpack(bytes(slot)) is None, bit
                slot[bit // 8] ^= 1 << bit % 8
                count += 1
            assert seal.unpack(bytes(slot)) is not None
    print(f"\n{count} bits of seals: all detected")


@amounts
def test_header_table_index(store: Store, amount: dict[str, int]) -> None:
    """The copy is not believed, and the other one gives the right OVFs."""
    log, entry = store.logs[0], store.entries[0][0]
    counts = []
    for offset, length in parts_of(store, 0):
        bits = span(entry.offset + offset, length)
        picked = chosen(bits, amount["parts"])
        for number, bit in enumerate(picked):
            log.flip(bit)
            part = store.segment(0, 0)
            with pytest.raises(errors.Damaged):
                part.index()
                part.verify()
            if number % 50 == 0:
                check_read(store, 0, entities(store.opened(0)))
            log.flip(bit)
        counts.append(len(picked))
    check_read(store, 0, entities(store.opened(0)))
    print(
        f"\n{counts[0]} bits of a header, {counts[1]} of a table, {counts[2]} "
        "of an index: all detected"
    )


@amounts
def test_payload(store: Store, amount: dict[str, int]) -> None:
    """
    Each OVF of a frame is refused from that copy, and read from the other.
    """
    noise = random.Random(1)
    places = [
        (copy, number, n, bits)
        for copy in (0, 1)
        for number in (0, 1)
        for n, bits in enumerate(frame_bits(store, copy, number))
    ]
    weights = [len(bits) for *_, bits in places]
    held = {
        (number, n): members_in(store, number, n) for _, number, n, _ in places
    }
    read = 0
    total = amount["payload"]
    for copy, number, n, bits in noise.choices(places, weights, k=total):
        bit = noise.choice(bits)
        store.logs[copy].flip(bit)
        part = store.segment(copy, number)
        frame = part.frames[n]
        with pytest.raises(errors.Damaged):
            list(part.tar_range(frame.offset, frame.length))
        read += check_read(store, number, held[number, n])
        store.logs[copy].flip(bit)
    print(
        f"\n{total} bits of payload: all detected, {read} OVFs read, all right"
    )


def members_in(store: Store, number: int, n: int) -> list[IndexEntry]:
    """The OVFs that a frame has a part of."""
    frame = store.segment(0, number).frames[n]
    return [
        e
        for e in entities(store.opened(number))
        if e.offset < frame.end and frame.offset < e.offset + e.length
    ]


def check_read(store: Store, number: int, wanted: list[IndexEntry]) -> int:
    opened = store.opened(number)
    generation = opened.generation.number
    for entry in wanted:
        assert opened.read(entry) == store.ovfs[generation][entry.name]
    return len(wanted)


# -- what is mended -----------------------------------------------------------


def some_bits(store: Store, count: int) -> list[tuple[str, int, int]]:
    """(what, copy, bit): of everything, some."""
    noise = random.Random(2)
    found = []
    for copy in (0, 1):
        for what, at in zip(("newest seal", "seal"), slots(store.logs[copy])):
            found += [(what, copy, b) for b in span(at, SLOT_SIZE)[::40_001]]
        at = store.entries[copy][0].offset
        named = zip(("header", "table", "index"), parts_of(store, 0))
        for what, (offset, length) in named:
            bits = span(at + offset, length)
            found += [(what, copy, b) for b in noise.sample(bits, 9)]
        for number in (0, 1):
            for bits in frame_bits(store, copy, number):
                found += [("frame", copy, b) for b in noise.sample(bits, 9)]
    kinds = {what for what, _, _ in found}
    picked = [
        noise.choice([f for f in found if f[0] == what])
        for what in sorted(kinds)
    ]
    rest = max(0, min(count, len(found)) - len(picked))
    return picked + noise.sample(found, rest)


@amounts
def test_repair(
    store: Store, scratch: FileDomain, amount: dict[str, int]
) -> None:
    seen = mended = 0
    picked = some_bits(store, amount["repair"])
    clean = contents(scratch)
    for what, copy, bit in picked:
        restore(clean)
        path = scratch.volumes()[copy].log_path
        builders.flip(path, bit // 8, 1 << bit % 8)
        with Reader(scratch) as reader:
            report = verify(reader)
            check_all(store, reader)
        assert report.verdict == DAMAGED, what
        seen += report.verdict == DAMAGED
        Job(scratch.path).repair()
        with Reader(scratch) as reader:
            assert verify(reader).verdict == OK, what
            check_all(store, reader)
        for path in (v.log_path for v in scratch.volumes()):
            report_of = rescue(path)
            for version in report_of.versions.best.values():
                assert version.grade == VERIFIED
        mended += 1
    print(f"\n{len(picked)} stores with a flipped bit: {seen} of them seen by "
          f"verify, {mended} mended")  # fmt: skip


@amounts
def test_bits_on_both_copies(
    store: Store, scratch: FileDomain, amount: dict[str, int]
) -> None:
    """
    What one copy has, the other gets: whatever is left of each frame is left
    after a repair, though the header that goes with it is sound on the other
    copy only; and nothing that is read is wrong.
    """
    noise = random.Random(3)
    clean = contents(scratch)
    kept = lost = 0
    for _ in range(max(3, amount["repair"] // 3)):
        hit: set[tuple[int, int, int]] = set()
        restore(clean)
        for copy, volume in enumerate(scratch.volumes()):
            builders.flip(volume.path, 700)
            for number in (0, 1):
                frames = frame_bits(store, copy, number)
                for n in noise.sample(range(len(frames)), 2):
                    bit = noise.choice(frames[n])
                    builders.flip(volume.log_path, bit // 8, 1 << bit % 8)
                    hit.add((copy, number, n))
        for number in (0, 1):
            for offset, length in parts_of(store, number):
                copy = noise.randrange(2)
                at = store.entries[copy][number].offset + offset
                bit = noise.choice(span(at, length))
                path = scratch.volumes()[copy].log_path
                builders.flip(path, bit // 8, 1 << bit % 8)
        Job(scratch.path).repair()
        with Reader(scratch) as reader:
            for number, generation in enumerate(reader.generations()):
                opened = reader.open(generation)
                right = store.ovfs[generation.number]
                gone = {
                    e.name
                    for n in range(len(frame_bits(store, 0, number)))
                    if {(0, number, n), (1, number, n)} <= hit
                    for e in members_in(store, number, n)
                }
                for entry in entities(opened):
                    if entry.name in gone:
                        with pytest.raises(errors.Damaged):
                            opened.read(entry)
                        lost += 1
                    else:
                        assert opened.read(entry) == right[entry.name]
                        kept += 1
    print(f"\nBits on both copies: {kept} OVFs kept, {lost} lost on both")


def contents(domain: FileDomain) -> dict[Path, bytes]:
    """All files of both copies."""
    return {
        Path(path): Path(path).read_bytes()
        for v in domain.volumes()
        for path in (v.path, v.metadata_path, v.log_path)
    }


def restore(clean: dict[Path, bytes]) -> None:
    for path, data in clean.items():
        path.write_bytes(data)


def check_all(store: Store, reader: Reader) -> None:
    """Every OVF of every generation is read, and is right."""
    generations = reader.generations()
    assert [g.number for g in generations] == [2, 1]
    for generation in generations:
        opened = reader.open(generation)
        found = {e.name: opened.read(e) for e in entities(opened)}
        assert found == store.ovfs[generation.number]
