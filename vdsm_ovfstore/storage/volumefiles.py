# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The open files and directories of one volume; see `filevolume`.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.storage.directio import DirectFile
from vdsm_ovfstore.storage.failure import translated
from vdsm_ovfstore.storage.replace import Place
from vdsm_ovfstore.storage.tree import IMAGES, STORE, Tree

log = logging.getLogger("ovfstore.storage")

LOG_SUFFIX = ".log"
META_SUFFIX = ".meta"
LEASE_SUFFIX = ".lease"


class VolumeFiles:
    """
    Descriptors that stay open while a volume is used.

    `head` and `log` are None when there is none, or nothing is open.
    """

    def __init__(self, tree: Tree, image: str, volume: str) -> None:
        self.tree = tree
        self.image = image
        self.volume = volume
        self.path = tree.where(IMAGES, image, volume)
        self.metadata_path = self.path + META_SUFFIX
        self.log_path = tree.where(STORE, volume + LOG_SUFFIX)
        self.write = False
        self.head: Optional[DirectFile] = None
        self.log: Optional[DirectFile] = None
        self.image_fd = -1
        self.store_fd = -1

    def open(self, write: bool) -> None:
        """
        Open what there is.

        Raises:
            errors.StorageFailed: ENOENT if there is no head; or of its
                kinds. Nothing is open then.
        """
        self.close()
        self.write = write
        try:
            self.image_fd = self.tree.open_directory(IMAGES, self.image)
            self.reopen_head()
            self.store_fd = self._open_store()
            self.reopen_log()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close all; never raises, and may be called twice."""
        for file in (self.head, self.log):
            if file is not None:
                file.close()
        for fd in (self.image_fd, self.store_fd):
            if fd >= 0:
                self.tree.close(fd)
        self.head = self.log = None
        self.image_fd = self.store_fd = -1

    def reopen_head(self) -> DirectFile:
        """Open the file that has the volume's name now."""
        file = self.tree.open(
            self.volume, self.image_fd, self.path, write=self.write
        )
        if self.head is not None:
            self.head.close()
        self.head = file
        return file

    def reopen_log(self) -> None:
        """Open the log if there is one; an empty file is none."""
        if self.log is not None:
            self.log.close()
        self.log = None
        file = self._open_log(self.write)
        if file is not None and file.size() == 0:
            file.close()
            file = None
        self.log = file

    def remove_empty_log(self) -> None:
        """Remove the log that a crash left before it had a length."""
        file = self._open_log(write=False)
        if file is None:
            return
        try:
            if file.size() > 0:
                return
        finally:
            file.close()
        log.info("Removing empty log path=%s", self.log_path)
        with translated("remove", self.log_path):
            self.tree.system.unlink(self.volume + LOG_SUFFIX, self.store_fd)

    def set_aside_log(self) -> str:
        """
        Give the log another name, durable; there is none then.

        Returns the name. Raises errors.StorageFailed.
        """
        name = self.volume + LOG_SUFFIX
        aside = f"{name}.{os.urandom(8).hex()}"
        log.info("Renaming path=%s to=%s", self.log_path, aside)
        with translated("rename", self.log_path):
            self.tree.system.rename(name, aside, self.store_fd, self.store_fd)
        self.tree.sync(self.store_fd, self.log_path)
        self.reopen_log()
        return aside

    def need_store(self) -> int:
        """
        Descriptor of ovf_store, which is made if missing.

        Raises:
            ValueError: not open for writing.
            errors.StorageFailed: or one of its kinds.
        """
        if not self.write or self.image_fd < 0:
            raise ValueError(f"{self.path} is not open for writing")
        if self.store_fd < 0:
            self.store_fd = self.tree.open_store(create=True)
        return self.store_fd

    def place(self, suffix: str = "") -> Place:
        """The volume's file with that suffix, to be replaced."""
        return Place(
            volume=self.volume,
            name=self.volume + suffix,
            image_fd=self.image_fd,
            store_fd=self.need_store(),
            path=self.path + suffix,
        )

    def read_metadata(self) -> bytes:
        """
        The text of the volume's metadata, open or not.

        Raises:
            errors.VolumeMetadataUnreadable: not there, or far too large.
            errors.StorageFailed: or one of its kinds.
        """
        name = self.volume + META_SUFFIX
        try:
            if self.image_fd >= 0:
                return self.tree.read_small(
                    name, self.image_fd, self.metadata_path
                )
            with self.tree.directory(IMAGES, self.image) as fd:
                return self.tree.read_small(name, fd, self.metadata_path)
        except errors.StorageFailed as e:
            if e.errno not in (errno.ENOENT, errno.EFBIG):
                raise
            raise errors.VolumeMetadataUnreadable(
                volume=self.volume, path=self.metadata_path, reason=e.reason
            ) from e

    def _open_store(self) -> int:
        try:
            return self.tree.open_store()
        except errors.StorageFailed as e:
            if e.errno != errno.ENOENT:
                raise
            return -1

    def _open_log(self, write: bool) -> Optional[DirectFile]:
        if self.store_fd < 0:
            return None
        name = self.volume + LOG_SUFFIX
        try:
            return self.tree.open(
                name, self.store_fd, self.log_path, write=write
            )
        except errors.StorageFailed as e:
            if e.errno != errno.ENOENT:
                raise
            return None
