# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Damage in each region of a real store of two copies and four generations:
verify sees it, repair mends it, and every generation stays what it was.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, NamedTuple

import pytest

from tests.store import builders
from vdsm_ovfstore.format import seal, segment
from vdsm_ovfstore.format.seal import RING_SIZE, SLOT_SIZE, SLOTS, Entry
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.entities import entities
from vdsm_ovfstore.store.job import Job
from vdsm_ovfstore.store.reader import Reader
from vdsm_ovfstore.store.ring import Ring
from vdsm_ovfstore.store.verify import DAMAGED, OK, Report, verify

NUMBERS = (1, 2, 3, 4)
NAMES = ("vm0", "vm1", "vm2", "vm3", "vm4", "vm5")


class Damaged(NamedTuple):
    """A store that is to be damaged; a copy of the one that was made."""

    domain: FileDomain

    def log(self, copy: int) -> Path:
        return Path(self.domain.volumes()[copy].log_path)

    def head(self, copy: int) -> Path:
        return Path(self.domain.volumes()[copy].path)

    def entry(self, copy: int, generation: int) -> Entry:
        with builders.opened(self.domain) as copies:
            found = copies[copy].entries()
        return next(e for e in found if e.generation == generation)

    def slots(self, copy: int) -> list[int]:
        """Where the seals lie, the newest first."""
        data = self.log(copy).read_bytes()
        start = len(data) - RING_SIZE
        found = []
        for at in range(start, len(data), SLOT_SIZE):
            one = seal.unpack(data[at : at + SLOT_SIZE])
            if one is not None:
                found.append((one.sequence, at))
        return [at for _, at in sorted(found, reverse=True)]

    def report(self, deep: bool = True) -> Report:
        with Reader(self.domain) as reader:
            return verify(reader, deep)

    def contents(self) -> dict[int, dict[str, bytes]]:
        with Reader(self.domain) as reader:
            found = {}
            for generation in reader.generations():
                opened = reader.open(generation)
                found[generation.number] = {
                    e.name: opened.read(e) for e in entities(opened)
                }
            return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Damaged]:
    domain = builders.make_domain(
        tmp_path_factory.mktemp("regions"), capacity=4 * builders.MIB
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(segment, "FRAME_TAR", 8192)
        for number in NUMBERS:
            notes = {
                name: builders.incompressible(2500, 100 * number + n)
                for n, name in enumerate(NAMES)
            }
            # Each longer than the one before, as DESCRIPTION tells.
            notes["vm0"] += "x" * 1024 * number
            when = builders.EPOCH + number
            builders.upload(domain, builders.archive(domain, notes, when))
        yield Damaged(domain)


@pytest.fixture
def store(made: Damaged, tmp_path: Path) -> Damaged:
    target = tmp_path / made.domain.id
    subprocess.run(
        ["cp", "-a", "--sparse=always", made.domain.path, str(target)],
        check=True,
    )
    return Damaged(FileDomain.open(str(target)))


def padding(store: Damaged, generation: int) -> dict[str, int]:
    """Where the zeros after each part of a segment begin."""
    entry = store.entry(0, generation)
    with builders.opened(store.domain) as copies:
        one = copies[0].segment(entry)
        header, frame = one.header, one.frames[1]
    return {
        "table": entry.offset + segment.HEADER_SIZE + header.table_size,
        "index": entry.offset + header.index_position + header.index_stored,
        "frame": entry.offset + frame.position + frame.stored,
    }


def assert_mended(store: Damaged, made: Damaged) -> None:
    right = made.contents()
    assert store.contents() == right  # what is damaged is never shown
    Job(store.domain.path).repair()
    report = store.report()
    assert report.verdict == OK, report.problems
    assert all("was set aside" in note for note in report.notes)
    assert store.contents() == right
    for copy in report.copies:
        assert sorted(s.generation for s in copy.segments if s.generation) == [
            *NUMBERS
        ]


@pytest.mark.parametrize("number", range(11))
def test_each_seal(store: Damaged, made: Damaged, number: int) -> None:
    """The older ones too: a log that loses bits should be known."""
    slots = store.slots(0)
    assert len(slots) == 11
    builders.flip(str(store.log(0)), slots[number] + 77)
    for deep in (False, True):
        report = store.report(deep)
        assert report.verdict == DAMAGED
        assert [c.verdict for c in report.copies].count(OK) == 1
    assert_mended(store, made)


def test_slots_are_cleared_in_their_own_epoch(
    store: Damaged, made: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    Zeros that come late, after a successor took over, hit no seal of his.
    """
    cleared: list[tuple[int, int]] = []
    clear = Ring.clear

    def spy(ring: Ring, number: int) -> None:
        assert ring.newest is not None
        cleared.append((number, ring.newest.sequence[0]))
        clear(ring, number)

    monkeypatch.setattr(Ring, "clear", spy)
    slots = store.slots(0)
    for at in slots[1:6]:  # of epochs 4 and 3
        builders.flip(str(store.log(0)), at + 77)
    assert_mended(store, made)
    assert {number % 2 for number, _ in cleared} == {0, 1}
    assert all(number % 2 == epoch % 2 for number, epoch in cleared)
    assert len({epoch for _, epoch in cleared}) == 2


def test_a_slot_that_was_empty(store: Damaged, made: Damaged) -> None:
    start = store.log(0).stat().st_size - RING_SIZE
    slots = {start + n * SLOT_SIZE for n in range(SLOTS)}
    builders.flip(str(store.log(0)), min(slots - set(store.slots(0))) + 5)
    report = store.report()
    assert report.verdict == DAMAGED
    assert "no sound seal in slot" in report.problems[0]
    assert_mended(store, made)


@pytest.mark.parametrize("generation", NUMBERS)
@pytest.mark.parametrize("part", ["table", "index", "frame"])
def test_what_should_be_zeros(
    store: Damaged, made: Damaged, part: str, generation: int
) -> None:
    at = padding(store, generation)[part]
    assert at % 4096
    builders.flip(str(store.log(0)), at)
    assert store.report(deep=False).verdict == OK
    assert store.report().verdict == DAMAGED
    assert_mended(store, made)


def cut(store: Damaged) -> None:
    os.truncate(store.log(0), 2 * builders.MIB)


def empty_log(store: Damaged) -> None:
    os.truncate(store.log(0), 0)


def no_log(store: Damaged) -> None:
    store.log(0).unlink()


def other_log(store: Damaged) -> None:
    store.log(0).write_bytes(store.log(1).read_bytes())


def no_ring(store: Damaged) -> None:
    wipe(store.log(0), -RING_SIZE)


def no_segments(store: Damaged) -> None:
    wipe(store.log(0), 0, store.log(0).stat().st_size - RING_SIZE)


def wipe(path: Path, start: int, length: int = RING_SIZE) -> None:
    with path.open("r+b") as file:
        file.seek(start, os.SEEK_END if start < 0 else os.SEEK_SET)
        file.write(bytes(length))


@pytest.mark.parametrize(
    "damage", [cut, empty_log, no_log, other_log, no_ring, no_segments]
)
def test_a_whole_log(
    store: Damaged, made: Damaged, damage: Callable[[Damaged], None]
) -> None:
    """The newest generation from the head, the others from the other copy."""
    damage(store)
    for deep in (False, True):
        assert store.report(deep).verdict == DAMAGED
    assert_mended(store, made)


@pytest.mark.parametrize("logs", [1, 2], ids=["its-log", "both-logs"])
def test_a_head_that_lost_its_log_and_a_bit(
    store: Damaged, made: Damaged, logs: int
) -> None:
    """Nothing seals it, but it is no upload: no wrong OVF becomes newest."""
    right = made.contents()
    for copy in range(logs):
        wipe(store.log(copy), -RING_SIZE)
    data = store.head(0).read_bytes()
    builders.flip(str(store.head(0)), data.index(b"<Description>") + 50)
    Job(store.domain.path).repair()
    assert store.report().verdict == OK
    found = store.contents()
    assert all(ovfs in right.values() for ovfs in found.values())
    assert found[max(found)] == right[4]


@pytest.mark.parametrize(
    "text, wrong",
    [
        (b'"Updated":true', b'"Updated":false'),
        (b'"Size":', b'"Size":9'),
        (b'{"Updated"', b'Updated'),
    ],
)
def test_description(
    store: Damaged, made: Damaged, text: bytes, wrong: bytes
) -> None:
    """Stock readers would refuse the copy, or read too much."""
    path = Path(store.domain.volumes()[0].metadata_path)
    before = path.read_bytes()
    assert text in before
    path.write_bytes(before.replace(text, wrong))
    for deep in (False, True):
        assert store.report(deep).verdict == DAMAGED
    assert_mended(store, made)
    assert text in path.read_bytes()


def test_newest_seals_of_both_copies(store: Damaged, made: Damaged) -> None:
    """No seal names the newest generation, but both logs have it."""
    slots = [store.slots(copy) for copy in (0, 1)]
    for copy in (0, 1):
        for at in slots[copy][:2]:
            builders.flip(str(store.log(copy)), at + 77)
    assert store.report().verdict == DAMAGED
    assert sorted(store.contents()) == [1, 2, 3]
    healed = Job(store.domain.path).repair()["healed"]
    assert any("found generation 4 again" in what for what in healed)
    assert store.report().verdict == OK
    found, right = store.contents(), made.contents()
    assert found[max(found)] == right[4]
    assert {n: found[n] for n in (1, 2, 3)} == {n: right[n] for n in (1, 2, 3)}


def test_history_comes_only_where_there_is_room(tmp_path: Path) -> None:
    """Nothing is evicted for it; that a copy lacks it is said, no more."""
    domain = builders.make_domain(tmp_path, copies=0)
    for size in (4, 8):
        domain.create_volume(size * builders.MIB)
    store = Damaged(domain)
    for number in range(1, 7):
        notes = {"big": builders.incompressible(700 * 1024, number)}
        builders.upload(domain, builders.archive(domain, notes, number))
    assert sorted(store.contents()) == [1, 2, 3, 4, 5, 6]
    small = min((0, 1), key=lambda n: store.log(n).stat().st_size)
    for _ in range(2):
        store.log(small).unlink()
        Job(domain.path).repair()
        report = store.report()
        assert report.verdict == OK
        assert report.notes == ["not on every copy: generation 2, 1"]
    assert sorted(store.contents()) == [1, 2, 3, 4, 5, 6]
