# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The seal ring of a real log."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store import builders
from vdsm_ovfstore import errors
from vdsm_ovfstore.format import record, seal
from vdsm_ovfstore.format.seal import RING_SIZE, SLOT_SIZE, SLOTS, Seal
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.storage.filevolume import FileVolume
from vdsm_ovfstore.storage.system import System
from vdsm_ovfstore.store.ring import Ring

CAPACITY = 2 * builders.MIB
OFFSET = CAPACITY - RING_SIZE


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[FileVolume]:
    domain = builders.make_domain(tmp_path, copies=1, capacity=CAPACITY)
    os.close(domain.store_directory(create=True))
    with domain.volumes()[0] as found:
        found.open(write=True)
        found.create_log()
        yield found


def sealed(volume: FileVolume, epoch: int, counter: int) -> Seal:
    return Seal(
        (epoch, counter), volume.domain, volume.image, volume.id, (),
        seal.CLAIM, None, None, None, "", (), "host", "tool", builders.EPOCH,
    )  # fmt: skip


def put(volume: FileVolume, number: int, data: bytes) -> None:
    """Bytes into a slot, past the ring."""
    builders.patch(volume.log_path, OFFSET + number * SLOT_SIZE, data)


def slot(volume: FileVolume, number: int) -> bytes:
    with open(volume.log_path, "rb") as f:
        f.seek(OFFSET + number * SLOT_SIZE)
        return f.read(SLOT_SIZE)


def where(volume: FileVolume) -> dict[int, tuple[int, int]]:
    """The sequence in each slot that holds a sound seal."""
    found = {n: seal.unpack(slot(volume, n)) for n in range(SLOTS)}
    return {n: s.sequence for n, s in found.items() if s}


def read_again(volume: FileVolume) -> Ring:
    ring = Ring(volume)
    ring.read()
    return ring


def test_empty(volume: FileVolume) -> None:
    ring = Ring(volume)
    assert ring.offset == OFFSET
    assert ring.read() is None
    assert ring.newest is None and ring.seals() == []


def test_written_is_read(volume: FileVolume) -> None:
    new = sealed(volume, 1, 1)
    Ring(volume).write(new)
    assert slot(volume, 1) == seal.pack(new)
    assert read_again(volume).newest == new


@pytest.mark.parametrize(
    "epoch, slots",
    [
        (1, [1, 3, 5, 7, 9, 11, 13, 15]),
        (2, [0, 2, 4, 6, 8, 10, 12, 14]),
    ],
    ids=["odd", "even"],
)
def test_tenure_writes_the_slots_of_its_parity(
    volume: FileVolume, epoch: int, slots: list[int]
) -> None:
    ring = read_again(volume)
    for counter in range(8):
        ring.write(sealed(volume, epoch, counter))
    assert where(volume) == {s: (epoch, n) for n, s in enumerate(slots)}
    # Round again: over the oldest.
    ring = read_again(volume)
    ring.write(sealed(volume, epoch, 8))
    ring.write(sealed(volume, epoch, 9))
    assert where(volume)[slots[0]] == (epoch, 8)
    assert where(volume)[slots[1]] == (epoch, 9)
    assert where(volume)[slots[2]] == (epoch, 2)


def test_tenures_leave_each_others_seals(volume: FileVolume) -> None:
    for epoch in range(1, 7):
        for counter in range(1, 4):
            read_again(volume).write(sealed(volume, epoch, counter))
    found = where(volume)
    assert set(found) == set(range(SLOTS))
    assert all(e % 2 == n % 2 for n, (e, _) in found.items())
    assert read_again(volume).newest == sealed(volume, 6, 3)


def test_highest_sequence_wins_wherever_it_lies(volume: FileVolume) -> None:
    sequences = [(2, 9), (10, 1), (9, 30), (10, 2), (3, 99)]
    for number, sequence in zip((14, 0, 1, 4, 15), sequences):
        put(volume, number, seal.pack(sealed(volume, *sequence)))
    ring = read_again(volume)
    assert ring.newest is not None and ring.newest.sequence == (10, 2)
    assert [s.sequence for s in ring.seals()] == sorted(
        sequences, reverse=True
    )


@pytest.mark.parametrize("field", ["domain", "image", "volume"])
def test_foreign_identity_is_ignored(volume: FileVolume, field: str) -> None:
    mine = sealed(volume, 1, 1)
    changes: dict[str, Any] = {
        "sequence": (8, 8),
        field: "11111111-1111-4111-8111-111111111111",
    }
    foreign = mine._replace(**changes)
    put(volume, 1, seal.pack(mine))
    put(volume, 0, seal.pack(foreign))
    ring = read_again(volume)
    assert ring.newest == mine
    # Its slot is as good as free.
    ring.write(sealed(volume, 2, 1))
    assert where(volume) == {0: (2, 1), 1: (1, 1)}


