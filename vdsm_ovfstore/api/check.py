# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The check of an archive that is being received.

An errand does it. From a fast peer it follows the spool file while that
grows, so that little is left to do when the last byte is there. A slow peer
would keep a process waiting that others may need: for it, and for one that
got slow, the errand starts when all is there.
"""

from __future__ import annotations

import os
import time
from typing import Any, Optional

from vdsm_ovfstore.api.runner import CHECK, Errand, Runner
from vdsm_ovfstore.api.task import Task

# Bytes a second: an errand checks about 30 MiB. Below SLOW it is given up,
# which costs what it has done so far; so between the two it may stay.
_FAST = 5 * 1024**2
_SLOW = _FAST / 2

# The speed counts from here on, in bytes; less is checked in no time.
_ENOUGH = 512 * 1024

# How many bytes come between two numbers that the errand is told.
_TOLD_EVERY = 256 * 1024


class Check:
    """
    Arguments:
        request: of the errand "prepare".
        tar: descriptor of the file that grows.
        body: one of an empty file, where the errand writes.
    """

    def __init__(
        self,
        runner: Runner,
        task: Task,
        request: dict[str, Any],
        tar: int,
        body: int,
    ) -> None:
        self._runner = runner
        self._task = task
        self._request = request
        self._path: str = request["path"]
        self._tar = tar
        self._body = body
        self._errand: Optional[Errand] = None
        self._pipe = -1
        self._given_up = False
        self._told = 0
        self._began = time.monotonic()

    def __enter__(self) -> Check:
        return self

    def __exit__(self, *exc: object) -> None:
        self._end()

    def more(self, there: int) -> None:
        """
        So many bytes are in the file now.

        Raises what the errand has met, if it has ended over it.
        """
        if there < _ENOUGH or self._given_up:
            return
        speed = there / max(time.monotonic() - self._began, 1e-6)
        if self._errand is not None:
            if speed < _SLOW:
                self._give_up()
            elif there - self._told >= _TOLD_EVERY:
                self._tell(there)
        elif speed >= _FAST and self._runner.is_free(CHECK, self._path):
            self._start()

    def finish(self) -> dict[str, Any]:
        """
        All is in the file; returns the facts for Prepared.

        Raises what is wrong with the archive.
        """
        if self._errand is None:
            self._start()
        assert self._errand is not None
        self._close_pipe()
        return self._errand.wait()

    def _start(self) -> None:
        read, self._pipe = os.pipe()
        # The errand may read slowly: it hears a later number, or the end.
        os.set_blocking(self._pipe, False)
        fds = (self._tar, self._body, read)
        try:
            self._errand = self._runner.start(
                self._task, self._request, fds, CHECK
            )
        finally:
            os.close(read)

    def _tell(self, there: int) -> None:
        self._told = there
        try:
            os.write(self._pipe, there.to_bytes(8, "little"))
        except BlockingIOError:
            pass
        except BrokenPipeError:
            assert self._errand is not None
            self._errand.wait()

    def _give_up(self) -> None:
        self._given_up = True
        self._end()
        os.ftruncate(self._body, 0)
        os.lseek(self._body, 0, os.SEEK_SET)

    def _end(self) -> None:
        self._close_pipe()
        if self._errand is not None:
            self._errand.close()
            self._errand = None

    def _close_pipe(self) -> None:
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1
