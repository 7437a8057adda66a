# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Transfers: an archive comes in with PUT, or goes out with GET."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Iterator
from typing import Any, Optional, Protocol

from vdsm_ovfstore import errors
from vdsm_ovfstore.host import answers, ranges
from vdsm_ovfstore.host.exchange import PIECE, Exchange


class Upload(Protocol):
    """An upload that was accepted; `api` says more."""

    def receive(self, chunks: Iterator[bytes]) -> dict[str, Any]: ...

    def close(self) -> None: ...


class Download(Protocol):
    """A file that was verified, to be read with os.pread()."""

    @property
    def fd(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def sha256(self) -> str: ...
    @property
    def content_type(self) -> str: ...
    @property
    def filename(self) -> str: ...

    def sent(self, end: int) -> None: ...

    def close(self) -> None: ...


class Transfers(Protocol):
    """Where tickets become transfers. Both raise errors.Error."""

    def begin_upload(
        self, ticket: str, length: int, sha256: Optional[str]
    ) -> Upload: ...

    def begin_download(self, ticket: str) -> Download: ...


# -- upload -------------------------------------------------------------------


def put(exchange: Exchange, transfers: Transfers, ticket: str) -> None:
    """
    Take an archive; the answer comes after its commit.

    Nothing of the body is read before the transfer was found and its header
    accepted. Raises PeerGone, errors.Error, answers.Refused.
    """
    headers = exchange.headers
    if exchange.length is None:
        raise answers.Refused(411, "Content-Length is missing")
    if "Content-Range" in headers:
        raise answers.Refused(400, "an archive is sent whole, not in ranges")
    if headers.get("Content-Encoding") not in (None, "identity"):
        raise answers.Refused(415, "Content-Encoding is not supported")
    digest = _announced(exchange)
    upload = transfers.begin_upload(ticket, exchange.length, digest)
    try:
        result = upload.receive(exchange.body())
    finally:
        upload.close()
    exchange.answer(200, answers.encode(result), answers.JSON)


# RFC 9530: a dictionary of algorithms and bytes, as sha-256=:BASE64:
_DIGEST = re.compile(r"\s*sha-256=:([A-Za-z0-9+/]*={0,2}):\s*", re.ASCII)


def _announced(exchange: Exchange) -> Optional[str]:
    """
    The SHA-256 that the client announced, in hex.

    Without a Content-Encoding the digests of the representation and of the
    content are one.
    """
    found: set[str] = set()
    for name in ("Repr-Digest", "Content-Digest"):
        for member in (exchange.headers.get(name) or "").split(","):
            if member.strip().startswith("sha-256="):
                found.add(_digest(name, member))
    if len(found) > 1:
        raise answers.Refused(400, "two different digests are given")
    return found.pop() if found else None


def _digest(name: str, member: str) -> str:
    match = _DIGEST.fullmatch(member)
    try:
        digest = base64.b64decode(match[1]) if match else b""
    except binascii.Error:
        digest = b""
    if len(digest) != 32:
        raise answers.Refused(400, f"{name} is sha-256=:BASE64: of 32 bytes")
    return digest.hex()


# -- download -----------------------------------------------------------------


def get(exchange: Exchange, transfers: Transfers, ticket: str) -> None:
    """
    Give an archive, or a range of it.

    Until the transfer says that all is verified, nothing but errors is
    sent. Raises PeerGone, errors.Error, answers.Refused.
    """
    download = transfers.begin_download(ticket)
    try:
        _give(exchange, download)
    finally:
        download.close()


def _give(exchange: Exchange, download: Download) -> None:
    size, etag = download.size, f'"{download.sha256}"'
    headers = exchange.headers
    if ranges.matches(headers.get("If-None-Match"), etag):
        exchange.answer(304, headers={"ETag": etag})
        return
    wanted = headers.get("Range")
    if wanted is not None and headers.get("If-Range") in (None, etag):
        span = ranges.parse(wanted, size)
    else:
        span = None
    first, end = span or (0, size)
    digest = base64.b64encode(bytes.fromhex(download.sha256)).decode("ascii")
    answer = {
        "Content-Type": download.content_type,
        "Content-Disposition": _attachment(download.filename),
        "Accept-Ranges": "bytes",
        "Cache-Control": "no-store",
        "ETag": etag,
        "Repr-Digest": f"sha-256=:{digest}:",
    }
    if span is not None:
        answer["Content-Range"] = f"bytes {first}-{end - 1}/{size}"
    exchange.begin(200 if span is None else 206, end - first, answer)
    _send(exchange, download, first, end)


def _send(
    exchange: Exchange, download: Download, first: int, end: int
) -> None:
    while first < end:
        data = os.pread(download.fd, min(PIECE, end - first), first)
        if not data:
            raise errors.SourceUnreadable(
                path="the spool file", reason=f"it ends at byte {first}"
            )
        exchange.send(data)
        first += len(data)
        download.sent(first)


_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


def _attachment(name: str) -> str:
    return f'attachment; filename="{_UNSAFE.sub("_", name)}"'
