# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A tenure for an upload of the engine's own.

VDSM has locked the image of the one volume that the engine named. So only
there a head is written; and no metadata at all, for DESCRIPTION is what the
engine writes before and after. Into the logs of the other members goes what
must be there before a number is given:

    claim      as ever: who wrote before us is fenced
    adopt      what a host without us uploaded to another volume becomes a
               generation, named by that volume's seal; its head shows it
    level      the newest generation

Any other head that is not as it should be (torn, damaged, in the middle of a
commit) stays as it is, for an upload to that volume or for whoever heals.
"""

from __future__ import annotations

from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import seal as fmt
from vdsm_ovfstore.format.seal import Entry, Head, Identity
from vdsm_ovfstore.store import classify
from vdsm_ovfstore.store.commit import Committer
from vdsm_ovfstore.store.content import Content
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.healing import Healer
from vdsm_ovfstore.store.prepare import Prepared
from vdsm_ovfstore.store.tenure import Tenure


class StockTenure(Tenure):
    """
    Arguments, before those of Tenure:
        volume: the one that the engine has named. It becomes a member.
        sha256: of the archive that is uploaded.
    """

    def __init__(
        self, volume: str, sha256: str, *how: Any, **more: Any
    ) -> None:
        self._volume = volume
        self._sha256 = sha256
        more["join"] = frozenset([volume])
        super().__init__(*how, **more)

    def _make_committer(self, *how: Any) -> Committer:
        return StockCommitter(self._volume, *how)

    def _make_healer(self, *how: Any) -> Healer:
        return StockHealer(self._volume, *how)

    def _level(self) -> None:
        """Every log gets the newest generation."""
        newest = self.newest()
        if newest is None:
            return
        for copy in self._working():
            self._guard(copy, self._pin_single, newest)
            # What is uploaded itself comes with its commit.
            repeats = newest.sha256 == self._sha256
            if copy.id != self._volume or not repeats:
                self._guard(copy, self._log_newest, newest)

    def _log_newest(self, copy: Copy, newest: Entry) -> None:
        mine = copy.find(newest.identity)
        if mine is None or not self._sources.is_sound(copy, mine):
            source = self._sources.find(newest.identity)
            assert source is not None
            self._committer.log(
                copy, source, newest.identity, newest.time, newest.kind
            )

    def _receivers(self) -> list[Copy]:
        return [c for c in self._working() if c.id == self._volume]

    def _nothing_written(self) -> errors.Error:
        return self.failed.get(self._volume) or super()._nothing_written()


class StockCommitter(Committer):
    """Writes the head of one volume, and no metadata."""

    def __init__(self, volume: str, *how: Any) -> None:
        super().__init__(*how)
        self._volume = volume

    def _write_head(
        self, copy: Copy, head: Head, content: Optional[Content]
    ) -> None:
        if copy.id != self._volume:
            raise errors.StorageFailed(
                operation="read",
                path=copy.volume.path,
                reason="somebody else writes to the head now",
            )
        super()._write_head(copy, head, content)

    def _describe(self, copy: Copy, head: Head) -> None:
        """It is the engine's."""


class StockHealer(Healer):
    """Heals one volume, and adopts what is on the others."""

    def __init__(self, volume: str, *how: Any) -> None:
        super().__init__(*how)
        self._volume = volume

    def heal(self, copy: Copy) -> None:
        if copy.id == self._volume:
            return super().heal(copy)
        verdict = classify.classify(copy, self._sources.find_head)
        if verdict.kind == classify.ADOPT:
            self._adopt(copy, verdict.length or 0)
        elif verdict.kind == classify.CLEAN:
            self._adopt_late(copy)
            self._seal_description(copy)

    def _seal_description(self, copy: Copy) -> None:
        # That of the volume is in the next seal: that of the upload.
        if copy.id != self._volume:
            super()._seal_description(copy)

    def _commit(
        self,
        copy: Copy,
        content: Prepared,
        identity: Identity,
        when: int,
        kind: str = fmt.GENERATION,
    ) -> None:
        head = Head(identity[0], content.length, content.sha256)
        if copy.id == self._volume or copy.shows(head):
            super()._commit(copy, content, identity, when, kind)
        else:
            # A suspect whose description came late: for its log alone.
            self._committer.log(copy, content, identity, when, kind)
