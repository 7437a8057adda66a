# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Where the archive of an upload comes from.

    FILE   a tar, or a pipe that gives one
    -      the same from stdin
    DIR    *.ovf and *.xml, one entity each; the tar is made from them. The
           entity's id is the file's name when that is a UUID, else what the
           OVF says
"""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional, Union

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import is_terminal
from vdsm_ovfstore.format import archive_writer, ovf
from vdsm_ovfstore.format.member import VM, member_kind
from vdsm_ovfstore.format.tarheader import BLOCK, padded

_CHUNK = 1024 * 1024
_SUFFIXES = (".ovf", ".xml")
_STDIN = "-"


class Source(NamedTuple):
    """
    An archive that is about to be read.

    length is the archive's, where it is known before; about is enough for a
    progress bar.
    """

    chunks: Iterator[bytes]
    length: Optional[int]
    about: Optional[int]


class _Ovf(NamedTuple):
    entity: str
    path: str
    length: int


def open_source(source: str, domain: str) -> Source:
    """
    Arguments:
        source: a path, or "-".
        domain: id of the storage domain, for the archive that is made.

    Raises errors.SourceUnreadable, OvfRefused, UsageError.
    """
    if source == _STDIN:
        fd = sys.stdin.fileno() if sys.stdin else -1
        if is_terminal(fd):
            raise errors.UsageError(
                reason="upload: will not read an archive from the terminal"
            )
        return _stream(fd, "standard input")
    if os.path.isdir(source):
        return _directory(source, domain)
    return _stream(_open(source), source)


def _stream(fd: int, path: str) -> Source:
    try:
        st = os.fstat(fd)
    except OSError as e:
        raise _unreadable(path, e) from None
    length = None
    if stat.S_ISREG(st.st_mode):
        length = st.st_size - os.lseek(fd, 0, os.SEEK_CUR)
    return Source(_read(fd, path), length, length)


def _read(fd: int, path: str) -> Iterator[bytes]:
    try:
        while data := os.read(fd, _CHUNK):
            yield data
    except OSError as e:
        raise _unreadable(path, e) from None
    finally:
        os.close(fd)


# -- a directory of OVFs ------------------------------------------------------


def _directory(path: str, domain: str) -> Source:
    ovfs = _entities(path)
    when = int(time.time())
    members = archive_writer.engine_members(
        domain, ((o.entity, o.length, _text(o)) for o in ovfs), when, {}
    )
    about = sum(BLOCK + padded(o.length) for o in ovfs)
    chunks = _joined(archive_writer.write_archive(members, when))
    return Source(chunks, None, about)


def _entities(directory: str) -> list[_Ovf]:
    """The OVFs of a directory by the ids of their entities."""
    try:
        names = sorted(os.listdir(directory))
    except OSError as e:
        raise _unreadable(directory, e) from None
    found: dict[str, _Ovf] = {}
    for name in names:
        if not name.lower().endswith(_SUFFIXES):
            continue
        one = _entity(os.path.join(directory, name), name)
        if one.entity in found:
            other = os.path.basename(found[one.entity].path)
            raise errors.OvfRefused(
                name=name, reason=f"{other} is of the same entity {one.entity}"
            )
        found[one.entity] = one
    if not found:
        raise errors.SourceUnreadable(
            path=directory, reason="no *.ovf or *.xml in this directory"
        )
    return [found[entity] for entity in sorted(found)]


def _entity(path: str, name: str) -> _Ovf:
    # Should it be a pipe, opening must not wait for a writer.
    fd = _open(path, os.O_NONBLOCK)
    try:
        st = os.fstat(fd)
        if not stat.S_ISREG(st.st_mode):
            raise errors.SourceUnreadable(path=path, reason="not a file")
        entity = os.path.splitext(name)[0].lower()
        if member_kind(f"{entity}.ovf") != VM:
            entity = _id_within(fd, path, name)
    except OSError as e:
        raise _unreadable(path, e) from None
    finally:
        os.close(fd)
    return _Ovf(entity, path, st.st_size)


def _id_within(fd: int, path: str, name: str) -> str:
    with open(fd, "rb", closefd=False) as file:
        data = file.read(ovf.MAX_OVF + 1)
    entity = ovf.check_ovf(data, name).entity_id.lower()
    if member_kind(f"{entity}.ovf") != VM:
        raise errors.OvfRefused(
            name=name,
            reason="neither its file name nor the OVF says the entity's id",
        )
    return entity


def _text(one: _Ovf) -> Iterator[bytes]:
    # A generator: one file is open at a time.
    yield from _read(_open(one.path), one.path)


def _joined(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pieces of a useful size: a small OVF comes in three tiny ones."""
    pending = bytearray()
    for chunk in chunks:
        pending += chunk
        if len(pending) >= _CHUNK:
            yield bytes(pending)
            pending.clear()
    yield bytes(pending)


def _open(path: str, flags: int = 0) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | flags)
    except OSError as e:
        raise _unreadable(path, e) from None


def _unreadable(
    path: str, e: Union[OSError, UnicodeError]
) -> errors.SourceUnreadable:
    reason = getattr(e, "strerror", None) or str(e)
    return errors.SourceUnreadable(path=path, reason=reason)
