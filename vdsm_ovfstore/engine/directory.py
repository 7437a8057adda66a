# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A directory of OVFs as the source.

    <uuid>.ovf       one VM or template each; all other names are ignored
    metadata.json    optional, as in an archive: {"VM Status": {uuid: number}};
                     15 (ImageLocked) is a VM that is locked now

So an unpacked archive is a source. Files are best replaced by rename; one
that is written in place is taken when it rests.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.engine.source import (
    DOWN,
    IMAGE_LOCKED,
    DataDomain,
    Item,
)
from vdsm_ovfstore.format import member, ovf

_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
_METADATA = "metadata.json"

# Nanoseconds. A file may change twice within one tick of a file system's
# clock, and look the same: what changed so lately is read again next time.
_TICK = 2 * 10**9


class Directory:
    """The source; path is that of the directory."""

    is_engine = False

    def __init__(self, path: str) -> None:
        self.name = f"directory {path}"
        self._path = path

    def pages(self, count: int) -> Iterator[Sequence[Item]]:
        statuses = self._statuses()
        page: list[Item] = []
        try:
            # Sorted, so that what is done does not depend on the order in a
            # directory; a name takes less than 100 bytes.
            names = sorted(
                n for n in os.listdir(self._path)
                if member.member_kind(n) == member.VM
            )  # fmt: skip
        except OSError as e:
            raise self._failed(e.strerror or str(e)) from None
        for name in names:
            entity = name[: -len(".ovf")]
            version = self._version(name)
            if version is None:
                continue
            status = statuses.get(entity, DOWN)
            locked = "it is locked" if status == IMAGE_LOCKED else ""
            page.append(Item(entity, version, status, locked))
            if len(page) == count:
                yield page
                page = []
        if page:
            yield page

    def read(self, item: Item) -> bytes:
        path = os.path.join(self._path, f"{item.id}.ovf")
        try:
            fd = os.open(path, _FLAGS)
        except OSError as e:
            raise _unreadable(path, e) from None
        with open(fd, "rb", buffering=0) as file:
            before = os.fstat(fd)
            if not stat.S_ISREG(before.st_mode):
                raise errors.SourceUnreadable(path=path, reason="not a file")
            try:
                data = _read(file, ovf.MAX_OVF + 1)
            except OSError as e:
                raise _unreadable(path, e) from None
            after = os.fstat(fd)
        too_long = len(data) > ovf.MAX_OVF
        if _print(before) != _print(after) or (
            len(data) != after.st_size and not too_long
        ):
            raise errors.EntityChanging(entity=item.id, data=data)
        return data

    def is_gone(self, entity: str) -> bool:
        # Without the directory nothing is gone: it may not be mounted.
        if not os.path.isdir(self._path):
            raise self._failed("it is no directory any more")
        return not os.path.lexists(os.path.join(self._path, f"{entity}.ovf"))

    def domains(self) -> Optional[Sequence[DataDomain]]:
        return None

    def hosts(self) -> Sequence[str]:
        return ()

    def close(self) -> None:
        pass

    def _version(self, name: str) -> Optional[str]:
        """None for a file that is not there any more."""
        path = os.path.join(self._path, name)
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return None
        except OSError as e:
            raise self._failed(f"{name}: {e.strerror}") from None
        newest = max(found.st_mtime_ns, found.st_ctime_ns)
        if newest > time.time_ns() - _TICK:
            return ""
        return _print(found)

    def _statuses(self) -> dict[str, int]:
        path = os.path.join(self._path, _METADATA)
        try:
            with open(os.open(path, _FLAGS), "rb", buffering=0) as file:
                data = _read(file, member.MAX_JSON + 1)
        except FileNotFoundError:
            return {}
        except OSError as e:
            raise self._failed(f"{_METADATA}: {e.strerror}") from None
        try:
            if len(data) > member.MAX_JSON:
                raise ValueError(f"longer than {member.MAX_JSON} bytes")
            return statuses(json.loads(data))
        except (ValueError, RecursionError) as e:
            # Whether a VM is locked cannot be told.
            raise self._failed(f"{_METADATA}: {e}") from None

    def _failed(self, reason: str) -> errors.SourceFailed:
        return errors.SourceFailed(
            source=self.name,
            reason=reason,
            way_out="Nothing is removed from any store; mend the directory, "
            "or set another one: [source] directory",
        )


def statuses(document: Any) -> dict[str, int]:
    """
    The status of VMs by their id, from a metadata.json.

    Raises ValueError.
    """
    found = document.get("VM Status") if isinstance(document, dict) else None
    if not isinstance(found, dict):
        raise ValueError('it has no "VM Status"')
    for value in found.values():
        if type(value) is not int or not -1 <= value < 1000:
            raise ValueError(f"{str(value)[:40]!r} is no status of a VM")
    return {str(entity).lower(): value for entity, value in found.items()}


def _print(found: os.stat_result) -> str:
    """What changes when the file does."""
    return (
        f"{found.st_ino}:{found.st_size}:{found.st_mtime_ns}:"
        f"{found.st_ctime_ns}"
    )


def _read(file: Any, limit: int) -> bytes:
    pieces, left = [], limit
    while left and (data := file.read(left)):
        pieces.append(data)
        left -= len(data)
    return b"".join(pieces)


def _unreadable(path: str, e: OSError) -> errors.SourceUnreadable:
    return errors.SourceUnreadable(path=path, reason=e.strerror or str(e))
