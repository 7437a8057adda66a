# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import MakeFilesystem
from vdsm_ovfstore import errors
from vdsm_ovfstore.storage.directio import (
    BUFFER_SIZE,
    DirectFile,
    open_direct,
    round_up,
)
from vdsm_ovfstore.storage.stream import StreamWriter
from vdsm_ovfstore.storage.system import System

MIB = 1024**2


def pattern(length: int) -> bytes:
    """Bytes in which every 4-byte word says where it stands."""
    words = (n.to_bytes(4, "big") for n in range(length // 4 + 1))
    return b"".join(words)[:length]


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


@pytest.fixture
def new_file(directory: int, tmp_path: Path) -> Iterator[DirectFile]:
    path = str(tmp_path / "file")
    f = open_direct(System(), "file", directory, path, create=True)
    yield f
    f.close()


# -- reading


@pytest.mark.parametrize(
    "size",
    [
        pytest.param(0, id="empty"),
        pytest.param(1, id="byte"),
        pytest.param(4096, id="block"),
        pytest.param(10240, id="tar"),
        pytest.param(BUFFER_SIZE, id="buffer"),
        pytest.param(2 * BUFFER_SIZE + 1000, id="buffers-and-part"),
    ],
)
@pytest.mark.parametrize(
    "offset,length",
    [
        pytest.param(0, 0, id="nothing"),
        pytest.param(0, 10, id="start"),
        pytest.param(4095, 2, id="across-blocks"),
        pytest.param(512, 4096, id="unaligned"),
        pytest.param(BUFFER_SIZE - 1, 2, id="across-buffers"),
        pytest.param(3, 3 * BUFFER_SIZE, id="beyond-the-end"),
        pytest.param(0, 2 * BUFFER_SIZE + 1000, id="all"),
        pytest.param(9 * MIB, 4096, id="far-beyond"),
    ],
)
def test_read_any_range(
    tmp_path: Path, directory: int, size: int, offset: int, length: int
) -> None:
    data = pattern(size)
    (tmp_path / "file").write_bytes(data)
    f = open_direct(System(), "file", directory, "file")
    try:
        assert f.size() == size
        assert f.read(offset, length) == data[offset : offset + length]
    finally:
        f.close()


class ShortSystem(System):
    """Reads and writes at most `limit` bytes at once."""

    limit = 8192

    def preadv(self, fd: int, view: memoryview, offset: int) -> int:
        return super().preadv(fd, view[: self.limit], offset)

    def pwritev(self, fd: int, view: memoryview, offset: int) -> int:
        return super().pwritev(fd, view[: self.limit], offset)


def test_short_reads_and_writes_are_continued(
    tmp_path: Path, directory: int
) -> None:
    data = pattern(10 * 4096)
    system = ShortSystem()
    f = open_direct(system, "file", directory, "file", create=True)
    try:
        f.write(0, data)
        assert f.read(100, 30000) == data[100:30100]
    finally:
        f.close()
    assert (tmp_path / "file").read_bytes() == data


def test_read_that_never_advances_is_an_error(
    tmp_path: Path, directory: int
) -> None:
    (tmp_path / "file").write_bytes(bytes(8192))
    system = ShortSystem()
    system.limit = 0
    f = open_direct(system, "file", directory, "file", write=True)
    try:
        with pytest.raises(errors.StorageFailed, match="short read at 0"):
            f.read(0, 4096)
        with pytest.raises(errors.StorageFailed, match="short write at 0"):
            f.write(0, bytes(4096))
    finally:
        f.close()


def test_reads_what_another_descriptor_wrote(
    new_file: DirectFile, tmp_path: Path
) -> None:
    with open(tmp_path / "file", "r+b", buffering=0) as other:
        other.write(b"x" * 5000)
        assert new_file.read(0, 9000) == b"x" * 5000


# -- writing


def test_write_and_overwrite(new_file: DirectFile, tmp_path: Path) -> None:
    data = pattern(2 * BUFFER_SIZE + 8192)
    new_file.write(4096, data)
    new_file.write(8192, b"y" * 4096)
    new_file.flush()
    expected = bytearray(bytes(4096) + data)
    expected[8192:12288] = b"y" * 4096
    assert (tmp_path / "file").read_bytes() == expected


@pytest.mark.parametrize(
    "offset,length",
    [
        pytest.param(512, 4096, id="offset"),
        pytest.param(0, 512, id="length"),
        pytest.param(-4096, 4096, id="negative"),
    ],
)
def test_unaligned_write_is_refused(
    new_file: DirectFile, offset: int, length: int
) -> None:
    with pytest.raises(ValueError, match="not aligned"):
        new_file.write(offset, bytes(length))
    assert new_file.size() == 0


@pytest.mark.parametrize(
    "sizes",
    [
        pytest.param([], id="nothing"),
        pytest.param([0, 0], id="empty-pieces"),
        pytest.param([10240], id="tar"),
        pytest.param([1] * 5000, id="bytes"),
        pytest.param([MIB - 1, 2, 3 * MIB, 700], id="around-the-buffer"),
    ],
)
def test_stream_is_padded(
    new_file: DirectFile, tmp_path: Path, sizes: list[int]
) -> None:
    data = pattern(sum(sizes))
    writer = StreamWriter(new_file)
    at = 0
    for size in sizes:
        writer.write(data[at : at + size])
        at += size
    writer.finish()
    padded = data + bytes(round_up(len(data)) - len(data))
    assert writer.length == len(data)
    assert (tmp_path / "file").read_bytes() == padded


class BadFsync(System):
    fsyncs = 0

    def fsync(self, fd: int) -> None:
        self.fsyncs += 1
        if self.fsyncs == 1:
            raise OSError(errno.EIO, "Input/output error")


def test_failed_flush_is_final(tmp_path: Path, directory: int) -> None:
    system = BadFsync()
    f = open_direct(system, "file", directory, "path", create=True)
    try:
        f.write(0, bytes(4096))
        with pytest.raises(errors.StorageFailed) as first:
            f.flush()
        assert (first.value.operation, first.value.path) == ("flush", "path")
        assert first.value.errno == errno.EIO
        for again in (f.flush, lambda: f.write(0, bytes(4096))):
            with pytest.raises(errors.StorageFailed, match="earlier flush"):
                again()
        assert system.fsyncs == 1
    finally:
        f.close()


# -- zeros


@pytest.mark.parametrize(
    "holes",
    [
        pytest.param(True, id="file-system-with-holes"),
        pytest.param(False, id="without-SEEK_DATA"),
    ],
)
@pytest.mark.parametrize(
    "at",
    [
        pytest.param(None, id="nowhere"),
        pytest.param(0, id="first"),
        pytest.param(MIB, id="second-MiB"),
        pytest.param(7 * MIB + 123, id="middle"),
        pytest.param(16 * MIB - 1, id="last"),
    ],
)
def test_is_zero(
    tmp_path: Path,
    directory: int,
    monkeypatch: pytest.MonkeyPatch,
    at: int | None,
    holes: bool,
) -> None:
    with open(tmp_path / "file", "wb") as f:
        f.truncate(16 * MIB)
        f.seek(5 * MIB)
        f.write(bytes(MIB))  # zeros that are no hole
        if at is not None:
            f.seek(at)
            f.write(b"x")

    def no_seek(*args: object) -> int:
        raise OSError(errno.EINVAL, "Invalid argument")

    system = System()
    if not holes:
        monkeypatch.setattr(system, "lseek", no_seek)
    file = open_direct(system, "file", directory, "file")
    try:
        assert file.is_zero() is (at is None)
    finally:
        file.close()


# -- opening


def test_direct_flags(new_file: DirectFile) -> None:
    with open(f"/proc/self/fdinfo/{new_file.fd}") as f:
        flags = next(int(s[6:], 8) for s in f if s.startswith("flags:"))
    assert flags & os.O_DIRECT
    assert flags & os.O_NOFOLLOW
    assert flags & os.O_CLOEXEC


def test_symlink_is_refused(tmp_path: Path, directory: int) -> None:
    (tmp_path / "target").write_bytes(b"secret")
    (tmp_path / "link").symlink_to("target")
    for write in (False, True):
        with pytest.raises(errors.StorageFailed, match="symbolic link") as e:
            open_direct(System(), "link", directory, "link", write=write)
        assert e.value.errno == errno.ELOOP
    with pytest.raises(errors.StorageFailed) as exists:
        open_direct(System(), "link", directory, "link", create=True)
    assert exists.value.errno == errno.EEXIST


def test_fifo_is_refused_at_once(tmp_path: Path, directory: int) -> None:
    os.mkfifo(tmp_path / "fifo")
    for buffered in (False, True):
        with pytest.raises(errors.StorageFailed):
            open_direct(System(), "fifo", directory, "fifo", buffered=buffered)


def test_missing_file(directory: int) -> None:
    with pytest.raises(errors.StorageFailed) as e:
        open_direct(System(), "file", directory, "path")
    assert e.value.errno == errno.ENOENT
    assert str(e.value) == (
        "Storage error in open of path: No such file or directory"
    )


class NoDirect(System):
    """A file system that makes the file before it refuses O_DIRECT."""

    def open(
        self,
        path: str,
        flags: int,
        mode: int = 0,
        dir_fd: int | None = None,
    ) -> int:
        fd = super().open(path, flags & ~os.O_DIRECT, mode, dir_fd)
        if not flags & os.O_DIRECT:
            return fd
        os.close(fd)
        raise OSError(errno.EINVAL, "Invalid argument")


def test_without_direct_io(tmp_path: Path, directory: int) -> None:
    system = NoDirect()
    with pytest.raises(errors.DirectIOUnsupported):
        open_direct(system, "file", directory, "file", create=True)
    assert os.listdir(tmp_path) == []
    f = open_direct(
        system, "file", directory, "file", create=True, buffered=True
    )
    try:
        f.write(0, pattern(8192))
        f.flush()
        assert f.read(3, 5000) == pattern(8192)[3:5003]
    finally:
        f.close()


def test_close_twice_and_after_an_error(new_file: DirectFile) -> None:
    with pytest.raises(ValueError) as kept:  # a traceback keeps the buffer
        new_file.write(0, b"x")
    new_file.read(0, 10)
    new_file.close()
    new_file.close()
    assert kept.value


# -- real file systems


@pytest.mark.root
@pytest.mark.parametrize(
    "sector", [pytest.param(512, id="512"), pytest.param(4096, id="4k")]
)
def test_sectors(filesystem: MakeFilesystem, sector: int) -> None:
    mounted = filesystem(sector)
    fd = os.open(mounted, os.O_RDONLY)
    try:
        path = str(mounted / "file")
        f = open_direct(System(), "file", fd, path, create=True)
        data = pattern(3 * MIB)
        f.write(0, data)
        f.truncate(10240 + MIB)
        f.flush()
        assert f.read(MIB - 3, 20000) == data[MIB - 3 : MIB + 10240]
        f.close()
    finally:
        os.close(fd)


@pytest.mark.root
def test_full(filesystem: MakeFilesystem) -> None:
    mounted = filesystem(size=8 * MIB)
    fd = os.open(mounted, os.O_RDONLY)
    try:
        path = str(mounted / "file")
        f = open_direct(System(), "file", fd, path, create=True)
        with pytest.raises(errors.StorageFull) as e:
            f.write(0, bytes(16 * MIB))
        f.close()
        assert e.value.path == path
        assert e.value.errno == errno.ENOSPC
    finally:
        os.close(fd)
