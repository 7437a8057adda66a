# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""HTTP as it should be, and as it should not be."""

from __future__ import annotations

import logging
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.host.harness import wait_until
from tests.host.peers import HOST, PING, RPC, Raw, post, serving
from tests.host.standin import StandIn
from vdsm_ovfstore import errors
from vdsm_ovfstore.host import head
from vdsm_ovfstore.host.answers import status_of
from vdsm_ovfstore.host.app import App
from vdsm_ovfstore.host.exchange import Data, Exchange, Headers
from vdsm_ovfstore.host.limits import Limits

GET = b"GET /nothing HTTP/1.1\r\n"

# Every number is another one, so that no limit is taken for another.
SMALL = Limits(
    request_line=200, header_bytes=500, header_fields=5, rpc_body=300
)

MALFORMED = {
    "http 0.9": (b"GET /ovf-store/rpc\r\n", 400),
    "http 2": (b"GET / HTTP/2.0\r\n\r\n", 505),
    "http 2 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "noise": (b"\x16\x03\x01\x02\x00\x01", 400),
    "empty line": (b"\r\n" + PING, 400),
    "two spaces": (b"GET  / HTTP/1.1\r\n", 400),
    "tab": (b"GET\t/ HTTP/1.1\r\n", 400),
    "space in the path": (b"GET /a b HTTP/1.1\r\n", 400),
    "nul in the path": (b"GET /a\0b HTTP/1.1\r\n", 400),
    "cr in the path": (b"GET /a\rb HTTP/1.1\r\n", 400),
    "not ascii": ("GET /ö HTTP/1.1\r\n".encode(), 400),
    "no path": (b"GET nothing HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "a proxy's target": (b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n", 400),
    "lf": (b"GET / HTTP/1.1\n", 400),
    "lf in a field": (GET + b"Host: a\n\r\n", 400),
    "cr in a field": (GET + b"Host: a\rX: b\r\n\r\n", 400),
    "nul in a field": (GET + b"Host: a\0b\r\n\r\n", 400),
    "del in a field": (GET + b"Host: a\x7f\r\n\r\n", 400),
    "folded": (GET + HOST + b"X: a\r\n b\r\n\r\n", 400),
    "folded at once": (GET + b" Host: a\r\n\r\n", 400),
    "space before the colon": (GET + b"Host : a\r\n\r\n", 400),
    "no colon": (GET + b"Host\r\n\r\n", 400),
    "no name": (GET + HOST + b": a\r\n\r\n", 400),
    "no host": (GET + b"\r\n", 400),
    "two hosts": (GET + HOST + HOST + b"\r\n", 400),
    "expects what nobody does": (GET + HOST + b"Expect: tea\r\n\r\n", 417),
}

LENGTHS = {
    "twice": (b"Content-Length: 5\r\nContent-Length: 5\r\n", 400),
    "contradicting": (b"Content-Length: 5\r\nContent-Length: 6\r\n", 400),
    "list": (b"Content-Length: 5, 5\r\n", 400),
    "negative": (b"Content-Length: -5\r\n", 400),
    "plus": (b"Content-Length: +5\r\n", 400),
    "underscore": (b"Content-Length: 1_0\r\n", 400),
    "hex": (b"Content-Length: 0x5\r\n", 400),
    "empty": (b"Content-Length:\r\n", 400),
    "not ascii": (b"Content-Length: \xb2\r\n", 400),
    "too many digits": (b"Content-Length: " + b"9" * 19 + b"\r\n", 400),
    "chunked": (b"Transfer-Encoding: chunked\r\n", 411),
    "chunked and length": (
        b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        400,
    ),
    "length and other encoding": (
        b"Content-Length: 5\r\nTransfer-Encoding: identity\r\n",
        400,
    ),
}


@pytest.mark.parametrize(
    ("data", "status"), MALFORMED.values(), ids=MALFORMED.keys()
)
def test_malformed_is_refused(data: bytes, status: int) -> None:
    with serving() as served:
        peer = served.raw()
        answer = peer.ask(data)
        assert answer.status == status
        assert answer.error["type"] == "RequestInvalid"
        assert answer.headers["connection"] == "close"
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.ended()


@pytest.mark.parametrize(
    ("fields", "status"), LENGTHS.values(), ids=LENGTHS.keys()
)
def test_length_in_doubt_is_refused(fields: bytes, status: int) -> None:
    """What could be two requests for somebody else is none for us."""
    with serving() as served:
        peer = served.raw()
        head = b"POST /ovf-store/rpc HTTP/1.1\r\n" + HOST + fields
        answer = peer.ask(head + b"\r\n0\r\n\r\n" + PING)
        assert answer.status == status
        assert answer.headers["connection"] == "close"
        peer.sock.shutdown(socket.SHUT_WR)
        assert peer.ended()


def _line(length: int) -> bytes:
    fixed = len(b"GET / HTTP/1.1\r\n")
    return b"GET /" + b"a" * (length - fixed) + b" HTTP/1.1\r\n"


def _fields(length: int) -> bytes:
    """Header fields that take so many bytes with the empty line."""
    fixed = len(HOST) + len(b"X: \r\n\r\n")
    return HOST + b"X: " + b"a" * (length - fixed) + b"\r\n\r\n"


LIMITS = {
    "line": (_line(200) + HOST + b"\r\n", 404),
    "line and one": (_line(201) + HOST + b"\r\n", 414),
    "line without end": (b"GET /" + b"a" * 5000, 414),
    "header": (GET + _fields(500), 404),
    "header and one": (GET + _fields(501), 431),
    "header without end": (GET + HOST + b"a" * 5000, 431),
    "fields": (GET + HOST + b"X: a\r\n" * 4 + b"\r\n", 404),
    "fields and one": (GET + HOST + b"X: a\r\n" * 5 + b"\r\n", 431),
    "body": (post(b" " * 300), 400),
    "body and one": (post(b" " * 301), 413),
}


@pytest.mark.parametrize(
    ("data", "status"), LIMITS.values(), ids=LIMITS.keys()
)
def test_limits(data: bytes, status: int) -> None:
    with serving(SMALL) as served:
        assert served.raw().ask(data).status == status


def test_connection_is_kept() -> None:
    with serving() as served:
        peer = served.raw()
        for _ in range(3):
            answer = peer.ask(PING)
            assert answer.status == 200
            assert "connection" not in answer.headers
        assert served.server.connections == 1


def test_pipelined_requests() -> None:
    with serving() as served:
        peer = served.raw()
        calls = [
            post(b'{"jsonrpc":"2.0","id":%d,"method":"OvfStore.ping"}' % i)
            for i in range(20)
        ]
        peer.send(b"".join(calls))
        ids = [peer.answer().document["id"] for _ in range(20)]
        assert ids == list(range(20))


@pytest.mark.parametrize(
    "data",
    [
        PING.replace(HOST, HOST + b"Connection: x, Close\r\n"),
        PING.replace(b"HTTP/1.1", b"HTTP/1.0"),
        PING.replace(b"HTTP/1.1", b"HTTP/1.0").replace(HOST, b""),
    ],
    ids=["asked for", "http 1.0", "http 1.0 without host"],
)
def test_connection_is_closed(data: bytes) -> None:
    with serving() as served:
        peer = served.raw()
        answer = peer.ask(data)
        assert answer.status == 200
        assert answer.headers["connection"] == "close"
        assert peer.ended()


@pytest.mark.parametrize(
    "target",
    [b"http://localhost/ovf-store/rpc", b"HTTPS://[::1]:9/ovf-store/rpc"],
    ids=["http", "https"],
)
def test_target_with_host(target: bytes) -> None:
    with serving() as served:
        answer = served.raw().ask(PING.replace(RPC.encode(), target))
        assert answer.status == 200


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/ovf-store/rpc", "POST"),
        ("DELETE", "/ovf-store/transfers/x", "GET, PUT"),
    ],
    ids=["rpc", "transfer"],
)
def test_wrong_method(method: str, path: str, allowed: str) -> None:
    with serving() as served:
        client = served.client()
        client.request(method, path)
        answer = client.getresponse()
        assert answer.status == 405
        assert answer.headers["Allow"] == allowed


