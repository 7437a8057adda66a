# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The unchanged engine's own uploads and downloads, through the store.

Whoever speaks with the engine (the plugin in vdsmd) asks here what an image
is; what the engine sends is spooled and checked while nothing is locked; then
a worker commits it to the one volume that the engine named. An upload that
VDSM would take is not refused for our sake: what the store cannot take is left
to VDSM, which writes it as ever.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from typing import IO, Any, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.check import Check
from vdsm_ovfstore.api.runner import SCAN, Runner
from vdsm_ovfstore.api.spool import Reservation, Spool
from vdsm_ovfstore.api.task import Task
from vdsm_ovfstore.store import launch
from vdsm_ovfstore.store.prepare import Prepared, write_spool

log = logging.getLogger("ovfstore.api")

# An upload holds the tar, and at worst as much again, compressed, with a few
# bytes of zlib's and the index.
_SPOOL_FACTOR = 2
_SPOOL_MORE = 1024**2

_PIECE = 256 * 1024

# Volumes that are remembered. A pool has tens of domains, of two each.
_KNOWN = 1000

# What the store cannot take, and a plain volume can.
_LEFT_TO_VDSM = (
    errors.NotAnArchive,
    errors.ArchiveTruncated,
    errors.MemberRefused,
    errors.OvfRefused,
    errors.ArchiveTooLarge,
    errors.NoRoom,
)


class StockVolume(NamedTuple):
    """
    An OVF_STORE volume that the engine has named.

    newest and length are those of the newest generation of the store; "" and
    0 if there is none.
    """

    id: str
    image: str
    newest: str
    length: int


class Stock:
    """
    Arguments: the processes and the spool of a service.

    It remembers which volumes are ours, since the engine comes again; the
    worker looks for itself.
    """

    def __init__(self, runner: Runner, spool: Spool) -> None:
        self._runner = runner
        self._spool = spool
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], str] = {}
        # The newest generation of a domain, as far as we know.
        self._newest: dict[str, tuple[str, int]] = {}

    def volume(
        self, path: str, image: str, volume: Optional[str]
    ) -> Optional[StockVolume]:
        """
        What an image is; None if it is none of ours.

        Arguments:
            path: the domain's directory.
            volume: id of the volume, if the engine named it.

        Raises errors.HostBusy, WorkerFailed, StorageFailed: it cannot be
        told now.
        """
        with self._lock:
            known = self._known.get((path, image))
            newest = self._newest.get(path, ("", 0))
        if known is not None and volume in (None, known):
            return StockVolume(known, image, *newest)
        request = {
            "verb": "stock volume",
            "path": path,
            "image": image,
            "volume": volume,
        }
        answer = self._runner.run(Task(f"look at image {image}"), request)
        if answer["volume"] is None:
            return None
        found = StockVolume(
            answer["volume"], image, answer["newest"], answer["length"]
        )
        self.remember(path, found)
        return found

    def remember(self, path: str, volume: StockVolume) -> None:
        """That is a volume of ours, and that the newest generation."""
        with self._lock:
            if len(self._known) >= _KNOWN:
                self._known.clear()
                self._newest.clear()
            self._known[path, volume.image] = volume.id
            self._newest[path] = (volume.newest, volume.length)

    def forget(self, path: str, volume: StockVolume) -> None:
        """Look again the next time."""
        with self._lock:
            self._known.pop((path, volume.image), None)
            self._newest.pop(path, None)

    def receive(
        self,
        path: str,
        volume: StockVolume,
        length: int,
        chunks: Iterator[bytes],
    ) -> StockUpload:
        """
        Take and check what the engine sends; the caller closes it.

        Raises:
            errors.HostBusy, ArchiveTooLarge, SpoolFull, TargetRefused: there
                is no room to spool it. Nothing was read of chunks in the
                first two cases.
            errors.TransferIncomplete: chunks ended early; and what it
                raises.
        """
        room = self._spool.reserve(_SPOOL_FACTOR * length + _SPOOL_MORE)
        try:
            upload = StockUpload(
                self, self._runner, path, volume, length, room
            )
            upload.receive(chunks)
            return upload
        except BaseException:
            room.close()
            raise

    def read(
        self, path: str, volume: StockVolume, length: int
    ) -> StockDownload:
        """
        What a download of that many bytes gets; the caller closes it.

        All of it was verified. Raises errors.StoreEmpty, GenerationNotFound,
        Damaged; HostBusy.
        """
        room = self._spool.reserve(length)
        try:
            fd = room.file()
            request = {
                "verb": "stock read",
                "path": path,
                "volume": volume.id,
                "length": length,
            }
            task = Task(f"read volume {volume.id}")
            answer = self._runner.run(task, request, (fd,), SCAN)
            return StockDownload(fd, answer["length"], length, room)
        except BaseException:
            room.close()
            raise


class StockUpload(Task):
    """
    What the engine sent, whole, in the spool.

    fallback says why the store cannot take it: then it is for VDSM's own
    code to write, from reader(). Empty if it can.
    """

    def __init__(
        self,
        stock: Stock,
        runner: Runner,
        path: str,
        volume: StockVolume,
        length: int,
        room: Reservation,
    ) -> None:
        super().__init__(f"upload to volume {volume.id}")
        self._stock = stock
        self._runner = runner
        self._path = path
        self._volume = volume
        self._room = room
        self.length = length
        self.sha256 = ""
        self.fallback = ""
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
        cannot take it. Raises what the worker met, Aborted.
        """
        if self.fallback:
            return {}
        options = self._runner.options(self, self._path, timeout)
        answer: dict[str, Any] = {}
        # Unless it turns out well.
        self._stock.forget(self._path, self._volume)
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
            self._stock.remember(self._path, now)
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
            options,
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


class StockDownload:
    """
    A verified archive, followed by zeros.

    Attributes:
        length: bytes in all, as the engine asked for.
    """

    def __init__(
        self, fd: int, stored: int, length: int, room: Reservation
    ) -> None:
        self._fd = fd
        self._stored = stored
        self.length = length
        self._room = room

    def chunks(self) -> Iterator[bytes]:
        """All of it, in pieces."""
        done = 0
        while done < self.length:
            if done >= self._stored:
                data = bytes(min(_PIECE, self.length - done))
            else:
                wanted = min(_PIECE, self._stored - done)
                data = os.pread(self._fd, wanted, done)
            if not data:
                raise errors.SourceUnreadable(
                    path="the spool file", reason=f"it ends at byte {done}"
                )
            done += len(data)
            yield data

    def close(self) -> None:
        """Idempotent."""
        self._room.close()
