# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What an upload and a download have in common: one transfer of a host.

The verb that makes a transfer says where its stream goes; getTransfer says
how far the host is, over another connection. So a host is waited for as long
as it works, and what went wrong there is heard even when the stream broke.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any, Callable, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.client import failure
from vdsm_ovfstore.client.calls import Caller
from vdsm_ovfstore.client.pool import Pool
from vdsm_ovfstore.client.told import told
from vdsm_ovfstore.client.transport import Connection

# Is told what is being done, how much is done, and of how much; that is 0
# where it is not known.
Progress = Callable[[str, int, int], None]

_URL = "/ovf-store/transfers/"

# States in which the host works, and needs nothing from us.
_WORKING = ("preparing", "queued", "writing")
_ENDED = ("done", "failed", "aborted", "expired")

# Seconds between two looks at what a host is doing: a wait that nobody
# notices, then one small call a second.
_LOOK_MIN, _LOOK_MAX = 0.05, 1.0

# Seconds in which a host notices that a connection was cut, so that what it
# says of the transfer is about that.
_NOTICES = 2.0


def silent(what: str, done: int, total: int) -> None:
    """No progress is shown."""


class Patience:
    """
    For who looks again and again.

    seconds: how long a host may give no news.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pause = _LOOK_MIN
        self.renew()

    def renew(self) -> None:
        """There was news."""
        self._until = time.monotonic() + self._seconds

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._until

    def pause(self) -> float:
        """Seconds until the next look; more each time."""
        pause, self._pause = self._pause, min(self._pause * 1.5, _LOOK_MAX)
        return pause


class Ticket:
    """
    A transfer that a host has promised; document is the verb's answer.

    Raises errors.HostUnreachable when that is not one.
    """

    def __init__(
        self, pool: Pool, caller: Caller, document: dict[str, Any]
    ) -> None:
        self.pool = pool
        self.document = document
        self._caller = caller
        self.id: str = self.field("transferID", str)
        self.url: str = self.field("url", str)
        # It becomes a line of a request.
        name = self.url[len(_URL) :].replace("-", "").replace("_", "")
        plain = name.isascii() and name.isalnum()
        if not (self.url.startswith(_URL) and plain):
            raise failure.bad_answer(pool.address, "the URL of a transfer")

    def field(self, name: str, kind: type) -> Any:
        value = self.document.get(name)
        if not isinstance(value, kind):
            raise failure.bad_answer(
                self.pool.address, f"a transfer without {name}"
            )
        return value

    def look(self) -> dict[str, Any]:
        """What getTransfer tells."""
        return self._caller.call("getTransfer", {"transferID": self.id})

    def abort(self) -> None:
        """Tell the host that nobody will come, if that can be told."""
        with contextlib.suppress(errors.Error):
            self._caller.call("abort", {"transferID": self.id})

    def follow(
        self, connection: Connection, progress: Progress
    ) -> Optional[dict[str, Any]]:
        """
        Wait for the answer of a stream, for as long as the host works.

        Returns None when the answer can be read; else what getTransfer
        tells of a transfer that has ended and gives no answer.
        """
        patience = Patience(self.pool.timeout)
        ended: Optional[dict[str, Any]] = None
        while not connection.answered(_LOOK_MAX):
            if ended is not None:
                return ended
            try:
                seen = self.look()
            except (errors.HostUnreachable, errors.HostBusy) as e:
                if patience.is_over or not failure.may_pass(e):
                    raise
                continue
            state = seen.get("state")
            if state in _WORKING:
                patience.renew()
                progress(str(seen.get("step") or state), 0, 0)
            elif state in _ENDED:
                ended = seen  # and the answer is on its way
            elif patience.is_over:
                raise connection.timed_out()
        return None

    def outcome(self, progress: Progress) -> dict[str, Any]:
        """
        What became of a transfer whose connection broke.

        Waits for as long as the host works for it. Returns what getTransfer
        tells; where the state is none of an end, the host knows nothing of
        what happened.
        """
        patience = Patience(self.pool.timeout)
        notices = Patience(min(_NOTICES, self.pool.timeout))
        while True:
            try:
                seen = self.look()
            except (errors.HostUnreachable, errors.HostBusy) as e:
                if patience.is_over or not failure.may_pass(e):
                    raise
            else:
                state = seen.get("state")
                if state in _WORKING:
                    patience.renew()
                    notices.renew()
                    progress(str(seen.get("step") or state), 0, 0)
                elif state in _ENDED or notices.is_over:
                    return seen
            time.sleep(patience.pause())


def check_ended(seen: dict[str, Any]) -> None:
    """Raises the error that ended a transfer, unless it is done."""
    state = seen.get("state")
    if isinstance(seen.get("error"), dict):
        raise told(seen["error"])
    if state == "aborted":
        raise errors.Aborted(what=f"transfer {seen.get('transferID')}")
    if state != "done":
        raise errors.TransferRefused(
            transfer=seen.get("transferID"),
            reason=f"it is {state}",
            gone=True,
        )
