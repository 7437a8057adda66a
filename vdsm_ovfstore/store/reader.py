# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Reading a store: no lock, no daemon, nothing changed.

A reader sees every copy that can be read and believes only what is verified.
It shows a generation from the seal after the one that introduced it: the
first one may be seen before it is durable. A store that was never sealed
(written by hosts without us only) is read from its heads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Optional, TypeVar

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import seal as fmt
from vdsm_ovfstore.format.seal import Identity, Seal
from vdsm_ovfstore.format.segment import Index, IndexEntry
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.storage.filevolume import FileVolume
from vdsm_ovfstore.store import heads, membership, naming, retention
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.heads import Place
from vdsm_ovfstore.store.salvage import UNUSABLE, cuts
from vdsm_ovfstore.store.shortcut import sealed_volumes
from vdsm_ovfstore.store.stored import StoredSegment, twinned

log = logging.getLogger("ovfstore.store")

UNSEALED = "unsealed"

T = TypeVar("T")


class Generation(NamedTuple):
    """
    One archive of the store, wherever it can be had.

    kind is "generation", "unproven" (a stock host wrote it, seen on one copy
    only) or "unsealed" (the store has no seals; number is 0). time is in Unix
    seconds. copies are ids of the volumes that name it.
    """

    number: int
    sha256: str
    length: int
    time: int
    entities: int
    kind: str
    pinned: str
    copies: tuple[str, ...]

    @property
    def identity(self) -> Identity:
        return self.number, self.sha256


class Reader:
    """
    The store of one domain, opened for reading. Use as context manager.

    copies are those that could be opened; problems say why others could not.

    Arguments:
        shortcut: enough to read generations: where the logs tell, nothing
            else is looked for (shortcut.py).
    """

    def __init__(self, domain: FileDomain, shortcut: bool = False) -> None:
        self.domain = domain
        self._shortcut = shortcut
        self.copies: list[Copy] = []
        self.problems: dict[str, errors.Error] = {}
        self.other_problems: list[errors.Error] = []
        # How often all was read; what was opened before is closed.
        self.loads = 0
        self._load()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        for copy in self.copies:
            copy.close()

    def refresh(self) -> None:
        """Read all again: a writer may have been at work."""
        self.close()
        self._load()

    # -- the store ------------------------------------------------------------

    @property
    def seal(self) -> Optional[Seal]:
        """The newest seal on any copy."""
        return membership.newest_seal([c.seal for c in self.copies if c.seal])

    def is_member(self, volume: str) -> bool:
        seal = self.seal
        return seal is None or volume in seal.member_ids()

    def generations(self) -> list[Generation]:
        """All that the store has, newest first."""
        found: dict[Identity, list[tuple[Copy, fmt.Entry]]] = {}
        for copy in self.copies:
            for entry in _confirmed(copy):
                found.setdefault(entry.identity, []).append((copy, entry))
        listed = [_generation(places) for places in found.values()]
        if not listed:
            listed = self._unsealed()
        return sorted(listed, key=_newer, reverse=True)

    def newest(self) -> Generation:
        """
        The newest generation on any copy, excluded or not.

        The same that the next writer will make the newest everywhere: a copy
        that was away has lower numbers, or a fork, of which the later counts.
        Raises errors.StoreEmpty.
        """
        for generation in self.generations():
            return generation
        raise errors.StoreEmpty(domain=self.domain.id)

    def find(self, wanted: Optional[str]) -> Generation:
        """
        The generation that "12", "12:<digest prefix>" or None (the newest)
        means.

        Raises errors.StoreEmpty, GenerationNotFound, GenerationAmbiguous.
        """
        if wanted is None:
            return self.newest()
        known = {g.identity: g for g in self.generations()}
        return known[naming.choose(wanted, known)]

    def open(self, generation: Generation) -> GenerationReader:
        """What reads that generation, from whichever copy has it sound."""
        return GenerationReader(self, generation)

    def places(self, generation: Generation) -> list[Place]:
        """
        Where the generation may be had: segments first, then heads.
        """
        segments: list[StoredSegment] = []
        shown: list[Place] = []
        for copy in self.copies:
            entry = copy.find(generation.identity)
            if entry is not None:
                segments.append(copy.segment(entry))
            seal = copy.seal
            head = seal.head if seal else None
            if generation.kind == UNSEALED or (
                head is not None and head.identity == generation.identity
            ):
                shown.append(
                    heads.HeadArchive(
                        copy, generation.length, generation.sha256
                    )
                )
        twinned(segments)
        return [*segments, *shown]

    # -- loading --------------------------------------------------------------

    def _load(self) -> None:
        self.loads += 1
        volumes = sealed_volumes(self.domain) if self._shortcut else None
        if volumes is not None:
            self._open(volumes)
            if (
                self.copies
                and not self.problems
                and any(_confirmed(copy) for copy in self.copies)
            ):
                return
            self.close()
        self._open(self.domain.volumes())
        self.other_problems = list(self.domain.problems)
        if not self.copies and not self.problems:
            raise errors.VolumeNotFound(
                domain=self.domain.id, what="", path=self.domain.path
            )

    def _open(self, volumes: list[FileVolume]) -> None:
        self.copies, self.problems = [], {}
        for volume in volumes:
            copy = Copy(volume)
            try:
                copy.load()
            except errors.Error as e:
                log.warning("UNREADABLE volume=%s %s", volume.id, e)
                self.problems[volume.id] = e
                copy.close()
                continue
            self.copies.append(copy)

    def _unsealed(self) -> list[Generation]:
        found: dict[str, Generation] = {}
        for copy in self.copies:
            try:
                archive = heads.find_archive(copy)
            except errors.Error as e:
                log.warning("UNREADABLE head volume=%s %s", copy.id, e)
                continue
            if archive is None:
                continue
            known = found.get(archive.sha256)
            copies = (known.copies if known else ()) + (copy.id,)
            found[archive.sha256] = Generation(
                number=0,
                sha256=archive.sha256,
                length=archive.length,
                time=max(archive.time, known.time if known else 0),
                entities=archive.entities,
                kind=UNSEALED,
                pinned="",
                copies=copies,
            )
        return list(found.values())


