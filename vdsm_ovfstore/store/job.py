# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What a worker does, from taking the leases to giving them back."""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from typing import Any, Optional, cast

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.record import isotime
from vdsm_ovfstore.store import guard, left
from vdsm_ovfstore.store.content import Content
from vdsm_ovfstore.store.locked import Locked
from vdsm_ovfstore.store.past import PastTenure
from vdsm_ovfstore.store.prepare import Prepared
from vdsm_ovfstore.store.sent import Sent
from vdsm_ovfstore.store.stock import StockTenure
from vdsm_ovfstore.store.tenure import Outcome, Tenure

log = logging.getLogger("ovfstore.store")


class Job(Locked):
    """One write to the store of one domain; arguments as Locked has them."""

    def upload(
        self, content: Prepared, drop: Optional[int] = None
    ) -> dict[str, Any]:
        """
        Commit a prepared archive as the newest generation.

        Arguments:
            drop: see guard.objections(); None: nothing speaks against it.

        Returns the answer: generation, sha256, length, entities, time,
        unchanged, copies, degraded, healed, lease_seconds. Raises
        errors.UploadDoubtful, NoCopyWritten and what each copy met.
        """
        with self._tenure() as tenure:
            if drop is not None:
                self._check_doubts(tenure, content, drop)
            outcome = tenure.upload(content)
        return {**_uploaded(outcome, content), **self._report(tenure)}

    def stock(
        self,
        volume: str,
        content: Optional[Prepared],
        sha256: str,
        tar: int,
    ) -> dict[str, Any]:
        """
        Commit an upload of the engine's own to one volume.

        The engine writes each volume of the domain by itself, and their
        DESCRIPTIONs before and after; the same archive on the next volume is
        the same generation. A volume that was no member becomes one.

        Arguments:
            content: None if it should be the newest generation already.
            sha256: of the archive.
            tar: descriptor of a spool file that holds it.

        Returns the answer of upload(); None as its generation if content is
        needed after all. Raises errors.VolumeNotFound too.
        """
        make = functools.partial(StockTenure, volume, sha256)
        with self._tenure(make) as tenure:
            found: Optional[Content] = content
            if found is None:
                stored = tenure.content(sha256)
                found = Sent(stored, tar) if stored is not None else None
            answer: dict[str, Any] = {"generation": None}
            if found is not None:
                self._tell_doubts(tenure, volume, found)
                answer = _uploaded(tenure.upload(found), found)
        return {**answer, **self._report(tenure)}

    def _check_doubts(
        self, tenure: Tenure, content: Content, drop: int
    ) -> None:
        """
        Raises errors.UploadDoubtful when something speaks against content.
        """
        newest = tenure.newest()
        before = tenure.content(newest.sha256) if newest else None
        if not newest or not before or newest.sha256 == content.sha256:
            return
        found = guard.objections(before, content, self._domain.id, drop)
        if found:
            raise errors.UploadDoubtful(
                reason="; ".join(found), generation=newest.generation
            )

    def _tell_doubts(
        self, tenure: Tenure, volume: str, content: Content
    ) -> None:
        """The engine is not refused; the commit pins what is there."""
        try:
            self._check_doubts(tenure, content, guard.DROP)
        except errors.UploadDoubtful as e:
            log.warning(
                "DOUBT volume=%s generation=%d %s",
                *(volume, e.generation, e.reason),
            )

    def restore(self, wanted: str) -> dict[str, Any]:
        """
        Make the content of an older generation the newest one.

        Arguments:
            wanted: what --generation takes.

        Returns the answer of upload(), and restored: the number of the older
        one. Raises errors.GenerationNotFound, GenerationAmbiguous, Damaged.
        """
        with self._past() as tenure:
            entry = tenure.find(wanted)
            with tenure.local(entry) as content:
                answer = _uploaded(tenure.upload(content), content)
        answer["restored"] = entry.generation
        return {**answer, **self._report(tenure)}

    def pin(self, wanted: str, keep: bool) -> dict[str, Any]:
        """
        Keep a generation, or let it go in its time.

        Returns the answer: generation, sha256, pinned, copies that have it,
        degraded, healed, lease_seconds. Raises as restore(), PinRefused.
        """
        with self._past() as tenure:
            entry = tenure.find(wanted)
            answer = {
                "generation": entry.generation,
                "sha256": entry.sha256,
                "pinned": keep,
                "copies": tenure.pin(entry) if keep else tenure.unpin(entry),
            }
        return {**answer, **self._report(tenure)}

    def _past(self) -> contextlib.AbstractContextManager[PastTenure]:
        return cast(
            "contextlib.AbstractContextManager[PastTenure]",
            self._tenure(PastTenure),
        )

    def heal(self) -> dict[str, Any]:
        """
        What every upload does before it writes: see Tenure.

        Returns the answer of repair(), which looks at all generations.
        """
        return self.repair(deep=False)

    def join(self) -> dict[str, Any]:
        """
        Let all volumes that are there be members, and none that is gone.

        Returns the answer of create(), which makes volumes as well.
        """
        joined, gone = self._strangers()
        answer: dict[str, Any] = {"created": [], "joined": joined}
        if joined or gone:
            strangers = frozenset(joined)
            with self._tenure(join=strangers, forget=gone) as tenure:
                pass
            answer.update(self._report(tenure))
        answer["copies"] = [v.id for v in self._volumes()]
        return answer

    def repair(
        self, deep: bool = True, collect: bool = False
    ) -> dict[str, Any]:
        """
        Mend what can be mended, and bring all copies to the newest
        generation.

        Arguments:
            deep: of all generations, not only of the newest two.
            collect: remove the logs that nobody uses, when it is time.

        Returns the answer: generation, sha256 (None when there is none),
        copies that are complete now, degraded, healed, lease_seconds.
        """
        with self._tenure(deep=deep) as tenure:
            newest = tenure.newest()
            answer = {
                "generation": newest.generation if newest else None,
                "sha256": newest.sha256 if newest else None,
                "copies": tenure.complete(),
            }
            if deep:
                tenure.healed.extend(self._tend(tenure, collect))
        return {**answer, **self._report(tenure)}

    def _tend(self, tenure: Tenure, collect: bool) -> list[str]:
        """See left.tend; only when all was seen that may be there."""
        volumes = {v.id for v in self._volumes()}
        if self._domain.problems or tenure.failed:
            return []
        now = int(time.time())
        try:
            return left.tend(
                self._domain, volumes, tenure.copies, collect, now
            )
        except errors.StorageFailed as e:
            # The store itself is mended; that is what the answer is about.
            log.error("FAILED left logs of domain=%s: %s", self._domain.id, e)
            return []

    def create(
        self, copies: int, capacity: int, format_lease: Any = None
    ) -> dict[str, Any]:
        """
        Make volumes until the store has that many copies.

        Volumes that were there but no members become members, and members
        that are gone are members no more. Where there are generations, the
        new copies get the newest. Returns the answer: created, joined,
        copies, degraded, healed, lease_seconds.
        """
        created: list[str] = []
        with self._locked(self._domain_lease()):
            have = self._volumes()
            while len(have) + len(created) < copies:
                self._progress("creating a volume")
                volume = self._domain.create_volume(capacity, format_lease)
                created.append(volume.id)
        return {**self.join(), "created": created}


def _uploaded(outcome: Outcome, content: Content) -> dict[str, Any]:
    return {
        "generation": outcome.generation,
        "sha256": outcome.sha256,
        "length": content.length,
        "entities": content.entities,
        "time": isotime(outcome.time),
        "unchanged": outcome.unchanged,
        "copies": outcome.copies,
    }
