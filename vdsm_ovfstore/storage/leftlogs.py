# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Logs that no copy uses: their volume is gone, or they were set aside.

    ovf_store/<volume>.log                of a volume that is there no more
    ovf_store/<volume>.log.<16 hex>       set aside: no seal told what it holds
    ovf_store/<either>.left               since when it is known to be left

They are readable for whoever asks. A volume may have been away for an hour,
and what a file system says of a file's age knows nothing of that: so the time
is written down when a log is first seen without its volume.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import re
from collections.abc import Iterator
from typing import Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import record
from vdsm_ovfstore.format.ids import is_uuid
from vdsm_ovfstore.storage.directio import DirectFile
from vdsm_ovfstore.storage.failure import translated
from vdsm_ovfstore.storage.tree import METADATA_MODE, STORE, Tree
from vdsm_ovfstore.storage.volumefiles import LOG_SUFFIX

log = logging.getLogger("ovfstore.storage")

_LOG = re.compile(r"([0-9a-f-]{36})\.log(\.[0-9a-f]{16})?")
_NOTE = ".left"


class LeftLog:
    """The bytes of such a log; nobody writes to it."""

    def __init__(self, file: DirectFile, name: str, path: str) -> None:
        self._file = file
        self.name = name
        self.log_path = path

    @property
    def log_size(self) -> int:
        return self._file.size()

    def log_read(self, offset: int, length: int) -> bytes:
        """Raises errors.StorageFailed."""
        return self._file.read(offset, length)

    def is_zero(self) -> bool:
        """Nothing was ever written. Raises errors.StorageFailed."""
        return self._file.is_zero()

    def close(self) -> None:
        self._file.close()


class LeftLogs:
    """
    The logs in ovf_store of a domain that are not those of its volumes.

    Every method raises errors.StorageFailed.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def names(self, volumes: set[str]) -> list[str]:
        """Those that none of these volumes uses."""
        return [
            name
            for name in self._names()
            if (found := _LOG.fullmatch(name)) and is_uuid(found[1])
            if found[2] or found[1] not in volumes
        ]

    def set_aside(self) -> list[str]:
        """Those of which no seal told what they hold."""
        return [n for n in self._names() if _LOG.fullmatch(n) and is_aside(n)]

    @contextlib.contextmanager
    def opened(self, name: str) -> Iterator[LeftLog]:
        path = self._tree.where(STORE, name)
        with self._tree.directory(STORE) as fd:
            left = LeftLog(self._tree.open(name, fd, path), name, path)
        try:
            yield left
        finally:
            left.close()

    def since(self, name: str) -> Optional[int]:
        """When it was first seen so, Unix seconds; None if it never was."""
        path = self._tree.where(STORE, name + _NOTE)
        try:
            with self._tree.directory(STORE) as fd:
                data = self._tree.read_small(name + _NOTE, fd, path)
        except errors.StorageFailed as e:
            if e.errno not in (errno.ENOENT, errno.EFBIG):
                raise
            return None
        try:
            text = data.decode("ascii").strip()
            return record.timestamp({"since": text}, "since")
        except (UnicodeDecodeError, record.RecordInvalid):
            return None

    def note(self, name: str, when: int) -> None:
        """Write down that it is left, in place of what was written down."""
        text = record.isotime(when) + "\n"
        path = self._tree.where(STORE, name + _NOTE)
        with self._tree.directory(STORE) as fd:
            self._unlink(name + _NOTE, fd)
            self._tree.create_file(
                name + _NOTE, fd, path, METADATA_MODE, text.encode("ascii")
            )
            self._tree.sync(fd, path)

    def forget(self, volumes: set[str]) -> None:
        """Remove what is noted of logs that are left no more."""
        left = {name + _NOTE for name in self.names(volumes)}
        stale = [
            name
            for name in self._names()
            if name.endswith(_NOTE) and name not in left
            if _LOG.fullmatch(name[: -len(_NOTE)])
        ]
        for name in stale:
            with self._tree.directory(STORE) as fd:
                self._unlink(name, fd)

    def remove(self, name: str) -> None:
        """Remove a log for good."""
        with self._tree.directory(STORE) as fd:
            self._unlink(name, fd)
            self._tree.sync(fd, self._tree.where(STORE))
            self._unlink(name + _NOTE, fd)

    def _names(self) -> list[str]:
        try:
            with self._tree.directory(STORE) as fd:
                return self._tree.names(fd, self._tree.where(STORE))
        except errors.StorageFailed as e:
            if e.errno != errno.ENOENT:
                raise
            return []

    def _unlink(self, name: str, fd: int) -> None:
        path = self._tree.where(STORE, name)
        log.info("Removing path=%s", path)
        try:
            with translated("remove", path):
                self._tree.system.unlink(name, fd)
        except errors.StorageFailed as e:
            if e.errno != errno.ENOENT:
                raise


def volume_of(name: str) -> str:
    """The volume whose log it was."""
    return name.partition(".")[0]


def is_aside(name: str) -> bool:
    return not name.endswith(LOG_SUFFIX)
