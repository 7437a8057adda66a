# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The unchanged engine's own uploads and downloads, through the store.

Whoever speaks with the engine (the plugin in vdsmd) asks here what an image
is; what the engine sends is spooled and checked while nothing is locked; then
a worker commits it to the one volume that the engine named.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from vdsm_ovfstore.api.runner import SCAN, Runner
from vdsm_ovfstore.api.spool import Spool
from vdsm_ovfstore.api.stock_download import StockDownload
from vdsm_ovfstore.api.stock_known import Known, StockVolume
from vdsm_ovfstore.api.stock_upload import StockUpload
from vdsm_ovfstore.api.task import Task


class Stock:
    """Arguments: the processes and the spool of a service."""

    def __init__(self, runner: Runner, spool: Spool) -> None:
        self._runner = runner
        self._spool = spool
        self._known = Known()

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
        known = self._known.find(path, image, volume)
        if known is not None:
            return known
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
        self._known.remember(path, found)
        return found

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
        room = self._spool.reserve_upload(length)
        try:
            upload = StockUpload(
                self._known, self._runner, path, volume, length, room
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
