# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
An upload of the engine's own writes the head of the volume that it names.
Whatever is on the other one, and VDSM has not locked, stays there; and is
kept when its own upload comes.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.store import builders
from tests.store.builders import archive, archives, head
from tests.store.test_stock_uploads import Engine, history, put, verdict
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.storage.filevolume import FileVolume
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.job import Job
from vdsm_ovfstore.store.verify import OK


class Bed:
    """A store whose second volume is about to be not as it should be."""

    def __init__(self, directory: Path) -> None:
        self.domain: FileDomain = builders.make_domain(directory)
        self.engine = Engine(self.domain)
        # In the order in which a tenure takes them.
        self.first, self.second = sorted(
            self.domain.volumes(), key=lambda v: v.id
        )
        self.old = archive(self.domain, ["old"])
        self.now = archive(self.domain, ["old", "web"])
        for tar in (self.old, self.now):
            self.engine.update(self.first, tar)
            self.engine.update(self.second, tar)
        # So that what is read from it is the store's own.
        Job(self.domain.path).heal()
        self.theirs = archive(self.domain, ["old", "them"], self.later())

    def later(self) -> int:
        self.engine.now += 60
        return self.engine.now


def clean(bed: Bed) -> bytes:
    return b""


def foreign(bed: Bed) -> bytes:
    """A host without us uploads."""
    builders.stock_write(bed.second, bed.theirs, when=bed.later())
    return bed.theirs


def foreign_of_the_same_length(bed: Bed) -> bytes:
    """Only the dates are others: what an hourly update looks like."""
    tar = archive(bed.domain, ["old", "web"], bed.later())
    assert len(tar) == len(bed.now) and tar != bed.now
    builders.stock_write(bed.second, tar, when=bed.later())
    return tar


def not_yet_described(bed: Bed) -> bytes:
    """It is still at it."""
    builders.stock_write(bed.second, bed.theirs, updated=False)
    return bed.theirs


def torn(bed: Bed) -> bytes:
    """It died over it."""
    builders.stock_write(bed.second, bed.theirs[:1500], updated=False)
    return bed.theirs[:1500]


def described_wrongly(bed: Bed) -> bytes:
    builders.dd_write(bed.second, bed.theirs)
    bed.engine.describe(bed.second, True, len(bed.theirs) - 512)
    return bed.theirs


def damaged(bed: Bed) -> bytes:
    builders.flip(bed.second.path, 700)
    return head(bed.second, len(bed.now))


def no_log(bed: Bed) -> bytes:
    os.unlink(bed.second.log_path)
    return b""


def foreign_without_a_log(bed: Bed) -> bytes:
    no_log(bed)
    return foreign(bed)


def torn_without_a_log(bed: Bed) -> bytes:
    no_log(bed)
    return torn(bed)


def late(bed: Bed) -> bytes:
    """Mended before its description came."""
    not_yet_described(bed)
    Job(bed.domain.path).heal()
    assert head(bed.second, len(bed.now)) == bed.now
    bed.later()
    bed.engine.describe(bed.second, True, len(bed.theirs))
    return bed.theirs


class Stop(Exception):
    pass


def interrupted(bed: Bed) -> bytes:
    """A commit ended before its head was there."""
    write_head = Copy.write_head

    def stop(self: Copy, *args: Any) -> None:
        if self.id == bed.second.id:
            raise Stop
        write_head(self, *args)

    tar = archive(bed.domain, ["between"], bed.later())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Copy, "write_head", stop)
        with pytest.raises(Stop):
            builders.upload(bed.domain, tar)
    return tar


def interrupted_and_foreign(bed: Bed) -> bytes:
    interrupted(bed)
    return foreign(bed)


