# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What is read: bad sectors, holes, limits; and where nothing is written."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeFilesystem, run
from tests.rescue.builders import graded, image, rescue
from tests.store import builders
from vdsm_ovfstore import errors
from vdsm_ovfstore.format import segment
from vdsm_ovfstore.rescue import findings
from vdsm_ovfstore.rescue.source import Source, open_path
from vdsm_ovfstore.rescue.sources import open_sources
from vdsm_ovfstore.rescue.target import TargetInSource, check_target
from vdsm_ovfstore.storage import system

MIB = 1024**2


class TestReading:
    def test_any_range(self, tmp_path: Path) -> None:
        data = os.urandom(3 * MIB + 777)
        path = tmp_path / "file"
        path.write_bytes(data)
        source = open_path(str(path))
        assert source.size == len(data)
        for at, length in ((0, 5), (MIB - 1, 2), (513, 2 * MIB), (0, 9 * MIB)):
            assert source.read(at, length) == data[at : at + length]
        assert source.read(len(data), 5) == b""
        assert source.read(len(data) + 5000, 5) == b""
        source.close()

    def test_holes_are_passed_over(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        with path.open("wb") as file:
            for at in (0, 5 * MIB, 9 * MIB):
                file.seek(at)
                file.write(b"x" * 4096)
            file.truncate(12 * MIB)
        source = open_path(str(path))
        ranges = list(source.ranges())
        assert [begin for begin, _ in ranges] == [0, 5 * MIB, 9 * MIB]
        assert sum(end - begin for begin, end in ranges) < MIB
        source.close()

    def test_bad_sectors(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What cannot be read is gone; what is around it is not."""
        domain = builders.make_domain(tmp_path)
        builders.upload_names(domain, ["web", "db"])
        disk = image(domain, tmp_path / "disk")
        data = disk.read_bytes()
        bad = {data.find(b"OVFSTORE-FRAME") // 4096, 700}
        preadv = system.System.preadv

        def failing(self: Any, fd: int, view: memoryview, offset: int) -> int:
            sectors = range(offset // 4096, (offset + len(view)) // 4096)
            if bad & {*sectors}:
                raise OSError(errno.EIO, "")
            return preadv(self, fd, view, offset)

        monkeypatch.setattr(system.System, "preadv", failing)
        report = rescue(disk)
        assert graded(report) == {"web": "verified", "db": "verified"}
        assert report.sources[0].unreadable == 8192

    def test_other_errors_are_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"x" * MIB)

        def failing(*args: object) -> int:
            raise OSError(errno.ENXIO, "")

        monkeypatch.setattr(system.System, "preadv", failing)
        with pytest.raises(errors.StorageFailed):
            rescue(path)

    def test_file_system_without_direct_io(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        domain = builders.make_domain(tmp_path)
        builders.upload_names(domain, ["web"])
        log = domain.volumes()[0].log_path
        opened = os.open

        def refusing(path: Any, flags: int, *args: Any, **more: Any) -> int:
            if flags & os.O_DIRECT:
                raise OSError(errno.EINVAL, "")
            return opened(path, flags, *args, **more)

        monkeypatch.setattr(os, "open", refusing)
        assert graded(rescue(domain.path)) == {"web": "verified"}
        assert graded(rescue(log)) == {"web": "verified"}

    @pytest.mark.parametrize("kind", ["missing", "fifo", "empty", "null"])
    def test_what_cannot_be_read(self, tmp_path: Path, kind: str) -> None:
        path = tmp_path / kind
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "empty":
            path.mkdir()
        elif kind == "null":
            path = Path("/dev/null")
        with pytest.raises((errors.SourceUnreadable, errors.DomainNotFound)):
            rescue(path)

    def test_an_empty_file(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.touch()
        assert rescue(path).versions.best == {}

    @pytest.mark.root
    def test_a_device(self, filesystem: MakeFilesystem) -> None:
        mounted = filesystem()
        domain = builders.make_domain(mounted, capacity=4 * MIB)
        builders.upload_names(domain, ["web"])
        run("sync", "--file-system", str(mounted))
        device = _device(mounted)
        report = rescue(device)
        assert report.sources[0].device
        assert graded(report) == {"web": "verified"}
        # Mounted from what is rescued: each write may hit it.
        for target in (mounted, mounted / "new" / "directory"):
            with pytest.raises(TargetInSource):
                _check(str(target), device)
            with pytest.raises(TargetInSource):
                _check(str(target), _backing_file(device))
        _check(str(mounted.parent / "elsewhere"), device)


class TestTarget:
    @pytest.fixture
    def domain(self, tmp_path: Path) -> Path:
        (tmp_path / "mnt").mkdir()
        domain = builders.make_domain(tmp_path / "mnt", copies=1)
        builders.upload_names(domain, ["web"])
        return Path(domain.path)

    def test_within(self, domain: Path, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(domain)
        (log,) = (domain / "ovf_store").iterdir()
        for path in (domain, domain.parent, link, log):
            for target in (domain / "new", link / "a" / "b", domain):
                with pytest.raises(TargetInSource):
                    _check(str(target), str(path))

    def test_the_source_itself(self, domain: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        (log,) = (domain / "ovf_store").iterdir()
        shutil.copy(log, copy)
        with pytest.raises(TargetInSource):
            _check(str(copy), str(copy))

    def test_beside(self, domain: Path, tmp_path: Path) -> None:
        _check(str(tmp_path / "out"), str(domain))
        _check(f"{domain}-out", str(domain))


class TestLimits:
    """Whoever fills a disk with structures gets no more memory than this."""

    def test_frames(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(findings, "MAX_FRAMES", 10)
        domain = "0b6a4b0e-3f0d-4b07-8f6e-0a3d4a9e51c1"
        path = tmp_path / "disk"
        with path.open("wb") as file:
            for number in range(50):
                head = segment.frame_head(
                    domain, 1, f"{number:064x}", 1, 0, 100, 50
                )
                file.write(head.ljust(512, b"x"))
        report = rescue(path)
        assert report.findings.left_out == 40
        assert report.versions.best == {}

    def test_members_and_loose(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(findings, "MAX_MEMBERS", 5)
        monkeypatch.setattr(findings, "MAX_LOOSE", 2)
        tar = builders.archive("0" * 36, [f"vm{n}" for n in range(20)])
        path = tmp_path / "tar"
        path.write_bytes(tar)
        report = rescue(path)
        assert len(report.versions.best) == 4
        assert report.findings.left_out == 17

    def test_beginnings_of_seals(self, tmp_path: Path) -> None:
        """One in each block, which is 128 times as much as there is."""
        path = tmp_path / "disk"
        block = b'{"magic":"OVFSTORE-SEAL","version":1,'.ljust(512, b"x")
        path.write_bytes(block * 2048 * 8)
        report = rescue(path)
        assert report.findings.left_out > 15_000
        assert report.findings.seals == 0

    def test_lies_of_a_frame(self, tmp_path: Path) -> None:
        """Sizes that nobody has are not even looked at."""
        head = b"OVFSTORE-FRAME 1 %s 1 %s 1 %d %d %d\n"
        domain, sha256 = b"0" * 8 + b"-0000" * 3 + b"-" + b"0" * 12, b"0" * 64
        path = tmp_path / "disk"
        with path.open("wb") as file:
            for numbers in (
                (0, 2**20 + 1, 10),
                (0, 0, 10),
                (0, 10, 2**21),
                (2**63, 10, 99999999),
            ):
                line = head % (domain, sha256, *numbers)
                file.write(line.ljust(512, b"\0"))
        assert rescue(path).findings.frames == {}


def _check(target: str, path: str) -> None:
    with open_sources([path], []) as sources:
        check_target(target, [path], sources)


def _device(mounted: Path) -> str:
    number = mounted.stat().st_dev
    for path in Path("/dev").glob("loop*"):
        st = path.stat()
        if stat.S_ISBLK(st.st_mode) and st.st_rdev == number:
            return str(path)
    pytest.skip("the device of a mounted file system is not in /dev")


def _backing_file(device: str) -> str:
    name = Path(device).name
    return Path(f"/sys/block/{name}/loop/backing_file").read_text().strip()


def test_a_source_is_never_written(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 5000)
    source: Source = open_path(str(path))
    with pytest.raises(OSError):
        os.write(source._file.fd, b"y")
    source.close()
