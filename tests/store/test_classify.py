# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What is a head? Real volumes, and real dd for what stock hosts write."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.store import builders
from tests.store.builders import EPOCH
from vdsm_ovfstore.format import archive_writer, description
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.storage.filevolume import FileVolume
from vdsm_ovfstore.store import classify, heads
from vdsm_ovfstore.store.classify import (
    ADOPT,
    CLEAN,
    EMPTY,
    ROLL,
    SUSPECT,
    UNSEALED,
    Verdict,
)
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.sources import Sources

BLOCK = 4096
NOTES = builders.incompressible(3000)


class Crash(BaseException):
    """The worker dies here."""


@pytest.fixture
def domain(tmp_path: Path) -> FileDomain:
    return builders.make_domain(tmp_path, copies=1)


@pytest.fixture
def volume(domain: FileDomain) -> FileVolume:
    return domain.volumes()[0]


def archive(domain: FileDomain, names: str, when: int = EPOCH) -> bytes:
    """An archive of VMs with names of one letter, about 4 KiB each."""
    return builders.archive(domain, dict.fromkeys(names, NOTES), when)


def verdict(domain: FileDomain) -> Verdict:
    with builders.opened(domain) as copies:
        find = Sources(copies).find_head
        return classify.classify(copies[0], find)


@contextlib.contextmanager
def dying(
    monkeypatch: pytest.MonkeyPatch, step: str, after: bool = False
) -> Iterator[None]:
    """Within, the worker dies before (or after) that step of a copy."""
    real = getattr(Copy, step)

    def die(*args: object) -> None:
        if after:
            real(*args)
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(Copy, step, die)
        with pytest.raises(Crash):
            yield


@pytest.fixture
def interrupted(
    domain: FileDomain, monkeypatch: pytest.MonkeyPatch
) -> tuple[bytes, bytes]:
    """
    Died under the seal `replacing`, the old head still there.

    Returns the old archive and the new one.
    """
    old, new = archive(domain, "abc"), archive(domain, "abcd", EPOCH + 60)
    builders.upload(domain, old)
    with dying(monkeypatch, "write_head"):
        builders.upload(domain, new)
    return old, new


# -- nothing sealed


def test_new_volume(domain: FileDomain) -> None:
    assert verdict(domain) == (EMPTY, None)


@pytest.mark.parametrize("length", [0, 512, 100_000])
def test_nothing_but_zeros(
    domain: FileDomain, volume: FileVolume, length: int
) -> None:
    builders.stock_write(volume, bytes(length))
    assert verdict(domain) == (EMPTY, None)


def test_unsealed_archive(domain: FileDomain, volume: FileVolume) -> None:
    tar = archive(domain, "abc")
    builders.stock_write(volume, tar)
    assert verdict(domain) == (ADOPT, len(tar))


@pytest.mark.parametrize("kind", ["not updated", "cut", "junk", "no size"])
def test_unsealed_but_not_sound(
    domain: FileDomain, volume: FileVolume, kind: str
) -> None:
    tar = archive(domain, "abc")
    if kind == "not updated":
        builders.stock_write(volume, tar, updated=False)
    elif kind == "cut":
        builders.stock_write(volume, tar[:5000])
    elif kind == "junk":
        builders.stock_write(volume, b"junk" * 5000)
    else:
        builders.dd_write(volume, tar)
    assert verdict(domain) == (UNSEALED, None)


# -- sealed and not being replaced


def test_clean(domain: FileDomain) -> None:
    builders.upload(domain, archive(domain, "abc"))
    assert verdict(domain) == (CLEAN, None)


def test_same_content_by_a_stock_host_is_clean(
    domain: FileDomain, volume: FileVolume
) -> None:
    tar = archive(domain, "abc")
    builders.upload(domain, tar)
    builders.stock_write(volume, tar, when=EPOCH + 60)
    assert verdict(domain) == (CLEAN, None)
    builders.stock_write(volume, tar, updated=False)
    assert verdict(domain) == (CLEAN, None)


def test_what_follows_the_archive_is_nobodys(
    domain: FileDomain, volume: FileVolume
) -> None:
    """A head padded by dd to whole MiB, or with rubbish behind it."""
    tar = archive(domain, "abc")
    builders.upload(domain, tar)
    builders.dd_write(volume, tar + b"rubbish" * 1000)
    assert verdict(domain) == (CLEAN, None)


