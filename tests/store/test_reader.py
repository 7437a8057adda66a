# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What readers see: stores of stock hosts, ours, and damaged ones."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store import builders
from tests.store.builders import EPOCH
from vdsm_ovfstore import errors
from vdsm_ovfstore.format import description, seal
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store import locked, retention
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.reader import UNSEALED, Generation, Reader
from vdsm_ovfstore.store.tenure import Tenure

NOTES = builders.incompressible(3000)


class Crash(BaseException):
    """The worker dies here."""


@pytest.fixture
def domain(tmp_path: Path) -> FileDomain:
    return builders.make_domain(tmp_path)


def archive(domain: FileDomain, names: str, when: int = EPOCH) -> bytes:
    return builders.archive(domain, dict.fromkeys(names, NOTES), when)


@contextlib.contextmanager
def reading(domain: FileDomain) -> Iterator[Reader]:
    with Reader(FileDomain.open(domain.path)) as reader:
        yield reader


def generations(domain: FileDomain) -> list[Generation]:
    with reading(domain) as reader:
        return reader.generations()


def tar_of(reader: Reader, wanted: str | None = None) -> bytes:
    return b"".join(reader.open(reader.find(wanted)).tar())


def snapshot(domain: FileDomain) -> dict[str, tuple[int, str]]:
    """Length and digest of every file of the domain."""
    return {
        str(path): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in Path(domain.path).rglob("*")
        if path.is_file() and path.name not in ("inbox", "outbox")
    }


# -- stores that only stock hosts wrote


def test_new_store_is_empty(domain: FileDomain) -> None:
    with reading(domain) as reader:
        assert reader.generations() == []
        with pytest.raises(errors.StoreEmpty):
            reader.newest()
        with pytest.raises(errors.StoreEmpty):
            reader.find(None)
        with pytest.raises(errors.GenerationNotFound):
            reader.find("1")


def test_domain_without_volumes(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path, copies=0)
    with pytest.raises(errors.VolumeNotFound):
        Reader(domain)


def test_unsealed(domain: FileDomain) -> None:
    tar = archive(domain, "abc")
    for volume in domain.volumes():
        builders.stock_write(volume, tar, when=EPOCH + 7)
    with reading(domain) as reader:
        (found,) = reader.generations()
        assert found == Generation(
            number=0,
            sha256=hashlib.sha256(tar).hexdigest(),
            length=len(tar),
            time=EPOCH + 7,
            entities=3,
            kind=UNSEALED,
            pinned="",
            copies=tuple(v.id for v in domain.volumes()),
        )
        assert reader.newest() == reader.find(None) == reader.find("0")
        assert tar_of(reader) == tar
        generation = reader.open(found)
        assert [e.entity for e in generation.index() if e.entity] == [*"abc"]
        assert generation.read(generation.find("b")) == builders.ovf(
            "b", NOTES
        )


@pytest.mark.parametrize(
    "kind", ["not updated", "no description", "wrong size", "not JSON"]
)
def test_unsealed_under_a_useless_description(
    domain: FileDomain, kind: str
) -> None:
    """The bytes may be intact where the flag is not."""
    tar = archive(domain, "abc")
    volume = domain.volumes()[0]
    if kind == "not updated":
        builders.stock_write(volume, tar, updated=False)
    else:
        builders.dd_write(volume, tar)
        text = {
            "no description": description.created(),
            "wrong size": description.build(domain.id, 99, EPOCH),
            "not JSON": '{"Updated":true,"Si',
        }[kind]
        builders.set_description(volume, text)
    with reading(domain) as reader:
        assert reader.newest().kind == UNSEALED
        assert tar_of(reader) == tar


def test_unsealed_ends_with_its_end_marker(domain: FileDomain) -> None:
    """Without a usable Size; what follows in the volume is nobody's."""
    tar = archive(domain, "abc")
    volume = domain.volumes()[0]
    builders.dd_write(volume, tar + bytes(100_000) + b"older bytes")
    with reading(domain) as reader:
        assert reader.newest().length == len(tar)
        assert tar_of(reader) == tar


