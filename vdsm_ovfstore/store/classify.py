# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What is the head of a copy? Asked before it is touched.

A host without us writes over the head as it likes: whole, in part, or in
part with a description that says "Updated". And we ourselves may have been
interrupted. The answers:

    EMPTY     nothing there, nothing sealed
    UNSEALED  something there, nothing sealed
    CLEAN     what the newest seal says
    ROLL      our own interrupted write: write it to the end
    ADOPT     a complete archive that a stock host wrote
    SUSPECT   anything else: kept in the log, never shown
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Optional, Protocol

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.record import BLOCK, align
from vdsm_ovfstore.format.seal import Head
from vdsm_ovfstore.store import heads
from vdsm_ovfstore.store.content import CHUNK
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.stored import StoredSegment

EMPTY = "empty"
UNSEALED = "unsealed"
CLEAN = "clean"
ROLL = "roll"
ADOPT = "adopt"
SUSPECT = "suspect"


class Verdict(NamedTuple):
    """length counts the bytes of an archive to adopt; None otherwise."""

    kind: str
    length: Optional[int] = None


class Finder(Protocol):
    """Finds the content of a head: on this copy, or on another."""

    def __call__(self, head: Head) -> Optional[StoredSegment]: ...


def classify(copy: Copy, find: Finder) -> Verdict:
    """Raises errors.StorageFailed."""
    volume, seal = copy.volume, copy.seal
    raw, described = copy.description()
    size = volume.head_size()
    length = None
    if described and described.updated and described.size:
        if described.size <= size:
            length = described.size

    if seal is None or seal.head is None:
        if volume.head_is_empty():
            return Verdict(EMPTY)
        if length is not None and _is_whole(copy, length):
            return Verdict(ADOPT, length)
        return Verdict(UNSEALED)

    if copy.shows(seal.head):
        return Verdict(ROLL if seal.replacing else CLEAN)
    # A stock upload rewrites the description, with its date. Under the one
    # that the seal saw there is no upload, but damage: the head is nobody's
    # that differs from the sealed one in a flipped bit.
    whole = (
        length is not None
        and raw != seal.description
        and _is_whole(copy, length)
    )
    if seal.previous is not None:
        # Our description is written only when the new head is durable. So
        # this one came with a stock upload; it may be the old content once
        # more.
        if whole:
            again = length == seal.previous.length
            if again and copy.shows(seal.previous):
                return Verdict(ADOPT, length)
            if not is_mixture(copy, length or 0):
                return Verdict(ADOPT, length)
        if _is_ours(copy, size, seal.head, seal.previous, find):
            return Verdict(ROLL)
    if whole and not is_mixture(copy, length or 0):
        return Verdict(ADOPT, length)
    return Verdict(SUSPECT)


def begins_as_sealed(copy: Copy, find: Finder) -> bool:
    """
    True when no host without us can have uploaded another archive.

    Each has another date in its first member. So the first frame tells, and
    the length in the description; whether all the rest is there, a head that
    is not to be touched need not be asked.
    """
    seal = copy.seal
    if seal is None or seal.head is None or seal.replacing:
        return False
    _, described = copy.description()
    source = find(seal.head)
    if described is None or source is None:
        return False
    if not described.updated or described.size != seal.head.length:
        return False
    first = next(source.tar(), b"")
    return first != b"" and first == b"".join(copy.head_chunks(len(first)))


def _is_whole(copy: Copy, length: int) -> bool:
    return heads.scan(copy, length, exact=True) is not None


def is_mixture(copy: Copy, length: int) -> bool:
    """
    True when every block of the head stands at its place in what we keep.

    A half-written head is made of an old and a new archive, and such a tar
    is nearly always valid: members do not refer to one another. An archive
    that equals one that we keep entirely is no mixture.
    """
    assert copy.seal is not None
    digest = copy.head_sha256(length)
    same = [
        e
        for e in copy.seal.entries
        if (e.length, e.sha256) == (length, digest)
    ]
    if any(e.shown for e in same):
        return False
    # A suspect must not vouch for itself.
    kept = [copy.segment(e) for e in copy.seal.entries if e not in same]
    readers = [_Window(k) for k in kept]
    offset = 0
    for data in copy.head_chunks(length):
        data = data.ljust(align(len(data)), b"\0")
        unknown = set(range(0, len(data), BLOCK))
        for reader in readers:
            theirs = reader.read(offset, len(data))
            for at in list(unknown):
                block = theirs[at : at + BLOCK]
                if len(block) == BLOCK and block == data[at : at + BLOCK]:
                    unknown.discard(at)
            if not unknown:
                break
        if unknown:
            # A fresh archive shows itself here, in its first block: the date
            # in info.json is new. So this seldom reads more than one window.
            return False
        offset += len(data)
    return True


def _is_ours(
    copy: Copy, size: int, new: Head, old: Head, find: Finder
) -> bool:
    """True when the head is what our own interrupted write can leave."""
    if old.length == 0 and copy.volume.head_is_empty():
        return True
    if 0 < old.length <= size and copy.head_sha256(old.length) == old.sha256:
        return True
    # A file is replaced by rename: it is the old one or the new one.
    return copy.volume.head_in_place and _between(copy, new, old, find)


def _between(copy: Copy, new: Head, old: Head, find: Finder) -> bool:
    """
    True when every block equals the new head or the old one at that place.

    Beyond the end of the old head anything counts as old: on a block device
    what lies there is nobody's.
    """
    new_source, old_source = find(new), find(old)
    if new_source is None or old_source is None:
        return False
    new_window, old_window = _Window(new_source), _Window(old_source)
    for offset in range(0, align(new.length), CHUNK):
        data = copy.volume.head_read(offset, CHUNK)
        ours = new_window.read(offset, CHUNK)
        theirs = old_window.read(offset, CHUNK)
        for at in range(0, min(CHUNK, align(new.length) - offset), BLOCK):
            block = data[at : at + BLOCK].ljust(BLOCK, b"\0")
            if block == ours[at : at + BLOCK]:
                continue
            if offset + at >= align(old.length):
                continue
            if block != theirs[at : at + BLOCK]:
                return False
    return True


class _Window:
    """Walks along the tar of a segment; unreadable parts match nothing."""

    def __init__(self, source: StoredSegment) -> None:
        self._source = source

    def read(self, offset: int, length: int) -> bytes:
        """
        The tar's bytes there, padded with zeros to whole blocks as a head
        is; nothing where the segment ends or is damaged.
        """
        try:
            data = b"".join(self._pieces(offset, length))
        except (errors.Damaged, errors.StorageFailed):
            return b""
        return data.ljust(align(len(data)), b"\0")

    def _pieces(self, offset: int, length: int) -> Iterator[bytes]:
        return self._source.tar_range(offset, length)
