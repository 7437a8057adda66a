# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A tenure: what one worker does while it holds the leases of all members.

    claim      a seal of the new epoch on every copy; who wrote before us is
               fenced from now on
    members    copies that are gone are excluded, those that came back are
               readmitted
    heal       each head is classified, then rolled forward, adopted, or kept
               aside and projected again
    level      every copy gets the newest generation

Only then may a new generation be given a number. A copy that fails is left
alone for the rest of the tenure, and excluded by a seal on the others.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any, Callable, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import seal as fmt
from vdsm_ovfstore.format.seal import Entry, Identity, Seal
from vdsm_ovfstore.store import history, membership, retention
from vdsm_ovfstore.store.commit import Committer
from vdsm_ovfstore.store.content import Content
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.healing import Healer
from vdsm_ovfstore.store.salvage import Holder
from vdsm_ovfstore.store.sources import Sources

log = logging.getLogger("ovfstore.store")

Progress = Callable[[str], None]


class Absent(NamedTuple):
    """A volume that could not be opened, and why."""

    image: str
    error: errors.Error


class Outcome(NamedTuple):
    """
    What an upload led to.

    unchanged: the store had this content already as its newest generation.
    copies: ids of the volumes that hold it now, complete.
    """

    generation: int
    sha256: str
    time: int
    unchanged: bool
    copies: list[str]