@pytest.mark.parametrize("names", ["abcd", "ab", "xyz", "abc", ""])
def test_stock_upload_is_adopted(
    domain: FileDomain, volume: FileVolume, names: str
) -> None:
    builders.upload(domain, archive(domain, "abc"))
    tar = archive(domain, names, EPOCH + 60)
    builders.stock_write(volume, tar, when=EPOCH + 60)
    assert verdict(domain) == (ADOPT, len(tar))


def test_archive_that_gnu_tar_padded(
    domain: FileDomain, volume: FileVolume
) -> None:
    """To records of 20 blocks; Size counts the padding."""
    builders.upload(domain, archive(domain, "abc"))
    tar = archive(domain, "abcd", EPOCH + 60)
    tar += bytes(-len(tar) % 10240)
    builders.stock_write(volume, tar, when=EPOCH + 60)
    assert verdict(domain) == (ADOPT, len(tar))


def test_large_stock_upload(domain: FileDomain, volume: FileVolume) -> None:
    builders.upload(domain, archive(domain, "abc"))
    noise = builders.incompressible(builders.MIB)
    tar = builders.archive(domain, {"a": noise * 2, "b": noise}, EPOCH + 60)
    builders.stock_write(volume, tar, when=EPOCH + 60)
    assert verdict(domain) == (ADOPT, len(tar))


def test_old_generation_uploaded_again_is_adopted(
    domain: FileDomain, volume: FileVolume
) -> None:
    """Every block of it is known, but it is whole: no mixture."""
    first = archive(domain, "abc")
    builders.upload(domain, first)
    builders.upload(domain, archive(domain, "abcd", EPOCH + 60))
    builders.stock_write(volume, first, when=EPOCH + 120)
    assert verdict(domain) == (ADOPT, len(first))


def test_not_updated_is_suspect(
    domain: FileDomain, volume: FileVolume
) -> None:
    builders.upload(domain, archive(domain, "abc"))
    builders.stock_write(
        volume, archive(domain, "abcd", EPOCH + 60), updated=False
    )
    assert verdict(domain) == (SUSPECT, None)


@pytest.mark.parametrize("blocks", [0, 1, 5, 8, -1, -2, -8])
def test_cut_stock_write_is_suspect(
    domain: FileDomain, volume: FileVolume, blocks: int
) -> None:
    """dd died, but the description says Updated:true all the same."""
    builders.upload(domain, archive(domain, "abc"))
    tar = archive(domain, "abcd", EPOCH + 60)
    builders.stock_write(volume, tar, when=EPOCH + 60)
    builders.dd_write(volume, tar[: blocks * 512])
    assert verdict(domain) == (SUSPECT, None)


@pytest.mark.parametrize("start", [512, 4096, 8192, 12288])
@pytest.mark.parametrize("length", [4096, 10**9])
def test_stock_write_with_lost_blocks_is_suspect(
    domain: FileDomain, volume: FileVolume, start: int, length: int
) -> None:
    """
    A host died after dd: the length is right, blocks are zeros.

    Zeros end a tar, so what follows them would be lost without a word.
    """
    builders.upload(domain, archive(domain, "abc"))
    tar = archive(domain, "abcd", EPOCH + 60)
    names = [
        m for m in range(0, len(tar), 512) if tar[m:][257:262] == b"ustar"
    ]
    # From the header of a member on, so that none is cut within.
    at = next(m for m in names if m >= start)
    hole = min(length, len(tar) - at)
    holed = tar[:at] + bytes(hole) + tar[at + hole :]
    builders.stock_write(volume, holed, when=EPOCH + 60)
    assert verdict(domain) == (SUSPECT, None)


@pytest.mark.parametrize("wrong", [-1024, -512, -1, 1, 512, 10**9])
def test_size_that_does_not_fit_is_suspect(
    domain: FileDomain, volume: FileVolume, wrong: int
) -> None:
    builders.upload(domain, archive(domain, "abc"))
    tar = archive(domain, "abcd", EPOCH + 60)
    builders.stock_write(volume, tar)
    builders.set_description(
        volume, description.build(domain.id, len(tar) + wrong, EPOCH + 60)
    )
    assert verdict(domain) == (SUSPECT, None)


