# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
An upload: received into the spool and checked, then written.

    peer --bytes--> host --> spool file ... errand: checks, compresses
                                             |
                                     facts   v
                             turn of the domain --> worker: leases, commit

Nothing waits for the peer once the worker has started.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.check import Check
from vdsm_ovfstore.api.faults import unexpected
from vdsm_ovfstore.api.runner import Runner
from vdsm_ovfstore.api.spool import Reservation
from vdsm_ovfstore.api.transfers import (
    DONE,
    PREPARING,
    QUEUED,
    RECEIVING,
    WRITING,
    Transfer,
)
from vdsm_ovfstore.store import launch
from vdsm_ovfstore.store.prepare import Prepared, write_spool


class Upload(Transfer):
    """
    Arguments:
        path: the domain's directory.
        sha256: what the verb announced, or None.
        timeout: seconds to wait for the domain's turn, and for its leases.
        check_result: raises errors.Unexpected for one that is not as the
            definition has it.
    """

    kind = "upload"
    changes = True

    def __init__(
        self,
        runner: Runner,
        domain: str,
        path: str,
        size: int,
        sha256: Optional[str],
        timeout: float,
        room: Reservation,
        expires: float,
        check_result: Callable[[dict[str, Any]], None],
        drop: Optional[int] = None,
    ) -> None:
        super().__init__(domain, size, room, expires)
        self._check_result = check_result
        self._runner = runner
        self._path = path
        self._sha256 = sha256
        self._timeout = timeout
        self._drop = drop

    def begin(self, length: int, sha256: Optional[str]) -> None:
        """
        A peer is about to send; before any of its bytes is read.

        A first attempt is the only one: what came of a broken one nobody
        knows but getTransfer.

        Raises errors.TransferRefused, ArchiveMismatch.
        """
        self.enter()
        try:
            if length != self.size:
                raise errors.ArchiveMismatch(
                    reason=f"{length} bytes are to come, {self.size} were "
                    "announced"
                )
            if sha256 is not None and self._sha256 not in (None, sha256):
                raise errors.ArchiveMismatch(
                    reason=f"its sha256 is to be {sha256}, announced was "
                    f"{self._sha256}"
                )
            self._sha256 = sha256 or self._sha256
            self.state = RECEIVING
        except errors.Error as e:
            self.failed(e)
            self.leave()
            raise

    def receive(self, chunks: Iterator[bytes]) -> dict[str, Any]:
        """
        Take the archive; returns the document of what was committed.

        chunks raises errors.Error when the peer fails.
        """
        try:
            prepared = self._receive(chunks)
            self.result = self._write(prepared)
            self.end(DONE)
            return self.result
        except errors.Error as e:
            raise self.failed(e) from None
        except BaseException as e:
            self.failed(unexpected(e))
            raise

    def close(self) -> None:
        """The peer's request is over."""
        self.leave()

    def _receive(self, chunks: Iterator[bytes]) -> Prepared:
        tar, body = self.room.file(), self.room.file()
        request = {
            "verb": "prepare",
            "path": self._path,
            "size": self.size,
            "sha256": self._sha256,
        }
        with Check(self._runner, self, request, tar, body) as check:
            for data in chunks:
                self.check()
                write_spool(tar, data)
                self.transferred += len(data)
                check.more(self.transferred)
            self.check()
            if self.transferred != self.size:
                raise errors.TransferIncomplete(
                    done=self.transferred,
                    length=self.size,
                    reason="that was the end",
                    stalled=False,
                )
            self.state = PREPARING
            return Prepared(tar, body, check.finish())

    def _write(self, prepared: Prepared) -> dict[str, Any]:
        self.state = QUEUED
        with self._runner.writer(
            self, self.domain, self._path, self._timeout
        ) as options:
            self.state = WRITING
            answer = launch.upload(
                self._path, prepared, options, self._drop
            )
        result = {"domain": self.domain, "path": self._path, **answer}
        self._check_result(result)
        return result
