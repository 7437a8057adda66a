# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What once went wrong: a generation lost although all of it was there, a store
that nothing could write any more, a verdict that lied.
"""

from __future__ import annotations

import contextlib
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store import builders
from vdsm_ovfstore import errors
from vdsm_ovfstore.format import description
from vdsm_ovfstore.lease.address import LeaseAddress
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store import retention, space, verify
from vdsm_ovfstore.store.job import Job
from vdsm_ovfstore.store.reader import Reader

EPOCH = builders.EPOCH
MIB = 1024**2


def report(domain: FileDomain) -> verify.Report:
    with Reader(FileDomain.open(domain.path)) as reader:
        return verify.verify(reader)


def newest(domain: FileDomain) -> tuple[int, bytes]:
    with Reader(FileDomain.open(domain.path)) as reader:
        found = reader.newest()
        return found.number, b"".join(reader.open(found).tar())


def damage(
    domain: FileDomain, copy: int, generation: int, frame: int = 0
) -> None:
    """Flip a bit in a frame of a segment."""
    with builders.opened(domain) as copies:
        entry = next(
            e for e in copies[copy].entries() if e.generation == generation
        )
        found = copies[copy].segment(entry).frames[frame]
    at = entry.offset + found.position + found.stored - 3
    builders.flip(domain.volumes()[copy].log_path, at)


def big(domain: FileDomain, length: int, when: int) -> bytes:
    """An archive of one VM; half of length is taken in the log."""
    notes = builders.incompressible(length, when)
    return builders.archive(domain, {"big": notes}, when)


# -- the newest generation is damaged in the log, but is not lost


@pytest.mark.parametrize("copies", [1, 2], ids="{}-copies".format)
def test_damaged_segments_are_mended_from_the_head(
    tmp_path: Path, copies: int
) -> None:
    domain = builders.make_domain(tmp_path, copies)
    builders.upload_names(domain, ["a"], EPOCH)
    tar = builders.upload_names(domain, ["a", "b"], EPOCH + 1)
    for number in range(copies):
        damage(domain, number, 2)
    builders.repair(domain)
    assert newest(domain) == (2, tar)
    assert builders.head(domain.volumes()[0], len(tar)) == tar
    assert report(domain).verdict == verify.OK


def test_damaged_segments_are_mended_from_each_other(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path)
    builders.upload_names(domain, ["a"], EPOCH)
    notes = {f"v{n}": builders.incompressible(300_000, n) for n in range(8)}
    tar = builders.archive(domain, notes, EPOCH + 1)
    builders.upload(domain, tar)
    damage(domain, 0, 2, frame=0)
    damage(domain, 1, 2, frame=1)
    for volume in domain.volumes():
        builders.flip(volume.path, 1000)
    builders.repair(domain)
    assert newest(domain) == (2, tar)
    assert report(domain).verdict == verify.OK


def test_mended_segment_keeps_its_pin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it cannot be mended where it lies."""
    domain = builders.make_domain(tmp_path)
    builders.upload_names(domain, ["a", "b", "c"], EPOCH)
    builders.upload_names(domain, ["d"], EPOCH + 1)
    pins = {e.generation: e.pinned for e in builders.entries(domain)}
    assert pins == {1: retention.SHRINK, 2: ""}
    damage(domain, 0, 1)
    monkeypatch.setattr(space, "is_apart", lambda *_: False)
    builders.repair(domain)
    assert pins == {e.generation: e.pinned for e in builders.entries(domain)}
    assert report(domain).verdict == verify.OK


# -- too large for the log


@pytest.mark.parametrize("copies", [1, 2], ids="{}-copies".format)
@pytest.mark.parametrize("uploads", [0, 5], ids=["unsealed", "sealed"])
def test_garbage_larger_than_the_log(
    tmp_path: Path, copies: int, uploads: int
) -> None:
    domain = builders.make_domain(tmp_path, copies)
    old = {
        n: builders.upload_names(domain, [f"vm{n}"], EPOCH + n)
        for n in range(1, uploads + 1)
    }
    garbage = random.Random(1).getrandbits(9 * MIB * 8)
    Path(domain.volumes()[0].path).write_bytes(
        garbage.to_bytes(9 * MIB, "big")
    )
    tar = builders.upload_names(domain, ["z"], EPOCH + 100)
    assert builders.archives(domain) == {**old, uploads + 1: tar}
    assert report(domain).verdict == verify.OK


