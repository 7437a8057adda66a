# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A file system in memory that forgets what was not flushed.

It stands in for the operating system below storage/ (see storage/system.py),
so that everything above runs as it is, and a run can be stopped before any
change of storage:

    fs = SimFS()
    host = SimSystem(fs)            one per host; all see the same storage
    host.crash_at = 17              the 17th change raises Crash instead
    for name, after in fs.power_losses():   what a power loss may leave

Every change is visible at once, and durable after fsync of its file or
directory. A power loss keeps, for each change that is not durable, all, none
or a torn part of it; fs.power_losses() yields the cases, each as a file
system of its own. Names are journalled, as on ext4, XFS and by NFS servers:
what is lost of them is lost from some change on. Data is not.
A process that is killed loses nothing: go on with fs.
"""

from __future__ import annotations

import errno
import itertools
import os
import stat
from collections.abc import Iterator
from typing import Callable, Optional

from vdsm_ovfstore.storage.system import System

PAGE = 4096
SECTOR = 512


class Crash(BaseException):
    """The host is gone; nothing it does from now on reaches storage."""


class Inode:
    """A file or directory. pages and names are what everyone sees."""

    def __init__(self, number: int, mode: int) -> None:
        self.number = number
        self.mode = mode
        self.size = 0
        self.pages: dict[int, bytes] = {}
        self.names: dict[str, int] = {}
        self.uid = self.gid = 0

    def clone(self) -> Inode:
        other = Inode(self.number, self.mode)
        other.size = self.size
        other.pages = dict(self.pages)
        other.names = dict(self.names)
        other.uid, other.gid = self.uid, self.gid
        return other

    def write(self, offset: int, data: bytes) -> None:
        assert offset % SECTOR == 0
        self.size = max(self.size, offset + len(data))
        at = 0
        while at < len(data):
            page, start = divmod(offset + at, PAGE)
            piece = data[at : at + PAGE - start]
            if len(piece) == PAGE:
                self.pages[page] = piece
            else:
                old = self.pages.get(page, bytes(PAGE))
                end = start + len(piece)
                self.pages[page] = old[:start] + piece + old[end:]
            at += len(piece)

    def read(self, offset: int, length: int) -> bytes:
        length = max(0, min(length, self.size - offset))
        first, start = divmod(offset, PAGE)
        last = -(-(offset + length) // PAGE)
        zeros = bytes(PAGE)
        pages = [self.pages.get(n, zeros) for n in range(first, last)]
        return b"".join(pages)[start : start + length]

    def truncate(self, size: int) -> None:
        if size < self.size:
            last, start = divmod(size, PAGE)
            for page in [p for p in self.pages if p > last]:
                del self.pages[page]
            if last in self.pages:
                kept = self.pages[last][:start]
                self.pages[last] = kept + bytes(PAGE - start)
        self.size = size


# A change that is visible and not yet durable. `apply(inodes, part)` does it
# to the durable state; part is None for all of it, or the bytes of a torn one.
class Change:
    def __init__(
        self,
        where: frozenset[int],
        what: str,
        apply: Callable[[dict[int, Inode], Optional[int]], None],
        length: int = 0,
        name: bool = False,
    ) -> None:
        self.name = name
        self.where = where
        self.what = what
        self.apply = apply
        self.length = length


class SimFS:
    """The storage that hosts share."""

    ROOT = 1

    def __init__(self) -> None:
        # Ids of volumes that cannot be read or written at the moment.
        self.broken: set[str] = set()
        root = Inode(self.ROOT, stat.S_IFDIR | 0o755)
        self.seen: dict[int, Inode] = {self.ROOT: root}
        self.durable: dict[int, Inode] = {self.ROOT: root.clone()}
        self.pending: list[Change] = []
        self.next_inode = 2

    def clone(self) -> SimFS:
        other = SimFS()
        other.broken = set(self.broken)
        other.seen = {n: i.clone() for n, i in self.seen.items()}
        other.durable = {n: i.clone() for n, i in self.durable.items()}
        other.pending = list(self.pending)
        other.next_inode = self.next_inode
        return other

    def change(self, change: Change) -> None:
        change.apply(self.seen, None)
        self.pending.append(change)

    def flush(self, number: int) -> None:
        """What fsync does: make all changes of one file durable, in order."""
        named = [
            n
            for n, c in enumerate(self.pending)
            if c.name and number in c.where
        ]
        journal = named[-1] if named else -1
        left = []
        for n, change in enumerate(self.pending):
            if number in change.where or (change.name and n <= journal):
                change.apply(self.durable, None)
            else:
                left.append(change)
        self.pending = left

    def sync(self) -> None:
        for change in self.pending:
            change.apply(self.durable, None)
        self.pending = []

    def state(self) -> int:
        """A fingerprint of what everyone sees."""
        return hash(
            tuple(
                (
                    number,
                    inode.size,
                    frozenset(inode.names.items()),
                    frozenset(inode.pages.items()),
                )
                for number, inode in sorted(self.seen.items())
            )
        )

    def power_losses(self) -> Iterator[tuple[str, SimFS]]:
        """
        What may be left when all caches are lost.

        Nothing of what was not durable; everything; all but one change; one
        change only; each write torn in the middle, at a sector.
        """
        count = len(self.pending)
        yield "lost all", self._after([0] * count)
        if count:
            yield "kept all", self._after([None] * count)
        if count > 1:
            for n in range(count):
                what = self.pending[n].what
                name = self.pending[n].name
                kept: list[Optional[int]] = [None] * count
                lost: list[Optional[int]] = [0] * count
                for m in range(count):
                    if m == n or (name and self.pending[m].name):
                        kept[m] = 0 if m >= n else None
                        lost[m] = None if m <= n else 0
                yield f"lost {what}", self._after(kept)
                yield f"kept {what}", self._after(lost)
        for n in range(count):
            change = self.pending[n]
            if change.length <= SECTOR:
                continue
            torn: list[Optional[int]] = [None] * count
            middle = change.length // 2
            for part in {SECTOR, middle - middle % SECTOR}:
                torn[n] = part
                yield f"tore {change.what} at {part}", self._after(list(torn))

    def _after(self, parts: list[Optional[int]]) -> SimFS:
        other = SimFS()
        other.durable = {n: i.clone() for n, i in self.durable.items()}
        for change, part in zip(self.pending, parts):
            if part != 0:
                change.apply(other.durable, part)
        other.seen = {n: i.clone() for n, i in other.durable.items()}
        other.next_inode = self.next_inode
        other.broken = set(self.broken)
        return other

    # -- for tests, without a host

    def lookup(self, path: str) -> Inode:
        inode = self.seen[self.ROOT]
        for name in path.strip("/").split("/"):
            inode = self.seen[inode.names[name]]
        return inode


def _create(parent: int, name: str, number: int, mode: int) -> Change:
    # A new name and its empty file become durable together with the
    # directory; data of a file that has no name yet is kept as an orphan.
    def apply(inodes: dict[int, Inode], part: Optional[int]) -> None:
        inodes.setdefault(number, Inode(number, mode))
        directory = Inode(parent, stat.S_IFDIR | 0o755)
        inodes.setdefault(parent, directory).names[name] = number

    return Change(frozenset([parent]), f"name {name[-24:]}", apply, name=True)


def _write(number: int, mode: int, offset: int, data: bytes) -> Change:
    def apply(inodes: dict[int, Inode], part: Optional[int]) -> None:
        inode = inodes.setdefault(number, Inode(number, mode))
        inode.write(offset, data if part is None else data[:part])

    what = f"write {number}@{offset}+{len(data)}"
    return Change(frozenset([number]), what, apply, len(data))


def _truncate(number: int, mode: int, size: int) -> Change:
    def apply(inodes: dict[int, Inode], part: Optional[int]) -> None:
        inodes.setdefault(number, Inode(number, mode)).truncate(size)

    return Change(frozenset([number]), f"truncate {number}", apply)


def _rename(src: str, dst: str, src_dir: int, dst_dir: int) -> Change:
    def apply(inodes: dict[int, Inode], part: Optional[int]) -> None:
        # Come too late, it finds the file removed.
        if src in inodes[src_dir].names:
            inodes[dst_dir].names[dst] = inodes[src_dir].names.pop(src)

    # Durable as soon as the directory of either name is.
    where = frozenset([src_dir, dst_dir])
    return Change(where, f"rename to {dst[-24:]}", apply, name=True)


def _unlink(name: str, parent: int) -> Change:
    def apply(inodes: dict[int, Inode], part: Optional[int]) -> None:
        inodes[parent].names.pop(name, None)

    where = frozenset([parent])
    return Change(where, f"unlink {name[-24:]}", apply, name=True)


class SimSystem(System):
    """
    The calls of one host. Counts its changes of storage, and crashes or fails
    at the one that is asked for.

    crash_at: number of the change that raises Crash, counted from 1.
    fail_at, fail_errno: number of the change that raises OSError.
    log: what was changed, in words.
    """

    _fds = itertools.count(1000)

    def __init__(self, fs: SimFS) -> None:
        self.fs = fs
        self.changes = 0
        self.crash_at = 0
        self.fail_at = 0
        self.fail_errno = errno.EIO
        self.dead = False
        self.log: list[str] = []
        # The change that was under way in the crash: it may still arrive.
        self.late: Optional[Change] = None
        self._open: dict[int, int] = {}

    def _step(self, what: str, late: Optional[Change] = None) -> None:
        if self.dead:
            raise Crash()
        self.changes += 1
        self.log.append(what)
        if self.changes == self.crash_at:
            self.dead = True
            self.late = late
            raise Crash()
        if self.changes == self.fail_at:
            raise OSError(self.fail_errno, os.strerror(self.fail_errno))

    def _inode(self, fd: int) -> Inode:
        if self.dead:
            raise Crash()
        return self.fs.seen[self._open[fd]]

    # -- files

    def open(
        self,
        path: str,
        flags: int,
        mode: int = 0,
        dir_fd: Optional[int] = None,
    ) -> int:
        if self.dead:
            raise Crash()
        parts = [p for p in path.split("/") if p]
        number = self.fs.ROOT
        if dir_fd is not None:
            number = self._open[dir_fd]
        for part in parts[:-1]:
            number = self._child(number, part)
        name = parts[-1]
        if any(name.startswith(volume) for volume in self.fs.broken):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        parent = self.fs.seen[number]
        if name in parent.names:
            if flags & os.O_EXCL:
                raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
            number = parent.names[name]
        elif flags & os.O_CREAT:
            self._step(f"create {name}")
            number = self._new(parent.number, name, stat.S_IFREG | mode)
        else:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        inode = self.fs.seen[number]
        if flags & os.O_DIRECTORY and not stat.S_ISDIR(inode.mode):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        fd = next(self._fds)
        self._open[fd] = number
        return fd

    def close(self, fd: int) -> None:
        self._open.pop(fd, None)

    def preadv(self, fd: int, view: memoryview, offset: int) -> int:
        data = self._inode(fd).read(offset, len(view))
        view[: len(data)] = data
        return len(data)

    def pwritev(self, fd: int, view: memoryview, offset: int) -> int:
        inode = self._inode(fd)
        data = bytes(view)
        change = _write(inode.number, inode.mode, offset, data)
        self._step(change.what, change)
        self.fs.change(change)
        return len(data)

    def fsync(self, fd: int) -> None:
        inode = self._inode(fd)
        self._step(f"fsync {inode.number}")
        self.fs.flush(inode.number)

    def fstat(self, fd: int) -> os.stat_result:
        return self._stat(self._inode(fd))

    def ftruncate(self, fd: int, length: int) -> None:
        inode = self._inode(fd)
        self._step(f"truncate {inode.number} {length}")
        self.fs.change(_truncate(inode.number, inode.mode, length))

    def lseek(self, fd: int, offset: int, how: int) -> int:
        inode = self._inode(fd)
        if how == os.SEEK_DATA:
            pages = [p for p in inode.pages if (p + 1) * PAGE > offset]
            if not pages or offset >= inode.size:
                raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
            return max(offset, min(pages) * PAGE)
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def fchown(self, fd: int, uid: int, gid: int) -> None:
        inode = self._inode(fd)
        inode.uid, inode.gid = uid, gid

    def fchmod(self, fd: int, mode: int) -> None:
        pass

    # -- directories

    def rename(self, src: str, dst: str, src_dir: int, dst_dir: int) -> None:
        old, new = self._inode(src_dir), self._inode(dst_dir)
        change = _rename(src, dst, old.number, new.number)
        self._step(change.what, change)
        if src not in old.names:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        self.fs.change(change)

    def unlink(self, name: str, dir_fd: int) -> None:
        parent = self._inode(dir_fd)
        self._step(f"unlink {name}")
        if name not in parent.names:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        self.fs.change(_unlink(name, parent.number))

    def mkdir(self, name: str, mode: int, dir_fd: int) -> None:
        parent = self._inode(dir_fd)
        if name in parent.names:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        self._step(f"mkdir {name}")
        self._new(parent.number, name, stat.S_IFDIR | mode)

    def rmdir(self, name: str, dir_fd: int) -> None:
        self.unlink(name, dir_fd)

    def lstat(self, name: str, dir_fd: int) -> os.stat_result:
        return self._stat(self.fs.seen[self._child(self._open[dir_fd], name)])

    def readlink(self, name: str, dir_fd: int) -> str:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    def listdir(self, fd: int) -> list[str]:
        return list(self._inode(fd).names)

    def geteuid(self) -> int:
        return 36

    def _new(self, parent: int, name: str, mode: int) -> int:
        number = self.fs.next_inode
        self.fs.next_inode += 1
        self.fs.change(_create(parent, name, number, mode))
        return number

    def _child(self, number: int, name: str) -> int:
        if self.dead:
            raise Crash()
        try:
            return self.fs.seen[number].names[name]
        except KeyError:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT)) from None

    @staticmethod
    def _stat(inode: Inode) -> os.stat_result:
        return os.stat_result(
            (inode.mode, inode.number, 1, 1, 36, 36, inode.size, 0, 0, 0)
        )
