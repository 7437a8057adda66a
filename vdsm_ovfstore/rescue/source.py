# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A file or device that is rescued from: opened to read, never to write.

It is read around the page cache where that is possible: another host may
have written, and a dying disk should be asked once only. A plain file on a
file system without direct I/O is read through the cache: it is the copy that
somebody made, and nobody writes to it.

What cannot be read counts as zeros, and is counted.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator
from typing import Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.storage.directio import BUFFER_SIZE, SAFE, DirectFile
from vdsm_ovfstore.storage.failure import DENIED, failure, translated
from vdsm_ovfstore.storage.system import System
from vdsm_ovfstore.storage.tree import Tree

log = logging.getLogger("ovfstore.rescue")

# Bytes that are given up at once: the largest sector size in use.
_SECTOR = 4096

# From a disk: these bytes are lost, and the next ones may not be.
_LOST = (errno.EIO, errno.EREMOTEIO, errno.EILSEQ, errno.ENODATA)


class Source:
    """See `open_path`, `open_below`. size is in bytes."""

    def __init__(self, file: DirectFile, size: int, device: int = 0) -> None:
        self.path = file.path
        self.size = size
        self.device = device
        """st_rdev of a block device, else 0."""
        self._file = file
        self._bad: set[int] = set()

    @property
    def unreadable(self) -> int:
        """Bytes that could not be read, and were taken for zeros."""
        return len(self._bad) * _SECTOR

    def close(self) -> None:
        self._file.close()

    def identity(self) -> tuple[int, int]:
        """What tells one file, or device, from others."""
        if self.device:
            return self.device, 0
        with translated("stat", self.path):
            found = os.fstat(self._file.fd)
        return found.st_dev, found.st_ino

    def again(self) -> Source:
        """The same once more, to be read by another thread."""
        with translated("open", self.path):
            fd = os.dup(self._file.fd)
        file = _File(System(), fd, self.path, self.size)
        other = Source(file, self.size, self.device)
        other._bad = self._bad
        return other

    def read(self, offset: int, length: int) -> bytes:
        """
        Any range; short at the end.

        Raises errors.StorageFailed, but not for sectors that cannot be read.
        """
        length = max(0, min(length, self.size - offset))
        try:
            return self._file.read(offset, length)
        except errors.StorageFailed as e:
            if e.errno not in _LOST:
                raise
        return self._sectorwise(offset, length)

    def ranges(self) -> Iterator[tuple[int, int]]:
        """
        Where there is data, as [begin, end): holes are passed over.

        All of it where the file system, or the device, does not tell.
        """
        begin = 0
        while begin < self.size:
            start = self._seek(begin, os.SEEK_DATA)
            if start is None:
                return
            end = self._seek(start, os.SEEK_HOLE)
            if end is None or end <= start:
                end = self.size
            yield start, min(end, self.size)
            begin = end

    def _seek(self, offset: int, how: int) -> Optional[int]:
        """None behind the last data."""
        try:
            return os.lseek(self._file.fd, offset, how)
        except OSError as e:
            if e.errno == errno.ENXIO:
                return None
            return offset if how == os.SEEK_DATA else self.size

    def _sectorwise(self, offset: int, length: int) -> bytes:
        begin = offset - offset % _SECTOR
        data = bytearray()
        for at in range(begin, offset + length, _SECTOR):
            wanted = min(_SECTOR, self.size - at)
            try:
                data += self._file.read(at, wanted).ljust(wanted, b"\0")
            except errors.StorageFailed as e:
                if e.errno not in _LOST:
                    raise
                data += bytes(wanted)
                log.warning("UNREADABLE path=%s at=%d", self.path, at)
                self._bad.add(at)
        return bytes(data[offset - begin : offset - begin + length])


class _File(DirectFile):
    """As long as it was found to be: fstat() says 0 for a device."""

    def __init__(self, system: System, fd: int, path: str, size: int) -> None:
        super().__init__(system, fd, path, writable=False)
        self._size = size

    def size(self) -> int:
        return self._size


def open_path(path: str) -> Source:
    """
    Open what somebody named: a file or a block device, links followed.

    Raises errors.SourceUnreadable: not there, or neither of both; and
    errors.StorageDenied, errors.StorageFailed.
    """
    flags = (SAFE & ~os.O_NOFOLLOW) | os.O_RDONLY
    try:
        # Before it is opened: some devices do something when that is done.
        mode = os.stat(path).st_mode
    except OSError as e:
        if e.errno in DENIED:
            raise failure(e, "open", path) from e
        reason = e.strerror or str(e)
        raise errors.SourceUnreadable(path=path, reason=reason) from None
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise errors.SourceUnreadable(
            path=path, reason="neither a file nor a block device"
        )
    try:
        fd = os.open(path, flags | os.O_DIRECT)
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise failure(e, "open", path) from e
        log.warning("BUFFERED path=%s has no direct I/O", path)
        with translated("open", path):
            fd = os.open(path, flags)
    return _opened(fd, path)


def open_below(tree: Tree, *names: str) -> Source:
    """
    Open a file below a domain's root, no link followed.

    Raises errors.StorageFailed.
    """
    path = tree.where(*names)
    *directories, name = names
    with tree.directory(*directories) as parent:
        try:
            file = tree.open(name, parent, path)
        except errors.DirectIOUnsupported:
            log.warning("BUFFERED path=%s has no direct I/O", path)
            file = Tree(tree.system, tree.path, True).open(name, parent, path)
    return Source(file, file.size())


def _opened(fd: int, path: str) -> Source:
    try:
        with translated("stat", path):
            found = os.fstat(fd)
            size = os.lseek(fd, 0, os.SEEK_END)
    except BaseException:
        os.close(fd)
        raise
    device = found.st_rdev if stat.S_ISBLK(found.st_mode) else 0
    return Source(_File(System(), fd, path, size), size, device)


WINDOW = BUFFER_SIZE  # bytes that a scan looks at at once
