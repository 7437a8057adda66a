# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
HTTP/1.1 as far as a host of OVF stores speaks it (RFC 9110, 9112).

Answers have a Content-Length or end with the connection; chunked ones are
not among them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.client import failure
from vdsm_ovfstore.client.told import told
from vdsm_ovfstore.client.transport import Connection

# Bytes of an answer in JSON: 1000 VMs of a listing are below 1 MiB, the OVF
# in an answer is at most that; the rest is for the worst of stores.
JSON_MAX = 64 * 1024**2

_LINE_MAX = 16 * 1024
_HEADERS_MAX = 100
_CHUNK = 256 * 1024

_AGENT = "vdsm-ovfstore"


def request(
    connection: Connection,
    method: str,
    path: str,
    headers: Mapping[str, str],
) -> bytes:
    """The head of a request."""
    lines = [
        f"{method} {path} HTTP/1.1",
        f"Host: {connection.address.authority}",
        f"User-Agent: {_AGENT}",
        *(f"{name}: {value}" for name, value in headers.items()),
        "\r\n",
    ]
    return "\r\n".join(lines).encode("latin-1")


class Response:
    """
    The head of an answer; the body is read from the connection by need.

    headers have lower-case names.
    """

    def __init__(
        self, connection: Connection, status: int, headers: dict[str, str]
    ) -> None:
        self.status = status
        self.headers = headers
        self._connection = connection
        self._left = self._content_length()
        if status in (204, 304):
            self._left = 0

    @classmethod
    def read(cls, connection: Connection) -> Response:
        """Wait for the final answer; interim ones (1xx) are skipped."""
        while (response := cls.read_any(connection)).status < 200:
            pass
        return response

    @classmethod
    def read_any(cls, connection: Connection) -> Response:
        """Wait for an answer, interim or final."""
        line = connection.read_line(_LINE_MAX)
        words = line.split(None, 2)
        if (
            len(words) < 2
            or not words[0].startswith(b"HTTP/1.")
            or not (len(words[1]) == 3 and words[1].isdigit())
        ):
            raise failure.bad_answer(
                connection.address, f"{line[:40]!r} is no HTTP"
            )
        headers = _headers(connection)
        if words[0] == b"HTTP/1.0":
            headers.setdefault("connection", "close")
        connection.answers += 1
        return cls(connection, int(words[1]), headers)

    @property
    def length(self) -> Optional[int]:
        """Bytes of the body that were not read yet; None if not known."""
        return self._left

    @property
    def is_reusable(self) -> bool:
        """Can the connection be used again?"""
        close = self.headers.get("connection", "").lower() == "close"
        return self._left == 0 and not close

    def chunks(self) -> Iterator[bytes]:
        """
        The body.

        Raises errors.HostUnreachable of kind "lost" when it ends early.
        """
        while self._left is None or self._left > 0:
            limit = _CHUNK if self._left is None else min(_CHUNK, self._left)
            data = self._connection.read(limit)
            if not data:
                if self._left is None:
                    return
                raise self._connection.lost()
            if self._left is not None:
                self._left -= len(data)
            yield data

    def json(self) -> Any:
        """The body as JSON; raises errors.HostUnreachable if it is not."""
        body = bytearray()
        if (self._left or 0) > JSON_MAX:
            raise self.bad(f"its answer has {self._left} bytes")
        for data in self.chunks():
            body += data
            if len(body) > JSON_MAX:
                raise self.bad(f"its answer has more than {JSON_MAX} bytes")
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise self.bad(
                f"status {self.status}, and what follows is no JSON"
            ) from None

    def error(self) -> errors.Error:
        """The error that an answer other than 2xx carries."""
        document = self.json()
        error = document.get("error") if isinstance(document, dict) else None
        if not isinstance(error, dict):
            return self.bad(f"status {self.status} without an error")
        if isinstance(error.get("data"), dict):  # of JSON-RPC
            error = {**error, **error["data"]}
        return told(error, self.retry_after())

    def retry_after(self) -> int:
        """Seconds; 0 if the answer does not say."""
        value = self.headers.get("retry-after", "")
        if value.isascii() and value.isdigit():
            return int(value[:6])
        return 0

    def bad(self, reason: str) -> errors.HostUnreachable:
        return failure.bad_answer(self._connection.address, reason)

    def _content_length(self) -> Optional[int]:
        if "transfer-encoding" in self.headers:
            raise self.bad("its answer is chunked")
        value = self.headers.get("content-length")
        if value is None:
            return None
        if not (value.isascii() and value.isdigit() and len(value) < 20):
            raise self.bad(f"a Content-Length of {value[:40]!r}")
        return int(value)


def _headers(connection: Connection) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(_HEADERS_MAX):
        line = connection.read_line(_LINE_MAX).decode("latin-1")
        if not line:
            return headers
        name, colon, value = line.partition(":")
        if not colon or not name.strip():
            raise failure.bad_answer(
                connection.address, f"{line[:40]!r} is no header"
            )
        headers[name.strip().lower()] = value.strip()
    raise failure.bad_answer(connection.address, "too many headers")
