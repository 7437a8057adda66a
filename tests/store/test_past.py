# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What is done with generations of the past: restored, pinned, unpinned."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.storage.traced_system import Crash, TracedSystem
from tests.store import builders
from tests.store.builders import EPOCH, MIB, archive, archives
from vdsm_ovfstore import errors
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store import retention
from vdsm_ovfstore.store.job import Job
from vdsm_ovfstore.store.reader import Reader
from vdsm_ovfstore.store.retention import Settings

FEW = Settings(newest=2, hourly=0, daily=0, monthly=0)


@pytest.fixture
def domain(tmp_path: Path) -> FileDomain:
    """With generation 1, of a and b, and 2, of a."""
    domain = builders.make_domain(tmp_path)
    builders.upload_names(domain, "ab", EPOCH)
    builders.upload_names(domain, "a", EPOCH + 1)
    return domain


def pins(domain: FileDomain) -> dict[int, str]:
    with Reader(FileDomain.open(domain.path)) as reader:
        return {g.number: g.pinned for g in reader.generations()}


def damage(domain: FileDomain, copy: int, generation: int) -> None:
    """A bit in the last frame of a segment."""
    with builders.opened(domain) as copies:
        one = copies[copy]
        (entry,) = (e for e in one.entries() if e.generation == generation)
        frame = one.segment(entry).frames[-1]
        path = one.volume.log_path
    builders.flip(path, entry.offset + frame.position + frame.stored - 1)


# -- restore ------------------------------------------------------------------


def test_restore(domain: FileDomain) -> None:
    first = archives(domain)[1]
    answer = Job(domain.path).restore("1")
    assert (answer["restored"], answer["generation"]) == (1, 3)
    assert answer["sha256"] == hashlib.sha256(first).hexdigest()
    assert (answer["entities"], answer["unchanged"]) == (2, False)
    assert len(answer["copies"]) == 2
    found = archives(domain)
    assert (found[3], set(found)) == (first, {1, 2, 3})
    for volume in domain.volumes():
        assert builders.head(volume, len(first)) == first


def test_restore_is_undone_by_another(domain: FileDomain) -> None:
    second = archives(domain)[2]
    Job(domain.path).restore("1")
    assert Job(domain.path).restore("2")["generation"] == 4
    assert archives(domain)[4] == second


def test_restore_the_newest(domain: FileDomain) -> None:
    answer = Job(domain.path).restore("2")
    assert (answer["generation"], answer["unchanged"]) == (2, True)
    assert set(archives(domain)) == {1, 2}


@pytest.mark.parametrize(
    "copies", [(0,), (1,)], ids=["first copy", "second copy"]
)
def test_restore_from_the_copy_that_is_sound(
    domain: FileDomain, copies: tuple[int, ...]
) -> None:
    first = archives(domain)[1]
    for copy in copies:
        damage(domain, copy, 1)
    assert Job(domain.path).restore("1")["generation"] == 3
    assert archives(domain)[3] == first


def test_restore_what_is_lost(domain: FileDomain) -> None:
    """Nothing is given a number, and the newest one stays."""
    before = archives(domain)
    damage(domain, 0, 1)
    damage(domain, 1, 1)
    with pytest.raises(errors.Damaged, match="Generation 1"):
        Job(domain.path).restore("1")
    with Reader(FileDomain.open(domain.path)) as reader:
        assert reader.newest().number == 2
        assert b"".join(reader.open(reader.newest()).tar()) == before[2]


def test_restore_what_must_make_room_for_itself(tmp_path: Path) -> None:
    """Its own segment is the one that goes for the new one."""
    domain = builders.make_domain(tmp_path)
    room = domain.volumes()[0].capacity - MIB
    # Four fit, and five do not; such a text takes 60 % of its length.
    notes = [
        builders.incompressible(int(room / 4.3 / 0.6), seed)
        for seed in range(4)
    ]
    tars = [archive(domain, {"a": text}, EPOCH) for text in notes]
    for tar in tars:
        builders.upload(domain, tar)
    assert set(archives(domain)) == {1, 2, 3, 4}
    assert Job(domain.path).restore("1")["generation"] == 5
    found = archives(domain)
    assert 1 not in found
    assert found[5] == tars[0]


@pytest.mark.parametrize("wanted", ["3", "1:ff", "0"])
def test_restore_what_is_not_there(domain: FileDomain, wanted: str) -> None:
    with pytest.raises(errors.GenerationNotFound):
        Job(domain.path).restore(wanted)


def fork(domain: FileDomain) -> list[bytes]:
    """Two generations 3, of copies that were never up together."""
    tars = []
    one, two = (Path(v.path).parent for v in domain.volumes())
    for away, names in ((two, "abc"), (one, "abcd")):
        hidden = away.with_name("away")
        away.rename(hidden)
        tars.append(builders.upload_names(domain, names))
        hidden.rename(away)
    builders.repair(domain)
    return tars


def test_restore_one_of_a_fork(domain: FileDomain) -> None:
    tars = fork(domain)
    with pytest.raises(errors.GenerationAmbiguous, match="3:"):
        Job(domain.path).restore("3")
    with Reader(FileDomain.open(domain.path)) as reader:
        newest = reader.newest().sha256
    (older,) = (
        tar for tar in tars if hashlib.sha256(tar).hexdigest() != newest
    )
    digest = hashlib.sha256(older).hexdigest()
    assert Job(domain.path).restore(f"3:{digest[:8]}")["generation"] == 4
    assert archives(domain)[4] == older


