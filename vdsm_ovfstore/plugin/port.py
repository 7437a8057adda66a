# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
/ovf-store/ on VDSM's own port.

VDSM's HTTP server has read the header; from there on an exchange is the same
as on a port of our own.
"""

from __future__ import annotations

import contextlib
import socket
import time
from typing import Any, Protocol

from vdsm_ovfstore.host import answers, head
from vdsm_ovfstore.host.exchange import (
    Data,
    Exchange,
    Headers,
    PeerGone,
    Request,
)
from vdsm_ovfstore.host.limits import Limits
from vdsm_ovfstore.host.wire import reason

PREFIX = "/ovf-store/"

# What is sent at once; the time-out counts for each of them.
_SEND = 64 * 1024


class App(Protocol):
    def handle(self, exchange: Exchange) -> None: ...


class Stream:
    """
    The connection of a BaseHTTPRequestHandler, behind the header. Exchange's
    Stream.
    """

    def __init__(self, handler: Any, idle: float) -> None:
        self._sock = handler.connection
        # It may have read ahead of the header.
        self._file = handler.rfile
        self._idle = idle

    def read_into(self, buffer: memoryview, deadline: float) -> int:
        """Read what there is, at least one byte; 0 at the end."""
        self._wait_until(deadline)
        try:
            return int(self._file.readinto1(buffer))
        except socket.timeout:
            raise _silent() from None
        except (OSError, ValueError) as e:
            raise PeerGone(reason(e)) from None

    def send(self, data: Data, deadline: float) -> None:
        """Send all of it."""
        view = memoryview(data)
        while view:
            self._wait_until(deadline)
            try:
                view = view[self._sock.send(view[:_SEND]) :]
            except socket.timeout:
                raise _silent() from None
            except OSError as e:
                raise PeerGone(reason(e)) from None

    def linger(self, left: int, limits: Limits) -> None:
        """
        Drop what the peer still sends of a body that nobody wants.

        Who closes before that lets the kernel reset the connection, and the
        peer may never see its answer.
        """
        deadline = time.monotonic() + limits.linger_time
        left = min(left, limits.linger_bytes)
        buffer = memoryview(bytearray(_SEND))
        with contextlib.suppress(PeerGone):
            while left > 0:
                got = self.read_into(buffer[:left], deadline)
                if not got:
                    return
                left -= got

    def _wait_until(self, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise PeerGone("too slow", stalled=True)
        self._sock.settimeout(min(self._idle, left))


def serve(handler: Any, app: App, limits: Limits) -> None:
    """
    Answer the request whose header a BaseHTTPRequestHandler has read.

    Sets its close_connection.
    """
    stream = Stream(handler, limits.idle)
    client = f"{handler.client_address[0]}:{handler.client_address[1]}"
    headers = Headers(handler.headers.items())
    handler.close_connection = True
    try:
        try:
            request = head.request(
                handler.command,
                handler.path,
                handler.request_version == "HTTP/1.0",
                headers,
            )
        except answers.Refused as e:
            request = Request(handler.command, handler.path, headers)
            answers.send_error(Exchange(request, stream, client), e)
            return
        exchange = Exchange(request, stream, client, limits=limits)
        app.handle(exchange)
    except PeerGone as e:
        handler.log.info("Peer of %s is gone: %s", client, e.reason)
        return
    if exchange.unread:
        stream.linger(exchange.unread, limits)
    handler.close_connection = not exchange.keep
    handler.connection.settimeout(handler.timeout)


def _silent() -> PeerGone:
    return PeerGone("nothing came or went for too long", stalled=True)