class GenerationReader:
    """
    Reads one generation; each piece from the first copy that has it sound.

    Raises errors.Damaged when no copy has.
    """

    def __init__(self, reader: Reader, generation: Generation) -> None:
        self._reader = reader
        self.generation = generation
        self._refreshed = False
        self._places: list[Place] = []
        self._loads = 0

    def _look(self) -> list[Place]:
        """The places of now: what was read before a refresh is closed."""
        if self._loads != self._reader.loads:
            self._loads = self._reader.loads
            self._places = self._reader.places(self.generation)
        return self._places

    def index(self) -> Index:
        return self._first(lambda place: place.index())

    def find(self, wanted: str) -> IndexEntry:
        """
        The VM or template of that id or name.

        Raises errors.EntityNotFound, errors.EntityAmbiguous.
        """
        index = self.index()
        entry = index.find(f"{wanted.lower()}.ovf")
        if entry is not None:
            return entry
        found = [e for e in index.find_entity(wanted) if e.entity]
        if len(found) == 1:
            return found[0]
        if not found:
            raise errors.EntityNotFound(
                generation=self.generation.number, name=wanted
            )
        ids = ", ".join(e.name[: -len(".ovf")] for e in found)
        raise errors.EntityAmbiguous(name=wanted, ids=ids)

    def read(self, entry: IndexEntry) -> bytes:
        """The verified bytes of one member."""

        def member(place: Place) -> bytes:
            data = b"".join(place.tar_range(entry.offset, entry.length))
            heads.check_member(data, entry, place)
            return data

        try:
            data = self._first(member)
        except UNUSABLE:
            # No copy has all of it; perhaps each has another part.
            data = b"".join(self._range(entry.offset, entry.length))
            heads.check_member(data, entry, self._look()[0])
        return data

    def tar(self) -> Iterator[bytes]:
        """The whole archive, nothing yielded that is not verified."""
        return self._range(0, self.generation.length)

    def _range(self, offset: int, length: int) -> Iterator[bytes]:
        """
        The tar's bytes in [offset, offset + length), frame by frame: what is
        damaged on one copy may be sound on another.
        """
        end = offset + length
        for cut in cuts(self._look(), self.generation.length):
            if cut <= offset:
                continue
            piece = min(cut, end) - offset
            if piece <= 0:
                break
            yield self._piece(offset, piece)
            offset += piece

    def _piece(self, offset: int, length: int) -> bytes:
        return self._first(
            lambda place: b"".join(place.tar_range(offset, length))
        )

    def _first(self, read: Callable[[Place], T]) -> T:
        problem: Optional[errors.Error] = None
        for place in self._look():
            try:
                return read(place)
            except UNUSABLE as e:
                log.warning("DAMAGED %s", e)
                problem = e
        if not self._refreshed:
            # A writer may have moved or evicted what the seal named.
            self._refreshed = True
            self._reader.refresh()
            return self._first(read)
        raise problem or errors.GenerationNotFound(
            generation=self.generation.number
        )


def _confirmed(copy: Copy) -> Sequence[fmt.Entry]:
    """The generations of a copy that its newest seal did not introduce."""
    if copy.seal is None:
        return ()
    return [
        e
        for e in copy.seal.entries
        if e.shown and e.identity != copy.seal.introduces
    ]


def _generation(places: list[tuple[Copy, fmt.Entry]]) -> Generation:
    entries = [entry for _, entry in places]
    first = entries[0]
    proven = any(e.kind == fmt.GENERATION for e in entries)
    return Generation(
        number=first.generation,
        sha256=first.sha256,
        length=first.length,
        time=first.time,
        entities=first.entities,
        kind=fmt.GENERATION if proven else fmt.UNPROVEN,
        pinned=next(filter(None, map(retention.pin_of, entries)), ""),
        copies=tuple(copy.id for copy, _ in places),
    )


def _newer(generation: Generation) -> tuple[int, int, str]:
    return generation.number, generation.time, generation.sha256
