# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The least that can stand at the other end of TLS, to compare a host with.

It has the certificates and the contexts of a host, a thread for each
connection, and a process of its own. It takes bytes into a file, gives bytes
of a file, and sends back what it got: no HTTP, no check, nothing is kept.

    python -m bench.bare PKI FILE     prints its port; ends with its stdin
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Optional

from vdsm_ovfstore.client import address, trust
from vdsm_ovfstore.client.sources import open_source
from vdsm_ovfstore.client.transport import Connection
from vdsm_ovfstore.host import tls

# A request is one of these letters and a length in 8 bytes.
_TAKE, _GIVE, _ECHO = b"T", b"G", b"E"
_HEAD = 9

_PIECE = 256 * 1024  # as the host's

# What goes with a ping and its answer: near what a host and its client say.
ECHO = b"." * 256


class Bare:
    """
    The process, and a connection with it for echoes.

    Arguments:
        pki: a directory of scripts/pki.py.
        file: where it keeps what it takes, over what was there.
    """

    def __init__(self, pki: str, file: str, env: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.bare", pki, file],
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        port = int(self._process.stdout.readline())
        self._address = address.parse(f"https://127.0.0.1:{port}")
        self._cert = os.path.join(pki, "client", "cert.pem")
        self._tls = trust.context(
            os.path.join(pki, "certs", "cacert.pem"),
            self._cert,
            os.path.join(pki, "client", "key.pem"),
        )
        self._echoes = self._connect()

    def __enter__(self) -> Bare:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._echoes.close()
        self._process.communicate()

    @property
    def pid(self) -> int:
        return self._process.pid

    def take(self, path: str) -> None:
        """Send it a file, over a new connection as an upload's."""
        with open_source(path) as source, self._connected() as connection:
            connection.send(_TAKE + source.size.to_bytes(8, "big"))
            for data in source.chunks():
                connection.send(data)
            assert connection.read(1) == _TAKE

    def give(self, length: int) -> None:
        """Get so many bytes of what it took."""
        with self._connected() as connection:
            connection.send(_GIVE + length.to_bytes(8, "big"))
            while length:
                data = connection.read(_PIECE)
                assert data, "it ended"
                length -= len(data)

    def echo(self) -> None:
        head = _ECHO + len(ECHO).to_bytes(8, "big")
        self._echoes.send(head + ECHO)
        got = 0
        while got < len(ECHO):
            got += len(self._echoes.read(len(ECHO)))

    def _connect(self) -> Connection:
        return Connection(self._address, self._tls, self._cert, 60)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Connection]:
        with contextlib.closing(self._connect()) as connection:
            yield connection


# -- the process --------------------------------------------------------------


def _serve(pki: str, file: str) -> None:
    context = tls.server_context(pki)
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    while True:
        plain, _ = listener.accept()
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(
            target=_talk, args=(plain, context, file), daemon=True
        ).start()


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _talk(plain: socket.socket, context: ssl.SSLContext, file: str) -> None:
    with context.wrap_socket(plain, server_side=True) as sock:
        buffer = memoryview(bytearray(_PIECE))
        while head := _exactly(sock, buffer[:_HEAD]):
            kind, length = bytes(head[:1]), int.from_bytes(head[1:], "big")
            if kind == _ECHO:
                sock.sendall(_exactly(sock, buffer[:length]))
            elif kind == _GIVE:
                _give(sock, file, length)
            else:
                _take(sock, file, length, buffer)
                sock.sendall(kind)


def _exactly(sock: ssl.SSLSocket, view: memoryview) -> memoryview:
    """Fill it; empty at the end of the connection."""
    done = 0
    while done < len(view):
        got = sock.recv_into(view[done:])
        if not got:
            return view[:0]
        done += got
    return view


def _take(
    sock: ssl.SSLSocket, file: str, length: int, buffer: memoryview
) -> None:
    with open(file, "wb", buffering=0) as target:
        while length:
            got = len(_exactly(sock, buffer[: min(length, _PIECE)]))
            assert got, "it ended"
            target.write(buffer[:got])
            length -= got


def _give(sock: ssl.SSLSocket, file: str, length: int) -> None:
    with open(file, "rb", buffering=0) as source:
        while length:
            data = source.read(min(length, _PIECE))
            sock.sendall(data)
            length -= len(data)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
