# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Healing one copy: its segments, then its head.

A head is never changed before it is known what it is (classify.py), and
nothing that may be somebody's data is dropped: it is adopted, or kept in the
log as a suspect.
"""

from __future__ import annotations

import logging
from typing import Callable, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import description
from vdsm_ovfstore.format import seal as fmt
from vdsm_ovfstore.format.archive import RECORD
from vdsm_ovfstore.format.seal import Entry, Head, Identity
from vdsm_ovfstore.store import classify, retention
from vdsm_ovfstore.store.commit import Committer
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.prepare import Prepared, prepare
from vdsm_ovfstore.store.sources import Sources
from vdsm_ovfstore.store.stored import StoredSegment

log = logging.getLogger("ovfstore.store")

DAY = 86400  # seconds by which the clocks of hosts may differ


class Healer:
    """
    Arguments:
        level_log: makes sure that every member has the newest generation in
            its log, or is excluded; called before an adoption gets a number.
        next_number: gives the next number.
        newest: the newest generation of the store.
        now: the clock, Unix seconds.
        deep: verify and mend all segments, not only the newest two, whose
            loss would hurt before the next deep verify.
    """

    def __init__(
        self,
        committer: Committer,
        sources: Sources,
        level_log: Callable[[Copy, Entry], None],
        next_number: Callable[[], int],
        newest: Callable[[], Optional[Entry]],
        now: Callable[[], float],
        deep: bool = False,
    ) -> None:
        self._deep = deep
        self._committer = committer
        self._sources = sources
        self._level_log = level_log
        self._next_number = next_number
        self._newest = newest
        self._now = now
        self.done: list[str] = []
        # In this tenure.
        self._adopted: set[Identity] = set()

    def heal(self, copy: Copy) -> None:
        """Raises errors.Error; the copy is then left alone."""
        self._scrub(copy)
        verdict = classify.classify(copy, self._sources.find_head)
        log.info("CLASSIFY volume=%s verdict=%s", copy.id, verdict.kind)
        if verdict.kind == classify.ROLL:
            self._committer.project(copy)
            self._tell("finished an interrupted write", copy)
        elif verdict.kind == classify.ADOPT:
            self._adopt(copy, verdict.length or 0)
        elif verdict.kind == classify.SUSPECT:
            self._set_aside(copy)
        elif verdict.kind == classify.UNSEALED:
            self._keep_suspect(copy)
        elif verdict.kind == classify.CLEAN:
            self._adopt_late(copy)
            self._seal_description(copy)

    def _scrub(self, copy: Copy) -> None:
        """Mend damaged segments from another copy."""
        entries = retention.by_age(copy.entries())
        for entry in entries if self._deep else entries[:2]:
            if self._sources.is_sound(copy, entry):
                continue
            if self._committer.rewrite(copy, entry):
                self._tell(f"rewrote generation {entry.generation}", copy)

    def _adopt(self, copy: Copy, length: int) -> None:
        """Take in what a stock host wrote to this head."""
        content = prepare(copy.head_chunks(length), strict=False)
        try:
            if not self._was_ours(copy, content):
                self._adopt_content(copy, content)
            elif copy.seal is None:
                self._keep_suspect(copy)  # levelling brings the newest
            else:
                self._set_aside(copy)
        finally:
            content.close()

    def _was_ours(self, copy: Copy, content: Prepared) -> bool:
        """
        True for other content under the description of a known generation.

        The copy has lost its log or its newest seal, and its head is damaged:
        a flipped bit is no upload. Not where that generation was such a head
        a moment ago: of two with nothing to tell which is right both stay.
        """
        if copy.seal is not None and not copy.seal.replacing:
            return False
        _, described = copy.description()
        if described is None:
            return False
        stamp = described.size, described.last_updated
        known = [e for e in self._sources.entries() if e.shown]
        return all(e.sha256 != content.sha256 for e in known) and any(
            (e.length, e.time) == stamp
            for e in known
            if e.identity not in self._adopted
        )

    def _adopt_content(self, copy: Copy, content: Prepared) -> None:
        when = self._stock_time(copy)
        newest = self._newest()
        if newest is not None and newest.sha256 == content.sha256:
            # Seen on a second copy: no fault makes the same damage twice.
            self._commit(copy, content, newest.identity, newest.time)
            self._tell(f"confirmed generation {newest.generation}", copy)
            return
        if newest is not None:
            self._level_log(copy, newest)
        identity = (self._next_number(), content.sha256)
        self._adopted.add(identity)
        log.info("ADOPT volume=%s generation=%d sha256=%s", copy.id, *identity)
        self._commit(copy, content, identity, when, fmt.UNPROVEN)
        self._tell(f"adopted generation {identity[0]}", copy)

    def _commit(
        self,
        copy: Copy,
        content: Prepared,
        identity: Identity,
        when: int,
        kind: str = fmt.GENERATION,
    ) -> None:
        self._committer.commit(copy, content, identity, when, kind, newest=1)

    def _stock_time(self, copy: Copy) -> int:
        """When the stock upload was made, if its date can be believed."""
        now = int(self._now())
        _, described = copy.description()
        when = (described.last_updated if described else None) or now
        return when if 0 < when <= now + DAY else now

    def _adopt_late(self, copy: Copy) -> None:
        """Adopt the latest suspect when its description has arrived."""
        assert copy.seal is not None
        raw, described = copy.description()
        if described is None or not described.updated or not described.size:
            return
        sealed = description.parse(copy.seal.description, copy.volume.domain)
        if sealed is not None and described._replace(raw="") == (
            sealed._replace(raw="")
        ):
            return  # no upload: a name or an alias was edited
        head = copy.seal.head
        if sealed is not None and not sealed.updated:
            # An upload of the engine's came through us, and that is what its
            # description is about; the suspect is an older story.
            if head is not None and head.length == described.size:
                return
        suspects = [e for e in copy.entries() if not e.shown]
        latest = max(suspects, key=lambda e: e.time, default=None)
        if latest is None:
            return
        content = _archive_in(copy.segment(latest), described.size)
        if content is None:
            return
        try:
            # Adopted before, it is history now and must not come again.
            known = {e.sha256 for e in copy.entries() if e.shown}
            if content.sha256 not in known:
                self._adopt_content(copy, content)
        finally:
            content.close()

    def _seal_description(self, copy: Copy) -> None:
        """
        Seal a description that was rewritten over a clean head.

        Under another than the sealed one a damaged head would be taken for
        a stock upload.
        """
        assert copy.seal is not None
        raw, _ = copy.description()
        if raw != copy.seal.description:
            self._committer.seal(copy, kind=fmt.CURRENT, description=raw)

    def _set_aside(self, copy: Copy) -> None:
        """Keep a head that nobody vouches for, then project the newest."""
        assert copy.seal is not None and copy.seal.head is not None
        suspect = self._keep_suspect(copy)
        if self._sources.find_head(copy.seal.head) is None:
            return  # levelling brings what is left
        self._committer.seal(
            copy,
            kind=fmt.REPLACING,
            previous=suspect or fmt.EMPTY_HEAD,
            description=copy.description()[0],
        )
        self._committer.project(copy)
        self._tell("rewrote a damaged head", copy)

    def _keep_suspect(self, copy: Copy) -> Optional[Head]:
        """Keep the head in the log; None when there is nothing in it."""
        length = _suspect_length(copy)
        if length == 0:
            return None
        content = prepare(copy.head_chunks(length), raw=True)
        try:
            head = Head(0, content.length, content.sha256)
            if not any(e.sha256 == head.sha256 for e in copy.entries()):
                log.info("SUSPECT volume=%s length=%d", copy.id, length)
                self._log_suspect(copy, content)
            return head
        finally:
            content.close()

    def _log_suspect(self, copy: Copy, content: Prepared) -> None:
        try:
            when = int(self._now())
            self._committer.keep(copy, content, 0, when, fmt.SUSPECT)
        except errors.NoRoom as e:
            # Too large to be kept, and no archive that anybody vouches for.
            # Were it left where it is, nothing could be written any more.
            log.error("DROPPED volume=%s suspect: %s", copy.id, e)
            self._tell("could not keep a suspect head, it is too large", copy)
            return
        self._committer.seal(copy, kind=fmt.CLAIM)
        self._tell("kept a suspect head", copy)

    def _tell(self, what: str, copy: Copy) -> None:
        self.done.append(f"{what} on {copy.id}")


def _suspect_length(copy: Copy) -> int:
    """
    Bytes of the head that may be data: all but the zeros at its end.

    A record of zeros stays: an archive ends with zeros too, and when its
    description arrives late it must be all there.
    """
    end = offset = 0
    for data in copy.head_chunks(copy.volume.head_size()):
        used = len(data.rstrip(b"\0"))
        if used:
            end = offset + used
        offset += len(data)
    return min(offset, end + RECORD) if end else 0


def _archive_in(suspect: StoredSegment, size: int) -> Optional[Prepared]:
    """The archive of `size` bytes that a suspect is, or None."""
    if suspect.length < size:
        return None
    try:
        rest = suspect.tar_range(size, suspect.length)
        if any(data.strip(b"\0") for data in rest):
            return None
        return prepare(suspect.tar_range(0, size), strict=False)
    except errors.TargetRefused:
        raise
    except errors.Error as e:
        log.info("SUSPECT is no archive of %d bytes: %s", size, e)
        return None
