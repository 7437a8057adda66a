# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Transfers: one archive on its way to the storage, or from it.

A verb makes a transfer; the ticket in its URL, a secret, is worth one upload
or one download. What a transfer holds
(spool space, a process, a turn) it gives back at its end, whatever ends it;
what is told of it stays for a while.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
import uuid
from typing import Any, Optional, TypeVar

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.ended import Kept
from vdsm_ovfstore.api.faults import error_document
from vdsm_ovfstore.api.spool import Reservation
from vdsm_ovfstore.api.task import Task
from vdsm_ovfstore.format.record import isotime

log = logging.getLogger("ovfstore.api")

URL = "/ovf-store/transfers/"

# The states. WAITING is for the peer; those below are the end.
WAITING = "waiting"
RECEIVING = "receiving"
PREPARING = "preparing"
QUEUED = "queued"
WRITING = "writing"
SENDING = "sending"
DONE = "done"
FAILED = "failed"
ABORTED = "aborted"
EXPIRED = "expired"

# How the end is told to who comes too late.
_ENDINGS = {
    DONE: "it has been used",
    FAILED: "it has failed",
    ABORTED: "it was aborted",
    EXPIRED: "nobody came for it in time",
}
ENDED = tuple(_ENDINGS)

# Seconds that who comes waits for who is there. A peer has the last byte of
# an answer before we know that it was sent, and may come at once for more.
_PATIENCE = 1.0


class Transfer(Task):
    """
    What uploads and downloads have in common.

    One thread at a time works for it: enter() and leave().
    """

    kind: str

    def __init__(
        self, domain: str, size: int, room: Reservation, expires: float
    ) -> None:
        self.id = str(uuid.uuid4())
        super().__init__(f"{self.kind} {self.id}")
        self.ticket = secrets.token_hex(16)
        self.domain = domain
        self.size = size
        self.room = room
        self.state = WAITING
        self.transferred = 0
        self.result: Optional[dict[str, Any]] = None
        self.error: Optional[dict[str, Any]] = None
        self.ended_at: Optional[float] = None  # in time.monotonic()
        self._busy = threading.Lock()
        self._entered = False
        self._expires_in = expires
        self.extend()

    @property
    def url(self) -> str:
        return URL + self.ticket

    @property
    def expires(self) -> str:
        """ISO 8601."""
        return isotime(self._expires_at)

    def document(self) -> dict[str, Any]:
        """What getTransfer tells of it."""
        with self._lock:
            return {
                "transferID": self.id,
                "kind": self.kind,
                "storagedomainID": self.domain,
                "state": self.state,
                "size": self.size,
                "transferred": self.transferred,
                "step": self.step,
                "expires": self.expires,
                "result": self.result,
                "error": self.error,
            }

    def extend(self) -> None:
        """Start the time anew in which the peer must come."""
        self._expires_at = time.time() + self._expires_in
        self._deadline = time.monotonic() + self._expires_in

    def enter(self) -> None:
        """Raises errors.TransferRefused when it is not to be used now."""
        if not self._busy.acquire(timeout=_PATIENCE):
            raise self.refused("it is in use", gone=False)
        if self.aborted:
            # While somebody else used it, who ends it only after us.
            self.end(ABORTED)
        if self.state in ENDED:
            self._busy.release()
            raise self.refused(_ENDINGS[self.state], gone=True)
        self._entered = True

    def leave(self) -> None:
        """Idempotent."""
        if self._entered:
            self._entered = False
            self._busy.release()
            if self.aborted:
                # It may have come when nobody looked any more.
                self._end_unless_used(ABORTED)

    def expire(self) -> None:
        """End it if nobody came in time."""
        if time.monotonic() >= self._deadline:
            self._end_unless_used(EXPIRED)

    def abort(self, force: bool = False) -> None:
        if self.state in ENDED:
            return
        super().abort(force)
        # Else who uses it ends it.
        self._end_unless_used(ABORTED)

    def _end_unless_used(self, state: str) -> None:
        if self._busy.acquire(blocking=False):
            self.end(state)
            self._busy.release()

    def end(self, state: str, error: Optional[errors.Error] = None) -> None:
        """
        Give everything back; only who has entered it may call this.

        The first end counts.
        """
        if self.state in ENDED:
            return
        # First: who sees the end finds room for the next.
        self.room.close()
        with self._lock:
            self.error = error_document(error) if error else None
            self.step = ""
            self.state = state
            self.ended_at = time.monotonic()
        log.info(
            "END transfer=%s kind=%s state=%s bytes=%d of=%d",
            self.id,
            self.kind,
            state,
            self.transferred,
            self.size,
        )

    def failed(self, error: errors.Error) -> errors.Error:
        """End it so; returns the error to raise."""
        if isinstance(error, errors.Aborted):
            error = errors.Aborted(what=self.what)
        self.end(ABORTED if self.aborted else FAILED, error)
        return error

    def refused(self, reason: str, gone: bool) -> errors.TransferRefused:
        return errors.TransferRefused(
            transfer=self.id, reason=reason, gone=gone
        )


T = TypeVar("T", bound=Transfer)


class Registry:
    """The transfers of a host, those that ended for a while; see Kept."""

    def __init__(self, limit: int, remember: float, remembered: int) -> None:
        self._kept: Kept[Transfer] = Kept(limit, remember, remembered)
        self._lock = threading.Lock()

    def check_room(self) -> None:
        """Raises errors.HostBusy."""
        with self._lock:
            self._check_room()

    def _check_room(self) -> None:
        self._kept.check_room("transfers are open")

    def add(self, transfer: T) -> T:
        """Raises errors.HostBusy; then the transfer's room is given back."""
        with self._lock:
            try:
                self._check_room()
            except errors.HostBusy:
                transfer.room.close()
                raise
            self._kept.add(transfer.id, transfer)
        log.info(
            "ADD transfer=%s kind=%s domain=%s size=%d",
            transfer.id,
            transfer.kind,
            transfer.domain,
            transfer.size,
        )
        return transfer

    def get(self, transfer_id: str) -> Transfer:
        """Raises errors.TransferNotFound."""
        with self._lock:
            transfer = self._kept.get(transfer_id)
        if transfer is None:
            raise errors.TransferNotFound()
        return transfer

    def of_ticket(self, ticket: str, kind: type[T]) -> T:
        """
        Raises errors.TransferNotFound; TransferRefused when it is of another
        kind.
        """
        for transfer in self._all():
            # In constant time: a ticket is a secret.
            if secrets.compare_digest(transfer.ticket, ticket):
                if not isinstance(transfer, kind):
                    raise transfer.refused(
                        f"it is for {transfer.kind}", gone=False
                    )
                return transfer
        raise errors.TransferNotFound()

    def running(self) -> list[Transfer]:
        with self._lock:
            return self._kept.running()

    def sweep(self) -> None:
        """Expire what nobody came for, and forget what ended long ago."""
        for transfer in self.running():
            transfer.expire()
        with self._lock:
            self._kept.forget()

    def _all(self) -> list[Transfer]:
        with self._lock:
            return self._kept.all()