@pytest.mark.parametrize(
    "text",
    ["", "x", "{}", "[]", "null", '{"Updated":true}', description.created()],
)
def test_description_that_is_none(
    domain: FileDomain, volume: FileVolume, text: str
) -> None:
    builders.upload(domain, archive(domain, "abc"))
    builders.dd_write(volume, archive(domain, "abcd", EPOCH + 60))
    builders.set_description(volume, text)
    assert verdict(domain) == (SUSPECT, None)


def test_description_of_another_domain(
    domain: FileDomain, volume: FileVolume
) -> None:
    builders.upload(domain, archive(domain, "abc"))
    tar = archive(domain, "abcd", EPOCH + 60)
    builders.dd_write(volume, tar)
    other = "11111111-1111-4111-8111-111111111111"
    builders.set_description(volume, description.build(other, len(tar), EPOCH))
    assert verdict(domain) == (SUSPECT, None)


def test_flipped_bit_is_no_upload(
    domain: FileDomain, volume: FileVolume
) -> None:
    """
    Damage leaves a valid tar nearly everywhere, under our own description.

    Adopted, it would become the newest generation and go to all copies.
    """
    tar = archive(domain, "abc")
    builders.upload(domain, tar)
    for at in range(0, len(tar) - 1024, 97):
        builders.flip(volume.path, at)
        assert verdict(domain) == (SUSPECT, None), at
        builders.flip(volume.path, at)
    assert verdict(domain) == (CLEAN, None)


def test_flipped_bit_under_a_description_of_the_engine_is_no_upload(
    domain: FileDomain, volume: FileVolume
) -> None:
    """The engine sent what we had; a writer has seen that since."""
    tar = archive(domain, "abc")
    builders.upload(domain, tar)
    builders.stock_write(volume, tar, when=EPOCH + 60)
    builders.repair(domain)
    builders.flip(volume.path, 5000)
    assert verdict(domain) == (SUSPECT, None)


def test_other_archive_under_our_description(
    domain: FileDomain, volume: FileVolume
) -> None:
    """Written by hand: whoever did it did not say that it is complete."""
    builders.upload(domain, archive(domain, "abc"))
    other = archive(domain, "xyz", EPOCH + 60)
    assert len(other) == len(archive(domain, "abc"))
    builders.dd_write(volume, other)
    assert verdict(domain) == (SUSPECT, None)


def test_emptied_volume_is_suspect(
    domain: FileDomain, volume: FileVolume
) -> None:
    builders.upload(domain, archive(domain, "abc"))
    builders.dd_write(volume, b"")
    assert verdict(domain) == (SUSPECT, None)
    builders.dd_write(volume, bytes(100_000))
    assert verdict(domain) == (SUSPECT, None)


# -- mixtures


def mixture(first: bytes, second: bytes, cut: int) -> bytes:
    """The first blocks of one, the others of the other."""
    return first[: cut * BLOCK] + second[cut * BLOCK :]


@pytest.mark.parametrize("cut", [1, 2, 3])
@pytest.mark.parametrize("order", ["old first", "new first"])
def test_mixture_of_two_kept_generations_is_never_adopted(
    domain: FileDomain, volume: FileVolume, cut: int, order: str
) -> None:
    """Though it is a valid tar and the description says Updated:true."""
    old, new = archive(domain, "abc"), archive(domain, "abx", EPOCH + 60)
    builders.upload(domain, old)
    builders.upload(domain, new)
    first, second = (old, new) if order == "old first" else (new, old)
    mixed = mixture(first, second, cut)
    assert mixed not in (old, new)
    builders.stock_write(volume, mixed, when=EPOCH + 120)
    with builders.opened(domain) as copies:
        assert heads.scan(copies[0], len(mixed), exact=True)
        assert classify.is_mixture(copies[0], len(mixed))
    assert verdict(domain) == (SUSPECT, None)


