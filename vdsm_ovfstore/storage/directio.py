# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Files read and written around the page cache.

Another host may have written since this one read, and its writes do not
invalidate this host's cache: so everything is O_DIRECT. That asks for an
aligned buffer, offset and length. 4096 fits sectors of 512 and of 4096
bytes, and a buffer from mmap is aligned to a page.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from contextlib import suppress
from typing import Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.storage.failure import failure, translated
from vdsm_ovfstore.storage.system import System

ALIGNMENT = 4096
BUFFER_SIZE = 1024**2
MAX_LENGTH = 2**63 - 1

# Buffers of files that were closed. The kernel takes as long to map the pages
# of a new one as the storage to fill them.
_idle: list[mmap.mmap] = []
_IDLE = 4

# What a file system may need beside the data that it takes, in bytes: what is
# freed on a full one is not all to be had again.
_FOR_ITSELF = 64 * 1024

# A planted symlink is not followed, and a planted FIFO does not block.
SAFE = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


def round_up(n: int, alignment: int = ALIGNMENT) -> int:
    """The lowest multiple of `alignment` that is not below `n`."""
    return -(-n // alignment) * alignment


def open_direct(
    system: System,
    name: str,
    dir_fd: int,
    path: str,
    write: bool = False,
    create: bool = False,
    buffered: bool = False,
    mode: int = 0o600,
) -> DirectFile:
    """
    Open a regular file for direct I/O.

    Arguments:
        name (str): the file's name in the directory `dir_fd`.
        path (str): its whole path, only for messages.
        write (bool): open for reading and writing.
        create (bool): the file must not exist, and is made.
        buffered (bool): for development, on file systems without O_DIRECT.
        mode (int): permissions of a new file.

    Raises:
        errors.DirectIOUnsupported: the file system has no O_DIRECT.
        errors.StorageFailed: or one of its kinds, with `errno`; ELOOP if
            the name is a symbolic link, EINVAL if not a regular file.
    """
    flags = SAFE | (os.O_RDWR if write or create else os.O_RDONLY)
    if create:
        flags |= os.O_CREAT | os.O_EXCL
    if not buffered:
        flags |= os.O_DIRECT
    operation = "create" if create else "open to write" if write else "open"
    try:
        fd = system.open(name, flags, mode, dir_fd=dir_fd)
    except OSError as e:
        if e.errno != errno.EINVAL or buffered:
            raise failure(e, operation, path) from e
        if create:
            _forget(system, name, dir_fd)
        raise errors.DirectIOUnsupported(
            operation=operation,
            path=path,
            reason="O_DIRECT refused",
            errno=e.errno,
        ) from e
    try:
        with translated("stat", path):
            mode = system.fstat(fd).st_mode
        if not stat.S_ISREG(mode):
            raise errors.StorageFailed(
                operation=operation,
                path=path,
                reason="not a regular file",
                errno=errno.EINVAL,
            )
    except BaseException:
        if create:
            _forget(system, name, dir_fd)
        with suppress(OSError):
            system.close(fd)
        raise
    return DirectFile(system, fd, path, write or create)


def _forget(system: System, name: str, dir_fd: int) -> None:
    # Made before the error; with O_DIRECT refused, on some file systems.
    with suppress(OSError):
        system.unlink(name, dir_fd)


class DirectFile:
    """An open file; see `open_direct`."""

    def __init__(
        self, system: System, fd: int, path: str, writable: bool
    ) -> None:
        self.path = path
        self.fd = fd
        self.writable = writable
        self._system = system
        self._buffer: Optional[mmap.mmap] = None
        self._broken = False

    def size(self) -> int:
        """The file's length in bytes, asked now."""
        with translated("stat", self.path):
            return self._system.fstat(self.fd).st_size

    def fits(self, length: int) -> bool:
        """
        Whether so many bytes could be written in place of the file's: on
        the blocks that it has, and those that its file system has left.

        Raises:
            errors.StorageFailed: I/O error.
        """
        with translated("stat", self.path):
            own = self._system.fstat(self.fd).st_blocks * 512
            left = self._system.fstatvfs(self.fd)
        return length + _FOR_ITSELF <= own + left.f_bavail * left.f_frsize

    def read(self, offset: int, length: int) -> bytes:
        """
        Read any range.

        Returns:
            `length` bytes; fewer where the file ends before.

        Raises:
            errors.StorageFailed: I/O error.
        """
        if offset < 0 or length < 0:
            raise ValueError(f"negative range: {offset}, {length}")
        end = offset + length
        start = offset - offset % ALIGNMENT  # where the next read begins
        parts: list[bytes] = []
        view = self._view()
        while start < end:
            wanted = min(BUFFER_SIZE, round_up(end) - start)
            with translated("read", self.path):
                got = self._system.preadv(self.fd, view[:wanted], start)
            here = max(offset - start, 0)
            whole = got - got % ALIGNMENT
            if got == wanted:
                pass
            elif start + got >= self.size():
                parts.append(bytes(view[here : min(got, end - start)]))
                break
            elif whole == 0:
                raise errors.StorageFailed(
                    operation="read",
                    path=self.path,
                    reason=f"short read at {start + got}",
                    errno=errno.EIO,
                )
            # What follows the last whole block is read again.
            parts.append(bytes(view[here : min(whole, end - start)]))
            start += whole
            offset = max(offset, start)
        return b"".join(parts)

    def is_zero(self) -> bool:
        """
        Whether the file is nothing but zeros.

        Holes are taken from the file system, which makes 128 MiB quick;
        the first MiB, where any archive begins, is read in any case.

        Raises:
            errors.StorageFailed: I/O error.
        """
        size = self.size()
        offset = 0
        while offset < size:
            data = self.read(offset, BUFFER_SIZE)
            if data.count(0) != len(data):
                return False
            offset = self._next_data(offset + BUFFER_SIZE, size)
        return True

    def write(self, offset: int, data: bytes) -> None:
        """
        Write `data`; the caller has logged it.

        Raises:
            ValueError: offset or length is not a multiple of 4096.
            errors.StorageFailed: or StorageFull; part may be written.
        """
        length = len(data)
        if offset < 0 or offset % ALIGNMENT or length % ALIGNMENT:
            raise ValueError(f"not aligned: offset {offset}, length {length}")
        self._check_sound("write")
        view = self._view()
        with memoryview(data) as source:
            done = 0
            while done < length:
                wanted = min(BUFFER_SIZE, length - done)
                view[:wanted] = source[done : done + wanted]
                self._write_buffer(offset + done, wanted)
                done += wanted

    def flush(self) -> None:
        """
        Bring all that was written to the storage.

        After a failure the kernel may have dropped the data and forgotten
        the error, so another try would lie: from then on every write and
        flush of this file fails.

        Raises:
            errors.StorageFailed: or StorageFull.
        """
        self._check_sound("flush")
        try:
            with translated("flush", self.path):
                self._system.fsync(self.fd)
        except errors.StorageFailed:
            self._broken = True
            raise

    def truncate(self, length: int) -> None:
        """Set the file's length; new bytes are zeros."""
        with translated("truncate", self.path):
            if length > MAX_LENGTH:
                raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
            self._system.ftruncate(self.fd, length)

    def close(self) -> None:
        """Close; never raises, and may be called twice."""
        fd, self.fd = self.fd, -1
        buffer, self._buffer = self._buffer, None
        if buffer is not None and len(_idle) < _IDLE:
            _idle.append(buffer)
        if fd >= 0:
            # Nothing that was not flushed is worth keeping.
            with suppress(OSError):
                self._system.close(fd)

    def _next_data(self, offset: int, size: int) -> int:
        try:
            return self._system.lseek(self.fd, offset, os.SEEK_DATA)
        except OSError as e:
            if e.errno == errno.ENXIO:
                return size  # only a hole follows, or the end
            if e.errno in (errno.EINVAL, errno.ENOTSUP):
                return offset  # unknown there: all of it is read
            raise failure(e, "read", self.path) from e

    def _view(self) -> memoryview:
        if self._buffer is None:
            try:
                self._buffer = _idle.pop()
            except IndexError:
                self._buffer = mmap.mmap(-1, BUFFER_SIZE)
        return memoryview(self._buffer)

    def _write_buffer(self, offset: int, length: int) -> None:
        view = self._view()
        done = 0
        stalled = False
        while done < length:
            with translated("write", self.path):
                n = self._system.pwritev(
                    self.fd, view[done:length], offset + done
                )
            # A block that was cut is written again as a whole. Without any
            # progress the second try tells why, or it is an error itself.
            n -= n % ALIGNMENT
            if n == 0 and stalled:
                raise errors.StorageFailed(
                    operation="write",
                    path=self.path,
                    reason=f"short write at {offset + done}",
                    errno=errno.EIO,
                )
            stalled = n == 0
            done += n

    def _check_sound(self, operation: str) -> None:
        if self._broken:
            raise errors.StorageFailed(
                operation=operation,
                path=self.path,
                reason="an earlier flush failed",
                errno=errno.EIO,
            )
