# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
One connection with a host: bytes, with time-outs, TLS or plain.

The socket never blocks; each wait is bounded by what the caller allows. Not
http.client: that imports ssl and the e-mail package, 28 ms of every start of
the command, and cannot look for an answer while it still sends.
"""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

from vdsm_ovfstore import errors
from vdsm_ovfstore.client import failure
from vdsm_ovfstore.client.address import Address

if TYPE_CHECKING:
    import ssl

Bytes = Union[bytes, memoryview]

# A TLS record carries 16 KiB; several are taken at once.
_CHUNK = 256 * 1024

# When a silent host counts as gone although nothing is due from it. A host
# that lost its power says nothing.
_KEEPALIVE = (
    ("TCP_KEEPIDLE", 30),
    ("TCP_KEEPINTVL", 10),
    ("TCP_KEEPCNT", 3),
)


class Connection:
    """
    Bytes to and from a host.

    Arguments:
        tls: what is trusted and who we are; None for a plain connection.
        cert: path of our certificate, for errors.
        timeout: seconds for connecting, and that may pass later without a
            byte moving.
        deadline: a point of time.monotonic() that bounds all that follows,
            in place of timeout: who waits for an answer of known worth
            does not care when its bytes move.

    All methods raise errors.HostUnreachable.
    """

    def __init__(
        self,
        address: Address,
        tls: Optional[ssl.SSLContext],
        cert: Optional[str],
        timeout: float,
        deadline: Optional[float] = None,
    ) -> None:
        self.address = address
        self.deadline = deadline
        self.used = time.monotonic()
        self.answers = 0  # that were read from it
        self._cert = cert
        self._timeout = timeout
        self._buffer = bytearray()
        self._eof = False
        self._heard = False  # did anything come, ever?
        # Who reads looks for the first of them first, who writes for the
        # second: BlockingIOError does not say which it means, TLS does.
        self._want_read: tuple[type[OSError], ...] = (BlockingIOError,)
        self._want_write: tuple[type[OSError], ...] = (BlockingIOError,)
        self._poll = select.poll()
        self._socket: Any = self._connect()
        self._poll.register(self._socket.fileno())
        if tls is not None:
            try:
                self._start_tls(tls)
            except BaseException:
                self._socket.close()
                raise

    # -- opening and closing --------------------------------------------------

    def _connect(self) -> socket.socket:
        seconds = self._timeout
        if self.deadline is not None:
            seconds = min(seconds, self.deadline - time.monotonic())
        if seconds <= 0:
            raise self.timed_out()
        try:
            if self.address.path is not None:
                return self._connect_unix(self.address.path, seconds)
            sock = socket.create_connection(
                (self.address.host, self.address.port), seconds
            )
        except UnicodeError:  # not to be encoded as a name of the DNS
            raise failure.unknown_name(
                self.address, "this is not the name of a host"
            ) from None
        except OSError as e:
            raise failure.not_connected(self.address, e) from None
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        return sock

    def _connect_unix(self, path: str, seconds: float) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.settimeout(seconds)
            sock.connect(path)
            sock.setblocking(False)
        except BaseException:
            sock.close()
            raise
        return sock

    def _start_tls(self, tls: ssl.SSLContext) -> None:
        import ssl

        self._want_read = (ssl.SSLWantReadError,)
        self._want_write = (ssl.SSLWantWriteError,)
        try:
            self._socket = tls.wrap_socket(
                self._socket,
                server_hostname=self.address.host,
                do_handshake_on_connect=False,
            )
        except (OSError, ValueError) as e:
            raise failure.no_tls(self.address, e) from None
        self._do(self._socket.do_handshake)

    def close(self) -> None:
        self._socket.close()

    def is_stale(self) -> bool:
        """Did the host close it, or say something that nobody asked for?"""
        return self.answered()

    # -- sending --------------------------------------------------------------

    def send(self, data: Bytes, until_answered: bool = False) -> int:
        """
        Send all of it; returns the number of bytes sent.

        With until_answered, it ends as soon as something came back or the
        host broke the connection; what it said can be read then.
        """
        view = memoryview(data)
        sent = 0
        while sent < len(view):
            if until_answered and self.answered():
                break
            try:
                sent += self._socket.send(view[sent:])
            except self._want_write:
                both = select.POLLIN if until_answered else 0
                self._wait(select.POLLOUT | both)
            except self._want_read:
                self._wait(select.POLLIN)
            except OSError as e:
                if self._told():
                    break
                raise self._broken(e) from None
        self.used = time.monotonic()
        return sent

    def _told(self) -> bool:
        """
        Is there something to read on a connection that cannot be written?

        A host that refuses says why, and closes: what it said is lost if
        the broken pipe is all that we look at.
        """
        try:
            while not self._eof and self._fill():
                pass
        except OSError as e:
            if hasattr(e, "library"):  # an alert: why TLS failed
                raise self._broken(e) from None
        return bool(self._buffer)

    # -- receiving ------------------------------------------------------------

    def answered(self, seconds: float = 0) -> bool:
        """Is there something to read, its end included, within seconds?"""
        until = time.monotonic() + seconds
        while not self._buffer and not self._eof:
            try:
                self._fill()
                continue
            except self._want_read:
                event = select.POLLIN
            except self._want_write:
                event = select.POLLOUT
            except OSError as e:
                if hasattr(e, "library"):
                    raise self._broken(e) from None
                return True  # the next read tells
            left = until - time.monotonic()
            if left <= 0 or not self._ready(event, left):
                return False
        return True

    def read_line(self, limit: int) -> bytes:
        """A line without its end, of at most limit bytes."""
        while (end := self._buffer.find(b"\n")) < 0:
            if len(self._buffer) > limit or not self._more():
                break
        if end < 0 or end > limit:
            if self._eof:
                raise self.lost()
            raise failure.bad_answer(self.address, "a line has no end")
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line[:-1] if line.endswith(b"\r") else line

    def read(self, limit: int) -> bytes:
        """At least one byte, at most limit; empty at the end."""
        if not self._buffer and not self._more():
            return b""
        data = bytes(self._buffer[:limit])
        del self._buffer[:limit]
        self.used = time.monotonic()
        return data

    def lost(self) -> errors.HostUnreachable:
        """The error for an end that comes too early."""
        reason = "it closed the connection"
        return failure.lost(self.address, reason, self._heard)

    def _broken(self, e: OSError) -> errors.HostUnreachable:
        return failure.broken(self.address, e, self._cert, self._heard)

    def _more(self) -> bool:
        """Wait for bytes; False at the end."""
        if self._eof:
            return False
        return bool(self._do(self._fill))

    def _fill(self) -> bool:
        data = self._socket.recv(_CHUNK)
        self._buffer += data
        self._eof = not data
        self._heard = self._heard or bool(data)
        return not self._eof

    # -- waiting --------------------------------------------------------------

    def _do(self, call: Callable[[], Any]) -> Any:
        while True:
            try:
                return call()
            except self._want_read:
                self._wait(select.POLLIN)
            except self._want_write:
                self._wait(select.POLLOUT)
            except OSError as e:
                raise self._broken(e) from None

    def _wait(self, events: int) -> None:
        seconds = self._timeout
        if self.deadline is not None:
            seconds = self.deadline - time.monotonic()
        if seconds <= 0 or not self._ready(events, seconds):
            raise self.timed_out()

    def _ready(self, events: int, seconds: float) -> bool:
        self._poll.modify(self._socket.fileno(), events)
        # Rounded up: poll() takes whole milliseconds.
        return bool(self._poll.poll(int(seconds * 1000) + 1))

    def timed_out(self) -> errors.HostUnreachable:
        """The error for a host that says nothing."""
        reason = "it did not answer in the time given"
        if self.deadline is None:
            reason = f"it was silent for {self._timeout:g} seconds"
        return failure.timed_out(self.address, reason)
