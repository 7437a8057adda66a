# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
One upload of the unchanged engine's own: spooled, checked, committed.

What VDSM would take is not refused for our sake: what the store cannot take
is left to VDSM, if there is room for it.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator
from typing import IO, Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.check import Check
from vdsm_ovfstore.api.runner import SCAN, Runner
from vdsm_ovfstore.api.spool import Reservation
from vdsm_ovfstore.api.stock_known import Known, StockVolume
from vdsm_ovfstore.api.task import Task
from vdsm_ovfstore.store import launch
from vdsm_ovfstore.store.prepare import Prepared, write_spool

log = logging.getLogger("ovfstore.api")

# What the store cannot take, and a plain volume can.
_LEFT_TO_VDSM = (
    errors.NotAnArchive,
    errors.ArchiveTruncated,
    errors.MemberRefused,
    errors.OvfRefused,
    errors.ArchiveTooLarge,
    errors.NoRoom,
    errors.StorageFull,
)


class StockUpload(Task):
    """
    What the engine sent, whole, in the spool.

    fallback says why the store cannot take it: then it is for VDSM's own
    code to write, from reader(). Empty if it can.
    """

    def __init__(
        self,
        known: Known,
        runner: Runner,
        path: str,
        volume: StockVolume,
        length: int,
        room: Reservation,
    ) -> None:
        super().__init__(f"upload to volume {volume.id}")
        self._known = known
        self._runner = runner
        self._path = path
        self._volume = volume
        self._room = room
        self.length = length
        self.sha256 = ""
        self.fallback = ""
        self._full: Optional[errors.StorageFull] = None
        self._tar = room.file()
        self._prepared: Optional[Prepared] = None

    def receive(self, chunks: Iterator[bytes]) -> None:
        """See Stock.receive."""
        digest, done = hashlib.sha256(), 0
        with contextlib.ExitStack() as stack:
            check = None
            # The engine sends one archive to each volume. One that is as
            # long as the newest is it, as a rule, and was checked before.
            if self.length != self._volume.length:
                check = stack.enter_context(self._check())
            for data in chunks:
                self.check()
                write_spool(self._tar, data)
                digest.update(data)
                done += len(data)
                if check is not None and not self.fallback:
                    with self._taking():
                        check.more(done)
            if done != self.length:
                raise errors.TransferIncomplete(
                    done=done,
                    length=self.length,
                    reason="that was the end",
                    stalled=False,
                )
            self.sha256 = digest.hexdigest()
            if self.sha256 != self._volume.newest and not self.fallback:
                check = check or stack.enter_context(self._check())
                self._finish(check)

    def commit(self, timeout: float) -> dict[str, Any]:
        """
        Let a worker commit it to the volume.

        Arguments:
            timeout: seconds to wait for the leases.

        Returns the answer of Job.stock(); {} if fallback says that the store
        cannot take it. Raises what the worker met, Aborted; StorageFull if
        the file system has no room for it, in whatever way.
        """
        self.check()
        answer = {} if self.fallback else self._store(timeout)
        if self.fallback:
            self._check_room()
        return answer

    def _store(self, timeout: float) -> dict[str, Any]:
        """{} if it is left to VDSM after all."""
        options = self._runner.options(self, self._path, timeout)
        answer: dict[str, Any] = {}
        # Unless it turns out well.
        self._known.forget(self._path, self._volume)
        with self._taking(), self._told_right():
            answer = self._commit(options)
            if answer["generation"] is None:
                # Somebody wrote another generation meanwhile.
                with self._check() as check:
                    self._finish(check)
                answer = {} if self.fallback else self._commit(options)
        if answer:
            now = self._volume._replace(
                newest=answer["sha256"], length=answer["length"]
            )
            self._known.remember(self._path, now)
        return answer

    @contextlib.contextmanager
    def _told_right(self) -> Iterator[None]:
        """Who is stopped by force may have written."""
        try:
            yield
        except errors.Aborted as e:
            if not self.writes:
                raise
            raise errors.WorkerFailed(reason=f"{e}, by force") from None

    def _commit(self, options: launch.Options) -> dict[str, Any]:
        return launch.stock(
            self._path,
            self._volume.id,
            self._prepared,
            self.sha256,
            self._tar,
            options,
        )

    def _check_room(self) -> None:
        """
        VDSM truncates the volume before it finds out that there is none.

        And what a full file system has kept us from keeping must not be lost
        on the way. Raises errors.StorageFull.
        """
        request = {
            "verb": "stock room",
            "path": self._path,
            "volume": self._volume.id,
            "length": self.length,
        }
        try:
            found = self._runner.run(self, request, (), SCAN)
        except errors.Aborted:
            raise
        except errors.Error as e:
            log.warning("ROOM UNKNOWN volume=%s: %s", self._volume.id, e)
            found = {"fits": True, "kept": False}
        if self._full is not None and not (found["fits"] and found["kept"]):
            raise self._full
        if not found["fits"]:
            raise errors.StorageFull(
                operation="write", path=self._path, reason=self.fallback
            )

    def reader(self) -> IO[bytes]:
        """What was sent, from its beginning, for VDSM's own code."""
        os.lseek(self._tar, 0, os.SEEK_SET)
        return open(os.dup(self._tar), "rb")

    def close(self) -> None:
        """Idempotent."""
        self._room.close()

    def _check(self) -> Check:
        request = {
            "verb": "prepare",
            "path": self._path,
            "size": self.length,
            "sha256": None,
            "stock": True,
        }
        self._body = self._room.file()
        return Check(self._runner, self, request, self._tar, self._body)

    def _finish(self, check: Check) -> None:
        with self._taking():
            facts = check.finish()
            self._prepared = Prepared(self._tar, self._body, facts)

    @contextlib.contextmanager
    def _taking(self) -> Iterator[None]:
        """What the store cannot take is left to VDSM."""
        try:
            yield
        except _LEFT_TO_VDSM as e:
            log.warning("LEFT TO VDSM volume=%s: %s", self._volume.id, e)
            self.fallback = str(e)
            if isinstance(e, errors.StorageFull):
                self._full = e