def test_log_copied_from_another_volume_is_empty(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path)
    builders.upload_names(domain, ["a"])
    one, two = domain.volumes()
    Path(two.log_path).write_bytes(Path(one.log_path).read_bytes())
    with two:
        two.open()
        assert Ring(two).read() is None


@pytest.mark.parametrize("cut", [0, 512, 4096, 32768, SLOT_SIZE - 512])
def test_torn_slot(volume: FileVolume, cut: int) -> None:
    """The last write was cut: the seal before it counts."""
    ring = read_again(volume)
    for counter in (1, 2):
        ring.write(sealed(volume, 1, counter))
    torn = seal.pack(sealed(volume, 1, 3))
    put(volume, 5, torn[:cut] + bytes(SLOT_SIZE - cut))
    ring = read_again(volume)
    assert ring.newest == sealed(volume, 1, 2)
    # The torn slot is written again, not an older seal's.
    ring.write(sealed(volume, 1, 3))
    assert where(volume) == {1: (1, 1), 3: (1, 2), 5: (1, 3)}


def test_every_slot_damaged(volume: FileVolume) -> None:
    ring = Ring(volume)
    for counter in range(8):
        ring.write(sealed(volume, 1, counter))
    for number in range(SLOTS):
        put(volume, number, b"\xff")
    assert read_again(volume).newest is None


def test_newer_format_stops_a_writer(volume: FileVolume) -> None:
    old = sealed(volume, 1, 1)
    put(volume, 1, seal.pack(old))
    fields = json.loads(seal.pack(old)[:-32].rstrip(b"\0"))
    newer = record.pack({**fields, "version": 2}, SLOT_SIZE)
    put(volume, 0, newer)
    with pytest.raises(errors.FormatUnknown):
        Ring(volume).read()
    assert Ring(volume).read(tolerant=True) == old


@pytest.mark.parametrize("size", [0, 4096, RING_SIZE - 4096])
def test_log_without_room_for_a_ring(volume: FileVolume, size: int) -> None:
    os.truncate(volume.log_path, size)
    assert Ring(volume).read() is None


def test_ring_is_at_the_end_whatever_the_capacity(volume: FileVolume) -> None:
    """The log keeps its length when the volume is extended."""
    Ring(volume).write(sealed(volume, 1, 1))
    volume.capacity *= 4
    assert Ring(volume).offset == OFFSET
    assert read_again(volume).newest == sealed(volume, 1, 1)


def test_seal_that_is_too_large(volume: FileVolume) -> None:
    members = (seal.Member(volume.id, volume.image),) * (seal.MAX_MEMBERS + 1)
    new = sealed(volume, 1, 1)._replace(members=members)
    with pytest.raises(errors.Error, match="too large"):
        Ring(volume).write(new)
    assert where(volume) == {}


def test_lost_write_is_noticed(tmp_path: Path) -> None:
    class Forgetful(System):
        """Storage that says yes and writes nothing."""

        def pwritev(self, fd: int, view: memoryview, offset: int) -> int:
            return len(view)

    made = builders.make_domain(tmp_path, copies=1, capacity=CAPACITY)
    os.close(made.store_directory(create=True))
    domain = FileDomain.open(made.path, Forgetful())
    with domain.volumes()[0] as volume:
        volume.open(write=True)
        volume.create_log()
        with pytest.raises(errors.StorageFailed, match="read back"):
            Ring(volume).write(sealed(volume, 1, 1))


def test_unreadable_slot(tmp_path: Path) -> None:
    """A reader makes the best of the others, a writer must not."""

    class BadSector(System):
        def preadv(self, fd: int, view: memoryview, offset: int) -> int:
            name = os.readlink(f"/proc/self/fd/{fd}")
            bad = OFFSET + 3 * SLOT_SIZE + 4096
            if name.endswith(".log") and offset <= bad < offset + len(view):
                raise OSError(5, "Input/output error")
            return super().preadv(fd, view, offset)

    made = builders.make_domain(tmp_path, copies=1, capacity=CAPACITY)
    os.close(made.store_directory(create=True))
    with made.volumes()[0] as volume:
        volume.open(write=True)
        volume.create_log()
        for counter in (1, 2, 3):
            Ring(volume).write(sealed(volume, 1, counter))
            put(volume, 2 * counter - 1, seal.pack(sealed(volume, 1, counter)))
    domain = FileDomain.open(made.path, BadSector())
    with domain.volumes()[0] as volume:
        volume.open()
        ring = Ring(volume)
        with pytest.raises(errors.StorageFailed):
            ring.read()
        assert ring.read(tolerant=True) == sealed(volume, 1, 3)
        assert ring.unreadable == [3]