def test_later_of_two_unsealed(domain: FileDomain) -> None:
    one, two = domain.volumes()
    old, new = archive(domain, "abc"), archive(domain, "abcd", EPOCH + 60)
    builders.stock_write(one, new, when=EPOCH + 60)
    builders.stock_write(two, old, when=EPOCH)
    with reading(domain) as reader:
        assert [g.entities for g in reader.generations()] == [4, 3]
        assert tar_of(reader) == new
        with pytest.raises(errors.GenerationAmbiguous):
            reader.find("0")
        prefix = hashlib.sha256(old).hexdigest()[:6]
        assert tar_of(reader, f"0:{prefix}") == old


@pytest.mark.parametrize(
    "content",
    [b"", b"junk" * 999, bytes(50_000)],
    ids=["nothing", "junk", "zeros"],
)
def test_unsealed_rubbish(domain: FileDomain, content: bytes) -> None:
    good, bad = domain.volumes()
    builders.dd_write(bad, content)
    assert generations(domain) == []
    tar = archive(domain, "abc")
    builders.stock_write(good, tar)
    (found,) = generations(domain)
    assert found.copies == (good.id,)


@pytest.mark.parametrize("cut", [100, 512, 700, 5000, -1, -512, -1024])
def test_unsealed_cut(domain: FileDomain, cut: int) -> None:
    tar = archive(domain, "abc")
    builders.stock_write(domain.volumes()[0], tar)
    builders.dd_write(domain.volumes()[0], tar[:cut])
    if cut == -1:
        # VDSM reads whole sectors: a byte short of the marker is cut, too.
        assert generations(domain) == []
    assert generations(domain) == []


def test_unsealed_with_an_ovf_that_is_none(domain: FileDomain) -> None:
    tar = archive(domain, "abc").replace(b"<Name>b<", b"<Nome>b<")
    builders.stock_write(domain.volumes()[0], tar)
    (found,) = generations(domain)
    assert found.entities == 2
    assert builders.contents(domain) == ["a", "c"]


# -- ours


def test_generations_newest_first(domain: FileDomain) -> None:
    tars = [archive(domain, "abcdef"[: n + 1], EPOCH + n) for n in range(4)]
    for tar in tars:
        builders.upload(domain, tar)
    found = generations(domain)
    assert [g.number for g in found] == [4, 3, 2, 1]
    assert [g.entities for g in found] == [4, 3, 2, 1]
    assert {g.kind for g in found} == {"generation"}
    for g, tar in zip(found, reversed(tars)):
        assert g.sha256 == hashlib.sha256(tar).hexdigest()
        assert g.length == len(tar)
        assert set(g.copies) == {v.id for v in domain.volumes()}
    with reading(domain) as reader:
        for number, tar in enumerate(tars, 1):
            assert tar_of(reader, str(number)) == tar
        assert tar_of(reader) == tars[-1]


@pytest.mark.parametrize(
    "wanted", ["3", "0", "-1", "1:zz", "", "01", "1x", " 1", ":", "x:y", "١"]
)
def test_not_found(domain: FileDomain, wanted: str) -> None:
    tar = archive(domain, "abc")
    builders.upload(domain, tar)
    with reading(domain) as reader:
        with pytest.raises(errors.GenerationNotFound) as caught:
            reader.find(wanted)
        assert caught.value.fields()["generation"] == wanted


@pytest.mark.parametrize("digits", [0, 1, 12, 64])
def test_found_by_digest(domain: FileDomain, digits: int) -> None:
    tar = archive(domain, "abc")
    builders.upload(domain, tar)
    digest = hashlib.sha256(tar).hexdigest()
    with reading(domain) as reader:
        assert reader.find(f"1:{digest[:digits]}").sha256 == digest


def test_entities(domain: FileDomain) -> None:
    ovfs = ["web", "db", "web2", "ü"]
    builders.upload_names(domain, ovfs)
    with reading(domain) as reader:
        generation = reader.open(reader.newest())
        for name in ovfs:
            entry = generation.find(name)
            assert entry == generation.find(builders.vm_id(name).upper())
            assert generation.read(entry) == builders.ovf(name)
            assert entry.disks == (builders.disk_id(name),)
        for missing in ("we", "info.json", "", "info", builders.vm_id("x")):
            with pytest.raises(errors.EntityNotFound):
                generation.find(missing)


def test_two_entities_of_one_name(domain: FileDomain) -> None:
    tar = archive(domain, "abc").replace(b"<Name>b<", b"<Name>a<")
    builders.upload(domain, tar)
    with reading(domain) as reader:
        generation = reader.open(reader.newest())
        with pytest.raises(errors.EntityAmbiguous) as caught:
            generation.find("a")
        assert builders.vm_id("b") in str(caught.value)
        found = generation.find(builders.vm_id("b"))
        assert found.entity == "a"


