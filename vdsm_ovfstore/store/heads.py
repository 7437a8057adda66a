# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Reading archives from heads, beside those from segments."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import NamedTuple, Optional, Protocol

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import segment
from vdsm_ovfstore.format.archive import RECORD, ArchiveChecker
from vdsm_ovfstore.format.segment import Index, IndexEntry
from vdsm_ovfstore.store.content import CHUNK
from vdsm_ovfstore.store.copy import Copy

# Readers take archives in pieces of this size, so that a damaged frame of
# one copy is replaced by the other's.
PIECE = CHUNK


class Place(Protocol):
    """One place where a generation lies: a segment or a head."""

    length: int
    sha256: str

    def index(self) -> Index: ...

    def tar_range(self, offset: int, length: int) -> Iterator[bytes]: ...


class Found(NamedTuple):
    """An archive found in a head that no seal describes."""

    length: int
    sha256: str
    entities: int
    time: int


class HeadArchive:
    """
    A generation as the head of a copy shows it.

    The whole is verified once, before anything is given away: a head has no
    digests of its parts.
    """

    def __init__(self, copy: Copy, length: int, sha256: str) -> None:
        self._copy = copy
        self.length = length
        self.sha256 = sha256
        self._sound: Optional[bool] = None
        self._index: Optional[Index] = None

    def index(self) -> Index:
        self._verify()
        if self._index is None:
            checker = ArchiveChecker(strict=False)
            lines = [
                segment.index_line(*member)
                for data in self._copy.head_chunks(self.length)
                for member in checker.feed(data)
            ]
            self._index = Index(b"".join(lines))
        return self._index

    def tar_range(self, offset: int, length: int) -> Iterator[bytes]:
        self._verify()
        end = offset + length
        while offset < end:
            data = self._copy.volume.head_read(
                offset, min(CHUNK, end - offset)
            )
            if not data:
                raise self._damaged("it is shorter than the archive")
            offset += len(data)
            yield data

    def _verify(self) -> None:
        if self._sound is None:
            digest = self._copy.head_sha256(self.length)
            self._sound = digest == self.sha256
        if not self._sound:
            raise self._damaged("it does not match its digest")

    def _damaged(self, reason: str) -> errors.Damaged:
        path = self._copy.volume.path
        return errors.Damaged(what=f"The head {path}", reason=reason)


def find_archive(copy: Copy) -> Optional[Found]:
    """
    The complete archive at byte 0 of a copy without seals, or None.

    It is as long as the description says; without a usable one it ends with
    its end marker, for the bytes may be intact where the flag is not.
    """
    if copy.volume.head_is_empty():
        return None  # zeros alone would be an archive of no members
    _, described = copy.description()
    size = copy.volume.head_size()
    if described and described.size and described.size <= size:
        found = scan(copy, described.size, exact=True)
        if found is not None:
            return found._replace(time=described.last_updated or 0)
    found = scan(copy, size, exact=False)
    if found is not None and described is not None:
        return found._replace(time=described.last_updated or 0)
    return found


def check_member(data: bytes, entry: IndexEntry, place: Place) -> None:
    """Raises errors.Damaged unless data is what the index says."""
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise errors.Damaged(
            what=f"Member {entry.name}", reason="it does not match its digest"
        )


def scan(copy: Copy, limit: int, exact: bool) -> Optional[Found]:
    """
    The archive in the first `limit` bytes of a head, or None.

    exact: it takes all of them but for the padding of its writer; otherwise
    it ends with its end marker. An archive has at least one member: a head
    that a crash has left as zeros is none, nor is one that goes on after
    zeros, where a block was lost.
    """
    checker = ArchiveChecker(strict=False)
    members = 0
    try:
        for data in copy.head_chunks(limit):
            members += len(checker.feed(data))
            if checker.end and not exact:
                break
        checker.close()
    except errors.StorageFailed:
        raise
    except errors.Error:
        return None
    if not members:
        return None
    if exact and checker.length != limit:
        return None
    if exact and checker.end != limit:
        # The engine pads to whole tar blocks, GNU tar to whole records.
        if limit % RECORD or limit - checker.end >= RECORD:
            return None
    length = limit if exact else checker.end
    return Found(length, copy.head_sha256(length), checker.entities, 0)