def test_nothing_is_evicted_in_vain(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path, 1)
    for number in range(3):
        builders.upload_names(domain, [f"vm{number}"], EPOCH + number)
    for number in range(3, 5):
        builders.upload(domain, big(domain, 4 * MIB, EPOCH + number))
    before = builders.archives(domain)
    assert len(before) == 5
    with pytest.raises(errors.NoRoom):
        builders.upload(domain, big(domain, 7 * MIB, EPOCH + 9))
    assert builders.archives(domain) == before


def test_head_does_not_outgrow_its_volume(tmp_path: Path) -> None:
    """CAP of a volume is what VDSM knows of it; a log may be roomy."""
    domain = builders.make_domain(tmp_path, 1)
    domain.create_volume(2 * builders.CAPACITY)
    small = domain.volumes()
    builders.upload_names(domain, ["a"], EPOCH)
    answer = builders.upload(domain, big(domain, 9 * MIB, EPOCH + 1))
    refused = [v.id for v in small if v.capacity == builders.CAPACITY]
    assert [d["volume"] for d in answer["degraded"]] == refused
    assert answer["degraded"][0]["code"] == errors.ArchiveTooLarge.code


@pytest.mark.parametrize("copies", [1, 2], ids="{}-copies".format)
def test_stock_upload_that_needs_the_room_of_history(
    tmp_path: Path, copies: int
) -> None:
    domain = builders.make_domain(tmp_path, copies)
    for number in range(2):
        builders.upload(domain, big(domain, 4 * MIB, EPOCH + number))
    tar = big(domain, 7 * MIB, EPOCH + 9)
    builders.stock_write(domain.volumes()[0], tar, when=EPOCH + 9)
    builders.repair(domain)
    assert newest(domain) == (3, tar)
    assert report(domain).verdict == verify.OK
    assert sorted(builders.archives(domain)) == [2, 3]
    tar = builders.upload_names(domain, ["small"], EPOCH + 10)
    assert newest(domain) == (4, tar)


# -- descriptions and suspects


def set_aside(domain: FileDomain, tar: bytes) -> None:
    """A stock host writes, our tenure comes, the description does not."""
    builders.stock_write(domain.volumes()[0], tar, updated=False)
    builders.repair(domain)


def describe(domain: FileDomain, length: int, when: int) -> None:
    text = description.build(domain.id, length, when)
    builders.set_description(domain.volumes()[0], text)


def test_damaged_suspect_is_in_nobodys_way(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path, 1)
    builders.upload_names(domain, ["a"], EPOCH)
    tar = builders.archive(domain, ["s"], EPOCH + 5)
    set_aside(domain, tar)
    entry = next(e for e in builders.entries(domain) if not e.shown)
    at = entry.end - 4096 + 300
    builders.flip(domain.volumes()[0].log_path, at)
    describe(domain, len(tar), EPOCH + 6)
    tar = builders.upload_names(domain, ["b"], EPOCH + 7)
    assert newest(domain) == (2, tar)


def test_flipped_bit_under_a_new_description(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path, 1)
    builders.upload_names(domain, ["a"], EPOCH)
    tar = builders.upload_names(domain, ["a", "b"], EPOCH + 1)
    describe(domain, len(tar), EPOCH + 60)
    builders.repair(domain)
    at = tar.index(b"<Name>b") + len(b"<Name>")
    builders.flip(domain.volumes()[0].path, at)
    builders.repair(domain)
    assert newest(domain) == (2, tar)
    assert builders.head(domain.volumes()[0], len(tar)) == tar


def test_suspect_is_adopted_once(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path, 1)
    builders.upload_names(domain, ["a"], EPOCH)
    late = builders.archive(domain, ["s"], EPOCH + 5)
    set_aside(domain, late)
    describe(domain, len(late), EPOCH + 6)
    builders.repair(domain)
    assert newest(domain) == (2, late)
    tar = builders.upload_names(domain, ["t"], EPOCH + 7)
    describe(domain, len(late), EPOCH + 9)
    builders.repair(domain)
    assert newest(domain) == (3, tar)