def test_reading_changes_nothing(domain: FileDomain) -> None:
    builders.upload(domain, archive(domain, "abc"))
    one, two = domain.volumes()
    builders.stock_write(one, archive(domain, "x"), updated=False)
    builders.flip(two.path, 700)
    before = snapshot(domain)
    with reading(domain) as reader:
        for generation in reader.generations():
            for _ in reader.open(generation).tar():
                pass
        reader.refresh()
    assert snapshot(domain) == before


def test_newest_whatever_the_heads_show(domain: FileDomain) -> None:
    """The log is the truth: descriptions and heads are not asked."""
    tar = archive(domain, "abc")
    builders.upload(domain, tar)
    for volume in domain.volumes():
        builders.stock_write(volume, archive(domain, "x"), when=EPOCH + 60)
    with reading(domain) as reader:
        assert tar_of(reader) == tar


# -- what is introduced is not shown


def crashed_upload(
    domain: FileDomain, tar: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dies on the first copy, just after the seal `replacing`."""

    def die(*args: object) -> None:
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(Copy, "write_head", die)
        with pytest.raises(Crash):
            builders.upload(domain, tar)


def test_introduced_generation_is_not_shown(
    domain: FileDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = archive(domain, "abc"), archive(domain, "abcd", EPOCH + 60)
    builders.upload(domain, old)
    crashed_upload(domain, new, monkeypatch)
    with builders.opened(domain) as copies:
        newest = [c.seal for c in copies if c.seal and c.seal.introduces]
        assert [s.introduces for s in newest] == [
            (2, hashlib.sha256(new).hexdigest())
        ]
        assert newest[0].find(newest[0].introduces or (0, "")) is not None
    assert builders.archives(domain) == {1: old}
    with reading(domain) as reader:
        with pytest.raises(errors.GenerationNotFound):
            reader.find("2")
    # It was committed, and the next writer finishes it.
    builders.repair(domain)
    assert builders.archives(domain) == {1: old, 2: new}


def test_first_generation_introduced(
    domain: FileDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    tar = archive(domain, "abc")
    crashed_upload(domain, tar, monkeypatch)
    assert generations(domain) == []
    builders.repair(domain)
    assert builders.archives(domain) == {1: tar}


def test_claim_of_the_next_worker_still_does_not_show_it(
    domain: FileDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says again what the seal before it introduced."""
    old, new = archive(domain, "abc"), archive(domain, "abcd", EPOCH + 60)
    builders.upload(domain, old)
    crashed_upload(domain, new, monkeypatch)
    with monkeypatch.context() as patched:

        def die(*args: object) -> None:
            raise Crash

        patched.setattr(Copy, "head_sha256", die)
        with pytest.raises(Crash):
            builders.repair(domain)
    with builders.opened(domain) as copies:
        kinds = {c.seal.kind for c in copies if c.seal}
        assert seal.CLAIM in kinds
    assert builders.archives(domain) == {1: old}


def test_shown_when_another_copy_confirms_it(
    domain: FileDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = archive(domain, "abc"), archive(domain, "abcd", EPOCH + 60)
    builders.upload(domain, old)
    real = Copy.write_head
    calls = []

    def die(self: Copy, *args: object) -> None:
        calls.append(self.id)
        if len(calls) == 2:
            raise Crash
        real(self, *args)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Copy, "write_head", die)
        with pytest.raises(Crash):
            builders.upload(domain, new)
    assert builders.archives(domain) == {1: old, 2: new}
    (newest, _) = generations(domain)
    assert newest.copies == (calls[0],)


# -- forks


def tenure_at(when: int) -> functools.partial[Tenure]:
    return functools.partial(Tenure, now=lambda: when)


@pytest.fixture(params=["first copy", "second copy"])
def forked(
    domain: FileDomain,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> tuple[bytes, bytes]:
    """
    Two contents with the number 2: the copies were never up together.

    Returns the earlier and the later one. The parameter says which copy has
    the later one.
    """
    builders.upload(domain, archive(domain, "a"))
    one, two = (Path(v.path).parent for v in domain.volumes())
    if request.param == "first copy":
        one, two = two, one
    earlier, later = archive(domain, "ab"), archive(domain, "abc")
    for away, tar, when in ((two, earlier, 1), (one, later, 2)):
        monkeypatch.setattr(locked, "Tenure", tenure_at(EPOCH + when))
        hidden = away.with_name("away")
        away.rename(hidden)
        builders.upload(domain, tar)
        hidden.rename(away)
    monkeypatch.undo()
    return earlier, later


def test_fork_is_ambiguous(
    domain: FileDomain, forked: tuple[bytes, bytes]
) -> None:
    digests = [hashlib.sha256(tar).hexdigest() for tar in forked]
    with reading(domain) as reader:
        assert [g.number for g in reader.generations()] == [2, 2, 1]
        # What healing makes the newest everywhere is it before, too.
        assert tar_of(reader) == forked[1]
        with pytest.raises(errors.GenerationAmbiguous) as caught:
            reader.find("2")
        for digest, tar in zip(digests, forked):
            assert f"2:{digest[:12]}" in str(caught.value)
            assert tar_of(reader, f"2:{digest[:12]}") == tar
            assert tar_of(reader, f"2:{digest[:2]}") == tar
        assert tar_of(reader, "1") == archive(domain, "a")


def test_fork_is_kept_when_the_copies_meet(
    domain: FileDomain, forked: tuple[bytes, bytes]
) -> None:
    builders.repair(domain)
    with reading(domain) as reader:
        later, earlier, _ = reader.generations()
        assert reader.newest() == later
        assert [later.entities, earlier.entities] == [3, 2]
        assert [later.pinned, earlier.pinned] == ["", retention.FORK]
        assert len(later.copies) == 2
        for tar in forked:
            digest = hashlib.sha256(tar).hexdigest()
            assert tar_of(reader, f"2:{digest}") == tar
    builders.upload(domain, archive(domain, "abcd"))
    assert builders.contents(domain, "3") == list("abcd")


# -- damage


def damage_logs(domain: FileDomain, *numbers: int) -> None:
    """Flip a bit in each block of the newest segment of those copies."""
    for number in numbers:
        volume = domain.volumes()[number]
        newest = retention.by_age(builders.entries(domain, number))[0]
        for offset in range(newest.offset, newest.end, 4096):
            builders.flip(volume.log_path, offset + 300)


@pytest.mark.parametrize("number", [0, 1])
def test_damaged_segment_is_read_from_the_other_copy(
    domain: FileDomain, number: int
) -> None:
    old, new = archive(domain, "abc"), archive(domain, "abcd", EPOCH + 60)
    builders.upload(domain, old)
    builders.upload(domain, new)
    damage_logs(domain, number)
    for volume in domain.volumes():
        builders.dd_write(volume, b"")  # not from a head
    with reading(domain) as reader:
        assert tar_of(reader) == new
        generation = reader.open(reader.newest())
        assert generation.read(generation.find("d")) == builders.ovf(
            "d", NOTES
        )


def test_each_piece_from_the_copy_that_has_it(
    domain: FileDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One copy lost the first frame, the other the last."""
    noise = builders.incompressible(builders.MIB - 4096)
    tar = builders.archive(domain, dict.fromkeys("abc", noise))
    builders.upload(domain, tar)
    with builders.opened(domain) as copies:
        frames = copies[0].segment(copies[0].entries()[0]).frames
    assert len(frames) >= 3
    for number, frame in ((0, frames[0]), (1, frames[-1])):
        volume = domain.volumes()[number]
        (entry,) = builders.entries(domain, number)
        place = entry.offset + frame.position + 1000
        builders.flip(volume.log_path, place)
        builders.dd_write(volume, b"")
    with reading(domain) as reader:
        assert tar_of(reader) == tar


def test_from_the_head_when_both_logs_are_damaged(
    domain: FileDomain,
) -> None:
    tar = archive(domain, "abc")
    builders.upload(domain, tar)
    damage_logs(domain, 0, 1)
    builders.dd_write(domain.volumes()[0], b"")
    with reading(domain) as reader:
        assert tar_of(reader) == tar
        generation = reader.open(reader.newest())
        assert [e.entity for e in generation.index() if e.entity] == [*"abc"]
        assert generation.read(generation.find("c")) == builders.ovf(
            "c", NOTES
        )


def test_damaged_everywhere_says_so(domain: FileDomain) -> None:
    builders.upload(domain, archive(domain, "ab"))
    builders.upload(domain, archive(domain, "abc", EPOCH + 60))
    damage_logs(domain, 0, 1)
    for volume in domain.volumes():
        builders.flip(volume.path, 1000)
    with reading(domain) as reader:
        assert reader.newest().number == 2
        with pytest.raises(errors.Damaged):
            tar_of(reader)
        with pytest.raises(errors.Damaged):
            reader.open(reader.newest()).index()
        assert tar_of(reader, "1") == archive(domain, "ab")


def test_nothing_unverified_is_yielded(domain: FileDomain) -> None:
    """What comes before the error is right, and nothing else comes."""
    noise = builders.incompressible(builders.MIB - 4096)
    tar = builders.archive(domain, dict.fromkeys("abc", noise))
    builders.upload(domain, tar)
    for number, volume in enumerate(domain.volumes()):
        builders.dd_write(volume, b"")
        (entry,) = builders.entries(domain, number)
        builders.flip(volume.log_path, entry.end - 5000)
    got = b""
    with reading(domain) as reader:
        with pytest.raises(errors.Damaged):
            for data in reader.open(reader.newest()).tar():
                got += data
    assert 0 < len(got) < len(tar) and tar.startswith(got)


def test_volume_that_is_gone(domain: FileDomain) -> None:
    tar = archive(domain, "abc")
    builders.upload(domain, tar)
    gone = domain.volumes()[0]
    os.unlink(gone.path)
    with reading(domain) as reader:
        assert list(reader.problems) == [gone.id]
        assert isinstance(reader.problems[gone.id], errors.VolumeNotFound)
        assert tar_of(reader) == tar


def test_metadata_that_cannot_be_read(domain: FileDomain) -> None:
    tar = archive(domain, "abc")
    builders.upload(domain, tar)
    Path(domain.volumes()[0].metadata_path).write_bytes(b"\xff\xfe")
    with reading(domain) as reader:
        assert len(reader.copies) == 1
        assert [type(e) for e in reader.other_problems] == [
            errors.VolumeMetadataUnreadable
        ]
        assert tar_of(reader) == tar


@pytest.mark.parametrize(
    "content",
    [b"", b"junk", bytes(1 << 20)],
    ids=["nothing", "junk", "zeros"],
)
def test_log_that_is_none(domain: FileDomain, content: bytes) -> None:
    tar = archive(domain, "abc")
    builders.upload(domain, tar)
    for volume in domain.volumes():
        Path(volume.log_path).write_bytes(content)
    (found,) = generations(domain)
    assert found.kind == UNSEALED
    with reading(domain) as reader:
        assert tar_of(reader) == tar


def test_writer_while_a_reader_reads(domain: FileDomain) -> None:
    """What was evicted meanwhile is gone; the rest is found again."""
    noise = builders.incompressible(800_000)
    tars = [
        builders.archive(domain, {"a": noise}, EPOCH + n) for n in range(3)
    ]
    for tar in tars[:2]:
        builders.upload(domain, tar)
    settings = retention.Settings(2, 0, 0, 0)
    with reading(domain) as reader:
        first, second = reader.find("1"), reader.find("2")
        for n in range(3, 8):
            tar = builders.archive(domain, {"a": noise}, EPOCH + n)
            builders.upload(domain, tar, settings=settings)
        # The log has room for seven or so: the first one may be overwritten.
        for generation in (first, second):
            try:
                got = b"".join(reader.open(generation).tar())
            except errors.Error:
                continue
            assert got == tars[generation.number - 1]
        assert reader.newest().number == 7


def test_excluded_copy_does_not_decide(domain: FileDomain) -> None:
    """A copy that is away keeps its old generation; it is not the newest."""
    builders.upload(domain, archive(domain, "abc"))
    image = Path(domain.volumes()[0].path).parent
    hidden = image.with_name("away")
    image.rename(hidden)
    new = archive(domain, "ab", EPOCH + 60)
    builders.upload(domain, new)
    hidden.rename(image)
    with reading(domain) as reader:
        away = Path(image).name
        (volume,) = (v.id for v in domain.volumes() if v.image == away)
        assert reader.seal is not None
        assert reader.seal.excluded_ids() == {volume}
        assert reader.newest().number == 2
        assert tar_of(reader) == new
