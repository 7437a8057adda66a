# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
One request and its answer, whoever has the connection.

The seam between what is served (app.py and below) and who serves it: our own
server (connection.py), or another HTTP server, which gives a Request and a
Stream and then closes the connection unless `keep` says otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple, Optional, Protocol, Union

from vdsm_ovfstore import errors
from vdsm_ovfstore.host.limits import Limits

# A body goes in pieces of at most so many bytes: 16 records of TLS. Larger
# ones are not faster, and each transfer holds one or two of them.
PIECE = 256 * 1024

# A piece is handed on after so many seconds even if it is not full: so that
# a slow transfer is seen to move, and can be aborted.
_PATIENCE = 1.0

# A part of a path that is longer is no word of ours; a ticket is longer.
_WORD = 16

Data = Union[bytes, memoryview]


class PeerGone(Exception):
    """
    The peer cannot be spoken to any more, or is silent (stalled).

    Not an errors.Error: nobody is left to be told.
    """

    def __init__(self, reason: str, stalled: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.stalled = stalled


class Stream(Protocol):
    """
    The bytes of a connection.

    Both raise PeerGone: at the deadline (time.monotonic()), after a time
    without a byte, and when the connection is lost.
    """

    def read_into(self, buffer: memoryview, deadline: float) -> int:
        """Read what there is, at least one byte; 0 at the end."""

    def send(self, data: Data, deadline: float) -> None:
        """Send all of it."""


class Headers:
    """The header fields of a request, by name in any case."""

    def __init__(self, fields: Iterable[tuple[str, str]] = ()) -> None:
        self._fields: dict[str, list[str]] = {}
        for name, value in fields:
            self._fields.setdefault(name.lower(), []).append(value)

    def all(self, name: str) -> list[str]:
        """The values of each line with this name."""
        return self._fields.get(name.lower(), [])

    def get(self, name: str) -> Optional[str]:
        """The value; that of several lines as one list. None without."""
        values = self.all(name)
        return ", ".join(values) if values else None

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._fields


class Request(NamedTuple):
    """
    The head of a request.

    length is that of the body, None if none was announced; expects tells
    that the peer waits for 100 before it sends it. keep tells that the peer
    wants to go on with the connection.
    """

    method: str
    path: str
    headers: Headers
    length: Optional[int] = None
    expects: bool = False
    keep: bool = False


class Exchange:
    """
    A request that can be answered once.

    Arguments:
        client: who asks, for the log.
        local: came from this machine through the socket in the file system.

    Attributes:
        unread: bytes of the body that were not read.
        keep: whether the connection may be used again; false from the start
            if the peer does not want it.
        status: of the answer; 0 before there is one.
        subject, problem: what it was about and what went wrong, for the
            log; nothing in them steers a terminal.
    """

    def __init__(
        self,
        request: Request,
        stream: Stream,
        client: str,
        local: bool = False,
        limits: Optional[Limits] = None,
    ) -> None:
        self.method = request.method
        self.path = request.path
        self.headers = request.headers
        self.length = request.length
        self.client = client
        self.local = local
        self.limits = limits or Limits()
        self.unread = request.length or 0
        self.keep = request.keep
        self.status = 0
        self.subject = ""
        self.problem = ""
        self.sent = 0  # bytes of the body of the answer
        self._expects = request.expects
        self._stream = stream
        self._deadline = 0.0  # of the answer
        self._left = 0  # bytes of the answer to come

    @property
    def place(self) -> str:
        """The path for the log: no ticket, nor what may be one."""
        segments = self.path.partition("?")[0].split("/")[1:3]
        shown = [s if len(s) <= _WORD else "..." for s in segments]
        if self.path.count("/") > len(shown):
            shown.append("...")
        return "/" + "/".join(shown)

    # -- the body of the request ----------------------------------------------

    def body(self) -> Iterator[bytes]:
        """
        The body in pieces. The peer is told to send with the first one.

        Raises errors.TransferIncomplete.
        """
        length = self.length or 0
        deadline = time.monotonic() + self.limits.body_seconds(length)
        try:
            if self._expects:
                self._expects = False
                self._stream.send(_CONTINUE, deadline)
            buffer = memoryview(bytearray(min(PIECE, length)))
            while self.unread:
                yield bytes(self._piece(buffer, deadline))
        except PeerGone as e:
            raise errors.TransferIncomplete(
                done=length - self.unread,
                length=length,
                reason=e.reason,
                stalled=e.stalled,
            ) from None

    def _piece(self, buffer: memoryview, deadline: float) -> memoryview:
        patience = time.monotonic() + _PATIENCE
        wanted, done = min(len(buffer), self.unread), 0
        while done < wanted:
            got = self._stream.read_into(buffer[done:wanted], deadline)
            if not got:
                self.keep = False
                raise PeerGone("the connection was closed")
            done += got
            self.unread -= got
            if time.monotonic() > patience:
                break
        return buffer[:done]

    # -- the answer -----------------------------------------------------------

    def answer(
        self,
        status: int,
        body: bytes = b"",
        headers: Optional[Mapping[str, str]] = None,
    ) -> None:
        """Answer at once. Raises PeerGone."""
        fields = {"Cache-Control": "no-store", **(headers or {})}
        head = self._head(status, len(body), fields)
        if self.method == "HEAD" or status == HTTPStatus.NOT_MODIFIED:
            body = b""
        # One write: a packet, or a record of TLS, less.
        self._stream.send(head + body, self._deadline)
        self.sent = len(body)

    def begin(
        self, status: int, length: int, headers: Mapping[str, str]
    ) -> None:
        """Begin an answer; length bytes must follow with send()."""
        self._left = length
        self._stream.send(self._head(status, length, headers), self._deadline)

    def send(self, data: Data) -> None:
        """Send a part of what begin() announced. Raises PeerGone."""
        self._stream.send(data, self._deadline)
        self.sent += len(data)
        self._left -= len(data)

    @property
    def complete(self) -> bool:
        """Whether the peer got all that was announced to it."""
        return self.status != 0 and self._left == 0

    def _head(
        self, status: int, length: int, headers: Mapping[str, str]
    ) -> bytes:
        assert not self.status, "answered twice"
        self.status = status
        self._deadline = time.monotonic() + self.limits.body_seconds(length)
        # What was not read would be taken for the next request.
        self.keep = self.keep and not self.unread
        fields = {
            "Date": formatdate(usegmt=True),
            "Server": "vdsm-ovfstore",
            "Content-Length": str(length),
            **headers,
        }
        if status == HTTPStatus.NOT_MODIFIED:
            del fields["Content-Length"]
        if not self.keep:
            fields["Connection"] = "close"
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items()]
        return "\r\n".join(lines).encode("ascii") + b"\r\n\r\n"


_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
