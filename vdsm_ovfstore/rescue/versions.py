# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The versions of each VM and template, graded by what proves them.

    verified    every byte is what was stored, by a digest that stands in a
                sound record, or in what one proves in its turn:
                    frame    that of the frame it lies in
                    member   its own, in the index of its generation
                    archive  that of the whole archive
    unverified  a complete OVF, well-formed, of which no digest is left, or
                of an archive that nobody vouched for when it was stored
    partial     the beginning of an OVF, or one in which bytes are wrong
"""

from __future__ import annotations

import hashlib
from typing import Callable, NamedTuple, Optional

from vdsm_ovfstore.rescue.findings import Key, Place
from vdsm_ovfstore.rescue.fragment import Text

VERIFIED = "verified"
UNVERIFIED = "unverified"
PARTIAL = "partial"
GRADES = (PARTIAL, UNVERIFIED, VERIFIED)  # from bad to good

FRAME, MEMBER, ARCHIVE = "frame", "member", "archive"

Fetch = Callable[[], Optional[bytes]]


class Origin(NamedTuple):
    """
    What a version is part of: a generation, or (key is None) a tar that is
    none. time in Unix seconds, 0 for unknown; domain is "" for unknown.
    """

    domain: str
    key: Optional[Key]
    time: int


NOWHERE = Origin("", None, 0)


class Version(NamedTuple):
    """
    One content of one entity.

    size is its length as it was stored, length what is left. place is where
    it begins, or the frame that it lies in. fetch reads it again, None if it
    cannot; sha256 is what it must give then.
    """

    entity: str
    text: Text
    grade: str
    proof: str
    origin: Origin
    sha256: str
    length: int
    size: int
    place: Place
    fetch: Fetch

    @property
    def rank(self) -> tuple[int, int, int, int]:
        """The higher the better."""
        _, key, time = self.origin
        number = key.number if key else 0
        return GRADES.index(self.grade), time, number, self.length

    def read(self) -> Optional[bytes]:
        """Its bytes; None if they are not what they were any more."""
        data = self.fetch()
        if data is None or hashlib.sha256(data).hexdigest() != self.sha256:
            return None
        return data


class Versions:
    """
    The best version of each entity, and how many there are.

    Arguments:
        all_kept: keep the others, too; their number is what memory is for.
    """

    def __init__(self, all_kept: bool = False) -> None:
        self.best: dict[str, Version] = {}
        self.counts: dict[str, int] = {}
        self._others: dict[str, list[Version]] = {}
        self._all_kept = all_kept
        self._seen: dict[int, int] = {}

    def has(self, entity: str, sha256: str, grade: str = VERIFIED) -> bool:
        """Whether this content is there, as good as that or better."""
        found = self._seen.get(_short(entity, sha256), -1)
        return found >= GRADES.index(grade)

    def add(self, version: Version) -> None:
        """The first one of equal rank is kept."""
        short = _short(version.entity, version.sha256)
        grade = GRADES.index(version.grade)
        before = self._seen.get(short, -1)
        if grade <= before and version.rank <= self._rank(version.entity):
            return
        self._seen[short] = max(grade, before)
        if before < 0:
            count = self.counts.get(version.entity, 0)
            self.counts[version.entity] = count + 1
        known = self.best.get(version.entity)
        if known is None or version.rank > known.rank:
            self.best[version.entity] = version
            version, known = known or version, version
        if self._all_kept and version is not known:
            self._others.setdefault(version.entity, []).append(version)

    def others(self, entity: str) -> list[Version]:
        """All but the best, the better ones first, each content once."""
        seen = {self.best[entity].sha256}
        found = []
        ordered = sorted(
            self._others.get(entity, ()), key=lambda v: v.rank, reverse=True
        )
        for version in ordered:
            if version.sha256 not in seen:
                seen.add(version.sha256)
                found.append(version)
        return found

    def _rank(self, entity: str) -> tuple[int, int, int, int]:
        known = self.best.get(entity)
        return known.rank if known else (-1, 0, 0, 0)


def _short(entity: str, sha256: str) -> int:
    """What tells contents apart; proves nothing."""
    digest = hashlib.sha256(f"{entity} {sha256}".encode()).digest()
    return int.from_bytes(digest[:8], "big")