def test_answer_to_head_has_no_body() -> None:
    with serving() as served:
        peer = served.raw()
        peer.send(b"HEAD /ovf-store/rpc HTTP/1.1\r\n" + HOST + b"\r\n")
        assert peer.answer(bodiless=True).status == 405
        assert peer.ask(PING).status == 200


@pytest.mark.parametrize(
    "field",
    [
        b"Origin: http://evil.example.com",
        b"Sec-Fetch-Site: cross-site",
        # An address that was typed in, or a bookmark.
        b"Sec-Fetch-Site: none",
    ],
)
@pytest.mark.parametrize(
    "data",
    [PING, b"GET /ovf-store/transfers/down HTTP/1.1\r\n" + HOST + b"\r\n"],
    ids=["verb", "download"],
)
def test_browsers_are_refused(field: bytes, data: bytes) -> None:
    with serving() as served:
        served.service.transfers.offer("down", b"secret")
        peer = served.raw()
        answer = peer.ask(data.replace(HOST, HOST + field + b"\r\n"))
        assert answer.status == 403
        assert served.service.transfers.sent == []


def test_status_is_for_this_machine(tmp_path: Any) -> None:
    request = b"GET /ovf-store/status HTTP/1.1\r\n" + HOST + b"\r\n"
    with serving(path=str(tmp_path / "socket")) as served:
        answer = served.raw().ask(request)
        assert answer.document == {"state": "ready"}
    with serving() as served:
        assert served.raw().ask(request).status == 404


