# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Reading the head of a request: RFC 9112, strictly.

Where a lenient reader and another one before or behind it could see two
different requests, this one refuses: line ends other than CRLF, folded
lines, spaces before a colon, lengths that contradict each other.
"""

from __future__ import annotations

import re
import time
from typing import Optional

from vdsm_ovfstore.host.answers import Refused
from vdsm_ovfstore.host.exchange import Headers, Request
from vdsm_ovfstore.host.limits import Limits
from vdsm_ovfstore.host.wire import LineTooLong, Wire

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST = re.compile(rb"(" + _TOKEN + rb") ([!-~]+) HTTP/(\d)\.(\d)")
_FIELD = re.compile(rb"(" + _TOKEN + rb"):[ \t]*([\t -~\x80-\xff]*)")
_METHOD = re.compile(rb"[A-Za-z]")

# Eighteen digits are below 2**63.
_LENGTH = re.compile(r"[0-9]{1,18}", re.ASCII)


def read(wire: Wire, limits: Limits) -> Request:
    """
    Read a request up to its body.

    Raises answers.Refused, after which the connection is to be closed, and
    PeerGone.
    """
    deadline = time.monotonic() + limits.header
    try:
        # Neither TLS on a plain port nor noise has a line end in it.
        if not _METHOD.match(wire.peek(deadline)):
            raise Refused(400, "this is not HTTP")
        first = wire.line(limits.request_line, deadline)
    except LineTooLong:
        raise Refused(
            414, f"a request line has {limits.request_line} bytes at most"
        ) from None
    match = _REQUEST.fullmatch(_crlf(first))
    if match is None:
        raise Refused(400, "the request line is malformed")
    if match[3] != b"1":
        raise Refused(505, "HTTP/1.1 and HTTP/1.0 are served")
    fields = _fields(wire, limits, deadline)
    return request(
        match[1].decode("ascii"),
        _path(match[2].decode("ascii")),
        match[4] == b"0",
        Headers(fields),
    )


def _fields(
    wire: Wire, limits: Limits, deadline: float
) -> list[tuple[str, str]]:
    fields: list[tuple[str, str]] = []
    left = limits.header_bytes
    while True:
        try:
            line = wire.line(left, deadline)
        except LineTooLong:
            raise Refused(
                431, f"a header has {limits.header_bytes} bytes at most"
            ) from None
        left -= len(line)
        content = _crlf(line)
        if not content:
            return fields
        if len(fields) == limits.header_fields:
            raise Refused(
                431, f"a header has {limits.header_fields} fields at most"
            )
        match = _FIELD.fullmatch(content)
        if match is None:
            raise Refused(400, "a header field is malformed")
        value = match[2].strip(b" \t").decode("latin-1")
        fields.append((match[1].decode("ascii"), value))


def _crlf(line: bytes) -> bytes:
    if not line.endswith(b"\r\n"):
        raise Refused(400, "a line does not end with CR and LF")
    return line[:-2]


def _path(target: str) -> str:
    """The path: a request may name the host as well."""
    if target.startswith("/"):
        return target
    scheme, found, rest = target.partition("://")
    if not found or scheme.lower() not in ("http", "https"):
        raise Refused(400, "the request target is no path")
    return "/" + rest.partition("/")[2]


def request(method: str, path: str, old: bool, headers: Headers) -> Request:
    """
    What header fields say of a request; old: it is one of HTTP/1.0.

    For servers that read a header themselves, too. Raises answers.Refused.
    """
    length = _length(headers)
    hosts = len(headers.all("Host"))
    if hosts > 1 or not (hosts or old):
        raise Refused(400, "one Host field is needed")
    options = {
        option.strip().lower()
        for option in (headers.get("Connection") or "").split(",")
    }
    expected = None if old else headers.get("Expect")
    if expected is not None and expected.lower() != "100-continue":
        raise Refused(417, "only 100-continue can be expected")
    return Request(
        method,
        path,
        headers,
        length,
        expects=expected is not None,
        keep=not old and "close" not in options,
    )


def _length(headers: Headers) -> Optional[int]:
    lengths = headers.all("Content-Length")
    if "Transfer-Encoding" in headers:
        if lengths:
            raise Refused(400, "a body has one length")
        raise Refused(411, "Content-Length is needed; chunked is not taken")
    if not lengths:
        return None
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise Refused(400, "Content-Length is one number")
    return int(lengths[0])
