# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The engine's own uploads and downloads, with real processes."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

import pytest

from tests.store import builders
from tests.store.builders import archive, archives, head
from vdsm_ovfstore import errors
from vdsm_ovfstore.api.runner import Runner
from vdsm_ovfstore.api.settings import Settings
from vdsm_ovfstore.api.spool import Spool
from vdsm_ovfstore.api.stock import Stock
from vdsm_ovfstore.api.stock_known import StockVolume
from vdsm_ovfstore.api.stock_upload import StockUpload
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.storage.filevolume import FileVolume

SPOOL = 64 * builders.MIB


class Bed:
    """
    A domain of two volumes, and what the plugin in vdsmd has.

    storage: where the domain is, if not beside the spool.
    """

    def __init__(self, tmp_path: Path, storage: Optional[Path] = None) -> None:
        self.domain: FileDomain = builders.make_domain(storage or tmp_path)
        self.volumes = self.domain.volumes()
        self.directory = tmp_path / "spool"
        self.directory.mkdir()
        settings = Settings(spares=False, spool=str(self.directory))
        self.runner = Runner(settings, lambda *_: contextlib.nullcontext())
        self.spool = Spool(str(self.directory), SPOOL)
        self.stock = Stock(self.runner, self.spool)

    def volume(self, number: int) -> StockVolume:
        volume = self.volumes[number]
        found = self.stock.volume(self.domain.path, volume.image, volume.id)
        assert found is not None
        return found

    def receive(self, number: int, tar: bytes) -> StockUpload:
        return self.stock.receive(
            self.domain.path, self.volume(number), len(tar), pieces(tar)
        )

    def put(self, number: int, tar: bytes) -> dict[str, object]:
        with contextlib.closing(self.receive(number, tar)) as upload:
            answer = upload.commit(30)
            assert not upload.fallback
            return answer

    def get(self, number: int, length: int) -> bytes:
        download = self.stock.read(
            self.domain.path, self.volume(number), length
        )
        with contextlib.closing(download):
            return b"".join(download.chunks())


def pieces(data: bytes, size: int = 100_000) -> Iterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    bed = Bed(tmp_path)
    yield bed
    assert bed.spool.used == 0
    bed.runner.close()


def test_put_and_get(bed: Bed) -> None:
    tar = archive(bed.domain, ["web", "db"])
    for number in (0, 1):
        answer = bed.put(number, tar)
        assert (answer["generation"], answer["degraded"]) == (1, [])
        assert head(bed.volumes[number], len(tar)) == tar
        assert bed.get(number, len(tar)) == tar


def test_another_archive_of_the_same_length(bed: Bed) -> None:
    """Taken for the newest by its length only until its digest is known."""
    first = archive(bed.domain, ["web"])
    second = archive(bed.domain, ["web"], builders.EPOCH + 60)
    assert len(first) == len(second)
    bed.put(0, first)
    assert bed.put(1, second)["generation"] == 2
    assert archives(bed.domain) == {1: first, 2: second}


def test_newest_is_no_longer_what_we_remember(bed: Bed) -> None:
    tar = archive(bed.domain, ["web"])
    bed.put(0, tar)
    upload = bed.receive(1, tar)
    # Another host has written meanwhile.
    builders.upload(bed.domain, archive(bed.domain, ["db"]))
    with contextlib.closing(upload):
        assert upload.commit(30)["generation"] == 3
    assert archives(bed.domain)[3] == tar


@pytest.mark.parametrize(
    "what", ["other image", "other volume", "no id", "two volumes", "DATA"]
)
def test_not_ours(bed: Bed, what: str) -> None:
    volume: FileVolume = bed.volumes[0]
    image, name = volume.image, None
    if what == "other image":
        image = builders.vm_id("none")
    elif what == "no id":
        image = "../../../etc"
    elif what == "other volume":
        name = bed.volumes[1].id
    elif what == "two volumes":
        other = Path(volume.path).with_name(builders.vm_id("x") + ".meta")
        other.write_bytes(Path(volume.metadata_path).read_bytes())
    elif what == "DATA":
        path = Path(volume.metadata_path)
        text = path.read_bytes()
        path.write_bytes(text.replace(b"DISKTYPE=OVFS", b"DISKTYPE=DATA"))
    assert bed.stock.volume(bed.domain.path, image, name) is None


