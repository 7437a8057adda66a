# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A tenure for who wants something with a generation of the past.

    restore    its content becomes the newest generation, under a new number
    pin        retention leaves it alone, whatever the settings
    unpin      it goes when its time has come
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import seal as fmt
from vdsm_ovfstore.format.seal import Entry, Identity
from vdsm_ovfstore.store import naming, retention, space
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.prepare import Prepared
from vdsm_ovfstore.store.tenure import Tenure

# What a user's pin leaves for uploads: an archive of twice the length of the
# newest, and this.
_SPARE = 1024**2


class PastTenure(Tenure):
    """Use after begin()."""

    def find(self, wanted: str) -> Entry:
        """
        The generation that "12" or "12:<digest>" means.

        Raises errors.GenerationNotFound, GenerationAmbiguous.
        """
        found = {
            e.identity: e
            for c in self._copies
            for e in c.entries()
            if e.shown
        }
        return found[naming.choose(wanted, found)]

    @contextlib.contextmanager
    def local(self, entry: Entry) -> Iterator[Prepared]:
        """
        A generation, in local files: where it stands now room may be made.

        Raises errors.Damaged when no two halves of it are left.
        """
        prepared = self._sources.salvage(entry)
        if prepared is None:
            raise errors.Damaged(
                what=f"Generation {entry.generation}",
                reason="no copy has all of it any more",
                path=self._copies[0].volume.path,
            )
        with contextlib.closing(prepared):
            yield prepared

    def pin(self, entry: Entry) -> list[str]:
        """
        Keep a generation; returns the copies that do.

        Raises errors.PinRefused when too little room would be left.
        """
        for copy in self._working():
            self._check_room(copy, entry)
        return self._set(entry.identity, retention.USER)

    def unpin(self, entry: Entry) -> list[str]:
        """Let it go in its time; returns the copies that have it."""
        # Else the next tenure would find the fork, and pin it again.
        fork = any(
            mine.pinned in (retention.FORK, retention.RELEASED)
            for copy in self._working()
            for mine in [copy.find(entry.identity)]
            if mine is not None
        )
        return self._set(entry.identity, retention.RELEASED if fork else "")

    def _set(self, identity: Identity, pinned: str) -> list[str]:
        done = [
            copy.id
            for copy in self._working()
            if copy.find(identity) is not None
            and self._guard(copy, self._seal_pin, identity, pinned)
        ]
        if not done:
            raise self._nothing_written()
        return done

    def _seal_pin(self, copy: Copy, identity: Identity, pinned: str) -> None:
        mine = copy.find(identity)
        assert mine is not None and copy.seal is not None
        if mine.pinned != pinned:
            self._committer.seal(
                copy,
                kind=fmt.CLAIM,
                pins={identity: pinned},
                introduces=copy.seal.introduces,
            )

    def _check_room(self, copy: Copy, entry: Entry) -> None:
        """Raises errors.PinRefused."""
        mine = copy.find(entry.identity)
        if mine is None or mine.pinned == retention.USER:
            return
        entries = [
            e._replace(pinned=retention.USER) if e == mine else e
            for e in copy.entries()
        ]
        left = space.largest_segment(entries, copy.segment_room())
        needed = 2 * max(e.stored for e in copy.entries() if e.shown) + _SPARE
        if left < needed:
            raise errors.PinRefused(
                generation=entry.generation,
                volume=copy.id,
                left=left,
                needed=needed,
            )
