# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Segments in the log of a real volume, sound and damaged."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store import builders
from vdsm_ovfstore import errors
from vdsm_ovfstore.format import segment
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.reader import Reader
from vdsm_ovfstore.store.stored import StoredSegment

# With this, each frame holds a few of the VMs below.
FRAME = 8192
NAMES = [f"vm-{n}" for n in range(9)]


class Memory:
    """A copy of a log, to be damaged byte by byte."""

    log_path = "log"

    def __init__(self, data: bytes) -> None:
        self.data = bytearray(data)

    def log_read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])


class Sample:
    """A store of one volume with one generation in several frames."""

    def __init__(self, domain: FileDomain, tar: bytes) -> None:
        self.domain = domain
        self.tar = tar
        (self.volume,) = domain.volumes()
        (self.entry,) = builders.entries(domain)
        self.log = Memory(Path(self.volume.log_path).read_bytes())

    def open(self, **other: object) -> StoredSegment:
        entry = self.entry._replace(**other)  # type: ignore[arg-type]
        return StoredSegment(self.log, self.domain.id, entry)

    def at(self, position: int) -> int:
        """A position in the segment as an offset in the log."""
        return self.entry.offset + position

    def lost(self) -> list[str]:
        """The members that cannot be read; all if the index cannot."""
        found = self.open()
        try:
            index = list(found.index())
        except errors.Damaged:
            return ["*"]
        gone = []
        for member in index:
            try:
                data = b"".join(found.tar_range(member.offset, member.length))
            except errors.Damaged:
                gone.append(member.name)
                continue
            end = member.offset + member.length
            assert data == self.tar[member.offset : end]
        return gone

    def in_frame(self, number: int) -> list[str]:
        """The members that have bytes in a frame."""
        found = self.open()
        frame = found.frames[number]
        return [
            m.name
            for m in found.index()
            if m.offset < frame.end and frame.offset < m.offset + m.length
        ]


@pytest.fixture
def sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Sample]:
    monkeypatch.setattr(segment, "FRAME_TAR", FRAME)
    domain = builders.make_domain(tmp_path, copies=1)
    notes = builders.incompressible(700)
    # One is larger than a frame.
    texts = dict.fromkeys(NAMES[:-1], notes) | {NAMES[-1]: notes * 13}
    tar = builders.archive(domain, texts)
    builders.upload(domain, tar)
    yield Sample(domain, tar)


def test_sample_is_what_the_tests_need(sample: Sample) -> None:
    frames = sample.open().frames
    assert len(frames) >= 4
    members = [set(sample.in_frame(n)) for n in range(len(frames))]
    assert len(members[0]) > 2
    assert any(a & b for a, b in zip(members, members[1:]))
    assert sample.lost() == []


def test_all_of_it(sample: Sample) -> None:
    found = sample.open()
    assert b"".join(found.tar()) == sample.tar
    assert found.length == len(sample.tar)
    assert found.entities == len(NAMES)
    assert [e.entity for e in found.index() if e.entity] == NAMES
    found.verify()
    assert found.damaged_frames() == []


@pytest.mark.parametrize(
    "offset, length",
    [(0, 0), (0, 1), (FRAME - 1, 2), (100, 3 * FRAME), (0, 10**9), (10**9, 1)],
)
def test_ranges(sample: Sample, offset: int, length: int) -> None:
    found = b"".join(sample.open().tar_range(offset, length))
    assert found == sample.tar[offset : offset + length]


def test_each_byte_of_a_frame_costs_its_members_only(sample: Sample) -> None:
    data = sample.log.data
    for number, frame in enumerate(sample.open().frames):
        expected = sample.in_frame(number)
        # Every byte of the head, and every seventh of what is compressed.
        places = [*range(256), *range(256, frame.stored, 7)]
        for position in (frame.position + p for p in places):
            data[sample.at(position)] ^= 1 << position % 8
            assert sample.lost() == expected, position
            data[sample.at(position)] ^= 1 << position % 8
    assert sample.lost() == []


