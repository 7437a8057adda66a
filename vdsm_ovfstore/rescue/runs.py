# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Tars that lie about as they are: heads, whole, cut, or what is left of them.

A run is a row of members of which each begins where the one before it ends.
Nothing in a tar proves anything but the whole of it, if a record knows its
digest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from vdsm_ovfstore.format import description
from vdsm_ovfstore.format.archive import RECORD
from vdsm_ovfstore.format.ids import is_uuid
from vdsm_ovfstore.format.tarheader import BLOCK, padded
from vdsm_ovfstore.rescue.ahead import read_ahead
from vdsm_ovfstore.rescue.findings import (
    ENTITY,
    INFO,
    Findings,
    FoundMember,
    Key,
    Place,
)
from vdsm_ovfstore.rescue.source import WINDOW, Source

_MAX_INFO = 64 * 1024  # bytes of an info.json; the engine's has 100
_MARKER = 2 * BLOCK


class Run(NamedTuple):
    """
    first and last are numbers of Findings.members.

    end is where the next member would begin. domain and time (Unix seconds)
    stand in its info.json: nobody vouches for them. proven is the
    generation whose archive this is, byte by byte.
    """

    start: Place
    end: int
    first: int
    last: int
    domain: str
    time: int
    proven: Optional[Key]

    def members(self, findings: Findings) -> Iterator[FoundMember]:
        """Its OVFs."""
        for number in range(self.first, self.last + 1):
            found = findings.members[number]
            if found.kind == ENTITY:
                yield found


def runs(sources: Sequence[Source], findings: Findings) -> Iterator[Run]:
    """All runs, in the order in which they lie."""
    lengths: dict[int, dict[str, Key]] = {}
    for key, known in findings.known.items():
        if key.number:
            lengths.setdefault(known.length, {})[key.sha256] = key
    rows = _rows(findings)
    for first, last in rows:
        begin, final = findings.members[first], findings.members[last]
        start = begin.place
        end = final.place.offset + BLOCK + padded(final.size)
        source = sources[start.source]
        domain, when = "", 0
        for number in range(first, min(first + 2, last + 1)):
            member = findings.members[number]
            if member.kind == INFO:
                domain, when = _info(source, member)
        proven = _proof(source, start.offset, end, lengths)
        yield Run(start, end, first, last, domain, when, proven)


def _rows(findings: Findings) -> Iterator[tuple[int, int]]:
    """Numbers of the first and the last member of each run."""
    first, expected = 0, Place(-1, 0)
    for number in range(len(findings.members)):
        found = findings.members[number]
        if found.place != expected and number:
            yield first, number - 1
        if found.place != expected:
            first = number
        after = found.place.offset + BLOCK + padded(found.size)
        expected = Place(found.place.source, after)
    if len(findings.members):
        yield first, len(findings.members) - 1


def _info(source: Source, member: FoundMember) -> tuple[str, int]:
    """Domain and time of an info.json, as far as it can be understood."""
    if member.size > _MAX_INFO:
        return "", 0
    data = source.read(member.place.offset + BLOCK, member.size)
    try:
        found = json.loads(data)
        domains = found["Storage Domains"]
        domain = domains[0]["uuid"] if len(domains) == 1 else ""
        when = description.parse_date(found.get("Last Updated"))
    except (ValueError, LookupError, TypeError, RecursionError):
        return "", 0
    except AttributeError:  # no object
        return "", 0
    known = isinstance(domain, str) and is_uuid(domain)
    return domain if known else "", when or 0


def _proof(
    source: Source, start: int, end: int, lengths: dict[int, dict[str, Key]]
) -> Optional[Key]:
    """The generation that these bytes are, if a record has their digest."""
    shortest = end - start + _MARKER
    # Padded to a whole record, at most, and some write one more.
    ends = [
        start + length
        for length in sorted(lengths)
        if shortest <= length < shortest + 2 * RECORD
        if start + length <= source.size
    ]
    digest = hashlib.sha256()
    for offset, data in read_ahead(source, _pieces(start, ends)):
        digest.update(data)
        known = lengths.get(offset + len(data) - start, {})
        key = known.get(digest.hexdigest()) if known else None
        if key is not None:
            return key
    return None


def _pieces(begin: int, ends: Sequence[int]) -> Iterator[tuple[int, int]]:
    """From begin to the last of ends, cut at each of them."""
    for end in ends:
        while begin < end:
            length = min(WINDOW, end - begin)
            yield begin, length
            begin += length
