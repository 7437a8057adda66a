# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""A connected socket, plain or TLS: whole lines, time-outs, one error."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import time
from typing import Any, Optional

from vdsm_ovfstore.host.exchange import Data, PeerGone

# What is read at once while a header is looked for.
_HEADER_READ = 8192

# What is sent at once. The time-out counts for each of them.
_SEND = 64 * 1024


class LineTooLong(Exception):
    """There is no line end where one has to be."""


class Wire:
    """
    The socket of a connection. Exchange's Stream.

    idle is the time in seconds that may pass without a byte. All but close
    raise PeerGone.
    """

    def __init__(self, sock: socket.socket, idle: float) -> None:
        self._sock = sock
        self._idle = idle
        self._timeout = -1.0  # as it is set
        self._ahead = bytearray()  # read, but not asked for yet

    # -- reading --------------------------------------------------------------

    def wait(self, seconds: float) -> bool:
        """
        Wait for a first byte, which may take longer than any other.

        False if the peer ended instead.
        """
        if self._ahead:
            return True
        return self._fill(time.monotonic() + seconds, seconds)

    def peek(self, deadline: float) -> bytes:
        """The next byte, which stays where it is."""
        if not self._ahead and not self._fill(deadline):
            raise PeerGone("the connection was closed")
        return bytes(self._ahead[:1])

    def line(self, limit: int, deadline: float) -> bytes:
        """A line with its end, at most limit bytes. Raises LineTooLong."""
        start = 0
        while True:
            end = self._ahead.find(b"\n", start, limit) + 1
            if end:
                line = bytes(self._ahead[:end])
                del self._ahead[:end]
                return line
            start = len(self._ahead)
            if start >= limit:
                raise LineTooLong
            if not self._fill(deadline):
                raise PeerGone("the connection was closed")

    def _fill(self, deadline: float, idle: Optional[float] = None) -> bool:
        buffer = bytearray(_HEADER_READ)
        got = self._receive(memoryview(buffer), deadline, idle)
        self._ahead += buffer[:got]
        return got > 0

    def read_into(self, buffer: memoryview, deadline: float) -> int:
        """Read what there is, at least one byte; 0 at the end."""
        if self._ahead:
            got = min(len(buffer), len(self._ahead))
            buffer[:got] = self._ahead[:got]
            del self._ahead[:got]
            return got
        return self._receive(buffer, deadline)

    def _receive(
        self,
        buffer: memoryview,
        deadline: float,
        idle: Optional[float] = None,
    ) -> int:
        self._wait_until(deadline, idle or self._idle)
        try:
            return self._sock.recv_into(buffer)
        except socket.timeout:
            raise _silent() from None
        except OSError as e:
            raise PeerGone(reason(e)) from None

    # -- sending --------------------------------------------------------------

    def send(self, data: Data, deadline: float) -> None:
        """Send all of it."""
        view = memoryview(data)
        while view:
            self._wait_until(deadline, self._idle)
            try:
                view = view[self._sock.send(view[:_SEND]) :]
            except socket.timeout:
                raise _silent() from None
            except OSError as e:
                raise PeerGone(reason(e)) from None

    def _wait_until(self, deadline: float, idle: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise PeerGone("too slow", stalled=True)
        timeout = min(idle, left)
        if timeout != self._timeout:
            self._sock.settimeout(timeout)
            self._timeout = timeout

    # -- beginning and end ----------------------------------------------------

    def handshake(self, seconds: float) -> None:
        """Agree on TLS, if there is TLS."""
        if not isinstance(self._sock, ssl.SSLSocket):
            return
        self._sock.settimeout(seconds)
        self._timeout = seconds
        try:
            self._sock.do_handshake()
        except socket.timeout:
            raise _silent() from None
        except (OSError, ValueError) as e:
            raise PeerGone(reason(e)) from None

    def peer(self) -> str:
        """Who is there: the name in a certificate, or a local user."""
        if isinstance(self._sock, ssl.SSLSocket):
            subject: Any = (self._sock.getpeercert() or {}).get("subject", ())
            # A sequence of sets of pairs, X.509 being what it is.
            names = dict(pair for pairs in subject for pair in pairs)
            return str(names.get("commonName", ""))
        if self._sock.family == socket.AF_UNIX:
            size = struct.calcsize("3i")
            found = self._sock.getsockopt(
                socket.SOL_SOCKET, socket.SO_PEERCRED, size
            )
            return f"uid {struct.unpack('3i', found)[1]}"
        return ""

    def abort(self) -> None:
        """End it at once, from any thread: who waits for the peer wakes."""
        with contextlib.suppress(OSError):
            # Not SSLSocket.shutdown: it takes the TLS away from a thread
            # that may be in the midst of using it.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def linger(self, limit: int, seconds: float) -> None:
        """
        Say that no more will come, and drop what the peer still sends.

        Until it ends as well, at most so many bytes and seconds. Else what
        it has not read yet could be lost for it.
        """
        deadline = time.monotonic() + seconds
        buffer = memoryview(bytearray(_SEND))
        try:
            self._end_tls()
            self._sock.shutdown(socket.SHUT_WR)
            while limit > 0:
                got = self._receive(buffer, deadline)
                if not got:
                    break
                limit -= got
        except (OSError, PeerGone):
            pass  # it is gone, which is what we waited for

    def close(self) -> None:
        """Idempotent."""
        self._end_tls()
        self._sock.close()

    def _end_tls(self) -> None:
        """Send the end of TLS, but wait for nothing."""
        if isinstance(self._sock, ssl.SSLSocket):
            self._timeout = -1.0
            with contextlib.suppress(OSError, ValueError):
                self._sock.settimeout(0)
                self._sock.unwrap()


def reason(error: Exception) -> str:
    """Why a socket failed, in a few words."""
    if isinstance(error, ssl.SSLError):
        told: Optional[str] = getattr(error, "verify_message", None)
        words = told or (error.reason or "TLS failed").replace("_", " ")
        return words[:1].lower() + words[1:] if told else words.lower()
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _silent() -> PeerGone:
    return PeerGone("nothing came or went for too long", stalled=True)
