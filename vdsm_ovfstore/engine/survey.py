# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A look at the source: what has changed goes into the state, page by page.

One entity never stops the others: what is locked or changes waits, what is
bad keeps its last good OVF, both are written down.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Sequence
from typing import NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.engine import entities, facts
from vdsm_ovfstore.engine.entities import Known
from vdsm_ovfstore.engine.source import Item, Source
from vdsm_ovfstore.engine.state import set_meta, writing

log = logging.getLogger("ovfstore.updater")

# In the state: when the source was listed to its end.
SURVEYED = "surveyed"

# So few may always be removed at once, whatever their share.
_FEW = 10

_NEW = Known("", "", 0, "", 0.0, "", "")

# Bytes of OVFs that are held until they are stored, beside one more OVF.
_HELD = 16 * 2**20


class Limits(NamedTuple):
    """
    batch: entities of one page, and one transaction; locked_wait: seconds;
    removals: per cent of all entities that may go at once.
    """

    batch: int
    locked_wait: float
    removals: int


class Outcome(NamedTuple):
    """How many there are, and were changed, removed, waiting, bad."""

    entities: int
    changed: int
    removed: int
    waiting: int
    bad: int


class Survey:
    """One look. See run()."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        source: Source,
        limits: Limits,
        accept_removals: bool = False,
    ) -> None:
        self._connection = connection
        self._source = source
        self._limits = limits
        self._accept = accept_removals
        self._known = entities.all_known(connection)
        self._seen: set[str] = set()
        self._changed = self._waiting = self._bad = 0

    def run(self) -> Outcome:
        """
        Raises errors.SourceFailed; what was seen before is kept. And
        errors.SourceShrunk, when all but the removals is done.
        """
        for page in self._source.pages(self._limits.batch):
            self._page(page)
        gone = sorted(self._known.keys() - self._seen)
        gone = [entity for entity in gone if self._source.is_gone(entity)]
        with writing(self._connection):
            set_meta(self._connection, SURVEYED, repr(time.time()))
        self._check_removals(len(gone))
        self._remove(gone)
        return Outcome(
            *(len(self._seen), self._changed, len(gone)),
            *(self._waiting, self._bad),
        )

    def _check_removals(self, count: int) -> None:
        allowed = len(self._known) * self._limits.removals // 100
        # An empty source has not been filled yet, or is not mounted.
        empty = count == len(self._known) and count > 0
        if self._accept or not (empty or count > max(allowed, _FEW)):
            return
        log.error("SHRUNK removed=%d known=%d", count, len(self._known))
        raise errors.SourceShrunk(removed=count, known=len(self._known))

    def _remove(self, gone: Sequence[str]) -> None:
        for begin in range(0, len(gone), self._limits.batch):
            with writing(self._connection):
                for entity in gone[begin : begin + self._limits.batch]:
                    log.info("REMOVE entity=%s", entity)
                    entities.remove(self._connection, entity)

    def _page(self, page: Sequence[Item]) -> None:
        # Read before the transaction: a slow source locks nobody out.
        work: list[tuple[Item, _Found]] = []
        held = 0
        for item in page:
            found = self._look(item)
            work.append((item, found))
            held += len(found.data)
            if held > _HELD:
                self._store(work)
                work, held = [], 0
        self._store(work)

    def _store(self, work: Sequence[tuple[Item, _Found]]) -> None:
        with writing(self._connection):
            for item, found in work:
                self._seen.add(item.id)
                known = self._known.get(item.id, _NEW)
                # One that is locked stays as it is known, as a whole.
                if item.status != known.status and not found.waiting:
                    entities.set_status(
                        self._connection, item.id, known.status, item.status
                    )
                found.store(self._connection, item, known)

    def _look(self, item: Item) -> _Found:
        known = self._known.get(item.id, _NEW)
        if item.locked and not self._is_overdue(known):
            self._waiting += 1
            return _Found(waiting=item.locked)
        if item.version and item.version == known.version:
            self._bad += bool(known.problem)
            late = f"{item.locked}, waited long enough" if item.locked else ""
            return _Found(same=True, waiting=late)
        try:
            return self._read(item, known)
        except errors.SourceFailed:
            raise
        except errors.Error as e:
            self._bad += 1
            return _Found(problem=str(e))
        except Exception as e:
            # Whatever an OVF may do to us, the others go on.
            log.exception("SPOILT entity=%s", item.id)
            self._bad += 1
            unexpected = errors.Unexpected(
                kind=type(e).__name__, reason=str(e) or "no details"
            )
            return _Found(problem=str(unexpected))

    def _read(self, item: Item, known: Known) -> _Found:
        data = item.data
        try:
            if data is None:
                data = self._source.read(item)
        except errors.EntityChanging as e:
            if not self._is_overdue(known):
                self._waiting += 1
                return _Found(waiting=str(e))
            data = e.data  # it never rests; if it is well-formed it will do
        digest = hashlib.sha256(data).hexdigest()
        if digest == known.sha256:
            return _Found(same=True, good=True)
        if digest == known.refused:
            self._bad += 1
            return _Found(problem=known.problem)
        found = facts.read_facts(data, item.id)
        if found.domains == (facts.EVERYWHERE,):
            where = (facts.EVERYWHERE + item.pool,)
            found = found._replace(domains=where)
        self._changed += 1
        return _Found(data=data, facts=found)

    def _is_overdue(self, known: Known) -> bool:
        since = known.waiting_since
        return bool(since) and time.time() - since >= self._limits.locked_wait


class _Found(NamedTuple):
    """
    What a look at one entity came to.

    same: it is as it was; good: and was read to know that.
    """

    same: bool = False
    good: bool = False
    waiting: str = ""
    problem: str = ""
    data: bytes = b""
    facts: Optional[facts.Facts] = None

    def store(
        self, connection: sqlite3.Connection, item: Item, known: Known
    ) -> None:
        if self.waiting and not self.same:
            if self.waiting != known.waiting:
                log.info("WAIT entity=%s reason=%r", item.id, self.waiting)
            entities.wait(connection, item.id, self.waiting)
            return
        if self.problem:
            if self.problem != known.problem:
                log.error("BAD entity=%s reason=%r", item.id, self.problem)
            entities.spoilt(connection, item.id, self.problem)
        elif self.facts is not None:
            log.debug(
                "CHANGED entity=%s generation=%d domains=%s",
                item.id,
                self.facts.generation,
                ",".join(self.facts.domains),
            )
            # Marks come first, within the same transaction.
            entities.take(connection, item.id, self.data, self.facts)
        elif known.problem and self.good:
            entities.healed(connection, item.id)
        if item.version != known.version or known.waiting:
            if not self.waiting:
                entities.set_version(connection, item.id, item.version)