def test_mixture_with_a_suspect_is_not_adopted(
    domain: FileDomain, volume: FileVolume
) -> None:
    old, torn = archive(domain, "abc"), archive(domain, "abx", EPOCH + 60)
    builders.upload(domain, old)
    builders.stock_write(volume, torn, updated=False)
    builders.repair(domain)
    mixed = mixture(torn, old, 2)
    builders.stock_write(volume, mixed, when=EPOCH + 120)
    assert verdict(domain) == (SUSPECT, None)


@pytest.mark.parametrize("replacing", [False, True])
def test_generation_whose_blocks_are_in_others_is_no_mixture(
    domain: FileDomain,
    volume: FileVolume,
    monkeypatch: pytest.MonkeyPatch,
    replacing: bool,
) -> None:
    """It was committed whole, so it can be uploaded again."""
    first, second = archive(domain, "abc"), archive(domain, "abx", EPOCH + 60)
    third = mixture(first, second, 2)
    for tar in (first, second, third):
        builders.upload(domain, tar)
    fourth = archive(domain, "abcd", EPOCH + 120)
    if replacing:
        with dying(monkeypatch, "write_head"):
            builders.upload(domain, fourth)
    else:
        builders.upload(domain, fourth)
    builders.stock_write(volume, third, when=EPOCH + 180)
    assert verdict(domain) == (ADOPT, len(third))


def test_suspect_does_not_vouch_for_itself(
    domain: FileDomain, volume: FileVolume
) -> None:
    """The same new archive, torn off once and then sent again, whole."""
    builders.upload(domain, archive(domain, "abc"))
    tar = archive(domain, "xyz", EPOCH + 60)
    builders.stock_write(volume, tar, updated=False)
    builders.repair(domain)
    builders.stock_write(volume, tar, when=EPOCH + 120)
    assert verdict(domain) == (ADOPT, len(tar))


def test_one_new_block_makes_it_an_upload(
    domain: FileDomain, volume: FileVolume
) -> None:
    old, new = archive(domain, "abc"), archive(domain, "abx", EPOCH + 60)
    builders.upload(domain, old)
    mixed = mixture(new, old, 1)
    builders.stock_write(volume, mixed, when=EPOCH + 120)
    with builders.opened(domain) as copies:
        assert not classify.is_mixture(copies[0], len(mixed))
    assert verdict(domain) == (ADOPT, len(mixed))


def test_same_block_at_another_place_is_new(
    domain: FileDomain, volume: FileVolume
) -> None:
    """Only what stands at its very offset is ours."""
    old = archive(domain, "abc")
    builders.upload(domain, old)
    members = builders.archive(domain, dict.fromkeys("abc", NOTES))
    shifted = (
        b"".join(
            archive_writer.write_archive(
                [("metadata.json", 8192, [b"{}".ljust(8192)])], EPOCH
            )
        )[:-1024]
        + members
    )
    builders.stock_write(volume, shifted, when=EPOCH + 60)
    with builders.opened(domain) as copies:
        assert not classify.is_mixture(copies[0], len(shifted))


# -- our own interrupted write


def test_interrupted_before_the_head(
    domain: FileDomain, interrupted: tuple[bytes, bytes]
) -> None:
    assert verdict(domain) == (ROLL, None)


