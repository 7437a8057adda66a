# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What of each generation can be had: by its index, or by its frames."""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Iterator
from typing import NamedTuple, Optional

from vdsm_ovfstore.format import member
from vdsm_ovfstore.format.segment import IndexEntry, SegmentInvalid
from vdsm_ovfstore.rescue import fragment
from vdsm_ovfstore.rescue.carved import Carved
from vdsm_ovfstore.rescue.findings import Key, Known
from vdsm_ovfstore.rescue.versions import (
    ARCHIVE,
    FRAME,
    GRADES,
    MEMBER,
    PARTIAL,
    UNVERIFIED,
    VERIFIED,
    Origin,
    Version,
    Versions,
)
from vdsm_ovfstore.rescue.walk import (
    DAMAGED,
    PROVEN,
    SOUND,
    Piece,
    Walked,
    walk,
)

log = logging.getLogger("ovfstore.rescue")

# Members that an index names and no frame has. Each takes 500 bytes.
_MAX_WANTED = 40_000


class Recovered:
    """
    How much of a generation can be had.

    Arguments:
        time: in Unix seconds; grows with the number.
        is_newest: of its domain, as far as is known.
    """

    def __init__(
        self, key: Key, known: Optional[Known], time: int, is_newest: bool
    ) -> None:
        self.key = key
        self.known = known
        self.origin = Origin(key.domain, key, time)
        self.is_newest = is_newest
        self._named = 0  # entities in its index
        self._grades: dict[str, int] = {}

    @property
    def entities(self) -> int:
        """VMs and templates that it had, as far as anything says."""
        known = self.known.entities if self.known else 0
        return max(known, self._named, len(self._grades))

    def count(self, grade: str) -> int:
        wanted = GRADES.index(grade)
        return sum(1 for found in self._grades.values() if found == wanted)

    @property
    def lost(self) -> int:
        return self.entities - len(self._grades)

    @property
    def is_complete(self) -> bool:
        return self.count(VERIFIED) == self.entities > 0

    def name(self) -> None:
        self._named += 1

    def note(self, entity: str, grade: str) -> None:
        before = self._grades.get(entity, -1)
        self._grades[entity] = max(before, GRADES.index(grade))