def test_header_that_drips() -> None:
    with serving(Limits(header=0.5, idle=5)) as served:
        peer = served.raw()
        began = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(100):
                peer.send(b"P")
                time.sleep(0.05)
        assert time.monotonic() - began < 5
    with serving(Limits(header=0.3, idle=5)) as served:
        peer = served.raw()
        answer = peer.ask(b"GET / HTTP/1.1\r\nHo")
        assert answer.status == 408
        assert peer.ended()


def test_header_that_stops() -> None:
    with serving(Limits(header=5, idle=0.2)) as served:
        peer = served.raw()
        assert peer.ask(b"GET / HT").status == 408
        assert peer.ended()


@pytest.mark.parametrize(
    "limits",
    [Limits(idle=0.2), Limits(keep_alive=0.2)],
    ids=["first", "next"],
)
def test_silent_connection_is_closed(limits: Limits) -> None:
    with serving(limits) as served:
        peer = served.raw()
        if limits.keep_alive < 1:
            assert peer.ask(PING).status == 200
        assert peer.ended()


def test_kept_connection_may_be_silent_for_longer() -> None:
    with serving(Limits(idle=0.2, keep_alive=20)) as served:
        peer = served.raw()
        assert peer.ask(PING).status == 200
        time.sleep(0.5)
        assert peer.ask(PING).status == 200


def test_unexpected_error_stays_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(params: object) -> object:
        raise KeyError("secret")

    with serving() as served:
        served.service.verbs["ping"] = fail
        served.service.transfers.begin_error = OSError("secret")
        peer = served.raw()
        answer = peer.ask(PING)
        assert answer.status == 500
        assert answer.error["data"]["type"] == "Unexpected"
        assert b"secret" not in answer.body
        request = b"GET /ovf-store/transfers/x HTTP/1.1\r\n" + HOST + b"\r\n"
        answer = peer.ask(request)
        assert answer.status == 500
        assert answer.error["fields"]["kind"] == "OSError"
        assert b"secret" not in answer.body
    traced = [r for r in caplog.records if r.exc_info]
    assert len(traced) == 2


def test_answers_steer_no_terminal() -> None:
    name = "a\x1b[2J\u202e\r\n\x9b"
    with serving() as served:
        served.service.transfers.begin_error = errors.MemberRefused(
            name=name, reason=name
        )
        request = b"GET /ovf-store/transfers/x HTTP/1.1\r\n" + HOST + b"\r\n"
        answer = served.raw().ask(request)
        error = answer.error
        assert answer.status == 422
        assert error["message"].isprintable()
        assert error["fields"]["name"] == "a\\x1b[2J\\u202e\\r\\n\\x9b"


STATUSES = {
    "parameters": (errors.ParametersInvalid(verb="x", reason="y"), 400),
    "no transfer": (errors.TransferNotFound(), 404),
    "no domain": (errors.DomainNotServed(domain="x"), 404),
    "state": (
        errors.TransferRefused(transfer="x", reason="y", gone=False),
        409,
    ),
    "spent": (
        errors.TransferRefused(transfer="x", reason="y", gone=True),
        410,
    ),
    "cut": (
        errors.TransferIncomplete(done=1, length=2, reason="", stalled=False),
        400,
    ),
    "stalled": (
        errors.TransferIncomplete(done=1, length=2, reason="", stalled=True),
        408,
    ),
    "too large": (
        errors.ArchiveTooLarge(what="x", size=2, limit=1, way_out=""),
        413,
    ),
    "no archive": (errors.NotAnArchive(reason="x"), 422),
    "busy": (errors.HostBusy(reason="x", retry_after=7), 503),
    "full": (errors.StorageFull(operation="x", path="y", reason="z"), 507),
    "spool full": (errors.SpoolFull(path="x"), 507),
    "a subclass": (
        errors.StorageDenied(operation="x", path="y", reason="z"),
        500,
    ),
    "the rest": (errors.WorkerFailed(reason="x"), 500),
}


