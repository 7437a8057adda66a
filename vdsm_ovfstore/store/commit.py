# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Committing a generation on one copy.

    1  room: what must go is evicted under a seal of its own; the segment;
       flush; read back
    2  seal `replacing`: the segment exists; flush. From here the generation
       is committed
    3  the head
    4  flush; read the head back
    5  one metadata write: GEN + 1 and DESCRIPTION
    6  seal `current`; flush

Whatever stops us between two of these, the previous generation and, from 2
on, the new one can be read in full from the log.
"""

from __future__ import annotations

import logging
from typing import Any, Callable, Optional

from vdsm_ovfstore import __version__, errors
from vdsm_ovfstore.format import seal as fmt
from vdsm_ovfstore.format.seal import Entry, Head, Identity, Seal
from vdsm_ovfstore.store import guard, retention, space
from vdsm_ovfstore.store.content import Content, Segment, entity_ids
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.membership import Membership
from vdsm_ovfstore.store.room import Room, is_same
from vdsm_ovfstore.store.sources import Sources
from vdsm_ovfstore.store.stored import StoredSegment

log = logging.getLogger("ovfstore.store")


class Committer:
    """
    Writes seals, segments and heads on behalf of one tenure.

    membership goes into every seal; the tenure replaces it as it changes.
    """

    def __init__(
        self,
        domain: str,
        epoch: int,
        host: str,
        sources: Sources,
        settings: retention.Settings,
        now: Callable[[], float],
    ) -> None:
        self._domain = domain
        self._epoch = epoch
        self._host = host
        self._sources = sources
        self._settings = settings
        self._room = self._make_room()
        self._now = now
        self.membership: Optional[Membership] = None

    def next_epoch(self) -> None:
        """Begin another one; the next seal of each copy must be a claim."""
        self._epoch += 1
        self._room = self._make_room()

    def _make_room(self) -> Room:
        top = self._epoch % 2 == 1
        return Room(self.seal, self._sources, self._settings, top)

    def commit(
        self,
        copy: Copy,
        content: Content,
        identity: Identity,
        when: int,
        kind: str = fmt.GENERATION,
        newest: int = 2,
    ) -> None:
        """
        Make content the newest generation of one copy.

        when is the time of the generation, Unix seconds; kind is GENERATION
        or UNPROVEN; newest as in keep(). Raises errors.Error; the copy is
        then left alone.
        """
        _check_capacity(copy, content.length)
        head = Head(identity[0], content.length, identity[1])
        known = copy.find(identity)
        if known is None or not self._sources.is_sound(copy, known):
            self.keep(copy, content, identity[0], when, kind, newest)
        previous = copy.seal.head if copy.seal else None
        self.seal(
            copy,
            kind=fmt.REPLACING,
            head=head,
            previous=previous or fmt.EMPTY_HEAD,
            introduces=identity if known is None else None,
            description=copy.description()[0],
            kinds={identity: kind},
            pins=_pins_before(copy, identity, content, kind),
        )
        self.project(copy, content)

    def project(self, copy: Copy, content: Optional[Content] = None) -> None:
        """Steps 3 to 6: write the head that the newest seal names."""
        assert copy.seal is not None and copy.seal.head is not None
        head = copy.seal.head
        if not copy.shows(head):
            self._write_head(copy, head, content)
        self._describe(copy, head)
        self.seal(
            copy,
            kind=fmt.CURRENT,
            previous=None,
            description=copy.description()[0],
        )

    def _write_head(
        self, copy: Copy, head: Head, content: Optional[Content]
    ) -> None:
        """Steps 3 and 4."""
        source = content or self._sources.find_head(head)
        if source is None:
            raise errors.Damaged(
                what=f"Generation {head.generation}",
                reason="no copy has it in its log any more",
                path=copy.volume.path,
            )
        copy.write_head(source.tar(), head)

    def _describe(self, copy: Copy, head: Head) -> None:
        """Step 5."""
        entry = copy.find(head.identity)
        when = entry.time if entry else int(self._now())
        _, described = copy.description()
        stamp = (True, head.length, when)
        if described is None or stamp != (
            described.updated,
            described.size,
            described.last_updated,
        ):
            copy.write_description(head.length, when)

    def keep(
        self,
        copy: Copy,
        content: Content,
        generation: int,
        when: int,
        kind: str,
        newest: int = 2,
    ) -> None:
        """
        Step 1: make content durable as a segment. The next seal names it.

        What the copy holds under the same identity is replaced: it was found
        damaged. newest: how many generations stay in any case; a suspect
        leaves what is pinned, too. Raises errors.NoRoom, nothing evicted.
        """
        copy.prepare_log()
        entry = Entry(
            generation=generation,
            kind=kind,
            offset=0,
            stored=0,
            length=content.length,
            sha256=content.sha256,
            time=when,
            entities=content.entities,
        )
        same = [e for e in copy.entries() if is_same(e, entry)]
        pinned = next((e.pinned for e in same if e.pinned), "")
        segment = Segment(content, self._domain, generation, when)
        offset = self._room.find(copy, segment.size, entry, newest)
        copy.write_segment(segment, offset)
        entry = entry._replace(
            offset=offset, stored=segment.size, pinned=pinned
        )
        self._sources.add_sound(copy, entry)
        copy.pending = entry

    def log(
        self,
        copy: Copy,
        content: Content,
        identity: Identity,
        when: int,
        kind: str,
        pinned: str = "",
    ) -> None:
        """Let a log have a generation that its head does not show."""
        # With the newest, one that was there before makes two.
        self.keep(copy, content, identity[0], when, kind, newest=1)
        pins = {identity: pinned} if pinned else None
        self.seal(copy, kind=fmt.CLAIM, introduces=identity, pins=pins)

    def rewrite(self, copy: Copy, entry: Entry) -> bool:
        """
        Mend a damaged segment: from another copy, or from what is left of it
        on several and in heads. False when that is not the whole.
        """
        source = self._sources.find(entry.identity)
        if source is not None:
            self._rewrite(copy, entry, source)
            return True
        saved = self._sources.salvage(entry)
        if saved is None:
            return False
        try:
            self._replace(copy, entry, saved)
        finally:
            saved.close()
        return True

    def _rewrite(
        self, copy: Copy, entry: Entry, source: StoredSegment
    ) -> None:
        segment = Segment(
            source, self._domain, entry.generation, source.header.time
        )
        room = copy.segment_room()
        if segment.size == entry.stored and space.is_apart(
            entry, copy.entries(), room
        ):
            copy.write_segment(segment, entry.offset)
            self._sources.add_sound(copy, entry)
        else:
            self._replace(copy, entry, source)

    def _replace(self, copy: Copy, entry: Entry, content: Content) -> None:
        """Write a segment anew; the next seal names it instead."""
        assert copy.seal is not None
        self.keep(copy, content, entry.generation, entry.time, entry.kind)
        self.seal(copy, kind=fmt.CLAIM, introduces=copy.seal.introduces)

    # -- seals ----------------------------------------------------------------

    def seal(
        self,
        copy: Copy,
        kinds: Optional[dict[Identity, str]] = None,
        pins: Optional[dict[Identity, str]] = None,
        **changes: Any,
    ) -> None:
        """
        Write the next seal of a copy; changes are fields of Seal.

        kinds and pins change the entries of these generations. A segment
        that waits to be named is named.
        """
        base = copy.seal or self._first_seal(copy)
        entries = list(changes.pop("entries", base.entries))
        if copy.pending is not None:
            # In place of the damaged one, if that had not to go before.
            new = copy.pending
            entries = [e for e in entries if not is_same(e, new)] + [new]
        kinds, pins = kinds or {}, pins or {}
        for number, entry in enumerate(entries):
            if entry.shown:
                entries[number] = entry._replace(
                    kind=kinds.get(entry.identity, entry.kind),
                    pinned=pins.get(entry.identity, entry.pinned),
                )
        changes.setdefault("introduces", None)
        if self.membership is not None:
            changes.setdefault("members", self.membership.listed())
        copy.put_seal(
            base,
            self._epoch,
            entries=tuple(entries),
            host=self._host,
            tool=f"vdsm-ovfstore {__version__}",
            time=int(self._now()),
            **changes,
        )
        copy.pending = None

    def _first_seal(self, copy: Copy) -> Seal:
        copy.prepare_log()
        return Seal(
            sequence=(self._epoch, 0),
            domain=self._domain,
            image=copy.volume.image,
            volume=copy.id,
            members=(),
            kind=fmt.CLAIM,
            introduces=None,
            head=None,
            previous=None,
            description=copy.description()[0],
            entries=(),
            host=self._host,
            tool="",
            time=0,
        )


def _check_capacity(copy: Copy, length: int) -> None:
    """A head beyond CAP would change what VDSM knows of the volume."""
    volume = copy.volume
    # A stock host may have made it longer already.
    limit = max(volume.capacity, volume.head_size())
    if length > limit:
        raise errors.ArchiveTooLarge(
            what=f"copy {copy.id}",
            size=length,
            limit=limit,
            way_out="Add larger copies: ovfstore create DOMAIN --copies 4 "
            "--size 256",
        )


def _pins_before(
    copy: Copy, identity: Identity, content: Content, kind: str
) -> dict[Identity, str]:
    """The generation that this one follows, if it should be pinned."""
    older = [
        e for e in retention.by_age(copy.entries()) if e.identity != identity
    ]
    if not older or older[0].pinned:
        return {}
    if kind == fmt.UNPROVEN:
        return {older[0].identity: retention.ADOPTED}
    segment = copy.segment(older[0])
    try:
        before = segment.index().entities()
        doubts = guard.doubts(segment, content, copy.volume.domain)
    except (errors.Damaged, errors.StorageFailed):
        return {}  # nothing to keep it for: it is damaged
    dropped = before - entity_ids(content)
    if retention.dropped_many(len(before), len(dropped)):
        return {older[0].identity: retention.SHRINK}
    return {older[0].identity: retention.DOUBT} if doubts else {}
