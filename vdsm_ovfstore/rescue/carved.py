# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
One generation, put together from whatever is left of its segments.

There may be several segments of it (one on each copy, and those that
retention has moved), and frames whose segment is gone. What proves a frame:

    a table     it is named there with its digest, as the table is in the
                header of a segment
    nothing     it expands to the length that it says, with the checksum of
                zlib, which tells accidents and nothing else
"""

from __future__ import annotations

import bisect
import hashlib
import zlib
from collections.abc import Iterator, Sequence
from typing import Optional

from vdsm_ovfstore.format import segment
from vdsm_ovfstore.format.segment import Header, IndexEntry
from vdsm_ovfstore.rescue.findings import FoundFrame, Key, Place
from vdsm_ovfstore.rescue.frames import Frame, expanded, frames_of
from vdsm_ovfstore.rescue.source import WINDOW, Source

# An entity with 4096 disks takes less.
_MAX_LINE = 1024**2


class Carved:
    """
    What is left of a generation. Every method reads; nothing is kept but
    where frames are sound, and the last one.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        key: Key,
        headers: Sequence[tuple[Place, Header]] = (),
        frames: Sequence[FoundFrame] = (),
    ) -> None:
        self.key = key
        self.has_table = False
        self._sources = sources
        self._headers = headers
        self._found = frames
        self._frames: Optional[list[Frame]] = None
        self._starts: list[int] = []
        self._sound: dict[int, Optional[Place]] = {}
        self._last: tuple[int, bytes] = (-1, b"")

    @property
    def frames(self) -> list[Frame]:
        """By offset; they may have gaps, and without a table overlap."""
        if self._frames is None:
            self._frames, self.has_table = frames_of(
                self._sources, self._headers, self._found
            )
            self._starts = [frame.offset for frame in self._frames]
        return self._frames

    def forget(self) -> None:
        """Give the memory back; all can be read once more."""
        self._frames, self._last = None, (-1, b"")
        self._sound.clear()

    # -- the index ------------------------------------------------------------

    def index(self) -> Optional[Iterator[IndexEntry]]:
        """The members of the archive, by a sound index; None without one."""
        for place, header in self._headers:
            start = Place(place.source, place.offset + header.index_position)
            if self._is_index(start, header):
                return self._lines(start, header)
        return None

    def _is_index(self, start: Place, header: Header) -> bool:
        line = segment.bound_line("INDEX", *self.key)
        digest = hashlib.sha256(line)
        for data in self._raw(start, header.index_stored):
            digest.update(data)
        return digest.hexdigest() == header.index_sha256

    def _lines(self, start: Place, header: Header) -> Iterator[IndexEntry]:
        expander = zlib.decompressobj()
        rest = b""
        for stored in self._raw(start, header.index_stored):
            while stored:
                data = rest + expander.decompress(stored, WINDOW)
                stored = expander.unconsumed_tail
                lines, newline, rest = data.rpartition(b"\n")
                if not newline and len(rest) > _MAX_LINE:
                    raise segment.SegmentInvalid("a line that is none")
                yield from segment.Index(lines)

    # -- the archive ----------------------------------------------------------

    def is_sound(self, offset: int, length: int) -> bool:
        """Whether frames that a table proves hold these bytes."""
        found = self._covered(offset, length)
        return self.has_table and found is not None

    def read(self, offset: int, length: int) -> Optional[bytes]:
        """These bytes of the archive, of sound frames; None if one is not."""
        numbers = self._covered(offset, length)
        if numbers is None:
            return None
        parts = []
        for number in numbers:
            frame, data = self.frames[number], self.expand(number)
            if data is None:
                return None
            begin = max(0, offset - frame.offset)
            parts.append(data[begin : offset + length - frame.offset])
        return b"".join(parts)

    def is_whole(self) -> bool:
        """Whether the sound frames make up the archive, by its digest."""
        digest, offset = hashlib.sha256(), 0
        for number, frame in enumerate(self.frames):
            if frame.offset < offset:
                continue  # another one with the same bytes
            data = self.expand(number)
            if frame.offset > offset or data is None:
                return False
            digest.update(data)
            offset = frame.end
        return digest.hexdigest() == self.key.sha256

    def expand(self, number: int) -> Optional[bytes]:
        """The tar bytes of a frame, or None when it is nowhere sound."""
        if self._last[0] == number:
            return self._last[1]
        frame, place = self.frames[number], self._place(number)
        if place is None:
            return None
        stored = self._sources[place.source].read(place.offset, frame.stored)
        data = expanded(stored, frame.length)
        if len(data) != frame.length:
            return None
        self._last = number, data
        return data

    def remains(self, number: int) -> tuple[bytes, bool]:
        """
        The first tar bytes of a frame that is not sound.

        Returns them, and whether they end only because the source does: up
        to there they are right then, as far as anybody can tell. Otherwise
        any of them may be wrong.
        """
        frame = self.frames[number]
        best, is_cut = b"", False
        for place in frame.places:
            source = self._sources[place.source]
            stored = source.read(place.offset, frame.stored)
            data = expanded(stored, frame.length)
            if len(data) > len(best):
                best = data
                is_cut = place.offset + frame.stored > source.size
        return best, is_cut

    def gather(self, offset: int, length: int) -> tuple[bytes, int, bool]:
        """
        The bytes from there on, as many as can be had without a gap.

        Returns them; how many of them lie in sound frames; and whether they
        end because the source does, see remains().
        """
        data = bytearray()
        sound, is_cut = 0, False
        for number in self.frames_at(offset, length):
            frame = self.frames[number]
            if frame.offset > offset + len(data):
                break
            part = self.expand(number)
            if part is None:
                part, is_cut = self.remains(number)
            data += part[offset + len(data) - frame.offset :]
            if len(part) < frame.length:
                break
            sound = len(data)
        del data[length:]
        return bytes(data), min(sound, length), is_cut

    def place_of(self, offset: int) -> Place:
        """Where the frame of that byte lies, or should."""
        for number in self.frames_at(offset, 1):
            return self._place(number) or self.frames[number].places[0]
        return Place(0, 0)

    def frames_at(self, offset: int, length: int) -> list[int]:
        """The frames that hold some of these bytes."""
        frames = self.frames
        # None is longer than FRAME_TAR.
        number = bisect.bisect_left(self._starts, offset - segment.FRAME_TAR)
        found = []
        while number < len(frames):
            if frames[number].offset >= offset + length:
                break
            if frames[number].end > offset:
                found.append(number)
            number += 1
        return found

    def _covered(self, offset: int, length: int) -> Optional[list[int]]:
        """Sound frames that hold all these bytes, one after the other."""
        found = []
        at = offset
        for number in self.frames_at(offset, max(1, length)):
            frame = self.frames[number]
            if frame.offset <= at < frame.end and self._place(number):
                found.append(number)
                at = frame.end
        return found if at >= offset + length else None

    def _place(self, number: int) -> Optional[Place]:
        if number not in self._sound:
            frame = self.frames[number]
            self._sound[number] = next(
                (p for p in frame.places if self._is_sound(frame, p)), None
            )
        return self._sound[number]

    def _is_sound(self, frame: Frame, place: Place) -> bool:
        data = self._sources[place.source].read(place.offset, frame.stored)
        if len(data) != frame.stored:
            return False
        if frame.sha256 is not None:
            return segment.frame_sha256(data) == frame.sha256
        return len(expanded(data, frame.length)) == frame.length

    def _raw(self, start: Place, length: int) -> Iterator[bytes]:
        source = self._sources[start.source]
        for offset in range(0, length, WINDOW):
            wanted = min(WINDOW, length - offset)
            yield source.read(start.offset + offset, wanted)
