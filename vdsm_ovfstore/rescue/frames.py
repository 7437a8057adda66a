# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The frames of a generation: where they may lie, and what is in them."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from vdsm_ovfstore.format import segment
from vdsm_ovfstore.format.segment import Header
from vdsm_ovfstore.rescue.findings import FoundFrame, Place
from vdsm_ovfstore.rescue.source import Source

log = logging.getLogger("ovfstore.rescue")

# A segment of 64 GiB; what its frames are called takes 30 MiB of memory.
_MAX_FRAMES = 65536


class Frame(NamedTuple):
    """
    offset and length are in the archive; stored counts head and zlib data.

    sha256 is None where no table is left. places are where it may lie.
    """

    offset: int
    length: int
    stored: int
    sha256: Optional[bytes]
    places: tuple[Place, ...]

    @property
    def end(self) -> int:
        return self.offset + self.length


def frames_of(
    sources: Sequence[Source],
    headers: Sequence[tuple[Place, Header]],
    found: Sequence[FoundFrame],
) -> tuple[list[Frame], bool]:
    """
    Returns the frames, by offset, and whether a table names them.

    By the first sound table, wherever the frames themselves lie; else by
    what they say of themselves, and then they may overlap.
    """
    for place, header in headers:
        if header.frames > _MAX_FRAMES:
            log.warning("TOO MANY frames=%d at=%s", header.frames, place)
            continue
        data = sources[place.source].read(
            place.offset + segment.HEADER_SIZE, header.table_size
        )
        try:
            table = segment.unpack_table(header, data)
        except segment.SegmentInvalid:
            continue
        starts = [place for place, _ in headers]
        return list(_tabled(table, starts, found)), True
    return list(_untabled(found)), False


def _tabled(
    table: Sequence[segment.Frame],
    starts: Sequence[Place],
    found: Sequence[FoundFrame],
) -> Iterator[Frame]:
    elsewhere: dict[int, list[Place]] = {}
    for one in found:
        elsewhere.setdefault(one.offset, []).append(one.place)
    for frame in table:
        # Where it should lie, then where something says that it does.
        places = [Place(s.source, s.offset + frame.position) for s in starts]
        places += elsewhere.get(frame.offset, ())
        yield Frame(
            frame.offset,
            frame.length,
            frame.stored,
            frame.sha256,
            tuple(dict.fromkeys(places)),
        )


def _untabled(found: Sequence[FoundFrame]) -> Iterator[Frame]:
    shapes: dict[tuple[int, int, int], list[Place]] = {}
    for one in found:
        stored = segment.FRAME_HEAD + one.zlib_length
        shape = (one.offset, one.length, stored)
        shapes.setdefault(shape, []).append(one.place)
    for shape, places in sorted(shapes.items()):
        yield Frame(*shape, None, tuple(places))


def expanded(stored: bytes, length: int) -> bytes:
    """
    As much of a frame's tar bytes as can be expanded.

    All of them only if the checksum of zlib is right: else one is missing.
    """
    expander = zlib.decompressobj()
    stream = stored[segment.FRAME_HEAD :]
    try:
        data = expander.decompress(stream, length + 1)
    except zlib.error:
        return _slowly(stream, length)[: length - 1]
    if len(data) == length and expander.eof:
        return data
    return data[: length - 1]


def _slowly(stream: bytes, length: int) -> bytes:
    """What comes before an error, which would take all of it along."""
    expander = zlib.decompressobj()
    data = bytearray()
    try:
        for at in range(0, len(stream), 64):
            data += expander.decompress(stream[at : at + 64])
            if len(data) >= length:
                break
    except zlib.error:
        pass
    return bytes(data[:length])
