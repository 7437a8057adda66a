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

import logging
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

log = logging.getLogger("ovfstore.store")


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

    def begin(self) -> None:
        """Raises what is wrong with the volume; VolumeNotFound."""
        super().begin()
        if not self._receivers():
            raise self._nothing_written()

    def _make_committer(self, *how: Any) -> Committer:
        return StockCommitter(self._volume, *how)

    def _make_healer(self, *how: Any) -> Healer:
        return StockHealer(self._volume, self._sha256, *how)

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
        return self.failed.get(self._volume) or errors.VolumeNotFound(
            domain=self._domain, what=f" {self._volume}", path=""
        )


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

    def __init__(self, volume: str, sha256: str, *how: Any) -> None:
        super().__init__(*how)
        self._volume = volume
        self._sha256 = sha256

    def heal(self, copy: Copy) -> None:
        if copy.id == self._volume:
            return super().heal(copy)
        find = self._sources.find_head
        if classify.begins_as_sealed(copy, find):
            verdict = classify.Verdict(classify.CLEAN)
        else:
            verdict = classify.classify(copy, find)
        log.info("LOOK volume=%s verdict=%s", copy.id, verdict.kind)
        if verdict.kind == classify.ADOPT:
            self._adopt(copy, verdict.length or 0)
        elif verdict.kind == classify.CLEAN:
            self._adopt_late(copy)
            self._seal_description(copy)

    def _seal_description(self, copy: Copy) -> None:
        if copy.id == self._volume:
            return  # the next seal has it: that of the upload
        # The engine is about to write the others, too, and their descriptions;
        # except where it was before, with this archive.
        newest = self._newest()
        if newest is not None and newest.sha256 == self._sha256:
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
