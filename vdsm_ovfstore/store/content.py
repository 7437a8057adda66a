# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The content of a generation, wherever it comes from, and its segment.

An uploaded archive in local files (prepare.py) and a segment in a log
(stored.py) offer the same things, so that commit, heal and restore are one
code: the tar, and the compressed frames from which a segment is built for any
generation.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import NamedTuple, Protocol

from vdsm_ovfstore.format import segment
from vdsm_ovfstore.format.record import align

# Writes go out in pieces of this size: VDSM streams in 1 MiB as well
# (imageSharing.py), and it is what one aligned buffer holds.
CHUNK = 1024 * 1024


class Part(NamedTuple):
    """A compressed frame: the tar bytes it holds, the length of its zlib."""

    offset: int
    length: int
    zlib_length: int


class Content(Protocol):
    """An archive (or a suspect head) that can be written to a copy."""

    @property
    def length(self) -> int:
        """Bytes of the archive."""

    @property
    def sha256(self) -> str:
        """The archive's digest."""

    @property
    def entities(self) -> int:
        """VMs and templates in it."""

    @property
    def parts(self) -> list[Part]:
        """Its frames."""

    @property
    def index_length(self) -> int:
        """Bytes of the member index, expanded."""

    def tar(self) -> Iterator[bytes]:
        """The archive's bytes, in pieces of at most 1 MiB."""

    def payload(self, number: int) -> bytes:
        """The zlib data of parts[number]."""

    def index_data(self) -> bytes:
        """The compressed member index."""


class Writable(Protocol):
    """The bytes of a segment, made or read; the same each time."""

    @property
    def size(self) -> int:
        """Bytes, whole blocks."""

    def chunks(self) -> Iterator[bytes]:
        """All of it, in pieces of whole blocks."""


class Segment:
    """
    The bytes of a segment, made from content for one generation.

    Deterministic: the same content, generation and time give the same bytes
    on every copy.
    """

    def __init__(
        self, content: Content, domain: str, generation: int, when: int
    ) -> None:
        self._content = content
        # Once: stored content makes the list anew each time.
        self._parts = content.parts
        self._domain = domain
        self._generation = generation
        self._index = content.index_data()
        position = segment.HEADER_SIZE
        position += align(segment.TABLE_ENTRY * len(self._parts))
        position += align(len(self._index))
        frames = []
        for number, part in enumerate(self._parts):
            data = self._frame(number)
            frames.append(
                segment.Frame(
                    part.offset,
                    part.length,
                    position,
                    len(data),
                    segment.frame_sha256(data),
                )
            )
            position += align(len(data))
        self._table = segment.pack_table(frames)
        self.size = position
        self._header = segment.Header(
            domain=domain,
            generation=generation,
            sha256=content.sha256,
            length=content.length,
            time=when,
            entities=content.entities,
            frames=len(frames),
            table_sha256=self._bound("TABLE", self._table),
            index_stored=len(self._index),
            index_length=content.index_length,
            index_sha256=self._bound("INDEX", self._index),
            stored=position,
        )

    def chunks(self) -> Iterator[bytes]:
        """The segment in whole blocks, in pieces of at most 1 MiB or so."""
        pending = bytearray(segment.pack_header(self._header))
        pending += _padded(self._table)
        pending += _padded(self._index)
        for number in range(len(self._parts)):
            pending += _padded(self._frame(number))
            if len(pending) >= CHUNK:
                yield bytes(pending)
                pending.clear()
        if pending:
            yield bytes(pending)

    def _frame(self, number: int) -> bytes:
        part = self._parts[number]
        payload = self._content.payload(number)
        head = segment.frame_head(
            self._domain,
            self._generation,
            self._content.sha256,
            number + 1,
            part.offset,
            part.length,
            len(payload),
        )
        return head + payload

    def _bound(self, part: str, data: bytes) -> str:
        return segment.bound_sha256(
            part, self._domain, self._generation, self._content.sha256, data
        )


def entity_ids(content: Content) -> frozenset[bytes]:
    """The ids of the VMs and templates of an archive."""
    lines = zlib.decompressobj().decompress(
        content.index_data(), content.index_length + 1
    )
    return segment.Index(lines).entities()


def segment_size(parts: list[Part], index_stored: int) -> int:
    """Bytes that a segment of these parts takes in the log."""
    size = segment.HEADER_SIZE + align(segment.TABLE_ENTRY * len(parts))
    size += align(index_stored)
    for part in parts:
        size += align(segment.FRAME_HEAD + part.zlib_length)
    return size


def _padded(data: bytes) -> bytes:
    return data.ljust(align(len(data)), b"\0")
