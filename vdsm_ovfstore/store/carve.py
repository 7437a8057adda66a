# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The segments in a log that no seal names.

Free space holds what was evicted, and what a crash left before it was
sealed. Where seals are damaged it may hold what was committed: a segment says
by itself what it is, and proves it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Optional, Protocol

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import record, segment
from vdsm_ovfstore.format import seal as fmt
from vdsm_ovfstore.format.record import BLOCK
from vdsm_ovfstore.format.seal import Entry
from vdsm_ovfstore.store.content import CHUNK
from vdsm_ovfstore.store.stored import StoredSegment

_MAGIC = b'{"magic":"%s"' % segment.MAGIC.encode("ascii")


class SizedLog(Protocol):
    """A log and its length; a volume of storage/."""

    log_path: str

    @property
    def log_size(self) -> int: ...

    def log_read(self, offset: int, length: int) -> bytes: ...


def carve(
    log: SizedLog, domain: str, named: Iterable[Entry] = ()
) -> list[Entry]:
    """
    The sound segments of generations that are not among the named ones.

    Of several with the same identity one is enough. They are `unproven`: that
    they were ever committed, nothing says.
    Raises errors.StorageFailed.
    """
    taken = list(named)
    found: dict[fmt.Identity, Entry] = {}
    for entry in _headers(log, domain):
        # What looks like a segment within another one is its content.
        if any(e.offset < entry.end and entry.offset < e.end for e in taken):
            continue
        try:
            StoredSegment(log, domain, entry).verify()
        except (errors.Damaged, errors.FormatUnknown):
            continue
        taken.append(entry)
        if entry.generation:
            found.setdefault(entry.identity, entry)
    return list(found.values())


def newer(
    log: SizedLog, domain: str, named: Iterable[Entry]
) -> list[Entry]:
    """Those of carve() that are newer than all that is named."""
    named = list(named)
    known = max((e.generation for e in named), default=0)
    return [e for e in carve(log, domain, named) if e.generation > known]


def _headers(log: SizedLog, domain: str) -> Iterator[Entry]:
    size = log.log_size
    for start in range(0, size, CHUNK):
        data = log.log_read(start, min(CHUNK, size - start))
        at = data.find(_MAGIC)
        while at >= 0:
            if at % BLOCK == 0:
                entry = _entry(data[at : at + BLOCK], domain, start + at)
                if entry is not None and entry.end <= size:
                    yield entry
            at = data.find(_MAGIC, at + 1)


def _entry(data: bytes, domain: str, offset: int) -> Optional[Entry]:
    try:
        header = segment.unpack_header(data)
    except record.UnknownVersion:
        return None
    if header is None or header.domain != domain:
        return None
    return Entry(
        generation=header.generation,
        kind=fmt.UNPROVEN,
        offset=offset,
        stored=header.stored,
        length=header.length,
        sha256=header.sha256,
        time=header.time,
        entities=header.entities,
    )
