# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The OVFs in a tar of which pieces may be missing or wrong.

A piece is as good as it is proven; a member is as good as the worst piece
that it lies in. Behind a gap a tar header is looked for: frames begin with
one wherever that was possible. Where one is found only after a search, it is
not known to be one: a member may have contained it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

from vdsm_ovfstore.format import member, tarheader
from vdsm_ovfstore.format.ovf import MAX_OVF
from vdsm_ovfstore.format.tarheader import BLOCK, padded

# How good bytes are.
DAMAGED, SOUND, PROVEN = 0, 1, 2


class Piece(NamedTuple):
    """
    Bytes of an archive. They are given by offset, ascending.

    is_cut: they end because the source does, in their middle.
    """

    offset: int
    data: bytes
    quality: int
    is_cut: bool = False


class Walked(NamedTuple):
    """
    An OVF; offset is that of its data in the archive, size its length as the
    header says. is_cut: data is its beginning, and the source ends there.
    """

    entity: str
    offset: int
    size: int
    data: bytes
    quality: int
    is_cut: bool


def walk(pieces: Iterable[Piece]) -> Iterator[Walked]:
    """All OVFs that are there, whole or cut."""
    walker = _Walker()
    for piece in pieces:
        if piece.offset != walker.end:
            yield from walker.leave()
            walker = _Walker(piece.offset)
        yield from walker.feed(piece)
    yield from walker.leave()


class _Walker:
    """Goes through pieces that follow one another, from a first offset."""

    def __init__(self, offset: int = 0) -> None:
        self.end = offset  # where the bytes that it was given end
        self._at = offset  # of the first byte in the buffer
        self._buffer = bytearray()
        self._qualities: list[tuple[int, int]] = []  # (end, quality)
        self._is_cut = False
        self._is_lost = False  # between members; a header is looked for
        self._skip = 0

    def feed(self, piece: Piece) -> Iterator[Walked]:
        self._buffer += piece.data
        self.end += len(piece.data)
        self._qualities.append((self.end, piece.quality))
        self._is_cut = piece.is_cut
        while True:
            found = self._next()
            if isinstance(found, Walked):
                yield found
            elif not found:
                break

    def leave(self) -> Iterator[Walked]:
        """What was begun and does not go on."""
        header = self._header()
        if header is not None and _is_ovf(header):
            data = bytes(self._buffer[BLOCK : BLOCK + header.size])
            if data:
                yield self._walked(header, data)

    def _next(self) -> object:
        """A member, True after something else, False if more is needed."""
        if self._skip:
            taken = min(self._skip, len(self._buffer))
            self._skip -= taken
            self._drop(taken)
        if len(self._buffer) < BLOCK:
            return False
        header = self._header()
        if header is None:
            if self._buffer[:BLOCK].strip(b"\0"):
                self._is_lost = True
            self._drop(BLOCK)
            return True
        length = padded(header.size)
        if not _is_ovf(header):
            self._is_lost = False
            self._drop(BLOCK)
            self._skip = length
            return True
        if len(self._buffer) < BLOCK + length:
            return False
        data = bytes(self._buffer[BLOCK : BLOCK + header.size])
        found = self._walked(header, data)
        self._is_lost = False
        self._drop(BLOCK + length)
        return found

    def _header(self) -> Optional[tarheader.Header]:
        if len(self._buffer) < BLOCK:
            return None
        block = bytes(self._buffer[:BLOCK])
        if block[257:262] != b"ustar":
            return None
        try:
            return tarheader.parse(block)
        except ValueError:
            return None

    def _walked(self, header: tarheader.Header, data: bytes) -> Walked:
        begin, end = self._at, self._at + BLOCK + len(data)
        quality = min(
            (
                quality
                for number, (stop, quality) in enumerate(self._qualities)
                if stop > begin
                and (number == 0 or self._qualities[number - 1][0] < end)
            ),
            default=DAMAGED,
        )
        if self._is_lost:
            quality = min(quality, SOUND)
        return Walked(
            header.name[: -len(".ovf")],
            begin + BLOCK,
            header.size,
            data,
            quality,
            self._is_cut and len(data) < header.size,
        )

    def _drop(self, length: int) -> None:
        del self._buffer[:length]
        self._at += length
        while self._qualities and self._qualities[0][0] <= self._at:
            del self._qualities[0]


def _is_ovf(header: tarheader.Header) -> bool:
    return (
        header.type in tarheader.REGULAR
        and member.member_kind(header.name) == member.VM
        and 0 < header.size <= MAX_OVF
    )
