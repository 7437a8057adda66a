# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The store lock of a domain that only one host can reach: flock.

VDSM gives LocalFS domains no leases. The lock lies on the domain's
`ovf_store` directory, which outlives every volume; it ends with the process.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time

from vdsm_ovfstore import errors

log = logging.getLogger("ovfstore.lease")

# Seconds between tries.
FIRST_PAUSE = 0.02
LONGEST_PAUSE = 0.5

_SOMEBODY = "another process on this host"


class FlockLock:
    """
    An exclusive flock on a directory.

    Arguments:
        domain_id: the storage domain's id
        path: the `ovf_store` directory of the domain
        dir_fd: an open fd of that directory; with it `path` is only shown.
            It stays the caller's, and is not what is locked: each lock has
            a description of its own, so two in one process exclude each
            other too.
    """

    # There is no daemon to lose.
    fd: int | None = None

    def __init__(
        self, domain_id: str, path: str, dir_fd: int | None = None
    ) -> None:
        self._domain = domain_id
        self._path = path
        self._dir_fd = dir_fd
        self._locked: int | None = None

    @property
    def held(self) -> bool:
        return self._locked is not None

    def acquire(self, deadline: float) -> None:
        """
        Take the lock.

        Arguments:
            deadline: in time.monotonic(); one try is always made

        Raises:
            LeaseBusy: the deadline passed; names the owner
            LeaseFailed: the directory is not there, or cannot be locked
        """
        if self._locked is not None:
            raise RuntimeError("The lock is acquired already")
        fd = self._open()
        try:
            self._retry(fd, deadline)
            if os.fstat(fd).st_nlink == 0:
                raise self._failure("the directory was removed")
        except BaseException:
            os.close(fd)
            raise
        self._locked = fd

    def release(self) -> None:
        """Give the lock back. Never raises."""
        if self._locked is None:
            return
        log.info("releasing flock domain=%s path=%s", self._domain, self._path)
        fd, self._locked = self._locked, None
        try:
            # Closing is not enough when a child inherited the fd by fork.
            fcntl.flock(fd, fcntl.LOCK_UN)
        except OSError as e:
            log.warning("cannot unlock path=%s error=%s", self._path, e)
        finally:
            os.close(fd)

    def _open(self) -> int:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            if self._dir_fd is not None:
                return os.open(".", flags, dir_fd=self._dir_fd)
            return os.open(self._path, flags)
        except OSError as e:
            raise self._failure(e.strerror or str(e)) from e

    def _retry(self, fd: int, deadline: float) -> None:
        log.info("acquiring flock domain=%s path=%s", self._domain, self._path)
        began = time.monotonic()
        pause = FIRST_PAUSE
        while not self._try(fd):
            now = time.monotonic()
            if now >= deadline:
                raise errors.LeaseBusy(
                    domain=self._domain,
                    owner=_owner(fd),
                    waited=now - began,
                    path=self._path,
                )
            time.sleep(min(pause, deadline - now))
            pause = min(pause * 2, LONGEST_PAUSE)

    def _try(self, fd: int) -> bool:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as e:
            raise self._failure(e.strerror or str(e)) from e
        return True

    def _failure(self, reason: str) -> errors.LeaseFailed:
        return errors.LeaseFailed(
            resource=self._path, path=self._path, reason=reason
        )


def _owner(fd: int) -> str:
    """
    Say which process holds the lock, as /proc/locks knows it.

    Its lines: `1: FLOCK ADVISORY WRITE <pid> <major>:<minor>:<inode> 0 EOF`.
    Some file systems show another device there than stat() does, and a
    process of another container has no pid here: then it stays unnamed.
    """
    st = os.fstat(fd)
    major, minor = os.major(st.st_dev), os.minor(st.st_dev)
    wanted = f"{major:02x}:{minor:02x}:{st.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as lines:
            for line in lines:
                words = line.split()
                # A waiter's line has "->" as its second word.
                if words[1:2] == ["FLOCK"] and words[5:6] == [wanted]:
                    return _process(int(words[4]))
    except (OSError, ValueError) as e:
        log.debug("cannot find owner of flock error=%s", e)
    return _SOMEBODY


def _process(pid: int) -> str:
    if pid == os.getpid():
        return "another thread of this process"
    if pid <= 0:
        return _SOMEBODY
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8") as f:
            name = "".join(c for c in f.read(64) if c.isprintable())
    except (OSError, ValueError):
        return _SOMEBODY
    return f"process {pid} ({name}) on this host"