@pytest.mark.parametrize(
    "step", ["write_head", "write_description"], ids=["head", "description"]
)
def test_interrupted_after(
    domain: FileDomain, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    builders.upload(domain, archive(domain, "abc"))
    with dying(monkeypatch, step, after=True):
        builders.upload(domain, archive(domain, "abcd", EPOCH + 60))
    assert verdict(domain) == (ROLL, None)


def test_first_upload_interrupted(
    domain: FileDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old head is nothing at all."""
    with dying(monkeypatch, "write_head"):
        builders.upload(domain, archive(domain, "abc"))
    assert verdict(domain) == (ROLL, None)


def test_first_upload_interrupted_then_a_stock_upload(
    domain: FileDomain, volume: FileVolume, monkeypatch: pytest.MonkeyPatch
) -> None:
    with dying(monkeypatch, "write_head"):
        builders.upload(domain, archive(domain, "abc"))
    tar = archive(domain, "x", EPOCH + 60)
    builders.stock_write(volume, tar, when=EPOCH + 60)
    assert verdict(domain) == (ADOPT, len(tar))


def test_old_content_uploaded_again_is_adopted(
    domain: FileDomain, volume: FileVolume, interrupted: tuple[bytes, bytes]
) -> None:
    """
    The head is what our interrupted write left, but the description was
    rewritten: a stock upload of the old content came later.
    """
    old, _ = interrupted
    builders.stock_write(volume, old, when=EPOCH + 120)
    assert verdict(domain) == (ADOPT, len(old))


def test_old_content_under_its_old_description_is_ours(
    domain: FileDomain, volume: FileVolume, interrupted: tuple[bytes, bytes]
) -> None:
    old, _ = interrupted
    builders.dd_write(volume, old)
    assert verdict(domain) == (ROLL, None)


def test_old_content_not_updated_is_ours(
    domain: FileDomain, volume: FileVolume, interrupted: tuple[bytes, bytes]
) -> None:
    """An engine that has only announced its upload."""
    builders.set_description(volume, builders.unfinished(domain.id))
    assert verdict(domain) == (ROLL, None)


@pytest.mark.parametrize("when", [EPOCH + 60, EPOCH + 120])
def test_new_content_uploaded_by_a_stock_host_is_ours(
    domain: FileDomain,
    volume: FileVolume,
    interrupted: tuple[bytes, bytes],
    when: int,
) -> None:
    builders.stock_write(volume, interrupted[1], when=when)
    assert verdict(domain) == (ROLL, None)


def test_stock_upload_over_an_interrupted_write(
    domain: FileDomain, volume: FileVolume, interrupted: tuple[bytes, bytes]
) -> None:
    tar = archive(domain, "xyz", EPOCH + 120)
    builders.stock_write(volume, tar, when=EPOCH + 120)
    assert verdict(domain) == (ADOPT, len(tar))
    builders.stock_write(volume, tar, updated=False)
    assert verdict(domain) == (SUSPECT, None)


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_mixture_in_a_file_is_not_ours(
    domain: FileDomain,
    volume: FileVolume,
    interrupted: tuple[bytes, bytes],
    cut: int,
) -> None:
    """We replace a file by rename; a mixture is somebody else's failure."""
    old, new = interrupted
    builders.stock_write(volume, mixture(new, old, cut), when=EPOCH + 120)
    assert verdict(domain) == (SUSPECT, None)


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 4, 99])
@pytest.mark.parametrize("order", ["new first", "old first"])
def test_mixture_in_place_is_ours(
    domain: FileDomain,
    volume: FileVolume,
    interrupted: tuple[bytes, bytes],
    monkeypatch: pytest.MonkeyPatch,
    cut: int,
    order: str,
) -> None:
    """Where heads are written in place, any blocks of both are ours."""
    monkeypatch.setattr(FileVolume, "head_in_place", True)
    old, new = (t + bytes(-len(t) % BLOCK) for t in interrupted)
    first, second = (new, old) if order == "new first" else (old, new)
    builders.dd_write(volume, mixture(first, second, cut))
    assert verdict(domain) == (ROLL, None)


