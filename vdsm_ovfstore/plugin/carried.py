# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The engine's uploads and downloads, inside of the SPM's tasks.

VDSM's HTTP handler gives a task a file to read from, or to write to, and the
task calls Image.copyToImage or copyFromImage with it. Ours are told by that
file: what it carries goes into the store, or comes from it, under the locks
and in the task that VDSM has for it. All others go on to VDSM's own code.
"""

from __future__ import annotations

import logging
import time
from typing import Any, Callable, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.stock_download import StockDownload
from vdsm_ovfstore.api.stock_upload import StockUpload
from vdsm_ovfstore.plugin.jobs import sentence
from vdsm_ovfstore.plugin.writers import Writers

log = logging.getLogger("ovfstore.plugin")


class Incoming:
    """An upload, in the place of the file that VDSM would read."""

    def __init__(
        self, upload: StockUpload, writers: Writers, timeout: float
    ) -> None:
        self._upload = upload
        self._writers = writers
        self._timeout = timeout
        self.error: Optional[errors.Error] = None
        """Why it failed; VDSM's task tells it in its own words."""

    def copy(self, domain: str, task: Any, stock: Callable[[Any], Any]) -> Any:
        """
        Write it.

        Arguments:
            task: VDSM's, in which we run: Task.stop ends the worker.
            stock: VDSM's own way, given a file; for what the store cannot
                take.

        Raises errors.Error.
        """
        upload = self._upload
        end = time.monotonic() + self._timeout
        with task.abort_callback(lambda: upload.abort(force=True)):
            with self._writers.writing(domain, upload, self._timeout):
                answer = upload.commit(max(end - time.monotonic(), 0))
                if not upload.fallback:
                    log.info(
                        "STORED domain=%s generation=%s sha256=%s",
                        *(domain, answer["generation"], answer["sha256"]),
                    )
                    return None
                log.warning(
                    "UNSEALED domain=%s: VDSM writes it, in place: %s",
                    *(domain, upload.fallback),
                )
                with upload.reader() as file:
                    return stock(file)


class Outgoing:
    """
    A download, in the place of the file that VDSM would write to.

    send takes a piece, and raises errors of its own when the peer is gone.
    """

    def __init__(
        self, download: StockDownload, send: Callable[[bytes], None]
    ) -> None:
        self._download = download
        self._send = send
        self._cancelled = False

    def cancel(self) -> None:
        """Send nothing, should it not have begun."""
        self._cancelled = True

    def copy(self) -> None:
        """Send it."""
        if self._cancelled:
            return
        for data in self._download.chunks():
            self._send(data)


def wrap(undo: Callable[..., Any], replace: Callable[..., None]) -> None:
    """Let Image.copyToImage and copyFromImage know of ours."""
    from vdsm.common.threadlocal import vars
    from vdsm.storage import exception as se
    from vdsm.storage.image import Image

    class StoreError(se.StorageException):  # type: ignore[misc]
        """An error of ours, with its code, as the task keeps it."""

        def __init__(self, error: errors.Error) -> None:
            self.code = error.code
            self.value = sentence(error)
            self.expected = True

        def __str__(self) -> str:
            return str(self.value)

    to_image, from_image = Image.copyToImage, Image.copyFromImage

    def copy_to_image(
        self: Any,
        methodArgs: Any,
        sdUUID: str,
        imgUUID: str,
        volUUID: Any = None,
    ) -> Any:
        carried = methodArgs.get("fileObj")
        if not isinstance(carried, Incoming):
            return to_image(self, methodArgs, sdUUID, imgUUID, volUUID)

        def stock(file: Any) -> Any:
            plain = {**methodArgs, "fileObj": file}
            return to_image(self, plain, sdUUID, imgUUID, volUUID)

        try:
            return carried.copy(sdUUID, vars.task, stock)
        except errors.Error as e:
            log.error("FAILED image=%s code=%d %s", imgUUID, e.code, e)
            carried.error = e
            raise StoreError(e) from None

    def copy_from_image(
        self: Any,
        methodArgs: Any,
        sdUUID: str,
        imgUUID: str,
        volUUID: Any,
    ) -> Any:
        carried = methodArgs.get("fileObj")
        if not isinstance(carried, Outgoing):
            return from_image(self, methodArgs, sdUUID, imgUUID, volUUID)
        return carried.copy()

    replace(undo, Image, "copyToImage", copy_to_image)
    replace(undo, Image, "copyFromImage", copy_from_image)
