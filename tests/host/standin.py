# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A service of a few verbs, and transfers with real files.

In place of api.service, so that these tests show what HTTP does alone.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import threading
from collections.abc import Iterator
from typing import IO, Any, Callable, Optional

from vdsm_ovfstore import errors


class StandIn:
    """
    Attributes:
        transfers: see Transfers.
        verbs: what call() does, by verb.
    """

    def __init__(self) -> None:
        self.transfers = Transfers()
        self.verbs: dict[str, Callable[[dict[str, Any]], Any]] = {
            "ping": lambda params: {"api": 1},
            "echo": lambda params: params,
        }

    def call(self, verb: str, params: dict[str, Any]) -> dict[str, Any]:
        if verb not in self.verbs:
            raise errors.RequestInvalid(reason=f"there is no verb {verb!r}")
        answer: dict[str, Any] = self.verbs[verb](params)
        return answer

    def status(self) -> dict[str, Any]:
        return {"state": "ready"}


class Transfers:
    """
    Tickets "up" (any number of times) and those given with offer().

    Attributes:
        open: transfers that were begun and not closed.
        failures: why uploads failed, in order.
        received: digests of uploads, in order.
        announced: digests that uploads were begun with, in order.
        sent: where the parts of downloads ended, in order.
        begin_error: raised instead of beginning.
        stop_after: refuse uploads when they have so many bytes.
        shrink: downloads lose all but their first piece while they are sent.
        abort: downloads are aborted after their first piece.
        spool: write uploads to a file; else they are only counted.
    """

    def __init__(self) -> None:
        self.open = 0
        self.failures: list[errors.Error] = []
        self.received: list[str] = []
        self.announced: list[Optional[str]] = []
        self.sent: list[int] = []
        self.begin_error: Optional[Exception] = None
        self.stop_after: Optional[int] = None
        self.shrink = False
        self.abort = False
        self.spool = True
        self._lock = threading.Lock()
        self._offers: dict[str, bytes] = {}

    def offer(self, ticket: str, content: bytes) -> None:
        self._offers[ticket] = content

    def begin_upload(
        self, ticket: str, length: int, sha256: Optional[str]
    ) -> Upload:
        if self.begin_error is not None:
            raise self.begin_error
        if ticket != "up":
            raise errors.TransferNotFound()
        self.announced.append(sha256)
        return Upload(self, length)

    def begin_download(self, ticket: str) -> Download:
        if self.begin_error is not None:
            raise self.begin_error
        if ticket not in self._offers:
            raise errors.TransferNotFound()
        return Download(self, self._offers[ticket])

    def count(self, change: int) -> None:
        with self._lock:
            self.open += change


class Upload:
    def __init__(self, transfers: Transfers, length: int) -> None:
        self._transfers = transfers
        self._length = length
        self._file = _spool_file() if transfers.spool else None
        transfers.count(1)

    def receive(self, chunks: Iterator[bytes]) -> dict[str, Any]:
        digest, done = hashlib.sha256(), 0
        try:
            for chunk in chunks:
                done += len(chunk)
                if self._file is not None:
                    digest.update(chunk)
                    self._file.write(chunk)
                stop_after = self._transfers.stop_after
                if stop_after is not None and done >= stop_after:
                    raise errors.NotAnArchive(reason="no tar header")
        except errors.Error as e:
            self._transfers.failures.append(e)
            raise
        self._transfers.received.append(digest.hexdigest())
        return {"length": done, "sha256": digest.hexdigest()}

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        self._transfers.count(-1)


class Download:
    content_type = "application/x-tar"
    filename = 'a "name"\r\n.tar'

    def __init__(self, transfers: Transfers, content: bytes) -> None:
        self._transfers = transfers
        self._file = _spool_file()
        self._file.write(content)
        self._file.flush()
        self.size = len(content)
        self.sha256 = hashlib.sha256(content).hexdigest()
        transfers.count(1)

    @property
    def fd(self) -> int:
        return self._file.fileno()

    def sent(self, end: int) -> None:
        self._transfers.sent.append(end)
        if self._transfers.shrink:
            os.ftruncate(self.fd, end)
        if self._transfers.abort:
            raise errors.Aborted(what="download x")

    def close(self) -> None:
        self._file.close()
        self._transfers.count(-1)


def _spool_file() -> IO[bytes]:
    return tempfile.TemporaryFile()
