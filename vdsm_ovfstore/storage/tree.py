# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The directories below the root of a storage domain.

    <domain>/dom_md/          metadata ids leases ...
    <domain>/images/<image>/  <volume> <volume>.meta <volume>.lease
    <domain>/ovf_store/       <volume>.log, and files not yet in place

The root may be reached through symbolic links, as VDSM makes them. Below it
nothing is followed: every step opens one name in the directory before it
with O_NOFOLLOW, and the names are constants or canonical UUIDs.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.storage.directio import DirectFile, open_direct, round_up
from vdsm_ovfstore.storage.failure import failure, translated
from vdsm_ovfstore.storage.system import System

log = logging.getLogger("ovfstore.storage")

DOM_MD = "dom_md"
IMAGES = "images"
STORE = "ovf_store"

DIRECTORY_MODE = 0o755
FILE_MODE = 0o660  # VDSM: FILE_VOLUME_PERMISSIONS
METADATA_MODE = 0o644

# vdsm:kvm, fixed numbers on every host. Only root can give files to them.
OWNER = (36, 36)

# Metadata files are smaller; what is larger is none.
MAX_SMALL_FILE = 64 * 1024

_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def random_id() -> str:
    """A new random UUID (RFC 4122, version 4)."""
    # The uuid module costs the worker 3 ms of its start-up.
    b = bytearray(os.urandom(16))
    b[6] = b[6] & 0x0F | 0x40
    b[8] = b[8] & 0x3F | 0x80
    h = b.hex()
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


