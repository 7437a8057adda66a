# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A peer that speaks just enough HTTP to misbehave on purpose.

Real sockets and real TLS; a thread for each connection. What a host does
rightly is tested with the daemon itself.
"""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Any, Callable, Optional

DOMAIN = "11111111-1111-4111-8111-111111111111"
TRANSFER = "22222222-2222-4222-8222-222222222222"
JOB = "33333333-3333-4333-8333-333333333333"
URL = "/ovf-store/transfers/secret"


class Told(Exception):
    """An error that a verb of the peer answers with."""

    def __init__(self, **document: Any) -> None:
        super().__init__()
        self.document = document


class Cut(Exception):
    """The peer closes the connection."""


class Request:
    def __init__(self, line: str, headers: dict[str, str]) -> None:
        self.method, self.path, _ = line.split()
        self.headers = headers

    @property
    def length(self) -> int:
        return int(self.headers.get("content-length", 0))


class Link:
    """One connection, on the peer's side."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._file = sock.makefile("rb")

    def request(self) -> Optional[Request]:
        line = self._file.readline(256).decode("latin-1").strip()
        if not line:
            return None
        if line.startswith("\x16"):  # of TLS
            self.answer(400)
            self._sock.shutdown(socket.SHUT_WR)
            self._file.read()
            raise Cut
        headers = {}
        while header := self._file.readline().decode().strip():
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        return Request(line, headers)

    def read(self, count: int) -> bytes:
        return self._file.read(count)

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def answer(
        self, status: int, body: bytes = b"", **headers: object
    ) -> None:
        lines = [f"HTTP/1.1 {status} Any", f"Content-Length: {len(body)}"]
        lines += [
            f"{name.replace('_', '-')}: {value}"
            for name, value in headers.items()
        ]
        self.send("\r\n".join([*lines, "\r\n"]).encode() + body)

    def json(self, status: int, document: Any, **headers: object) -> None:
        self.answer(status, json.dumps(document).encode(), **headers)

    def close(self) -> None:
        self._file.close()
        self._sock.close()


class Peer:
    """
    Attributes:
        verbs: what each verb answers: a function of its parameters, which
            may raise Told and Cut, or return bytes to send as they are
            before the connection is closed.
        put, get: what is done with a request for a transfer.
        calls: verbs that came, in order.
        connections: how many there were.
    """

    def __init__(
        self, tls: Optional[ssl.SSLContext] = None, host: str = "127.0.0.1"
    ) -> None:
        self.verbs: dict[str, Callable[[dict[str, Any]], Any]] = {
            "ping": lambda params: {"version": "1", "api": 1, "host": "a"},
            "upload": lambda params: {"transferID": TRANSFER, "url": URL},
            "abort": lambda params: {"aborted": True, "state": "aborted"},
        }
        self.put: Callable[[Link, Request], None] = _nothing
        self.get: Callable[[Link, Request], None] = _nothing
        self.calls: list[str] = []
        self.params: list[dict[str, Any]] = []
        self.connections = 0
        self._tls = tls
        self._socket = socket.create_server((host, 0))
        self._links: list[Link] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def url(self) -> str:
        scheme = "https" if self._tls else "http"
        return f"{scheme}://{self._socket.getsockname()[0]}:{self.port}"

    def stop(self) -> None:
        """Take no more connections."""
        # Wakes accept().
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def close(self) -> None:
        self.stop()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            # A client that does not close shall not hang a test.
            sock.settimeout(10)
            thread = threading.Thread(
                target=self._serve, args=(sock,), daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError, Cut):
            try:
                if self._tls is not None:
                    sock = self._tls.wrap_socket(sock, server_side=True)
            except OSError:
                sock.close()
                raise
            link = Link(sock)
            try:
                while request := link.request():
                    if request.method == "POST":
                        self._rpc(link, request)
                    elif request.method == "PUT":
                        self.put(link, request)
                    else:
                        self.get(link, request)
            finally:
                link.close()

    def _rpc(self, link: Link, request: Request) -> None:
        call = json.loads(link.read(request.length))
        verb = call["method"].partition(".")[2]
        self.calls.append(verb)
        self.params.append(call["params"])
        head = {"jsonrpc": "2.0", "id": call["id"]}
        try:
            result = self.verbs[verb](call["params"])
        except Told as e:
            error = {"code": 1, "message": "any", "data": e.document}
            link.json(500, {**head, "error": error})
            return
        if isinstance(result, bytes):
            link.send(result)
            raise Cut
        link.json(200, {**head, "result": result})


@contextlib.contextmanager
def running(
    tls: Optional[ssl.SSLContext] = None, host: str = "127.0.0.1"
) -> Iterator[Peer]:
    peer = Peer(tls, host)
    try:
        yield peer
    finally:
        peer.close()


def cut(*_: object) -> Any:
    raise Cut


def _nothing(link: Link, request: Request) -> None:
    link.json(404, {"error": {"type": "TransferNotFound"}})
