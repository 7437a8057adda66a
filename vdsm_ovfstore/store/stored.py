# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Reading a segment off a log, nothing believed that is not verified."""

from __future__ import annotations

import bisect
import zlib
from collections.abc import Iterator, Sequence
from typing import Callable, Optional, Protocol, TypeVar

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import record, segment
from vdsm_ovfstore.format.record import align
from vdsm_ovfstore.format.seal import Entry
from vdsm_ovfstore.store.content import CHUNK, Part

T = TypeVar("T")


class Log(Protocol):
    """Where segments lie; a volume of storage/."""

    log_path: str

    def log_read(self, offset: int, length: int) -> bytes: ...


class StoredSegment:
    """
    One generation, or suspect, in a log. Content (content.py).

    Parts are read when they are asked for: showing one VM reads header,
    table, index and one frame.
    Every method raises errors.Damaged for what does not match its digest.

    twins are segments of the same generation on other copies, which have the
    same bytes: where this one's header or table is damaged, theirs will do
    for its frames. Whoever judges this one gives none.
    """

    def __init__(self, log: Log, domain: str, entry: Entry) -> None:
        self._log = log
        self._domain = domain
        self._entry = entry
        self.length = entry.length
        self.sha256 = entry.sha256
        self.twins: list[StoredSegment] = []
        self._header: Optional[segment.Header] = None
        self._frames: Optional[list[segment.Frame]] = None
        self._starts: list[int] = []
        self._index: Optional[segment.Index] = None
        self._last: Optional[tuple[segment.Frame, bytes]] = None

    @property
    def header(self) -> segment.Header:
        if self._header is None:
            self._header = self._own_or_twins(StoredSegment._read_header)
        return self._header

    @property
    def frames(self) -> list[segment.Frame]:
        if self._frames is None:
            self._frames = self._own_or_twins(StoredSegment._read_frames)
            self._starts = [frame.offset for frame in self._frames]
        return self._frames

    @property
    def entities(self) -> int:
        return self.header.entities

    @property
    def parts(self) -> list[Part]:
        return [
            Part(f.offset, f.length, f.stored - segment.FRAME_HEAD)
            for f in self.frames
        ]

    @property
    def index_length(self) -> int:
        return self.header.index_length

    def index_data(self) -> bytes:
        header = self.header
        data = self._read(header.index_position, header.index_stored)
        digest = segment.bound_sha256(
            "INDEX", self._domain, header.generation, header.sha256, data
        )
        if digest != header.index_sha256:
            raise self._damaged("member index does not match its digest")
        return data

    def index(self) -> segment.Index:
        if self._index is None:
            lines = _inflate(self.index_data(), self.header.index_length)
            if lines is None:
                raise self._damaged("member index cannot be decompressed")
            self._index = segment.Index(lines)
        return self._index

    def payload(self, number: int) -> bytes:
        return self._frame(self.frames[number])[segment.FRAME_HEAD :]

    def tar(self) -> Iterator[bytes]:
        for frame in self.frames:
            yield self._tar_of(frame)

    def tar_range(self, offset: int, length: int) -> Iterator[bytes]:
        """The tar's bytes in [offset, offset + length)."""
        end = offset + length
        frames = self.frames
        # Who reads member after member asks for each of 10,000.
        first = bisect.bisect_right(self._starts, offset) - 1
        for number in range(max(0, first), len(frames)):
            frame = frames[number]
            if frame.offset >= end:
                break
            data = self._tar_of(frame)
            yield data[max(0, offset - frame.offset) : end - frame.offset]

    def damaged_frames(self) -> list[segment.Frame]:
        """The frames whose bytes do not match their digest."""
        bad = []
        for frame in self.frames:
            try:
                self._tar_of(frame)
            except (errors.Damaged, errors.StorageFailed):
                bad.append(frame)
        return bad

    def verify(self) -> None:
        """
        Compare every stored byte with its digest.

        What is compressed is not expanded: the digests of the frames bind
        the bytes that were prepared from the archive.
        """
        header = self.header
        self.index_data()
        self._check_padding(segment.HEADER_SIZE, header.table_size)
        self._check_padding(header.index_position, header.index_stored)
        for frame in self.frames:
            self._frame(frame)
            self._check_padding(frame.position, frame.stored)

    # -- reading --------------------------------------------------------------

    def _read_header(self) -> segment.Header:
        data = self._read(0, segment.HEADER_SIZE)
        try:
            header = segment.unpack_header(data)
        except record.UnknownVersion as e:
            raise errors.FormatUnknown(
                volume=self._log.log_path, version=str(e)
            ) from None
        if header is None:
            raise self._damaged("no segment header")
        entry = self._entry
        mine = (self._domain, entry.stored, entry.length, entry.sha256)
        its = (header.domain, header.stored, header.length, header.sha256)
        if mine != its or header.generation != entry.generation:
            raise self._damaged("header belongs to another segment")
        return header

    def _read_frames(self) -> list[segment.Frame]:
        header = self.header
        data = self._read(segment.HEADER_SIZE, header.table_size)
        try:
            return segment.unpack_table(header, data)
        except segment.SegmentInvalid as e:
            raise self._damaged(e.reason) from None

    def _own_or_twins(self, read: Callable[[StoredSegment], T]) -> T:
        """What read() gives for this one, or else for the first twin."""
        try:
            return read(self)
        except (errors.Damaged, errors.StorageFailed):
            for twin in self.twins:
                try:
                    return read(twin)
                except (errors.Damaged, errors.StorageFailed):
                    continue
            raise

    def _frame(self, frame: segment.Frame) -> bytes:
        data = self._read(frame.position, frame.stored)
        if segment.frame_sha256(data) != frame.sha256:
            raise self._damaged(
                f"bytes {frame.offset} to {frame.end} of the archive do not "
                "match their digest"
            )
        return data

    def _tar_of(self, frame: segment.Frame) -> bytes:
        # Who reads member after member asks for each frame many times.
        if self._last is not None and self._last[0] == frame:
            return self._last[1]
        zlib_data = self._frame(frame)[segment.FRAME_HEAD :]
        data = _inflate(zlib_data, frame.length)
        if data is None:
            raise self._damaged("frame cannot be decompressed")
        self._last = frame, data
        return data

    def _read(self, position: int, length: int) -> bytes:
        if align(position + length) > self._entry.stored:
            raise self._damaged("a part lies beyond the end of the segment")
        data = self._log.log_read(self._entry.offset + position, length)
        if len(data) != length:
            raise self._damaged("the log is shorter than the segment")
        return data

    def _check_padding(self, position: int, length: int) -> None:
        """Nobody reads it; but what changes there may change elsewhere."""
        start, end = position + length, position + align(length)
        if end > start and self._read(start, end - start).strip(b"\0"):
            raise self._damaged(f"bytes {start} to {end} should be zeros")

    def _damaged(self, reason: str) -> errors.Damaged:
        path = self._log.log_path
        return errors.Damaged(
            what=f"Generation {self._entry.generation} in {path}",
            reason=reason,
            path=path,
        )


def twinned(segments: Sequence[StoredSegment]) -> None:
    """Let segments of one generation help each other out."""
    for one in segments:
        one.twins = [other for other in segments if other is not one]


class Verbatim:
    """The bytes of a segment as they lie in a log, sound or not."""

    def __init__(self, log: Log, entry: Entry) -> None:
        self._log = log
        self._entry = entry
        self.size = entry.stored

    def chunks(self) -> Iterator[bytes]:
        offset = self._entry.offset
        while offset < self._entry.end:
            length = min(CHUNK, self._entry.end - offset)
            data = self._log.log_read(offset, length)
            yield data.ljust(length, b"\0")
            offset += length


def _inflate(data: bytes, length: int) -> Optional[bytes]:
    """Decompress to exactly length bytes, or None; never to more."""
    expander = zlib.decompressobj()
    try:
        # One byte more than expected shows a stream that is too long.
        out = expander.decompress(data, length + 1)
    except zlib.error:
        return None
    return out if len(out) == length and expander.eof else None