@pytest.mark.parametrize(
    ("error", "status"), STATUSES.values(), ids=STATUSES.keys()
)
def test_status_of_errors(error: errors.Error, status: int) -> None:
    assert status_of(error) == status


def test_busy_says_when_to_come_back() -> None:
    with serving() as served:
        served.service.transfers.begin_error = errors.HostBusy(
            reason="16 transfers are open", retry_after=7
        )
        request = b"GET /ovf-store/transfers/x HTTP/1.1\r\n" + HOST + b"\r\n"
        answer = served.raw().ask(request)
        assert answer.status == 503
        assert answer.headers["retry-after"] == "7"


def test_log_holds_no_ticket(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "ovfstore.host")
    ticket = "0123456789abcdef0123456789abcdef"
    paths = [
        f"/ovf-store/transfers/{ticket}",
        f"/ovf-store/{ticket}",
        f"/{ticket}",
        f"/ovf-store/rpc?{ticket}",
        f"/ovf-store/transfers/x/{ticket}",
    ]
    with serving() as served:
        peer = served.raw()
        for path in paths:
            request = b"GET %s HTTP/1.1\r\n" % path.encode()
            assert peer.ask(request + HOST + b"\r\n").status in (404, 405)
        peer.ask(PING)
        peer.sock.close()
        wait_until(lambda: "CLOSE" in caplog.text)
    assert ticket not in caplog.text
    lines = [r.getMessage() for r in caplog.records]
    (opened,) = (line for line in lines if line.startswith("OPEN"))
    (closed,) = (line for line in lines if line.startswith("CLOSE"))
    assert "requests=6" in closed
    requests = [line for line in lines if line.startswith("REQUEST")]
    assert len(requests) == 6
    assert "path=/ovf-store/transfers/... subject=- status=404" in requests[0]
    assert "method=POST" in requests[5]
    assert "subject=OvfStore.ping status=200" in requests[5]


# -- behind another server ----------------------------------------------------


class OtherServer(BaseHTTPRequestHandler):
    """One like VDSM's: it reads the header, we do the rest. A Stream."""

    protocol_version = "HTTP/1.1"
    app: App

    def answer(self) -> None:
        request = head.request(
            self.command, self.path, False, Headers(self.headers.items())
        )
        exchange = Exchange(request, self, "somebody")
        self.app.handle(exchange)
        self.close_connection = not exchange.keep

    do_POST = do_PUT = do_GET = answer

    def handle_expect_100(self) -> bool:
        return True  # that is for the Exchange to say

    def log_message(self, *args: object) -> None:
        pass

    def read_into(self, buffer: memoryview, deadline: float) -> int:
        return self.rfile.readinto1(buffer)

    def send(self, data: Data, deadline: float) -> None:
        self.wfile.write(data)


def test_app_behind_another_server() -> None:
    service = StandIn()
    service.transfers.offer("down", b"0123456789")
    OtherServer.app = App(service)
    with HTTPServer(("127.0.0.1", 0), OtherServer) as other:
        thread = threading.Thread(target=other.serve_forever, args=(0.01,))
        thread.start()
        try:
            where = ("127.0.0.1", other.server_port)
            with socket.create_connection(where) as sock:
                peer = Raw(sock)
                assert peer.ask(PING).document["result"] == {"api": 1}
                upload = b"PUT /ovf-store/transfers/up HTTP/1.1\r\n" + HOST
                upload += b"Content-Length: 5\r\nExpect: 100-continue\r\n"
                assert peer.ask(upload + b"\r\n").status == 100
                assert peer.ask(b"hello").document["length"] == 5
                download = b"GET /ovf-store/transfers/down HTTP/1.1\r\n"
                download += HOST + b"Range: bytes=2-3\r\n\r\n"
                assert peer.ask(download).body == b"23"
                refused = upload.replace(b"/up", b"/x")
                answer = peer.ask(refused + b"\r\n")
                assert answer.status == 404
                assert answer.headers["connection"] == "close"
                assert peer.ended()
        finally:
            other.shutdown()
            thread.join()
    assert service.transfers.open == 0
