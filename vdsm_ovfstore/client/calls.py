# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Calling verbs: JSON-RPC 2.0 over connections that are kept.

Calls that only look are made again where that may help. All others are sent
once: what happened to a call that got no answer is not known.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import time
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.client import failure
from vdsm_ovfstore.client.message import Response, request
from vdsm_ovfstore.client.pool import Pool
from vdsm_ovfstore.client.told import told
from vdsm_ovfstore.client.transport import Connection

log = logging.getLogger("ovfstore.client")

_PATH = "/ovf-store/rpc"
_NAMESPACE = "OvfStore"

# Verbs that change nothing, so that a call may be sent twice.
READING = frozenset(
    (
        "ping",
        "list",
        "getInfo",
        "getTransfer",
        "getJobs",
        "getVm",
        "getHistory",
        "diff",
        "listVms",
    )
)

# Seconds between two calls of a busy host that does not say when.
_BACKOFF_MIN, _BACKOFF_MAX = 0.1, 5.0


class Caller:
    """Calls verbs of a host. total: seconds for one call, repeats included."""

    def __init__(self, pool: Pool, total: float) -> None:
        self._pool = pool
        self._total = total
        self._ids = itertools.count(1)

    def call(self, verb: str, params: dict[str, Any]) -> dict[str, Any]:
        """
        Return the result of a verb. Parameters that are None are not sent.

        Raises the error of the host; errors.HostUnreachable.
        """
        params = {k: v for k, v in params.items() if v is not None}
        deadline = time.monotonic() + self._total
        if verb not in READING:
            return self._once(verb, params, deadline)
        pause = _BACKOFF_MIN
        broken = False
        while True:
            try:
                return self._once(verb, params, deadline)
            except _Closed as e:
                if broken:
                    raise e.error from None
                log.debug("RECONNECT verb=%s reason=%s", verb, e.error)
                broken = True
                self._pool.close()
            except errors.HostBusy as e:
                # Not all of those who were sent away at the same instant.
                wait = max(pause, e.retry_after) * (
                    1 + os.urandom(1)[0] / 1024
                )
                if time.monotonic() + wait > deadline:
                    raise
                log.debug("BUSY verb=%s wait=%.1f", verb, wait)
                time.sleep(wait)
                pause = min(pause * 2, _BACKOFF_MAX)

    def _once(
        self, verb: str, params: dict[str, Any], deadline: float
    ) -> dict[str, Any]:
        repeatable = verb in READING
        connection = self._pool.take(not repeatable, deadline)
        kept = connection.answers > 0
        number = next(self._ids)
        call = {
            "jsonrpc": "2.0",
            "id": number,
            "method": f"{_NAMESPACE}.{verb}",
            "params": params,
        }
        try:
            try:
                response = self._exchange(connection, call)
            except errors.HostUnreachable as e:
                if kept and repeatable and failure.kind_of(e) == failure.LOST:
                    raise _Closed(e) from None
                raise
            result = _result(response, number)
        except errors.HostUnreachable:
            connection.close()
            raise
        except errors.Error:
            self._pool.put(connection, response)
            raise
        except BaseException:
            connection.close()
            raise
        self._pool.put(connection, response)
        return result

    def _exchange(
        self, connection: Connection, call: dict[str, Any]
    ) -> Response:
        body = json.dumps(call).encode("ascii")
        headers = {
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        }
        connection.send(
            request(connection, "POST", _PATH, headers) + body,
            until_answered=True,
        )
        return Response.read(connection)


class _Closed(Exception):
    """A kept connection broke before an answer came."""

    def __init__(self, error: errors.HostUnreachable) -> None:
        super().__init__()
        self.error = error


def _result(response: Response, number: int) -> dict[str, Any]:
    document = response.json()
    if not isinstance(document, dict):
        raise response.bad("its answer is no JSON object")
    if document.get("jsonrpc") != "2.0":
        # Refused before it was seen as a call: busy, headers too large.
        if response.status >= 400 and isinstance(document.get("error"), dict):
            raise told(document["error"], response.retry_after())
        raise response.bad("its answer is no JSON-RPC 2.0")
    error = document.get("error")
    answered = document.get("id")
    if answered != number and not (error is not None and answered is None):
        raise response.bad(f"it answered call {answered!r}, not {number}")
    if error is not None:
        data = error.get("data") if isinstance(error, dict) else None
        sent = {**error, **data} if isinstance(data, dict) else error
        raise told(sent, response.retry_after())
    result = document.get("result")
    if not isinstance(result, dict):
        raise response.bad("its answer has no result")
    return result
