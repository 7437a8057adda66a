# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
One OVF_STORE volume of a file domain: where a copy lies.

    images/<image>/<volume>        the head: a plain tar at byte 0
    images/<image>/<volume>.meta   the volume's metadata, with DESCRIPTION
    images/<image>/<volume>.lease  its sanlock lease; none on LocalFS
    ovf_store/<volume>.log         the log: segments and the seal ring
    ovf_store/<volume>.log.<hex>   a log that was set aside (`leftlogs`)
    ovf_store/<volume>.head.<hex>  a head not yet in place (`replace`)
    ovf_store/<volume>.meta.<hex>  metadata not yet in place
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterable
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.volmeta import VolumeMetadata
from vdsm_ovfstore.lease.address import LeaseAddress
from vdsm_ovfstore.storage.directio import ALIGNMENT, DirectFile
from vdsm_ovfstore.storage.replace import (
    remove_stale,
    replace_small,
    replace_stream,
)
from vdsm_ovfstore.storage.tree import Tree
from vdsm_ovfstore.storage.volumefiles import (
    LEASE_SUFFIX,
    LOG_SUFFIX,
    META_SUFFIX,
    VolumeFiles,
)

log = logging.getLogger("ovfstore.storage")


class FileVolume:
    """
    The bytes of one copy: head, log and metadata.

    Open it before use; only `read_metadata` works on a closed one. While
    it is open the same files are used, whatever their names come to mean:
    a reader that sees what does not fit closes and opens it again.
    """

    # The head is replaced as a whole, so an interrupted write of ours never
    # leaves a mixture.
    head_in_place = False

    def __init__(
        self,
        tree: Tree,
        domain: str,
        image: str,
        volume: str,
        capacity: int,
        domain_version: int,
    ) -> None:
        """
        Arguments:
            tree (Tree): the domain's directories.
            domain, image, volume (str): ids.
            capacity (int): bytes, CAP when the volume was found.
            domain_version (int): decides how metadata is written.
        """
        self._tree = tree
        self._files = VolumeFiles(tree, image, volume)
        self.domain = domain
        self.domain_id = domain
        self.domain_version = domain_version
        self.image = image
        self.id = volume
        self.capacity = capacity
        self.path = self._files.path
        self.metadata_path = self._files.metadata_path
        self.log_path = self._files.log_path
        self.lease = LeaseAddress(
            lockspace=domain,
            resource=volume,
            path=self.path + LEASE_SUFFIX,
            offset=0,
        )

    def __repr__(self) -> str:
        return f"<FileVolume {self.id} of domain {self.domain}>"

    def open(self, write: bool = False) -> None:
        """
        Open the head, and the log if there is one.

        Raises:
            errors.VolumeNotFound: the head is gone.
            errors.StorageReadOnly: `write`, and it cannot be written.
            errors.DirectIOUnsupported: see `open_direct`.
            errors.StorageFailed: I/O error, or a symbolic link.
        """
        try:
            self._files.open(write)
        except errors.StorageFailed as e:
            if e.errno != errno.ENOENT:
                raise
            raise errors.VolumeNotFound(
                domain=self.domain, what=" " + self.id, path=self._tree.path
            ) from e

    def close(self) -> None:
        """Close all; never raises, and may be called twice."""
        self._files.close()

    def __enter__(self) -> FileVolume:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    # -- metadata

    def read_metadata(self) -> VolumeMetadata:
        """
        The volume's metadata as it is on the storage now.

        Raises:
            errors.VolumeMetadataUnreadable: it is not there, or damaged.
            errors.StorageFailed: I/O error, or a symbolic link.
        """
        data = self._files.read_metadata()
        return VolumeMetadata.parse(data, self.id, self.metadata_path)

    def write_metadata(self, metadata: VolumeMetadata) -> None:
        """
        Replace the volume's metadata: old or new after a crash, durable.

        Raises:
            errors.MetadataOverflow: it does not fit.
            errors.StorageFailed: or one of its kinds.
        """
        data = metadata.text(self.domain_version)
        place = self._files.place(META_SUFFIX)
        log.info("Replacing metadata path=%s", self.metadata_path)
        replace_small(self._tree, place, "meta", data)

    # -- log

    def has_log(self) -> bool:
        """
        Whether there was a log when the volume was opened or one was made.

        An empty file is none: a crash cut its creation short.
        """
        return self._files.log is not None

    def create_log(self) -> None:
        """
        Make the log, as long as the volume's capacity, all of it a hole.

        After a crash there is no log, an empty one (which counts as none),
        or the whole.

        Raises:
            errors.StorageFailed: EEXIST if there is one; or of its kinds.
        """
        store_fd = self._files.need_store()
        self._files.remove_empty_log()
        self._tree.create_file(
            self.id + LOG_SUFFIX,
            store_fd,
            self.log_path,
            length=self.capacity - self.capacity % ALIGNMENT,
        )
        self._tree.sync(store_fd, self.log_path)
        self._files.reopen_log()

    def set_aside_log(self) -> str:
        """
        Keep the log under another name; the volume has none then.

        Returns the name; see leftlogs. Raises errors.StorageFailed.
        """
        return self._files.set_aside_log()

    @property
    def log_size(self) -> int:
        """The length of the log in bytes; 0 without one."""
        return self._log().size() if self.has_log() else 0

    def log_read(self, offset: int, length: int) -> bytes:
        """
        Read any range of the log; short at its end.

        Raises:
            errors.StorageFailed: I/O error.
        """
        return self._log().read(offset, length)

    def log_write(self, offset: int, data: bytes) -> None:
        """
        Write to the log, in place.

        Raises:
            ValueError: offset or length is not a multiple of 4096.
            errors.StorageFailed: or one of its kinds; part may be written.
        """
        log.info(
            "Writing path=%s offset=%s length=%s",
            self.log_path,
            offset,
            len(data),
        )
        self._log().write(offset, data)

    def log_flush(self) -> None:
        """
        Make what was written durable; after an error, never again.

        Raises:
            errors.StorageFailed: or one of its kinds.
        """
        self._log().flush()

    # -- head

    def head_size(self) -> int:
        """The length of the volume's file in bytes, asked now."""
        return self._head().size()

    def head_read(self, offset: int, length: int) -> bytes:
        """
        Read any range of the head; short at its end.

        Raises:
            errors.StorageFailed: I/O error.
        """
        try:
            return self._head().read(offset, length)
        except errors.StorageFailed as e:
            if e.errno != errno.ESTALE or self._files.write:
                raise
        # On NFS the file that another host has replaced is gone.
        return self._files.reopen_head().read(offset, length)

    def head_flush(self) -> None:
        """
        Make durable what a writer without us may have left in the cache.

        Raises:
            errors.StorageFailed: or one of its kinds.
        """
        self._head().flush()

    def head_is_empty(self) -> bool:
        """
        Whether the head is nothing but zeros: a volume never written.

        Raises:
            errors.StorageFailed: I/O error.
        """
        return self._head().is_zero()

    def head_fits(self, length: int) -> bool:
        """
        Whether VDSM's `dd`, which truncates the head and writes it in
        place, would find room for so many bytes.

        Raises:
            errors.StorageFailed: I/O error.
        """
        return self._head().fits(length)

    def head_replace(self, chunks: Iterable[bytes], length: int) -> None:
        """
        Replace the head, padded with zeros to 4 KiB.

        The new file is durable under a name of its own in ovf_store before
        it is renamed over the volume, so after a crash the head is the old
        one or the new one. What is left in ovf_store is removed by
        `remove_stale_heads`.

        Arguments:
            chunks: the content in pieces of any length.
            length (int): its whole length in bytes.

        Raises:
            ValueError: the pieces are not `length` bytes; nothing changed.
            errors.StorageFailed: or one of its kinds. The head is the old
                one, unless flushing the names failed: then it is either.
        """
        place = self._files.place()
        log.info("Replacing head path=%s length=%s", self.path, length)
        replace_stream(self._tree, place, "head", chunks, length)
        self._files.reopen_head()

    def remove_stale_heads(self) -> None:
        """
        Remove this volume's files that a crash left in ovf_store.

        Call it with the leases held: nobody else is writing them then.

        Raises:
            errors.StorageFailed: or one of its kinds.
        """
        if self._files.store_fd >= 0:
            remove_stale(self._tree, self.id, self._files.store_fd)

    def head_floor(self, length: int) -> int:
        """
        The lowest offset of the log that a segment may use beside a head
        of `length` bytes: 0, the log being a file of its own.
        """
        return 0

    def _head(self) -> DirectFile:
        return self._opened(self._files.head)

    def _log(self) -> DirectFile:
        return self._opened(self._files.log)

    def _opened(self, file: Optional[DirectFile]) -> DirectFile:
        if file is None:
            raise ValueError(f"{self!r} is not open, or has no log")
        return file