def test_each_byte_of_the_table_costs_the_segment(sample: Sample) -> None:
    """The index is still there: what is lost can be named."""
    data = sample.log.data
    everything = [e.name for e in sample.open().index()]
    for position in range(4096, 4096 + sample.open().header.table_size):
        data[sample.at(position)] ^= 0x80
        assert sample.lost() == everything, position
        data[sample.at(position)] ^= 0x80


def test_each_byte_of_header_or_index_costs_the_index(sample: Sample) -> None:
    data = sample.log.data
    header = sample.open().header
    start = header.index_position
    for position in (
        *range(0, 4096, 5),
        *range(start, start + header.index_stored, 3),
    ):
        data[sample.at(position)] ^= 1
        assert sample.lost() == ["*"], position
        data[sample.at(position)] ^= 1


def test_tar_without_its_index(sample: Sample) -> None:
    """The whole archive does not depend on the index."""
    position = sample.open().header.index_position
    sample.log.data[sample.at(position)] ^= 1
    found = sample.open()
    assert b"".join(found.tar()) == sample.tar
    with pytest.raises(errors.Damaged):
        found.verify()


def test_padding_is_nobodys(sample: Sample) -> None:
    frame = sample.open().frames[0]
    sample.log.data[sample.at(frame.position + frame.stored)] ^= 1
    assert sample.lost() == []


def test_damaged_frames(sample: Sample) -> None:
    frames = sample.open().frames
    for number in (1, 3):
        sample.log.data[sample.at(frames[number].position + 300)] ^= 1
    found = sample.open()
    assert found.damaged_frames() == [frames[1], frames[3]]
    with pytest.raises(errors.Damaged) as caught:
        found.verify()
    assert str(frames[1].offset) in str(caught.value)
    assert caught.value.fields()["path"] == "log"


def test_two_frames_swapped(sample: Sample) -> None:
    """Sound frames at each other's place are not believed."""
    one, two = sample.open().frames[:2]
    a, b = sample.at(one.position), sample.at(two.position)
    data = sample.log.data
    data[a : a + 4096], data[b : b + 4096] = (
        data[b : b + 4096],
        data[a : a + 4096],
    )
    lost = set(sample.in_frame(0)) | set(sample.in_frame(1))
    assert set(sample.lost()) == lost


@pytest.mark.parametrize(
    "change",
    [
        {"offset": 0},
        {"generation": 2},
        {"sha256": "ab" * 32},
        {"length": 1},
        {"stored": 4096},
        {"stored": 2**62},
        {"offset": 2**62},
    ],
    ids=["place", "number", "digest", "length", "cut", "huge", "far"],
)
def test_seal_that_says_otherwise(
    sample: Sample, change: dict[str, object]
) -> None:
    with pytest.raises(errors.Damaged):
        sample.open(**change).frames  # noqa: B018


def test_log_that_was_cut(sample: Sample) -> None:
    end = sample.at(sample.open().frames[2].position)
    del sample.log.data[end + 100 :]
    assert set(sample.in_frame(0)) & set(sample.lost()) == set()
    assert set(sample.in_frame(2)) <= set(sample.lost())


def test_on_the_storage(sample: Sample) -> None:
    """The same through a reader, when the only head is damaged too."""
    frame = sample.open().frames[0]
    place = sample.at(frame.position + 300)
    builders.flip(sample.volume.log_path, place)
    builders.flip(sample.volume.path, len(sample.tar) - 2000)
    with Reader(FileDomain.open(sample.domain.path)) as reader:
        generation = reader.open(reader.newest())
        lost = sample.in_frame(0)
        for member in generation.index():
            if member.name in lost:
                with pytest.raises(errors.Damaged):
                    generation.read(member)
            else:
                data = generation.read(member)
                assert (
                    data
                    == sample.tar[
                        member.offset : member.offset + member.length
                    ]
                )