class Tree:
    """
    A domain's directories, opened anew for each use.

    No descriptor is kept, so that the file system can be unmounted. That
    the root is still the directory it was is checked at each use.
    """

    def __init__(
        self, system: System, path: str, buffered: bool = False
    ) -> None:
        self.system = system
        self.path = path
        self.buffered = buffered
        self._identity: Optional[tuple[int, int]] = None

    def where(self, *names: str) -> str:
        """The path of a file below the root, for messages and sanlock."""
        return "/".join((self.path.rstrip("/"),) + names)

    def open_directory(self, *names: str) -> int:
        """
        Descriptor of a directory below the root, or of the root itself.

        Raises:
            errors.StorageFailed: with `errno`: ENOENT if there is none,
                ELOOP if a step is a symbolic link.
        """
        fd = self._open_root()
        for i, name in enumerate(names):
            parent = fd
            try:
                path = self.where(*names[: i + 1])
                fd = self._open_below(name, parent, path)
            finally:
                self.close(parent)
        return fd

    @contextmanager
    def directory(self, *names: str) -> Iterator[int]:
        """`open_directory` that is closed at the end."""
        fd = self.open_directory(*names)
        try:
            yield fd
        finally:
            self.close(fd)

    @contextmanager
    def below(self, name: str, parent: int, path: str) -> Iterator[int]:
        """A directory in one that is open; else as `directory`."""
        fd = self._open_below(name, parent, path)
        try:
            yield fd
        finally:
            self.close(fd)

    def close(self, fd: int) -> None:
        """Close a directory; never raises: it held nothing to be lost."""
        try:
            self.system.close(fd)
        except OSError as e:
            log.warning("Cannot close a directory of %s: %s", self.path, e)

    def names(self, fd: int, path: str) -> list[str]:
        """Sorted names in a directory."""
        with translated("list", path):
            return sorted(self.system.listdir(fd))

    def make_directory(self, name: str, parent: int, path: str) -> None:
        """
        Make a directory in `parent`, durable, as VDSM would.

        Raises:
            errors.StorageFailed: EEXIST if the name is taken; or of its
                kinds. Nothing is left.
        """
        log.info("Creating directory path=%s", path)
        with translated("create", path):
            self.system.mkdir(name, DIRECTORY_MODE, parent)
        try:
            with self.below(name, parent, path) as fd:
                self.own(fd, DIRECTORY_MODE, path)
                self.sync(fd, path)
            self.sync(parent, path)
        except BaseException:
            self.discard_directory(name, parent)
            raise

    def open_store(self, create: bool = False) -> int:
        """
        Descriptor of ovf_store; with `create` it is made if missing.

        Raises:
            errors.StorageFailed: ENOENT if there is none; or of its kinds.
        """
        if create:
            with self.directory() as root:
                try:
                    self.make_directory(STORE, root, self.where(STORE))
                except errors.StorageFailed as e:
                    if e.errno != errno.EEXIST:
                        raise
        return self.open_directory(STORE)

    def read_small(self, name: str, dir_fd: int, path: str) -> bytes:
        """
        The whole of a file of at most 64 KiB.

        Raises:
            errors.StorageFailed: EFBIG if it is larger.
        """
        file = self.open(name, dir_fd, path)
        try:
            data = file.read(0, MAX_SMALL_FILE + 1)
        finally:
            file.close()
        if len(data) > MAX_SMALL_FILE:
            raise failure(OSError(errno.EFBIG, ""), "read", path)
        return data

    def open(
        self,
        name: str,
        dir_fd: int,
        path: str,
        write: bool = False,
        create: bool = False,
    ) -> DirectFile:
        """`open_direct` with the domain's settings."""
        return open_direct(
            self.system,
            name,
            dir_fd,
            path,
            write=write,
            create=create,
            buffered=self.buffered,
        )

    def create_file(
        self,
        name: str,
        dir_fd: int,
        path: str,
        mode: int = FILE_MODE,
        data: bytes = b"",
        length: Optional[int] = None,
    ) -> None:
        """
        Make a file with owner, mode, content and length, and flush it.

        Its directory is not flushed. If it fails, nothing is left.
        """
        log.info("Creating file path=%s length=%s", path, length)
        file = self.open(name, dir_fd, path, create=True)
        try:
            self.own(file.fd, mode, path)
            if data:
                file.write(0, data + bytes(round_up(len(data)) - len(data)))
            file.truncate(len(data) if length is None else length)
            file.flush()
        except BaseException:
            self.discard(name, dir_fd)
            raise
        finally:
            file.close()

    def own(self, fd: int, mode: int, path: str) -> None:
        """Give a new file the mode, and as root VDSM's owner."""
        with translated("set the owner", path):
            st = self.system.fstat(fd)
            if (st.st_uid, st.st_gid) != OWNER and self.system.geteuid() == 0:
                self.system.fchown(fd, *OWNER)
            if stat.S_IMODE(st.st_mode) != mode:
                self.system.fchmod(fd, mode)

    def sync(self, dir_fd: int, path: str) -> None:
        """Flush the names in a directory."""
        with translated("flush", path):
            self.system.fsync(dir_fd)

    def discard(self, name: str, dir_fd: int) -> None:
        """Remove a file of ours after an error, which must stay visible."""
        try:
            self.system.unlink(name, dir_fd)
        except OSError as e:
            if e.errno != errno.ENOENT:
                log.warning("Cannot remove name=%s: %s", name, e)

    def discard_directory(self, name: str, dir_fd: int) -> None:
        """As `discard`, for an empty directory."""
        try:
            self.system.rmdir(name, dir_fd)
        except OSError as e:
            if e.errno != errno.ENOENT:
                log.warning("Cannot remove name=%s: %s", name, e)

    def _open_root(self) -> int:
        with translated("open", self.path):
            fd = self.system.open(self.path, _OPEN_DIRECTORY)
        try:
            with translated("stat", self.path):
                st = self.system.fstat(fd)
            identity = (st.st_dev, st.st_ino)
            if self._identity is None:
                self._identity = identity
            elif self._identity != identity:
                # Unmounted, or mounted over: another domain, or a local
                # directory of the same name.
                raise errors.StorageFailed(
                    operation="open",
                    path=self.path,
                    reason="the storage domain is no longer mounted there",
                    errno=errno.ESTALE,
                )
        except BaseException:
            self.close(fd)
            raise
        return fd

    def _open_below(self, name: str, parent: int, path: str) -> int:
        try:
            return self.system.open(
                name, _OPEN_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent
            )
        except OSError as e:
            if e.errno == errno.ENOTDIR and self._is_link(name, parent):
                e = OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            raise failure(e, "open", path) from e

    def _is_link(self, name: str, parent: int) -> bool:
        try:
            st = self.system.lstat(name, parent)
        except OSError:
            return False
        return stat.S_ISLNK(st.st_mode)
