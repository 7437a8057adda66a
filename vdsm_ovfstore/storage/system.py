# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The calls that touch storage.

Every read and change of storage goes through one `System`, so that a test
can record the calls, delay or fail the n-th one, or stop there as a crash
would. No policy here: arguments, results and errors are those of `os`.
"""

from __future__ import annotations

import os
from typing import Optional


class System:
    """The calls of the operating system, one method each."""

    # -- files

    def open(
        self,
        path: str,
        flags: int,
        mode: int = 0,
        dir_fd: Optional[int] = None,
    ) -> int:
        return os.open(path, flags, mode, dir_fd=dir_fd)

    def close(self, fd: int) -> None:
        os.close(fd)

    def preadv(self, fd: int, view: memoryview, offset: int) -> int:
        return os.preadv(fd, [view], offset)

    def pwritev(self, fd: int, view: memoryview, offset: int) -> int:
        return os.pwritev(fd, [view], offset)

    def fsync(self, fd: int) -> None:
        os.fsync(fd)

    def fstat(self, fd: int) -> os.stat_result:
        return os.fstat(fd)

    def fstatvfs(self, fd: int) -> os.statvfs_result:
        return os.fstatvfs(fd)

    def ftruncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def lseek(self, fd: int, offset: int, how: int) -> int:
        return os.lseek(fd, offset, how)

    def fchown(self, fd: int, uid: int, gid: int) -> None:
        os.fchown(fd, uid, gid)

    def fchmod(self, fd: int, mode: int) -> None:
        os.fchmod(fd, mode)

    # -- directories; `dir_fd` is where `name` lies

    def rename(self, src: str, dst: str, src_dir: int, dst_dir: int) -> None:
        os.rename(src, dst, src_dir_fd=src_dir, dst_dir_fd=dst_dir)

    def unlink(self, name: str, dir_fd: int) -> None:
        os.unlink(name, dir_fd=dir_fd)

    def mkdir(self, name: str, mode: int, dir_fd: int) -> None:
        os.mkdir(name, mode, dir_fd=dir_fd)

    def rmdir(self, name: str, dir_fd: int) -> None:
        os.rmdir(name, dir_fd=dir_fd)

    def lstat(self, name: str, dir_fd: int) -> os.stat_result:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False)

    def readlink(self, name: str, dir_fd: int) -> str:
        return os.readlink(name, dir_fd=dir_fd)

    def listdir(self, fd: int) -> list[str]:
        return os.listdir(fd)

    # -- who we are

    def geteuid(self) -> int:
        return os.geteuid()
