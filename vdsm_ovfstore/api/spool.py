# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Room for what is received and sent, on the host's own disk.

Spool files have no name: whatever ends this process, nothing stays behind.
"""

from __future__ import annotations

import os
import threading

from vdsm_ovfstore import errors
from vdsm_ovfstore.store.prepare import spool_file

# Others write to that file system, too: this much stays free, in bytes.
_LEFT_FREE = 64 * 1024**2

# An upload holds the tar, and at worst as much again, compressed, with a few
# bytes of zlib's and the index.
_UPLOAD_FACTOR = 2
_UPLOAD_MORE = 1024**2

_RETRY_AFTER = 10  # seconds; about as long as an upload of 128 MiB takes


class Spool:
    """Arguments: the directory, and how many bytes of it may be used."""

    def __init__(self, directory: str, limit: int) -> None:
        self._directory = directory
        self._limit = limit
        self._used = 0
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes that are promised to transfers."""
        return self._used

    def reserve(self, size: int) -> Reservation:
        """
        Raises errors.ArchiveTooLarge when it can never be had, HostBusy when
        it cannot be had now.
        """
        if size > self._limit:
            raise errors.ArchiveTooLarge(
                what="the spool of this host",
                size=size,
                limit=self._limit,
                way_out="Give the host more: spool_bytes in its configuration",
            )
        with self._lock:
            if self._used + size > self._limit:
                raise errors.HostBusy(
                    reason="other transfers use its spool",
                    retry_after=_RETRY_AFTER,
                )
            free = self._free()
            if self._used + size > free:
                raise errors.HostBusy(
                    reason=f"only {free} bytes are free in its spool "
                    "directory",
                    retry_after=_RETRY_AFTER,
                )
            self._used += size
        return Reservation(self, size)

    def reserve_upload(self, length: int) -> Reservation:
        """For an archive of so many bytes; raises as reserve()."""
        return self.reserve(_UPLOAD_FACTOR * length + _UPLOAD_MORE)

    def _free(self) -> int:
        try:
            st = os.statvfs(self._directory)
        except OSError as e:
            raise errors.TargetRefused(
                path=self._directory, reason=e.strerror
            ) from None
        return st.f_bavail * st.f_frsize - _LEFT_FREE

    def file(self) -> int:
        """The descriptor of a new file without a name."""
        return spool_file(self._directory)

    def give_back(self, size: int) -> None:
        with self._lock:
            self._used -= size


class Reservation:
    """Room that was promised, with the files in it."""

    def __init__(self, spool: Spool, size: int) -> None:
        self._spool = spool
        self._size = size
        self._files: list[int] = []

    def file(self) -> int:
        """A new file; it is closed with the reservation."""
        fd = self._spool.file()
        self._files.append(fd)
        return fd

    def close(self) -> None:
        """Give all of it back; idempotent."""
        files, self._files = self._files, []
        for fd in files:
            os.close(fd)
        size, self._size = self._size, 0
        self._spool.give_back(size)