def test_what_is_no_archive_is_left_to_vdsm(bed: Bed) -> None:
    for data in (random.Random(1).randbytes(300_000), b"x", bytes(10240)[:99]):
        with contextlib.closing(bed.receive(0, data)) as upload:
            assert upload.fallback
            assert upload.commit(30) == {}
            with upload.reader() as file:
                assert file.read() == data
    assert archives(bed.domain) == {}


def test_what_is_too_large_is_left_to_vdsm(bed: Bed) -> None:
    old = archive(bed.domain, ["web"])
    bed.put(0, old)
    tar = archive(bed.domain, {"big": "x" * (builders.CAPACITY + 1)})
    with contextlib.closing(bed.receive(0, tar)) as upload:
        assert upload.commit(30) == {}
        assert "too large" in upload.fallback
        with upload.reader() as file:
            assert file.read() == tar
    assert archives(bed.domain) == {1: old}


def test_an_ovf_that_we_would_refuse_is_taken(bed: Bed) -> None:
    tar = archive(bed.domain, ["web"]).replace(b"<Name>", b"<Nome>")
    assert bed.put(0, tar)["generation"] == 1
    assert bed.get(0, len(tar)) == tar


@pytest.mark.parametrize("sent", [0, 10, 3000])
def test_cut_off(bed: Bed, sent: int) -> None:
    tar = archive(bed.domain, ["web"])
    with pytest.raises(errors.TransferIncomplete, match=f"after {sent} of"):
        bed.stock.receive(
            bed.domain.path, bed.volume(0), len(tar), pieces(tar[:sent])
        )


def test_no_room_in_the_spool(bed: Bed) -> None:
    read = []

    def chunks() -> Iterator[bytes]:
        read.append(True)
        yield b""

    with pytest.raises(errors.ArchiveTooLarge, match="spool"):
        bed.stock.receive(bed.domain.path, bed.volume(0), SPOOL, chunks())
    assert not read


def test_get_of_other_lengths(bed: Bed) -> None:
    first, second = archive(bed.domain, ["a"]), archive(bed.domain, ["a", "b"])
    bed.put(0, first)
    bed.put(0, second)
    assert bed.get(0, len(second)) == second
    assert bed.get(1, len(first)) == first
    assert bed.get(1, len(second) + 700) == second + bytes(700)
    with pytest.raises(errors.GenerationNotFound, match="of 512 bytes"):
        bed.get(0, 512)


def test_get_of_nothing(bed: Bed) -> None:
    with pytest.raises(errors.StoreEmpty):
        bed.get(0, 512)


def test_get_what_a_stock_host_wrote(bed: Bed) -> None:
    """It is newer than all we know, and not adopted yet."""
    tar = archive(bed.domain, ["a"])
    bed.put(0, tar)
    theirs = archive(bed.domain, ["a", "b"], builders.EPOCH + 60)
    builders.stock_write(bed.volumes[0], theirs, when=builders.EPOCH + 60)
    assert bed.get(0, len(theirs)) == theirs


def test_get_through_a_damaged_head(bed: Bed) -> None:
    tar = archive(bed.domain, ["a"])
    bed.put(0, tar)
    builders.flip(bed.volumes[0].path, 700)
    assert bed.get(0, len(tar)) == tar


def test_aborted_by_force(bed: Bed) -> None:
    tar = archive(bed.domain, ["web"])
    with contextlib.closing(bed.receive(0, tar)) as upload:
        upload.abort(force=True)
        with pytest.raises(errors.Error):
            upload.commit(30)
    assert os.listdir(bed.directory) == []
    assert bed.put(0, tar)["generation"] == 1