class Recovery:
    """Puts what generations have into versions, the newest ones first."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._wanted: dict[str, list[tuple[Recovered, IndexEntry]]] = {}
        self._count = 0

    def recover(self, generation: Recovered, carved: Carved) -> None:
        """Raises errors.StorageFailed."""
        if not self._by_index(generation, carved):
            self._by_walk(generation, carved)
        carved.forget()

    def wanted(
        self, entity: str, sha256: str
    ) -> Optional[tuple[Recovered, IndexEntry]]:
        """The newest generation that has this content, and lost it."""
        for generation, entry in self._wanted.get(sha256, ()):
            if entry.name == f"{entity}.ovf":
                return generation, entry
        return None

    def solved(self, sha256: str) -> None:
        """That content was found elsewhere."""
        for generation, entry in self._wanted.pop(sha256, ()):
            generation.note(entry.name[: -len(".ovf")], _best(generation))

    def unsolved(self) -> Iterator[tuple[Recovered, IndexEntry]]:
        for found in self._wanted.values():
            yield from found

    # -- by the index ---------------------------------------------------------

    def _by_index(self, generation: Recovered, carved: Carved) -> bool:
        # A suspect has an index of nothing: nobody has looked into it.
        index = carved.index() if generation.key.number else None
        if index is None:
            return False
        try:
            for entry in index:
                if member.member_kind(entry.name) == member.VM:
                    generation.name()
                    self._entry(generation, carved, entry)
        except SegmentInvalid as e:
            # Its digest is right: somebody wrote it so.
            log.warning("INVALID index of %s: %s", generation.key, e)
            return False
        return True

    def _entry(
        self, generation: Recovered, carved: Carved, entry: IndexEntry
    ) -> None:
        entity = entry.name[: -len(".ovf")]
        best = _best(generation)
        if self._versions.has(entity, entry.sha256, best):
            generation.note(entity, best)
            return
        offset, length = entry.offset, entry.length
        proof = ""
        if carved.is_sound(offset, length):
            proof = FRAME
        else:
            data, sound, is_cut = carved.gather(offset, length)
            if hashlib.sha256(data).hexdigest() == entry.sha256:
                proof = MEMBER
        if not proof:
            if self._count < _MAX_WANTED:
                self._count += 1
                found = self._wanted.setdefault(entry.sha256, [])
                found.append((generation, entry))
            # What is whole and not right is wrong, and is nothing.
            if len(data) < length:
                data = data if is_cut else data[:sound]
                self._partial(generation, carved, entity, offset, length, data)
            return
        if generation.key.number == 0:
            proof = ""  # right, but never vouched for
        text = fragment.Text(entry.entity, entry.kind, entry.disks, "")
        self._add(
            generation,
            carved,
            offset,
            Found(entity, text, best, proof, entry.sha256, length, length),
        )

    # -- by the frames --------------------------------------------------------

    def _by_walk(self, generation: Recovered, carved: Carved) -> None:
        if not carved.frames:
            return
        is_whole = not carved.has_table and carved.is_whole()
        proof = ARCHIVE if is_whole else FRAME
        is_proven = is_whole or carved.has_table
        for found in walk(_pieces(carved, PROVEN if is_proven else SOUND)):
            self._walked(generation, carved, found, proof)

    def _walked(
        self,
        generation: Recovered,
        carved: Carved,
        found: Walked,
        proof: str,
    ) -> None:
        data, entity = found.data, found.entity
        is_complete = len(data) == found.size
        text = None
        if is_complete and found.quality < PROVEN:
            text = fragment.whole(data, entity)
        if is_complete and found.quality == PROVEN:
            grade = _best(generation)
            text = fragment.proven(data)
        elif text is not None and found.quality == SOUND:
            grade = UNVERIFIED
        elif text is not None:
            # Some byte of this frame is wrong, and it may be one of these.
            grade = PARTIAL
        else:
            if found.quality > DAMAGED or found.is_cut:
                self._partial(
                    generation, carved, entity, found.offset, found.size, data
                )
            return
        proof = proof if grade == VERIFIED else ""
        sha256, length = hashlib.sha256(data).hexdigest(), len(data)
        self._add(
            generation,
            carved,
            found.offset,
            Found(entity, text, grade, proof, sha256, length, found.size),
        )

    def _partial(
        self,
        generation: Recovered,
        carved: Carved,
        entity: str,
        offset: int,
        size: int,
        data: bytes,
    ) -> None:
        data, text = fragment.beginning(data, entity)
        if data:
            sha256, length = hashlib.sha256(data).hexdigest(), len(data)
            self._add(
                generation,
                carved,
                offset,
                Found(entity, text, PARTIAL, "", sha256, length, size),
            )

    def _add(
        self, generation: Recovered, carved: Carved, offset: int, found: Found
    ) -> None:
        generation.note(found.entity, found.grade)
        self._versions.add(
            Version(
                found.entity,
                found.text,
                found.grade,
                found.proof,
                generation.origin,
                found.sha256,
                found.length,
                found.size,
                carved.place_of(offset),
                functools.partial(_fetch, carved, offset, found.length),
            )
        )


class Found(NamedTuple):
    """Of a version, what does not depend on where it was."""

    entity: str
    text: fragment.Text
    grade: str
    proof: str
    sha256: str
    length: int
    size: int


def _fetch(carved: Carved, offset: int, length: int) -> bytes:
    return carved.gather(offset, length)[0]


def _best(generation: Recovered) -> str:
    """A suspect is what nobody vouched for, however sound its bytes are."""
    return VERIFIED if generation.key.number else UNVERIFIED


def _pieces(carved: Carved, quality: int) -> Iterator[Piece]:
    """What is left of the archive, in order, each byte once."""
    at = 0
    for number, frame in enumerate(carved.frames):
        if frame.offset < at:
            continue
        data = carved.expand(number)
        if data is not None:
            yield Piece(frame.offset, data, quality)
            at = frame.end
            continue
        data, is_cut = carved.remains(number)
        if data:
            yield Piece(frame.offset, data, DAMAGED, is_cut)
            at = frame.offset + len(data)