def test_beyond_the_old_head_anything_counts_as_old(
    domain: FileDomain,
    volume: FileVolume,
    interrupted: tuple[bytes, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FileVolume, "head_in_place", True)
    old, new = (t + bytes(-len(t) % BLOCK) for t in interrupted)
    assert len(new) > len(old)
    builders.dd_write(volume, new[:BLOCK] + old[BLOCK:] + b"?" * 50_000)
    assert verdict(domain) == (ROLL, None)
    builders.dd_write(volume, new[:BLOCK] + b"?" * 50_000)
    assert verdict(domain) == (SUSPECT, None)


def test_damaged_kept_segment_does_not_hide_an_upload(
    domain: FileDomain, volume: FileVolume
) -> None:
    builders.upload(domain, archive(domain, "abc"))
    (entry,) = builders.entries(domain)
    builders.flip(volume.log_path, entry.offset)
    tar = archive(domain, "xyz", EPOCH + 60)
    builders.stock_write(volume, tar, when=EPOCH + 60)
    assert verdict(domain) == (ADOPT, len(tar))


# -- what becomes of it


def test_adopted_is_seen_and_what_was_before_stays(
    domain: FileDomain, volume: FileVolume
) -> None:
    ours, theirs = archive(domain, "abc"), archive(domain, "xyz", EPOCH + 60)
    builders.upload(domain, ours)
    builders.stock_write(volume, theirs, when=EPOCH + 60)
    builders.repair(domain)
    assert verdict(domain) == (CLEAN, None)
    assert builders.archives(domain) == {1: ours, 2: theirs}
    first, second = sorted(builders.entries(domain))
    assert (first.pinned, second.kind) == ("adopted", "unproven")
    assert second.time == EPOCH + 60


def test_suspect_is_kept_once_and_never_shown(
    domain: FileDomain, volume: FileVolume
) -> None:
    ours, theirs = archive(domain, "abc"), archive(domain, "xyz", EPOCH + 60)
    builders.upload(domain, ours)
    for _ in range(2):
        builders.stock_write(volume, theirs, updated=False)
        builders.repair(domain)
        assert verdict(domain) == (CLEAN, None)
        assert builders.head(volume, len(ours)) == ours
        assert builders.archives(domain) == {1: ours}
        kinds = [e.kind for e in builders.entries(domain)]
        assert sorted(kinds) == ["generation", "suspect"]
    with builders.opened(domain) as (copy,):
        (suspect,) = (e for e in copy.entries() if not e.shown)
        assert b"".join(copy.segment(suspect).tar()) == theirs


def test_suspect_is_kept_whole(domain: FileDomain, volume: FileVolume) -> None:
    """By hand, longer than the Size that is still in the description."""
    builders.upload(domain, archive(domain, "abc"))
    theirs = archive(domain, "abcdefgh", EPOCH + 60)
    builders.dd_write(volume, theirs)
    builders.repair(domain)
    with builders.opened(domain) as (copy,):
        (suspect,) = (e for e in copy.entries() if not e.shown)
        assert b"".join(copy.segment(suspect).tar()) == theirs


def test_suspect_is_adopted_when_its_description_arrives(
    domain: FileDomain, volume: FileVolume
) -> None:
    ours, theirs = archive(domain, "abc"), archive(domain, "xyz", EPOCH + 60)
    builders.upload(domain, ours)
    builders.stock_write(volume, theirs, updated=False)
    builders.repair(domain)
    text = description.build(domain.id, len(theirs), EPOCH + 60)
    builders.set_description(volume, text)
    builders.repair(domain)
    assert builders.archives(domain) == {1: ours, 2: theirs}
    assert builders.head(volume, len(theirs)) == theirs


@pytest.mark.parametrize(
    "date",
    [
        "Sat Jan 01 00:00:00 UTC 0000",
        "Wed Dec 31 23:59:59 UTC 1969",
        "Fri Dec 31 23:59:59 GMT-05:30 9999",
        "tomorrow",
    ],
)
def test_senseless_date_does_not_spoil_the_store(
    domain: FileDomain, volume: FileVolume, date: str
) -> None:
    """Else the seal could be written, but never read."""
    tar = archive(domain, "abc")
    builders.stock_write(volume, tar)
    text = description.build(domain.id, len(tar), EPOCH)
    text = text.replace(description.format_date(EPOCH), date)
    builders.set_description(volume, text)
    builders.repair(domain)
    builders.upload(domain, archive(domain, "abcd"))
    assert builders.archives(domain)[1] == tar


@pytest.mark.parametrize(
    "text", ["x" * 3000, "ü" * 1500, "\U0001f600" * 700, "\x01" * 3000],
    ids=["long", "umlauts", "emoji", "control"],
)  # fmt: skip
def test_senseless_description_does_not_spoil_the_store(
    domain: FileDomain, volume: FileVolume, text: str
) -> None:
    builders.upload(domain, archive(domain, "abc"))
    metadata = Path(volume.metadata_path)
    lines = metadata.read_text().splitlines()
    lines = [f"DESCRIPTION={text}" if "DESCR" in n else n for n in lines]
    metadata.write_text("\n".join(lines) + "\n")
    assert volume.read_metadata().description == text
    builders.dd_write(volume, archive(domain, "ab", EPOCH + 60))
    builders.upload(domain, archive(domain, "abcd"))
    assert verdict(domain) == (CLEAN, None)
    assert builders.contents(domain) == list("abcd")
