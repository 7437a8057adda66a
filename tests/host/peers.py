# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""A server of the stand-in service, and peers that behave badly."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from typing import Any, Optional

from tests.held import held, wait_until_released
from tests.host.standin import StandIn
from vdsm_ovfstore.host.app import App
from vdsm_ovfstore.host.limits import Limits
from vdsm_ovfstore.host.server import Server

# Seconds until a test gives up; nothing here waits so long.
PATIENCE = 20.0

RPC = "/ovf-store/rpc"
UP = "/ovf-store/transfers/up"

HOST = b"Host: localhost\r\n"


class Answer:
    """An answer as it came."""

    def __init__(self, head: bytes, body: bytes) -> None:
        line, *fields = head.decode("ascii").split("\r\n")
        self.status = int(line.split()[1])
        self.headers = {
            name.lower(): value
            for name, value in (field.split(": ", 1) for field in fields)
        }
        self.body = body

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> Any:
        return self.document["error"]


class Raw:
    """A peer that sends what it wants, byte by byte."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self._ahead = b""

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, bodiless: bool = False) -> Answer:
        """The next answer; AssertionError if the server ends before it."""
        while b"\r\n\r\n" not in self._ahead:
            self._more()
        head, _, self._ahead = self._ahead.partition(b"\r\n\r\n")
        answer = Answer(head, b"")
        if answer.status == 100 or bodiless:
            return answer
        length = int(answer.headers.get("content-length", 0))
        while len(self._ahead) < length:
            self._more()
        answer.body = self._ahead[:length]
        self._ahead = self._ahead[length:]
        return answer

    def ask(self, data: bytes) -> Answer:
        self.send(data)
        return self.answer()

    def ended(self) -> bool:
        """Whether the server closes without another byte."""
        try:
            return self._ahead == b"" and self.sock.recv(1) == b""
        except ConnectionResetError:
            return True

    def _more(self) -> None:
        data = self.sock.recv(65536)
        assert data, f"the server ended after {self._ahead!r}"
        self._ahead += data


class Served:
    """A server that runs, its service, and ways to it."""

    def __init__(
        self, server: Server, service: StandIn, path: Optional[str]
    ) -> None:
        self.server = server
        self.service = service
        self._path = path
        self._stack = contextlib.ExitStack()

    def connect(self) -> socket.socket:
        if self._path is not None:
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self._path)
        else:
            sock = socket.create_connection(("127.0.0.1", self.server.port))
        self._stack.callback(sock.close)
        return sock

    def raw(self, context: Optional[ssl.SSLContext] = None) -> Raw:
        sock = self.connect()
        if context is not None:
            sock = context.wrap_socket(sock, server_hostname="localhost")
            self._stack.callback(sock.close)
        return Raw(sock)

    def client(
        self, context: Optional[ssl.SSLContext] = None
    ) -> http.client.HTTPConnection:
        """http.client, for a server on TCP."""
        where = ("localhost", self.server.port)
        client: http.client.HTTPConnection
        if context is None:
            client = http.client.HTTPConnection(*where, timeout=PATIENCE)
        else:
            client = http.client.HTTPSConnection(
                *where, timeout=PATIENCE, context=context
            )
        self._stack.callback(client.close)
        return client

    def close(self) -> None:
        self._stack.close()


@contextlib.contextmanager
def serving(
    limits: Optional[Limits] = None,
    tls: Optional[ssl.SSLContext] = None,
    path: Optional[str] = None,
) -> Iterator[Served]:
    """A server; afterwards nothing of it is left, or the test fails."""
    before = held()
    service = StandIn()
    address = path if path is not None else ("127.0.0.1", 0)
    server = Server(App(service), address, tls, limits)
    served = Served(server, service, path)
    server.start()
    try:
        yield served
    finally:
        served.close()
        server.stop(PATIENCE)
    assert server.connections == 0
    assert service.transfers.open == 0
    wait_until_released(before)


def post(body: bytes, *headers: bytes) -> bytes:
    """A call of a verb; headers in place of its Content-Type."""
    if not headers:
        headers = (b"Content-Type: application/json",)
    lines = b"".join(header + b"\r\n" for header in headers)
    return (
        b"POST /ovf-store/rpc HTTP/1.1\r\n"
        + HOST
        + lines
        + b"Content-Length: %d\r\n\r\n" % len(body)
        + body
    )


PING = post(b'{"jsonrpc":"2.0","id":1,"method":"OvfStore.ping"}')
