# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Sending an archive to a host.

A host that refuses says so before the end, and closes: while we send we look
for its answer, and where the connection is gone with it we ask what became
of the transfer. An error of the host is never lost behind a broken pipe.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.client import digests, failure
from vdsm_ovfstore.client.message import Response, request
from vdsm_ovfstore.client.sources import Source
from vdsm_ovfstore.client.transfer import Progress, Ticket, check_ended
from vdsm_ovfstore.client.transport import Connection

log = logging.getLogger("ovfstore.client")

# Seconds for which a host may think about the head of a request before its
# body is sent all the same (RFC 9110, 10.1.1): what refuses an upload is
# known there at once.
_EXPECT = 5.0


def upload(
    ticket: Ticket, source: Source, progress: Progress
) -> dict[str, Any]:
    """
    Send it, and wait for the commit; returns the result document.

    Raises the host's error; errors.SourceUnreadable, HostUnreachable, and
    Damaged when the host committed something else.
    """
    return _Upload(ticket, source, progress).run()


class _Upload:
    def __init__(
        self, ticket: Ticket, source: Source, progress: Progress
    ) -> None:
        self._ticket = ticket
        self._source = source
        self._progress = progress
        self._sha256 = source.sha256
        self._sent = 0

    def run(self) -> dict[str, Any]:
        try:
            result = self._put()
        except errors.HostUnreachable as e:
            if failure.kind_of(e) not in (failure.LOST, failure.TIMEOUT):
                raise
            result = self._outcome(e)
        return self._verified(result)

    def _put(self) -> Any:
        connection = self._ticket.pool.take(fresh=True)
        with contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            response = self._send(connection)
            if response is None:
                seen = self._ticket.follow(connection, self._progress)
                if seen is not None:
                    check_ended(seen)
                    return seen.get("result")
                response = Response.read(connection)
            if response.status != 200:
                raise response.error()
            result = response.json()
            if self._sent == self._source.size:
                stack.pop_all()
                self._ticket.pool.put(connection, response)
        return result

    def _send(self, connection: Connection) -> Optional[Response]:
        """Returns the answer, if there is one before all was sent."""
        headers = {
            "Content-Type": "application/x-tar",
            "Content-Length": str(self._source.size),
            "Expect": "100-continue",
        }
        if self._sha256 is not None:
            headers["Repr-Digest"] = digests.header(self._sha256)
        head = request(connection, "PUT", self._ticket.url, headers)
        if connection.send(head, until_answered=True) < len(head):
            return Response.read(connection)
        if connection.answered(min(_EXPECT, self._ticket.pool.timeout)):
            response = Response.read_any(connection)
            if response.status >= 200:
                return response
        try:
            return self._send_body(connection)
        except errors.HostUnreachable:
            raise
        except Exception:
            # The source failed. Cut first: an abort is refused where all
            # was received.
            connection.close()
            self._ticket.abort()
            raise

    def _send_body(self, connection: Connection) -> Optional[Response]:
        digest = None if self._sha256 else hashlib.sha256()
        for data in self._source.chunks():
            view = memoryview(data)
            while view:
                count = connection.send(view, until_answered=True)
                self._sent += count
                view = view[count:]
                if view:
                    response = Response.read_any(connection)
                    if response.status >= 200:
                        return response
            if digest is not None:
                digest.update(data)
            self._progress("sending", self._sent, self._source.size)
        if digest is not None:
            self._sha256 = digest.hexdigest()
        return None

    def _outcome(self, broken: errors.HostUnreachable) -> Any:
        """
        What came of it after the connection broke: a host that has all goes
        on without us.
        """
        log.info("BROKEN transfer=%s reason=%s", self._ticket.id, broken)
        try:
            seen = self._ticket.outcome(self._progress)
        except (
            errors.TransferNotFound,
            errors.HostUnreachable,
            errors.HostBusy,
        ) as e:
            raise self._unknown(broken, e) from None
        if seen.get("state") in ("waiting", "receiving"):
            self._ticket.abort()
            raise broken
        check_ended(seen)
        return seen.get("result")

    def _unknown(
        self, broken: errors.HostUnreachable, why: errors.Error
    ) -> errors.HostUnreachable:
        """why: what kept the host from telling."""
        if self._sent < self._source.size:
            return broken
        then = "cannot be asked what came of it"
        if isinstance(why, errors.TransferNotFound):
            then = "has forgotten the transfer"
        return failure.unreachable(
            self._ticket.pool.address,
            failure.LOST,
            f"{broken.reason}, and {then}; the archive may have been written "
            "or not, and can be sent again",
            "Run: ovfstore history DOMAIN",
        )

    def _verified(self, result: Any) -> dict[str, Any]:
        address = self._ticket.pool.address
        if not isinstance(result, dict):
            raise failure.bad_answer(address, "an upload without a result")
        if result.get("length") != self._source.size:
            raise errors.Damaged(
                what="The uploaded archive",
                reason=f"{self._source.size} bytes were sent, the host "
                f"committed {result.get('length')}",
            )
        # None: the host had the last byte before we had hashed it.
        if self._sha256 and result.get("sha256") != self._sha256:
            raise errors.Damaged(
                what="The uploaded archive",
                reason=f"sent was sha256 {self._sha256}, the host committed "
                f"{result.get('sha256')}",
            )
        return result