def test_edited_description_brings_no_suspect_back(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path, 1)
    builders.upload_names(domain, ["a"], EPOCH)
    set_aside(domain, builders.archive(domain, ["s"], EPOCH + 5))
    volume = domain.volumes()[0]
    tar = builders.archive(domain, ["x"], EPOCH + 7)
    builders.stock_write(volume, tar, when=EPOCH + 8)
    builders.repair(domain)
    assert newest(domain)[1] == tar
    text = volume.read_metadata().description
    edited = text.replace("{", '{"DiskAlias":"mine",', 1)
    builders.set_description(volume, edited)
    builders.repair(domain)
    assert newest(domain)[1] == tar


# -- logs and volumes that are not what they should be


LENGTHS = [100, 4096, MIB, 3 * MIB + 100, 8 * MIB + 512]


@pytest.mark.parametrize("length", LENGTHS, ids="{}-bytes".format)
def test_log_of_impossible_length(tmp_path: Path, length: int) -> None:
    domain = builders.make_domain(tmp_path, 2)
    builders.upload_names(domain, ["a"], EPOCH)
    log = domain.volumes()[0].log_path
    os.truncate(log, length)
    tar = builders.archive(domain, ["b"], EPOCH + 1)
    with open(log, "rb") as file:
        before = file.read()
    assert builders.upload(domain, tar)["degraded"] == []
    assert newest(domain) == (2, tar)
    assert report(domain).verdict == verify.OK
    # Nothing told where its ring had been: it was kept, and replaced.
    (aside,) = domain.left_logs().set_aside()
    assert Path(log).with_name(aside).read_bytes() == before


def test_copied_image_directory(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path, 1)
    builders.upload_names(domain, ["a"], EPOCH)
    image = Path(domain.volumes()[0].path).parent
    for name in (
        "00000000-0000-4000-8000-000000000000",
        "ffffffff-ffff-4fff-bfff-ffffffffffff",
    ):
        shutil.copytree(image, image.parent / name)
    tar = builders.upload_names(domain, ["b"], EPOCH + 1)
    assert newest(domain) == (2, tar)
    assert (image / domain.volumes()[0].id).read_bytes()[: len(tar)] == tar


def test_member_created_while_we_waited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is locked, too, and not taken for lost."""
    domain = builders.make_domain(tmp_path, 1)
    builders.upload_names(domain, ["a"], EPOCH)
    job = Job(domain.path)
    locked = Job._locked
    waited: list[bool] = []

    @contextlib.contextmanager
    def wait(self: Job, addresses: list[LeaseAddress]) -> Iterator[None]:
        if self is job and not waited:
            waited.append(True)
            Job(domain.path).create(2, builders.CAPACITY)
        with locked(self, addresses):
            yield

    monkeypatch.setattr(Job, "_locked", wait)
    tar = builders.archive(domain, ["b"], EPOCH + 1)
    with contextlib.closing(builders.prepared(tar)) as content:
        answer: dict[str, Any] = job.upload(content)
    assert len(answer["copies"]) == 2
    assert answer["degraded"] == []
    assert report(domain).verdict == verify.OK


# -- readers


def test_two_generations_open_when_one_is_refreshed(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path)
    tar = builders.upload_names(domain, ["a"], EPOCH)
    builders.upload_names(domain, ["b"], EPOCH + 1)
    for number, volume in enumerate(domain.volumes()):
        damage(domain, number, 2)
        builders.flip(volume.path, 600)
    with Reader(FileDomain.open(domain.path)) as reader:
        new, old = [reader.open(g) for g in reader.generations()]
        with pytest.raises(errors.Damaged):
            b"".join(new.tar())
        assert b"".join(old.tar()) == tar


def test_wrong_size_in_the_description_is_reported(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path, 1)
    builders.upload_names(domain, ["a"], EPOCH)
    describe(domain, 512, EPOCH)
    assert "description" in " ".join(report(domain).problems)


def test_nothing_left(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path, 1)
    builders.upload_names(domain, ["a"], EPOCH)
    damage(domain, 0, 1)
    builders.flip(domain.volumes()[0].path, 600)
    assert report(domain).verdict == verify.LOST