STATES = [
    clean,
    foreign,
    foreign_of_the_same_length,
    not_yet_described,
    torn,
    described_wrongly,
    damaged,
    no_log,
    foreign_without_a_log,
    torn_without_a_log,
    late,
    interrupted,
    interrupted_and_foreign,
]
ADOPTED = {
    foreign,
    foreign_of_the_same_length,
    foreign_without_a_log,
    late,
    interrupted,
    interrupted_and_foreign,
}

State = Callable[[Bed], bytes]


@pytest.fixture
def bed(tmp_path: Path) -> Bed:
    return Bed(tmp_path)


def frozen(volume: FileVolume) -> list[object]:
    """What must not change: bytes, and the files that they are in."""
    found: list[object] = []
    for path in (volume.path, volume.metadata_path):
        status = os.stat(path)
        found += [
            Path(path).read_bytes(),
            (status.st_ino, status.st_mtime_ns, status.st_ctime_ns),
        ]
    return found


def suspects(domain: FileDomain) -> list[bytes]:
    with builders.opened(domain) as copies:
        return [
            b"".join(copy.segment(entry).tar())
            for copy in copies
            for entry in copy.entries()
            if not entry.shown
        ]


@pytest.mark.parametrize("state", STATES, ids=lambda s: s.__name__)
def test_the_other_volume_stays_as_it_is(bed: Bed, state: State) -> None:
    there = state(bed)
    before = frozen(bed.second)
    new = archive(bed.domain, ["new"], bed.later())
    answer = bed.engine.update(bed.first, new)
    assert answer["degraded"] == []
    assert head(bed.first, len(new)) == new
    assert frozen(bed.second) == before

    # A second one, as an engine that did not come to the other volume sends.
    newer = archive(bed.domain, ["newer"], bed.later())
    bed.engine.update(bed.first, newer)
    assert frozen(bed.second) == before

    kept = archives(bed.domain)
    if state in ADOPTED:
        assert there in kept.values()
    assert bed.now in kept.values() and new in kept.values()


@pytest.mark.parametrize("state", STATES, ids=lambda s: s.__name__)
def test_its_own_upload_loses_nothing(bed: Bed, state: State) -> None:
    there = state(bed)
    new = archive(bed.domain, ["new"], bed.later())
    first = bed.engine.update(bed.first, new)
    second = bed.engine.update(bed.second, new)
    assert first["generation"] == second["generation"]
    assert head(bed.second, len(new)) == new
    kept = list(archives(bed.domain).values())
    kept += suspects(bed.domain)
    assert any(data.startswith(there) for data in kept)
    assert verdict(bed.domain) == OK
    assert history(bed.domain)[0] == (first["generation"], "generation", 2)


@pytest.mark.parametrize("state", STATES, ids=lambda s: s.__name__)
def test_heal_brings_it_up(bed: Bed, state: State) -> None:
    """The engine never comes to the other volume."""
    there = state(bed)
    new = archive(bed.domain, ["new"], bed.later())
    number = bed.engine.update(bed.first, new)["generation"]
    Job(bed.domain.path).heal()
    for volume in (bed.first, bed.second):
        assert head(volume, len(new)) == new
    kept = list(archives(bed.domain).values())
    kept += suspects(bed.domain)
    assert any(data.startswith(there) for data in kept)
    assert history(bed.domain)[0] == (number, "generation", 2)
    assert verdict(bed.domain) == OK


@pytest.mark.parametrize(
    "state", [foreign, torn, interrupted], ids=lambda s: s.__name__
)
def test_the_volume_itself_is_mended(bed: Bed, state: State) -> None:
    """What is on the volume that is written is kept before."""
    there = state(bed)
    bed.engine.begin(bed.second)
    new = archive(bed.domain, ["new"], bed.later())
    before = frozen(bed.first)
    put(bed.domain, bed.second, new)
    bed.engine.end(bed.second, new)
    assert head(bed.second, len(new)) == new
    assert frozen(bed.first) == before
    kept = list(archives(bed.domain).values())
    kept += suspects(bed.domain)
    assert any(data.startswith(there) for data in kept)
