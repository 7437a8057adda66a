# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""PUT and GET of transfers: whole, in part, cut, stalled, slow."""

from __future__ import annotations

import base64
import hashlib
import logging
import os
import socket
import time
import tracemalloc
from typing import Optional

import pytest

from tests.host.harness import wait_until
from tests.host.peers import HOST, PING, UP, Answer, Raw, Served, serving
from vdsm_ovfstore import errors
from vdsm_ovfstore.host.limits import Limits

MIB = 1024**2

CONTENT = os.urandom(3 * MIB + 17)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ETAG = f'"{SHA256}"'


def b64(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def head(length: Optional[int], *fields: str, path: str = UP) -> bytes:
    lines = [f"PUT {path} HTTP/1.1", "Host: localhost", *fields]
    if length is not None:
        lines.append(f"Content-Length: {length}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def get(peer: Raw, *fields: str, ticket: str = "down") -> Answer:
    lines = [f"GET /ovf-store/transfers/{ticket} HTTP/1.1", "Host: a"]
    return peer.ask(("\r\n".join([*lines, *fields]) + "\r\n\r\n").encode())


# -- upload -------------------------------------------------------------------


@pytest.mark.parametrize(
    "length", [0, 1, 256 * 1024, 256 * 1024 + 1, len(CONTENT)]
)
def test_upload(length: int) -> None:
    with serving() as served:
        peer = served.raw()
        answer = peer.ask(head(length) + CONTENT[:length])
        assert answer.status == 200
        assert answer.document["length"] == length
        digest = hashlib.sha256(CONTENT[:length]).hexdigest()
        assert served.service.transfers.received == [digest]
        assert served.service.transfers.announced == [None]
        assert peer.ask(PING).status == 200


DIGESTS = {
    "representation": [f"Repr-Digest: sha-256=:{b64(b'x')}:"],
    "content": [f"Content-Digest: sha-256=:{b64(b'x')}:"],
    "both": [
        f"Repr-Digest: sha-256=:{b64(b'x')}:",
        f"Content-Digest: sha-256=:{b64(b'x')}:",
    ],
    "with others": [f"Repr-Digest: sha-512=:YQ==:, sha-256=:{b64(b'x')}:"],
    "on two lines": [
        "Repr-Digest: unixsum=30637",
        f"Repr-Digest: sha-256=:{b64(b'x')}:",
    ],
}


@pytest.mark.parametrize("fields", DIGESTS.values(), ids=DIGESTS.keys())
def test_announced_digest(fields: list[str]) -> None:
    with serving() as served:
        assert served.raw().ask(head(1, *fields) + b"x").status == 200
        expected = hashlib.sha256(b"x").hexdigest()
        assert served.service.transfers.announced == [expected]


REFUSED = {
    "no length": ([], None, 411),
    "chunked": (["Transfer-Encoding: chunked"], None, 411),
    "part": (["Content-Range: bytes 0-0/2"], 1, 400),
    "gzip": (["Content-Encoding: gzip"], 1, 415),
    "digest too short": (["Repr-Digest: sha-256=:YQ==:"], 1, 400),
    "digest in hex": ([f"Repr-Digest: sha-256={SHA256}"], 1, 400),
    "digest not base64": (["Repr-Digest: sha-256=:A:"], 1, 400),
    "two digests": (
        [
            f"Repr-Digest: sha-256=:{b64(b'x')}:",
            f"Content-Digest: sha-256=:{b64(b'y')}:",
        ],
        1,
        400,
    ),
}


@pytest.mark.parametrize(
    ("fields", "length", "status"), REFUSED.values(), ids=REFUSED.keys()
)
def test_header_is_refused(
    fields: list[str], length: Optional[int], status: int
) -> None:
    with serving() as served:
        answer = served.raw().ask(head(length, *fields))
        assert answer.status == status
        assert answer.error["code"] == errors.RequestInvalid.code
        assert served.service.transfers.announced == []


def test_expected_upload() -> None:
    with serving() as served:
        peer = served.raw()
        answer = peer.ask(head(len(CONTENT), "Expect: 100-continue"))
        assert answer.status == 100
        assert served.service.transfers.announced == [None]
        assert peer.ask(CONTENT).document["sha256"] == SHA256


def test_expected_upload_is_refused_before_its_body() -> None:
    with serving() as served:
        peer = served.raw()
        path = "/ovf-store/transfers/x"
        answer = peer.ask(head(10 * MIB, "Expect: 100-continue", path=path))
        assert answer.status == 404
        assert answer.headers["connection"] == "close"
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.ended()


@pytest.mark.parametrize("stop_after", [None, 1], ids=["at once", "midway"])
def test_refusal_reaches_who_does_not_listen(
    stop_after: Optional[int],
) -> None:
    """A client that sends all before it reads gets the answer, no reset."""
    with serving() as served:
        served.service.transfers.stop_after = stop_after
        client = served.client()
        ticket = "up" if stop_after else "x"
        path = f"/ovf-store/transfers/{ticket}"
        client.request("PUT", path, bytes(32 * MIB))
        answer = client.getresponse()
        assert answer.status == (422 if stop_after else 404)
        assert answer.headers["Connection"] == "close"
        assert b'"error"' in answer.read()


def test_what_is_dropped_is_bounded() -> None:
    with serving(Limits(linger_bytes=MIB)) as served:
        peer = served.raw()
        path = "/ovf-store/transfers/x"
        with pytest.raises(OSError):
            peer.send(head(1024 * MIB, path=path))
            for _ in range(1024):
                peer.send(bytes(MIB))
    with serving(Limits(linger_time=0.3)) as served:
        peer = served.raw()
        assert peer.ask(head(10, path=path)).status == 404
        wait_until(lambda: served.server.connections == 0, 2)


def failure(served: Served) -> errors.TransferIncomplete:
    """Why the only upload failed, when it has."""
    failures = served.service.transfers.failures
    wait_until(lambda: failures)
    (error,) = failures
    assert isinstance(error, errors.TransferIncomplete)
    return error


def test_upload_is_cut() -> None:
    with serving() as served:
        peer = served.raw()
        peer.send(head(len(CONTENT)) + CONTENT[:-1])
        peer.sock.close()
        fields = failure(served).fields()
        assert not fields["stalled"]
        assert fields["length"] == len(CONTENT)
        assert fields["done"] == len(CONTENT) - 1


def test_upload_is_reset() -> None:
    with serving() as served:
        peer = served.raw()
        peer.send(head(1000) + b"x")
        wait_until(lambda: served.service.transfers.open == 1)
        # Linger of 0 seconds: a reset instead of an end.
        peer.sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
        )
        peer.sock.close()
        assert not failure(served).stalled


def test_upload_that_ends_early_is_answered() -> None:
    with serving() as served:
        peer = served.raw()
        peer.send(head(1000) + b"x")
        peer.sock.shutdown(socket.SHUT_WR)
        answer = peer.answer()
        assert answer.status == 400
        assert answer.error["type"] == "TransferIncomplete"
        assert answer.error["fields"]["done"] == 1
        assert peer.ended()


def test_upload_stalls() -> None:
    with serving(Limits(idle=0.2)) as served:
        peer = served.raw()
        answer = peer.ask(head(1000) + b"x")
        assert answer.status == 408
        assert answer.headers["connection"] == "close"
        assert failure(served).stalled
        assert peer.ended()


def test_upload_that_drips_is_cut() -> None:
    """Each byte comes in time, but all of them would take too long."""
    limits = Limits(idle=0.5, body_time=0.5, body_rate=MIB)
    with serving(limits) as served:
        peer = served.raw()
        peer.send(head(1000))
        began = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(100):
                peer.send(b"x")
                time.sleep(0.05)
        assert time.monotonic() - began < 5
        assert failure(served).stalled


def test_slow_upload_arrives() -> None:
    """Faster than the slowest rate, though never fast."""
    limits = Limits(idle=0.5, body_time=0, body_rate=32 * 1024)
    with serving(limits) as served:
        peer = served.raw()
        content = CONTENT[: 64 * 1024]
        peer.send(head(len(content)))
        for start in range(0, len(content), 8192):
            peer.send(content[start : start + 8192])
            time.sleep(0.1)  # 80 KiB/s
        assert peer.answer().status == 200


def test_memory_is_flat() -> None:
    def peak(length: int) -> int:
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        peer.send(head(length))
        for _ in range(length // MIB):
            peer.send(piece)
        assert peer.answer().status == 200
        return tracemalloc.get_traced_memory()[1] - before

    piece = bytes(MIB)
    with serving() as served:
        served.service.transfers.spool = False
        peer = served.raw()
        tracemalloc.start()
        try:
            small, large = peak(2 * MIB), peak(64 * MIB)
        finally:
            tracemalloc.stop()
    assert large < small + MIB / 4
    assert large < 2 * MIB


# -- download -----------------------------------------------------------------


def test_download() -> None:
    with serving() as served:
        served.service.transfers.offer("down", CONTENT)
        peer = served.raw()
        answer = get(peer)
        assert answer.status == 200
        assert answer.body == CONTENT
        assert answer.headers["content-length"] == str(len(CONTENT))
        assert answer.headers["content-type"] == "application/x-tar"
        assert answer.headers["etag"] == ETAG
        assert answer.headers["accept-ranges"] == "bytes"
        digest = answer.headers["repr-digest"]
        assert digest == f"sha-256=:{b64(CONTENT)}:"
        assert answer.headers["content-disposition"] == (
            'attachment; filename="a__name___.tar"'
        )
        assert "content-range" not in answer.headers
        assert peer.ask(PING).status == 200
        assert served.service.transfers.sent[-1] == len(CONTENT)


LAST = len(CONTENT) - 1

RANGES = {
    "first byte": ("bytes=0-0", 0, 0),
    "middle": ("bytes=1000-300000", 1000, 300000),
    "to the end": ("bytes=1000-", 1000, LAST),
    "last byte": (f"bytes={LAST}-", LAST, LAST),
    "last bytes": ("bytes=-10", LAST - 9, LAST),
    "more last bytes than there are": ("bytes=-99999999", 0, LAST),
    "all": (f"bytes=0-{LAST}", 0, LAST),
    "beyond the end": ("bytes=5-99999999", 5, LAST),
    "spaces and case": ("Bytes= 5-6 ", 5, 6),
}


@pytest.mark.parametrize(
    ("value", "first", "last"), RANGES.values(), ids=RANGES.keys()
)
def test_range(value: str, first: int, last: int) -> None:
    with serving() as served:
        served.service.transfers.offer("down", CONTENT)
        peer = served.raw()
        answer = get(peer, f"Range: {value}")
        assert answer.status == 206
        assert answer.body == CONTENT[first : last + 1]
        expected = f"bytes {first}-{last}/{len(CONTENT)}"
        assert answer.headers["content-range"] == expected
        digest = answer.headers["repr-digest"]
        assert digest == f"sha-256=:{b64(CONTENT)}:"
        # Known before the next request on this connection is served.
        assert peer.ask(PING).status == 200
        assert served.service.transfers.sent[-1] == last + 1


NO_RANGES = {
    "behind the end": f"bytes={LAST + 1}-",
    "nothing": "bytes=-0",
    "backwards": "bytes=6-5",
    "several": "bytes=0-0,2-2",
    "empty": "bytes=",
    "no numbers": "bytes=-",
    "words": "bytes=a-b",
    "plus": "bytes=+1-2",
    "other digits": "bytes=\u00b2-",
    "too many digits": "bytes=0-" + "9" * 19,
}


@pytest.mark.parametrize("value", NO_RANGES.values(), ids=NO_RANGES.keys())
def test_no_range(value: str) -> None:
    with serving() as served:
        served.service.transfers.offer("down", CONTENT)
        answer = get(served.raw(), f"Range: {value}")
        assert answer.status == 416
        expected = f"bytes */{len(CONTENT)}"
        assert answer.headers["content-range"] == expected
        assert answer.error["type"] == "RequestInvalid"


CONDITIONS = {
    "unit of others": (["Range: lines=1-2"], 200),
    "range of this": (["Range: bytes=0-0", f"If-Range: {ETAG}"], 206),
    "range of another": (["Range: bytes=0-0", 'If-Range: "x"'], 200),
    "weak": (["Range: bytes=0-0", f"If-Range: W/{ETAG}"], 200),
    "date": (
        ["Range: bytes=0-0", "If-Range: Sun, 06 Nov 1994 08:49:37 GMT"],
        200,
    ),
    "known": ([f"If-None-Match: {ETAG}"], 304),
    "known among others": ([f'If-None-Match: "x", W/{ETAG}'], 304),
    "any": (["If-None-Match: *", "Range: bytes=0-0"], 304),
    "not known": (['If-None-Match: "x"'], 200),
}


@pytest.mark.parametrize(
    ("fields", "status"), CONDITIONS.values(), ids=CONDITIONS.keys()
)
def test_conditions(fields: list[str], status: int) -> None:
    with serving() as served:
        served.service.transfers.offer("down", CONTENT)
        peer = served.raw()
        answer = get(peer, *fields)
        assert answer.status == status
        assert answer.headers["etag"] == ETAG
        if status == 304:
            assert served.service.transfers.sent == []
        assert peer.ask(PING).status == 200


def test_download_is_refused() -> None:
    with serving() as served:
        answer = get(served.raw(), ticket="x")
        assert answer.status == 404
        assert answer.error["type"] == "TransferNotFound"
        served.service.transfers.begin_error = errors.Damaged(
            what="Generation 3", reason="frame 2"
        )
        answer = get(served.raw())
        assert answer.status == 500
        assert answer.error["type"] == "Damaged"


def test_download_that_fails_midway_is_not_completed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving() as served:
        served.service.transfers.offer("down", CONTENT)
        served.service.transfers.shrink = True
        peer = served.raw()
        with pytest.raises(AssertionError, match="the server ended"):
            get(peer)
    assert "BROKEN path=/ovf-store/transfers/..." in caplog.text
    assert "it ends at byte 262144" in caplog.text
    (line,) = (r for r in caplog.records if "BROKEN" in r.getMessage())
    assert line.levelno == logging.ERROR


def test_download_that_is_aborted(caplog: pytest.LogCaptureFixture) -> None:
    """That is no fault: it was asked for."""
    caplog.set_level(logging.DEBUG, "ovfstore.host")
    with serving() as served:
        served.service.transfers.offer("down", CONTENT)
        served.service.transfers.abort = True
        peer = served.raw()
        with pytest.raises(AssertionError, match="the server ended"):
            get(peer)
        wait_until(lambda: "REQUEST" in caplog.text)
    assert "BROKEN" not in caplog.text
    (request,) = (r for r in caplog.records if "REQUEST" in r.getMessage())
    assert request.levelno == logging.INFO
    assert request.getMessage().endswith("lost='aborted'")


@pytest.mark.parametrize(
    "limits",
    [Limits(idle=0.3), Limits(idle=5, body_time=0.3, body_rate=1024**4)],
    ids=["stalled", "too slow"],
)
def test_download_that_nobody_takes_is_cut(limits: Limits) -> None:
    with serving(limits) as served:
        # More than the socket buffers of both ends can hold.
        served.service.transfers.offer("down", bytes(64 * MIB))
        peer = served.raw()
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        peer.send(b"GET /ovf-store/transfers/down HTTP/1.1\r\n" + HOST)
        peer.send(b"\r\n")
        wait_until(lambda: served.service.transfers.sent, 5)
        wait_until(lambda: served.service.transfers.open == 0, 5)
        assert served.service.transfers.sent[-1] < 64 * MIB
