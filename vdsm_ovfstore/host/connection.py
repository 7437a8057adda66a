# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""One connection, from its first byte to its last."""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable, Optional, Protocol

from vdsm_ovfstore.host import answers, head
from vdsm_ovfstore.host.exchange import Exchange, Headers, PeerGone, Request
from vdsm_ovfstore.host.limits import Limits
from vdsm_ovfstore.host.wire import Wire

log = logging.getLogger("ovfstore.host")


# Seconds after which a connection that waits for its next request is sent
# away when there is no room for another one; and one that waits for its
# first: its peer may still be busy with TLS.
_GIVES_WAY = 1.0
_GIVES_WAY_FIRST = 5.0

# Characters of an error in the log: all of our own, with paths and ids.
# Names that come from peers and archives may be long.
_PROBLEM = 500


class App(Protocol):
    """What answers."""

    def handle(self, exchange: Exchange) -> None: ...


class Connection:
    """
    Serves requests one after the other, in a thread of its own (run).

    Arguments:
        number: for the log.
        client: the address of the peer, for the log.
        local: came through the socket in the file system.
        ended: called when all is over.
    """

    def __init__(
        self,
        number: int,
        wire: Wire,
        client: str,
        local: bool,
        app: App,
        limits: Limits,
        ended: Callable[[Connection], None],
    ) -> None:
        self._number = number
        self._wire = wire
        self._client = client
        self._local = local
        self._app = app
        self._limits = limits
        self._ended = ended
        self._lock = threading.Lock()
        self._waiting = True
        self._gives_way = time.monotonic() + _GIVES_WAY_FIRST
        self._leaving = False
        self._closed = False

    # -- from other threads ---------------------------------------------------

    def gives_way(self) -> Optional[float]:
        """When it may be sent away (time.monotonic()); None if it is busy."""
        return self._gives_way if self._waiting else None

    @property
    def leaving(self) -> bool:
        """Whether it was told to end."""
        return self._leaving

    def send_away(self) -> None:
        """End it, unless a request has just come."""
        with self._lock:
            if self._waiting and not self._closed:
                self._leaving = True
                self._wire.abort()

    def leave(self) -> None:
        """End it: now if it waits, else after the request it has."""
        with self._lock:
            self._leaving = True
            if self._waiting and not self._closed:
                self._wire.abort()

    def abort(self) -> None:
        """End it now."""
        with self._lock:
            self._leaving = True
            if not self._closed:
                self._wire.abort()

    # -- its own thread -------------------------------------------------------

    def run(self) -> None:
        """Serve until the end. Never raises."""
        began, requests = time.monotonic(), 0
        log.debug("OPEN connection=%d client=%s", self._number, self._client)
        try:
            if self._handshake():
                while self._next(requests):
                    requests += 1
                    if not self._serve():
                        break
        except Exception:
            log.exception("Unexpected error connection=%d", self._number)
        finally:
            with self._lock:
                self._closed = True
                self._wire.close()
            log.debug(
                "CLOSE connection=%d client=%s requests=%d seconds=%.1f",
                self._number,
                self._client,
                requests,
                time.monotonic() - began,
            )
            self._ended(self)

    def _handshake(self) -> bool:
        try:
            self._wire.handshake(self._limits.handshake)
            peer = self._wire.peer()
        except PeerGone as e:
            log.warning(
                "REFUSED connection=%d client=%s TLS: %s",
                self._number,
                self._client,
                answers.clean(e.reason),
            )
            # The alert that says so is still on its way.
            self._wire.linger(self._limits.header_bytes, 1.0)
            return False
        if peer:
            self._client += f" ({answers.clean(peer)})"
        return True

    def _next(self, requests: int) -> bool:
        """Wait for a request; false if the connection ends instead."""
        with self._lock:
            if self._leaving:
                return False
            patience = _GIVES_WAY if requests else _GIVES_WAY_FIRST
            self._gives_way = time.monotonic() + patience
            self._waiting = True
        limits = self._limits
        try:
            came = self._wire.wait(
                limits.keep_alive if requests else limits.idle
            )
        except PeerGone:
            came = False
        with self._lock:
            self._waiting = False
            return came and not self._leaving

    def _serve(self) -> bool:
        """One request; true if another one may follow."""
        began = time.monotonic()
        request, refusal = self._request()
        if request is None:
            return False
        exchange = Exchange(
            request, self._wire, self._client, self._local, self._limits
        )
        outcome = ""
        try:
            if refusal is not None:
                answers.send_error(exchange, refusal)
            else:
                self._app.handle(exchange)
        except PeerGone as e:
            outcome = f" lost={answers.clean(e.reason)!r}"
        self._log(exchange, time.monotonic() - began, outcome)
        if outcome or not exchange.complete:
            return False
        if exchange.status == 408:
            return False  # it sends nothing that could be dropped
        if refusal is not None or exchange.unread:
            limits = self._limits
            self._wire.linger(limits.linger_bytes, limits.linger_time)
        return exchange.keep

    def _request(self) -> tuple[Optional[Request], Optional[answers.Refused]]:
        """A request, or why there is none; neither if the peer is gone."""
        try:
            return head.read(self._wire, self._limits), None
        except answers.Refused as e:
            return _NO_REQUEST, e
        except PeerGone as e:
            if not e.stalled:
                return None, None
            return _NO_REQUEST, answers.Refused(408, "no request came in time")

    def _log(self, exchange: Exchange, seconds: float, outcome: str) -> None:
        problem = exchange.problem[:_PROBLEM]
        details = f" error={problem!r}" if problem else ""
        log.log(
            _level(exchange),
            "REQUEST connection=%d client=%s method=%s path=%s subject=%s "
            "status=%d seconds=%.3f received=%d sent=%d%s%s",
            self._number,
            self._client,
            exchange.method or "-",
            exchange.place,
            exchange.subject or "-",
            exchange.status,
            seconds,
            (exchange.length or 0) - exchange.unread,
            exchange.sent,
            details,
            outcome,
        )


def _level(exchange: Exchange) -> int:
    if exchange.status in (500, 507):
        return logging.WARNING
    # Verbs are asked often, and what they change is logged elsewhere.
    ordinary = exchange.method == "POST" and exchange.status == 200
    return logging.DEBUG if ordinary else logging.INFO


# In place of one that could not be read.
_NO_REQUEST = Request("", "", Headers())
