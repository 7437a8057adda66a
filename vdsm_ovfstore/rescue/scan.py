# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
One pass over a source, which finds structures by how they begin.

    {"magic":"OVFSTORE-SEAL"      a seal: a record, 64 KiB
    {"magic":"OVFSTORE-SEGMENT"   a segment's header: a record, 4 KiB
    OVFSTORE-FRAME 1 ...          a frame
    ... ustar ...                 at 257: a tar header
    <?xml ... ovf:Envelope        an OVF whose tar header is gone

Everything begins at a multiple of 512 bytes: in a log and in a tar, and so
on whatever disk or in whatever image these lie. So of each 512 bytes two are
looked at, which costs next to nothing beside reading them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Callable, Optional

from vdsm_ovfstore.format import member, record, seal, segment, tarheader
from vdsm_ovfstore.format.ids import UUID
from vdsm_ovfstore.format.ovf import MAX_OVF
from vdsm_ovfstore.format.pax import MAX_HEADER
from vdsm_ovfstore.format.record import BLOCK, align
from vdsm_ovfstore.rescue.ahead import read_ahead
from vdsm_ovfstore.rescue.findings import (
    ENTITY,
    INFO,
    OTHER,
    Findings,
    FoundFrame,
    FoundMember,
    Key,
    Place,
    frame_limit,
)
from vdsm_ovfstore.rescue.source import WINDOW, Source

_UNIT = tarheader.BLOCK
_SPARE = 16 * seal.RING_SIZE
_USTAR = 257  # where the magic stands in a tar header

_SEAL = b'{"magic":"%s"' % seal.MAGIC.encode()
_SEGMENT = b'{"magic":"%s"' % segment.MAGIC.encode()
_FRAME = b"OVFSTORE-FRAME 1 "
_XML = (b"<?xml", b"<ovf:Envelope")
_ENVELOPE = b"<ovf:Envelope"

_HEAD = re.compile(
    rb"OVFSTORE-FRAME 1 (%s) (\d{1,19}) ([0-9a-f]{64}) (\d{1,7}) (\d{1,19}) "
    rb"(\d{1,8}) (\d{1,8})\n\0*" % UUID.encode()
)

Progress = Callable[[int], None]
Look = Callable[[int, bytes], None]


class Scan:
    """
    Looks through one source.

    Arguments:
        number: which one it is, for places.
        progress: is told how many bytes are done.
    """

    def __init__(
        self,
        source: Source,
        number: int,
        findings: Findings,
        progress: Progress = lambda done: None,
    ) -> None:
        self._source = source
        self._number = number
        self._findings = findings
        self._progress = progress
        self._text = -1  # where the data of the last OVF's header begins
        # Records do not overlap: all of them together, sound or not, take no
        # more than there is. Who writes the beginning of one into each block
        # shall not make us read all of it a hundred times.
        self._allowed = source.size + _SPARE

    def run(self) -> int:
        """
        Returns how many bytes were read; holes are none.

        Raises errors.StorageFailed.
        """
        done = 0
        for offset, data in read_ahead(self._source, _pieces(self._source)):
            self._look(offset, data)
            done += len(data)
            self._progress(offset + len(data))
        return done

    def _look(self, offset: int, data: bytes) -> None:
        first, magic = data[::_UNIT], data[_USTAR::_UNIT]
        found: list[tuple[int, Look]] = [
            *((n, self._record) for n in _all(first, b"{")),
            *((n, self._frame) for n in _all(first, b"O")),
            *((n, self._xml) for n in _all(first, b"<")),
            *((n, self._tar) for n in _all(magic, b"u")),
        ]
        # In order: what follows a tar header is not looked at twice.
        for n, look in sorted(found, key=lambda one: one[0]):
            look(offset + n * _UNIT, data[n * _UNIT : (n + 1) * _UNIT])

    def _record(self, offset: int, unit: bytes) -> None:
        if unit.startswith(_SEAL):
            size = seal.SLOT_SIZE
        elif unit.startswith(_SEGMENT):
            size = segment.HEADER_SIZE
        else:
            return
        if self._allowed < size:
            self._findings.left_out += 1
            return
        self._allowed -= size
        data = self._source.read(offset, size)
        if len(data) < size:
            return
        try:
            if size == seal.SLOT_SIZE:
                sound = seal.unpack(data) or seal.unpack(_filled(data))
                if sound is not None:
                    self._findings.add_seal(sound)
                return
            header = segment.unpack_header(data)
        except record.UnknownVersion:
            self._findings.newer_formats += 1
            return
        if header is not None:
            self._findings.add_header(Place(self._number, offset), header)

    def _frame(self, offset: int, unit: bytes) -> None:
        if not unit.startswith(_FRAME):
            return
        match = _HEAD.fullmatch(unit[: segment.FRAME_HEAD])
        if match is None:
            return
        domain, number, sha256 = (match[n].decode() for n in (1, 2, 3))
        frame = FoundFrame(
            Place(self._number, offset),
            int(match[5]),
            int(match[6]),
            int(match[7]),
        )
        if frame_limit(frame) is not None:
            self._findings.add_frame(Key(domain, int(number), sha256), frame)

    def _tar(self, offset: int, unit: bytes) -> None:
        if not unit.startswith(b"ustar", _USTAR) or len(unit) < _UNIT:
            return
        try:
            header = tarheader.parse(unit)
        except ValueError:
            return
        found = _member(Place(self._number, offset), header)
        if found is not None:
            self._findings.add_member(found)
            self._text = offset + _UNIT

    def _xml(self, offset: int, unit: bytes) -> None:
        if offset != self._text and unit.startswith(_XML):
            if _ENVELOPE in unit:
                self._findings.add_loose(Place(self._number, offset))


def _filled(data: bytes) -> bytes:
    """
    A slot whose zeros are a hole of its file.

    On the disk below, the block with the digest mostly follows that with the
    end of the text. Whether it did, the digest says.
    """
    end = align(data.find(b"\0") + 1)
    last = data[end : end + BLOCK]
    return data[:end].ljust(len(data) - BLOCK, b"\0") + last


def _member(place: Place, header: tarheader.Header) -> Optional[FoundMember]:
    """A header that may stand in an archive of OVFs."""
    if header.type in tarheader.EXTENDED:
        if 0 < header.size <= MAX_HEADER:
            return FoundMember(place, OTHER, "", header.size)
        return None
    if header.type not in tarheader.REGULAR:
        return None
    kind = member.member_kind(header.name)
    if kind == member.VM:
        if 0 < header.size <= MAX_OVF:
            entity = header.name[: -len(".ovf")]
            return FoundMember(place, ENTITY, entity, header.size)
        return None
    if kind == member.INVALID or header.size > member.MAX_JSON:
        return None
    what = INFO if kind == "info" else OTHER
    return FoundMember(place, what, "", header.size)


def _all(data: bytes, letter: bytes) -> Iterator[int]:
    at = data.find(letter)
    while at >= 0:
        yield at
        at = data.find(letter, at + 1)


def _pieces(source: Source) -> Iterator[tuple[int, int]]:
    for begin, end in source.ranges():
        begin -= begin % _UNIT
        for offset in range(begin, end, WINDOW):
            yield offset, min(WINDOW, end - offset)
