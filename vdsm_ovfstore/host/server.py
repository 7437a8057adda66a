# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The server: a thread for each connection, and a bound for all of them.

Who comes when all threads are taken waits in the kernel, and those who only
wait for their next request are sent away for it. A 503 would cost more than
the request that it refuses: a handshake of TLS and a thread. What is really
scarce, transfers, the service refuses itself.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import select
import socket
import ssl
import threading
import time
from typing import Any, Optional

from vdsm_ovfstore.host import listener
from vdsm_ovfstore.host.connection import App, Connection
from vdsm_ovfstore.host.limits import Limits
from vdsm_ovfstore.host.wire import Wire

log = logging.getLogger("ovfstore.host")

# How often to look for one that may be sent away, while all are busy.
_LOOK = 1.0

# How long to wait when the process has no descriptor or memory for another
# connection.
_EXHAUSTED = 0.5

# What connections may take to end after their sockets were closed.
_ENDING = 5.0


class Server:
    """
    Serves an App on one address until stop().

    Arguments:
        address: (host, port), with port 0 for any; or the path of a socket
            in the file system.
        tls: None for plain connections: on loopback and in the file system
            only.
        group, mode: who may use the socket in the file system.

    Raises errors.AddressUnavailable, ConfigInvalid. It listens as soon as it
    is made, so that a daemon knows that all addresses are its own before it
    serves on one.
    """

    def __init__(
        self,
        app: App,
        address: listener.Address,
        tls: Optional[ssl.SSLContext] = None,
        limits: Optional[Limits] = None,
        group: Optional[str] = None,
        mode: int = 0o660,
    ) -> None:
        self._app = app
        self._tls = tls
        self._limits = limits or Limits()
        backlog = self._limits.backlog
        if isinstance(address, str):
            self._listener = listener.unix(address, backlog, group, mode)
        else:
            self._listener = listener.tcp(*address, backlog, tls is None)
        self._numbers = itertools.count(1)
        self._connections: dict[Connection, threading.Thread] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._wake, self._waker = os.pipe()
        self._acceptor = threading.Thread(
            target=self._accept_all, name="http-accept", daemon=True
        )

    @property
    def port(self) -> int:
        """The TCP port; 0 for a socket in the file system."""
        return self._listener.port

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._connections)

    def start(self) -> None:
        """Serve, in threads of our own."""
        self._acceptor.start()
        tls = "TLS" if self._tls else "plain"
        log.info("LISTEN address=%s %s", self._listener.name, tls)

    def reload_tls(self, context: ssl.SSLContext) -> None:
        """Use other certificates for connections that come from now on."""
        assert self._tls is not None, "a plain server"
        self._tls = context

    def stop(self, grace: float = 0) -> None:
        """
        Take no connections, let requests end for grace seconds, cut the rest.

        Idempotent.
        """
        with self._changed:
            if self._stopping:
                return
            self._stopping = True
            self._changed.notify_all()
        os.write(self._waker, b"x")
        if self._acceptor.is_alive():
            self._acceptor.join()
        self._listener.close()
        os.close(self._wake)
        os.close(self._waker)
        for connection in list(self._connections):
            connection.leave()
        if not self._ended_within(grace):
            for connection in list(self._connections):
                connection.abort()
            if not self._ended_within(_ENDING):
                # Their peers are gone, and their threads end with us: as a
                # rule they wait for a process that hangs in the storage.
                left = self.connections
                log.warning("STOP connections=%d left behind", left)
        log.info("STOPPED address=%s", self._listener.name)

    def _ended_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        for thread in list(self._connections.values()):
            thread.join(max(0, deadline - time.monotonic()))
        with self._changed:
            return not self._connections

    # -- accepting ------------------------------------------------------------

    def _accept_all(self) -> None:
        poll = select.poll()
        poll.register(self._listener.sock, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        self._listener.sock.setblocking(False)
        while True:
            poll.poll()
            try:
                if not self._room():
                    return
                self._accept()
            except Exception:
                log.exception("ACCEPT failed")
                self._pause()

    def _accept(self) -> None:
        try:
            sock, address = self._listener.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return  # it did not wait for us
        except OSError as e:
            self._exhausted(e)
            return
        try:
            self._serve(sock, _name(address))
        except (RuntimeError, MemoryError) as e:
            self._exhausted(e)
        except OSError as e:
            # Reset before we looked at it.
            log.debug("LOST client=%s error=%s", _name(address), e)

    def _exhausted(self, error: Exception) -> None:
        log.error("EXHAUSTED error=%s", error)
        self._pause()

    def _pause(self) -> None:
        with self._changed:
            self._changed.wait(_EXHAUSTED)

    def _room(self) -> bool:
        """Wait until another connection may be; false at the end."""
        with self._changed:
            while not self._stopping:
                if len(self._connections) < self._limits.connections:
                    return True
                self._changed.wait(self._make_room())
        return False

    def _make_room(self) -> float:
        """Send away who waits longest; seconds until the next look."""
        if any(c.leaving for c in self._connections):
            return _LOOK  # there will be room at once
        moments = [(c.gives_way(), c) for c in self._connections]
        moment, first = min(
            ((m, c) for m, c in moments if m is not None),
            key=lambda pair: pair[0],
            default=(0.0, None),
        )
        if first is None:
            return _LOOK
        left = moment - time.monotonic()
        if left > 0:
            return min(left, _LOOK)
        first.send_away()
        return _LOOK

    def _serve(self, sock: socket.socket, client: str) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(sock.close)
            if not self._listener.local:
                _tune(sock)
            tls = self._tls
            if tls is not None:
                # No bytes move yet: that is for the connection's thread.
                sock = tls.wrap_socket(
                    sock, server_side=True, do_handshake_on_connect=False
                )
                stack.callback(sock.close)
            connection = Connection(
                next(self._numbers),
                Wire(sock, self._limits.idle),
                client,
                self._listener.local,
                self._app,
                self._limits,
                self._ended,
            )
            self._run(connection)
            stack.pop_all()

    def _run(self, connection: Connection) -> None:
        thread = threading.Thread(
            target=connection.run, name="http-connection", daemon=True
        )
        with self._changed:
            self._connections[connection] = thread
            try:
                # With the stack that is the rule. It takes memory only where
                # it is used, and from a small one Python 3.13 falls off
                # before it raises RecursionError.
                thread.start()
            except BaseException:
                del self._connections[connection]
                raise

    def _ended(self, connection: Connection) -> None:
        with self._changed:
            del self._connections[connection]
            self._changed.notify_all()


def _tune(sock: socket.socket) -> None:
    # An answer is one write, and should not wait for the next one.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # A commit may take minutes in which nothing is sent; firewalls forget.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)


def _name(address: Any) -> str:
    if not isinstance(address, tuple):
        return "local"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
