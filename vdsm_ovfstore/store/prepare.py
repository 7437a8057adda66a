# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Preparing an archive: received, checked and compressed before any lock.

A slow or broken sender must cost nothing but its own time, so the archive
goes to an unlinked local file first, and everything that can be computed
without knowing the generation's number is computed here.
"""

from __future__ import annotations

import errno
import hashlib
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import segment
from vdsm_ovfstore.format.archive import RECORD, ArchiveChecker
from vdsm_ovfstore.format.member import Facts
from vdsm_ovfstore.store.compress import ZLIB_LEVEL, Frames
from vdsm_ovfstore.store.content import CHUNK, Part, segment_size

# Lines of the index that are compressed at once, in bytes: zlib gives up the
# interpreter's lock each time, for some microseconds at best.
_INDEX_LINES = 64 * 1024


class Prepared:
    """
    An archive in local files, ready to be committed. Content (content.py).

    tar and body are file descriptors of unlinked files; body holds the zlib
    data of all frames one after the other, then the compressed index.
    """

    def __init__(self, tar: int, body: int, facts: dict[str, Any]) -> None:
        self._tar = tar
        self._body = body
        self.length: int = facts["length"]
        self.sha256: str = facts["sha256"]
        self.entities: int = facts["entities"]
        self.parts = [Part(*p) for p in facts["parts"]]
        self.index_stored: int = facts["index_stored"]
        self.index_length: int = facts["index_length"]
        self._starts = []
        start = 0
        for part in self.parts:
            self._starts.append(start)
            start += part.zlib_length
        self._index_start = start

    @property
    def segment_size(self) -> int:
        return segment_size(self.parts, self.index_stored)

    def fds(self) -> tuple[int, int]:
        """The descriptors that a worker must inherit."""
        return self._tar, self._body

    def facts(self) -> dict[str, Any]:
        """What Prepared() needs in another process beside the fds."""
        return {
            "length": self.length,
            "sha256": self.sha256,
            "entities": self.entities,
            "parts": [list(p) for p in self.parts],
            "index_stored": self.index_stored,
            "index_length": self.index_length,
        }

    def tar(self) -> Iterator[bytes]:
        return spooled(self._tar, self.length)

    def payload(self, number: int) -> bytes:
        length = self.parts[number].zlib_length
        return os.pread(self._body, length, self._starts[number])

    def index_data(self) -> bytes:
        return os.pread(self._body, self.index_stored, self._index_start)

    def close(self) -> None:
        os.close(self._tar)
        os.close(self._body)


class Preparer:
    """
    Takes an archive piece by piece; finish() returns it Prepared.

    Arguments:
        limit: bytes of tar that the store can take; None for no limit.
        way_out: what to tell who sent more.
        strict: refuse what an upload may not hold. Otherwise only the tar
            itself must be sound: content that a stock host wrote.
        raw: take any bytes at all (a suspect head); no index is made.
        known: members that were checked before, by SHA-256.
        level: of zlib.
        spool: directory of the local files; the system's by default.
        received: descriptors to use instead: a file that the caller writes
            the tar to, before it is fed, and an empty one for the body.
    """

    def __init__(
        self,
        limit: Optional[int] = None,
        way_out: str = "",
        strict: bool = True,
        raw: bool = False,
        known: Optional[Mapping[str, Facts]] = None,
        level: int = ZLIB_LEVEL,
        spool: Optional[str] = None,
        received: Optional[tuple[int, int]] = None,
    ) -> None:
        self._strict = strict
        self._limit = limit
        self._way_out = way_out
        self._checker = None if raw else ArchiveChecker(strict, known or {})
        self._hash = hashlib.sha256()
        self._length = 0
        self._pending = bytearray()
        self._start = 0  # tar offset of the first pending byte
        self._cuts: list[int] = []  # member boundaries not yet passed
        self._index = zlib.compressobj(ZLIB_LEVEL)
        self._index_chunks: list[bytes] = []
        self._index_length = 0
        self._index_lines = bytearray()  # not yet compressed
        self._is_received = received is not None
        self._tar, self._body = received or (
            spool_file(spool),
            spool_file(spool),
        )
        self._frames = Frames(
            lambda data: write_spool(self._body, data), level
        )

    def feed(self, data: bytes) -> None:
        """Raises the errors of archive.py, ArchiveTooLarge."""
        self._length += len(data)
        if self._limit is not None and self._length > self._limit:
            raise errors.ArchiveTooLarge(
                what="this store",
                size=f"more than {self._limit}",
                limit=self._limit,
                way_out=self._way_out,
            )
        if self._checker:
            for member in self._checker.feed(data):
                self._cuts.append(member.end)
                self._index_lines += segment.index_line(*member)
            if len(self._index_lines) >= _INDEX_LINES:
                self._put_index_lines()
        if not self._is_received:
            write_spool(self._tar, data)
        self._hash.update(data)
        self._pending += data
        while len(self._pending) >= segment.FRAME_TAR:
            self._cut(self._frame_end())

    def finish(self) -> Prepared:
        """Raises ArchiveTruncated."""
        if self._checker:
            self._checker.close()
            padding = self._length - self._checker.end
            if not self._strict and padding >= RECORD:
                # A block of zeros in the middle looks like the end.
                raise errors.ArchiveTruncated(
                    reason=f"it ends at byte {self._checker.end} of "
                    f"{self._length}"
                )
        while self._pending:
            self._cut(self._frame_end())
        self._frames.finish()
        self._put_index_lines()
        self._index_chunks.append(self._index.flush())
        index = b"".join(self._index_chunks)
        write_spool(self._body, index)
        prepared = Prepared(
            self._tar,
            self._body,
            {
                "length": self._length,
                "sha256": self._hash.hexdigest(),
                "entities": self._checker.entities if self._checker else 0,
                "parts": self._frames.parts,
                "index_stored": len(index),
                "index_length": self._index_length,
            },
        )
        self._tar = self._body = -1
        return prepared

    def close(self) -> None:
        """Close the local files, unless finish() handed them over."""
        self._frames.close()
        for fd in (self._tar, self._body):
            if fd >= 0:
                os.close(fd)
        self._tar = self._body = -1

    def __enter__(self) -> Preparer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _frame_end(self) -> int:
        """Where to cut: the last member boundary that a frame reaches."""
        limit = self._start + min(len(self._pending), segment.FRAME_TAR)
        if len(self._pending) < segment.FRAME_TAR:
            self._cuts.clear()
            return limit  # the end of the archive
        end = limit
        while self._cuts and self._cuts[0] <= limit:
            end = self._cuts.pop(0)
        return end

    def _cut(self, end: int) -> None:
        length = end - self._start
        self._frames.add(self._start, self._pending[:length])
        del self._pending[:length]
        self._start = end

    def _put_index_lines(self) -> None:
        self._index_length += len(self._index_lines)
        self._index_chunks.append(self._index.compress(self._index_lines))
        self._index_lines.clear()


def prepare(chunks: Iterator[bytes], **options: Any) -> Prepared:
    """Prepare an archive from pieces. Options are those of Preparer."""
    with Preparer(**options) as preparer:
        for data in chunks:
            preparer.feed(data)
        return preparer.finish()


def spooled(fd: int, length: int) -> Iterator[bytes]:
    """What is in a spool file. Raises errors.SourceUnreadable."""
    offset = 0
    while offset < length:
        data = os.pread(fd, min(CHUNK, length - offset), offset)
        if not data:
            raise errors.SourceUnreadable(
                path="spool file", reason="shorter than the archive"
            )
        offset += len(data)
        yield data


def spool_file(directory: Optional[str] = None) -> int:
    """
    Return the descriptor of a new, unlinked local file.

    Not under /tmp: that is often memory, and an archive may be large.
    """
    where = directory or os.environ.get("TMPDIR") or "/var/tmp"
    try:
        # Without a name from the start: who is killed leaves nothing behind.
        return os.open(where, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as e:
        if e.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise errors.TargetRefused(path=where, reason=e.strerror) from None
    # A file system that does not know such files. Imported here: costs more
    # than the rest of a worker's imports.
    import tempfile

    try:
        fd, path = tempfile.mkstemp(prefix="ovfstore-", dir=where)
        os.unlink(path)
    except OSError as e:
        raise errors.TargetRefused(path=where, reason=e.strerror) from None
    return fd


def write_spool(fd: int, data: bytes) -> None:
    """Write all of data. Raises errors.SpoolFull, errors.TargetRefused."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except OSError as e:
        if e.errno in (errno.ENOSPC, errno.EDQUOT):
            raise errors.SpoolFull() from None
        raise errors.TargetRefused(
            path="the spool directory", reason=e.strerror
        ) from None