def restore(domain: FileDomain, system: TracedSystem) -> None:
    job = Job(domain.path)
    job._domain = FileDomain.open(domain.path, system=system)
    job.restore("1")


@pytest.mark.slow
def test_restore_is_killed_anywhere(tmp_path: Path) -> None:
    """The newest is the old one or the restored one, whole."""
    calls = 1
    number = 0
    while number < calls:
        parent = tmp_path / str(number)
        parent.mkdir()
        domain = builders.make_domain(parent)
        first = builders.upload_names(domain, "ab", EPOCH)
        second = builders.upload_names(domain, "a", EPOCH + 1)
        if number == 0:
            # How many there are; on a domain that is thrown away.
            system = TracedSystem()
            restore(domain, system)
            calls = len(system.calls)
            number = 1
            continue
        with pytest.raises(Crash):
            restore(domain, TracedSystem(fail=number))
        with Reader(FileDomain.open(domain.path)) as reader:
            found = b"".join(reader.open(reader.newest()).tar())
        assert found in (first, second)
        builders.repair(domain)
        assert Job(domain.path).restore("1")["sha256"] == (
            hashlib.sha256(first).hexdigest()
        )
        number += 7
    assert calls > 100


# -- pins ---------------------------------------------------------------------


def test_pinned_outlives_the_settings(domain: FileDomain) -> None:
    first = archives(domain)[1]
    answer = Job(domain.path).pin("1", keep=True)
    assert (answer["generation"], answer["pinned"]) == (1, True)
    assert len(answer["copies"]) == 2
    for number in range(6):
        tar = archive(domain, "a", EPOCH + 10 + number)
        builders.upload(domain, tar, settings=FEW)
    assert pins(domain) == {8: "", 7: "", 6: "", 1: "user"}
    assert archives(domain)[1] == first


def test_unpinned_goes_in_its_time(domain: FileDomain) -> None:
    Job(domain.path).pin("1", keep=True)
    answer = Job(domain.path).pin("1", keep=False)
    assert (answer["generation"], answer["pinned"]) == (1, False)
    assert pins(domain) == {1: "", 2: ""}
    for number in range(3):
        tar = archive(domain, "a", EPOCH + 10 + number)
        builders.upload(domain, tar, settings=FEW)
    assert 1 not in pins(domain)


def test_unpin_what_was_pinned_for_caution(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path)
    builders.upload_names(domain, "abc", EPOCH)
    builders.upload_names(domain, "a", EPOCH + 1)
    assert pins(domain)[1] == retention.SHRINK
    Job(domain.path).pin("1", keep=False)
    assert pins(domain)[1] == ""


def test_unpinned_fork_stays_so(domain: FileDomain) -> None:
    """Every tenure sees that only one copy has it."""
    fork(domain)
    with Reader(FileDomain.open(domain.path)) as reader:
        (one,) = (
            g for g in reader.generations() if g.pinned == retention.FORK
        )
    key = f"{one.number}:{one.sha256}"
    Job(domain.path).pin(key, keep=False)
    builders.repair(domain)
    with Reader(FileDomain.open(domain.path)) as reader:
        assert reader.find(key).pinned == ""
    # And again: that is no mistake.
    Job(domain.path).pin(key, keep=False)
    assert Job(domain.path).pin(key, keep=True)["pinned"]
    builders.repair(domain)
    with Reader(FileDomain.open(domain.path)) as reader:
        assert reader.find(key).pinned == retention.USER


def test_pins_leave_room(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path)
    room = domain.volumes()[0].capacity - MIB
    for seed in range(4):
        text = builders.incompressible(int(room / 6 / 0.6), seed)
        builders.upload(domain, archive(domain, {"a": text}, EPOCH))
    Job(domain.path).pin("1", keep=True)
    with pytest.raises(errors.PinRefused) as caught:
        Job(domain.path).pin("2", keep=True)
    fields = caught.value.fields()
    assert fields["generation"] == 2
    assert fields["left"] < fields["needed"]
    assert pins(domain) == {1: "user", 2: "", 3: "", 4: ""}
    # It is pinned: that is no new pin.
    Job(domain.path).pin("1", keep=True)
    # And the room that was left suffices.
    text = builders.incompressible(int(room / 6 / 0.6), 9)
    builders.upload(domain, archive(domain, {"a": text}, EPOCH))
    assert pins(domain)[1] == "user"


def test_pin_what_is_not_there(domain: FileDomain) -> None:
    for keep in (True, False):
        with pytest.raises(errors.GenerationNotFound):
            Job(domain.path).pin("7", keep)


def test_pin_with_a_copy_away(domain: FileDomain) -> None:
    """It is pinned where it is; the other one is named."""
    away = Path(domain.volumes()[0].path).parent
    away.rename(away.with_name("away"))
    answer = Job(domain.path).pin("1", keep=True)
    assert len(answer["copies"]) == 1
    assert len(answer["degraded"]) == 1
    assert pins(domain)[1] == "user"