class Tenure:
    """
    The writer. copies are open for writing and their leases are held.

    Arguments:
        domain: id of the storage domain.
        copies: the copies that could be opened, members or not.
        host: name of this host, for the seals.
        asides: logs that were set aside, as sources.
        absent: the volumes that could not be opened, by id.
        join: ids of volumes to make members.
        forget: members that are gone are members no more.
        settings: what retention keeps.
        deep: mend all segments, not only the newest two.
        progress: is told what begins.
        now: the clock, Unix seconds.
    """

    def __init__(
        self,
        domain: str,
        copies: Sequence[Copy],
        host: str,
        asides: Sequence[Holder] = (),
        absent: Optional[Mapping[str, Absent]] = None,
        join: frozenset[str] = frozenset(),
        forget: bool = False,
        settings: Optional[retention.Settings] = None,
        deep: bool = False,
        progress: Progress = lambda step: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._domain = domain
        self._copies = list(copies)
        self._absent = dict(absent or {})
        self._join = join
        self._forget = forget
        self._deep = deep
        # Asked now: the claim is written over one of these slots.
        self._torn = {c.id for c in copies if c.ring and c.ring.unsound()}
        self._progress = progress
        self._now = now
        self._targets = list(copies)
        self._asides = list(asides)
        self._sources = Sources([*self._copies, *self._asides])
        self._high = self._sources.highest_number()
        epoch = max((s.sequence[0] for s in self._seals()), default=0) + 1
        self._settings = settings or retention.Settings()
        self._committer = self._make_committer(
            domain,
            epoch,
            host,
            self._sources,
            self._settings,
            now,
        )
        self._healer = self._make_healer(
            self._committer,
            self._sources,
            self._level_log,
            self._next_number,
            self.newest,
            now,
            deep,
        )
        self.failed = {v: a.error for v, a in self._absent.items()}

    def _make_committer(self, *how: Any) -> Committer:
        return Committer(*how)

    def _make_healer(self, *how: Any) -> Healer:
        return Healer(*how)

    @property
    def copies(self) -> list[Copy]:
        """The copies that could be opened, members or not."""
        return self._copies

    @property
    def healed(self) -> list[str]:
        """What was mended, in words."""
        return self._healer.done

    def begin(self) -> None:
        """Claim, settle the membership, heal and level."""
        self._claim()
        self._settle_members()
        self._heal()
        self._level()
        if self._deep:
            self._level_history()
        self._clear_slots()
        self._exclude_failed()

    def upload(self, content: Content) -> Outcome:
        """
        Commit an archive as the newest generation.

        Content that is the newest generation already keeps its number, and
        where it is complete nothing is written.
        Raises errors.NoCopyWritten, or the one error there was, when no copy
        took it.
        """
        newest = self.newest()
        unchanged = newest is not None and newest.sha256 == content.sha256
        if newest is not None and unchanged:
            identity, when = newest.identity, newest.time
        else:
            identity = (self._next_number(), content.sha256)
            when = int(self._now())
        done = [
            copy.id
            for copy in self._receivers()
            if self._guard(copy, self._upload_one, content, identity, when)
        ]
        if not done:
            raise self._nothing_written()
        return Outcome(*identity, when, unchanged, done)

    @property
    def degraded(self) -> dict[str, errors.Error]:
        """The members that were not written, and why; and what failed."""
        found = dict(self.failed)
        settled = self._committer.membership
        written = {c.id for c in self._working()}
        for member in settled.listed() if settled else ():
            if member.excluded and member.volume not in written:
                gone = errors.VolumeNotFound(
                    domain=self._domain, what=f" {member.volume}", path=""
                )
                found.setdefault(member.volume, gone)
        return found

    def complete(self) -> list[str]:
        """Ids of the copies that show the newest generation, all in order."""
        newest = self.newest()
        return [
            c.id
            for c in self._working()
            for mine in [c.find(newest.identity) if newest else None]
            if mine is not None and self._sources.is_complete(c, mine)
        ]

    def newest(self) -> Optional[Entry]:
        """The newest generation that can really be had."""
        return self._sources.newest(self._working())

    def content(self, sha256: str) -> Optional[Content]:
        """The newest generation, if it is that one."""
        newest = self.newest()
        if newest is None or newest.sha256 != sha256:
            return None
        return self._sources.find(newest.identity)

    # -- claim and members ----------------------------------------------------

    def _claim(self) -> None:
        newest = membership.newest_seal(self._seals())
        if newest is not None:
            # Volumes that are no members are sources, never targets.
            mine = newest.member_ids() | self._join
            self._targets = [c for c in self._copies if c.id in mine]
        for copy in self._working():
            self._guard(copy, self._claim_one)

    def _claim_one(self, copy: Copy) -> None:
        # What was read may only be in a cache.
        copy.flush()
        copy.volume.remove_stale_heads()
        self._seal_claim(copy)

    def _seal_claim(self, copy: Copy) -> None:
        if copy.seal is not None:
            self._committer.seal(
                copy, kind=fmt.CLAIM, introduces=copy.seal.introduces
            )

    def _settle_members(self) -> None:
        images = {c.id: c.volume.image for c in self._copies}
        images.update({v: a.image for v, a in self._absent.items()})
        settled = membership.settle(
            membership.newest_seal(self._seals()),
            images,
            up={c.id for c in self._working()},
            join=self._join,
            forget=self._forget,
            reasons=self._reasons(),
        )
        self._committer.membership = settled
        self._back = settled.back
        self._targets.sort(key=lambda c: (c.id in self._back, c.id))
        for copy in self._working():
            if copy.id not in self._back:
                self._guard(copy, self._seal_members)

    def _seal_members(self, copy: Copy) -> None:
        """Seal the membership, where there is a seal and it is another."""
        settled = self._committer.membership
        assert settled is not None
        if copy.seal and copy.seal.members != settled.listed():
            self._committer.seal(
                copy, kind=fmt.CLAIM, introduces=copy.seal.introduces
            )

    def _exclude_failed(self) -> None:
        """Before a number is given, every member is level or excluded."""
        settled = self._committer.membership
        assert settled is not None
        self._committer.membership = settled.exclude(self._reasons())
        for copy in self._working():
            self._guard(copy, self._seal_members)

    # -- healing --------------------------------------------------------------

    def _heal(self) -> None:
        for copy in sorted(self._working(), key=self._healing_order):
            self._progress(f"checking copy {copy.id}")
            if self._deep and copy.id in self._torn:
                what = self._committer, self._healer.done.append
                self._guard(copy, history.name_again, *what)
            self._guard(copy, self._healer.heal)

    def _healing_order(self, copy: Copy) -> tuple[bool, int, str]:
        """Stock uploads are adopted in the order in which they were made."""
        try:
            _, described = copy.description()
        except errors.Error:
            described = None  # healing meets it again, and reports it
        when = (described.last_updated if described else None) or 0
        return copy.id in self._back, when, copy.id

    def _level_log(self, adopting: Copy, newest: Entry) -> None:
        source = self._sources.find(newest.identity)
        assert source is not None
        for copy in self._working():
            unsealed = copy.seal is None and copy is not adopting
            if unsealed or copy.find(newest.identity) is not None:
                continue
            what = source, newest.identity, newest.time, newest.kind
            if copy is adopting:
                self._committer.log(copy, *what)
            else:
                self._guard(copy, self._committer.log, *what)
        self._exclude_failed()

    # -- levelling ------------------------------------------------------------

    def _level(self) -> None:
        """Bring every copy to the newest generation."""
        newest = self.newest() or self._sources.newest(self._asides)
        if newest is None:
            return
        for copy in self._working():
            self._guard(copy, self._pin_single, newest)
            self._guard(copy, self._bring, newest)

    def _bring(self, copy: Copy, newest: Entry) -> None:
        kind = self._sources.kind_of(newest.identity)
        mine = copy.find(newest.identity)
        if mine is not None and self._sources.is_complete(copy, mine):
            self._seal_members(copy)
            if mine.kind != kind:
                self._seal_kind(copy, newest.identity, kind)
            return
        source = self._sources.find(newest.identity)
        assert source is not None
        self._progress(f"bringing copy {copy.id} up to date")
        self._committer.commit(
            copy, source, newest.identity, newest.time, kind, newest=1
        )
        self._healer.done.append(
            f"wrote generation {newest.generation} on {copy.id}"
        )

    def _level_history(self) -> None:
        """Let each copy have the older generations of the others."""
        copies = [c for c in self._working() if c.seal is not None]
        known = history.wanted(copies, self._asides, self._settings)
        for copy in copies:
            self._guard(
                copy,
                history.complete,
                known,
                self._sources,
                self._committer,
                self._healer.done.append,
            )

    def _clear_slots(self) -> None:
        """
        What crashes and damage leave in the rings looks like damage.

        Half of the slots are those of our epoch. The others belong to the
        next one, whose writer may be our successor; so that it is not, the
        next one begins here, with a claim as every epoch does.
        """
        for last in (False, True):
            for copy in self._working():
                self._guard(copy, self._clear)
            if last or not any(
                c.ring and c.ring.unsound() for c in self._working()
            ):
                return
            self._committer.next_epoch()
            for copy in self._working():
                self._guard(copy, self._seal_claim)

    def _clear(self, copy: Copy) -> None:
        count = copy.clear_slots()
        if count and self._deep:
            self._healer.done.append(
                f"cleared {count} damaged seals on {copy.id}"
            )

    def _pin_single(self, copy: Copy, newest: Entry) -> None:
        """Pin what only this copy has, and would be lost with it."""
        others = [
            e for c in self._working() if c is not copy for e in c.entries()
        ]
        pins = retention.single_pins(
            copy.entries(), others, newest, copy.id in self._back
        )
        if pins:
            assert copy.seal is not None
            self._committer.seal(
                copy,
                kind=fmt.CLAIM,
                pins=pins,
                introduces=copy.seal.introduces,
            )

    # -- uploading ------------------------------------------------------------

    def _receivers(self) -> list[Copy]:
        """The copies that get what is uploaded."""
        return self._working()

    def _upload_one(
        self, copy: Copy, content: Content, identity: Identity, when: int
    ) -> None:
        mine = copy.find(identity)
        if mine is not None and self._sources.is_complete(copy, mine):
            if mine.kind != fmt.GENERATION:
                self._seal_kind(copy, identity, fmt.GENERATION)
            return
        self._progress(f"writing copy {copy.id}")
        self._committer.commit(copy, content, identity, when)

    def _seal_kind(self, copy: Copy, identity: Identity, kind: str) -> None:
        self._committer.seal(copy, kind=fmt.CURRENT, kinds={identity: kind})

    def _next_number(self) -> int:
        """One more than any number seen on any copy, or given before."""
        self._high = max(self._high, self._sources.highest_number()) + 1
        return self._high

    # -- copies ---------------------------------------------------------------

    def _seals(self) -> list[Seal]:
        return [c.seal for c in self._copies if c.seal]

    def _working(self) -> list[Copy]:
        """The copies that may be written and have not failed."""
        return [c for c in self._targets if c.id not in self.failed]

    def _reasons(self) -> dict[str, str]:
        return {v: f"error {e.code}" for v, e in self.failed.items()}

    def _guard(
        self, copy: Copy, step: Callable[..., None], *args: Any
    ) -> bool:
        """
        Run a step on one copy; a copy that failed is left alone.

        Being fenced ends the whole tenure.
        """
        if copy.id in self.failed:
            return False
        try:
            step(copy, *args)
        except errors.Fenced:
            raise
        except errors.Error as e:
            log.error("FAILED volume=%s code=%d %s", copy.id, e.code, e)
            self.failed[copy.id] = e
            copy.pending = None
            return False
        return True

    def _nothing_written(self) -> errors.Error:
        found = {e.code for e in self.failed.values()}
        if len(found) == 1:
            return next(iter(self.failed.values()))
        reason = "; ".join(f"{v}: {e}" for v, e in self.failed.items())
        return errors.NoCopyWritten(reason=reason or "there is no copy")
