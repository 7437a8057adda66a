# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""JSON-RPC: calls, and what is none."""

from __future__ import annotations

import json
import logging
import socket
from typing import Any, Optional

import pytest

from tests.host.harness import wait_until
from tests.host.peers import HOST, PING, Answer, Raw, post, serving
from vdsm_ovfstore import errors
from vdsm_ovfstore.host import rpc


def call(peer: Raw, **members: Any) -> Answer:
    request = {"jsonrpc": "2.0", "id": 7, "method": "OvfStore.echo"}
    return peer.ask(post(json.dumps({**request, **members}).encode()))


def test_result() -> None:
    with serving() as served:
        answer = call(served.raw(), params={"a": [1, "ö"]})
        assert answer.status == 200
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.document == {
            "jsonrpc": "2.0",
            "id": 7,
            "result": {"a": [1, "ö"]},
        }


@pytest.mark.parametrize("id", ["x", "", 0, -1, 1.5, "a" * 128, "ö"], ids=repr)
def test_id_comes_back(id: object) -> None:
    with serving() as served:
        assert call(served.raw(), id=id).document["id"] == id


NOT_JSON = {
    "nothing": b"",
    "text": b"ping",
    "cut": b'{"jsonrpc": "2.0"',
    "more": b"{} {}",
    "nan": b'{"id": NaN}',
    "infinity": b'{"id": -Infinity}',
    "too large": b'{"id": 1e999}',
    "too many digits": b'{"id": 123456789012345678901}',
    "a million digits": b'{"id": ' + b"9" * 1000000 + b"}",
    "twice": b'{"id": 1, "id": 2}',
    "twice below": b'{"id": 1, "params": {"a": 1, "a": 1}}',
    "latin-1": '{"id": "ö"}'.encode("latin-1"),
    "utf-16": '{"id": 1}'.encode("utf-16"),
    "byte order mark": b'\xef\xbb\xbf{"id": 1}',
    "overlong": b'{"id": "\xc0\xaf"}',
    "half a surrogate pair": b'{"id": "\\ud800"}',
    "half in a name": b'{"\\ud800": 1}',
    "control character": b'{"id": "\x01"}',
    "too deep": b"[" * 17 + b"]" * 17,
    "too deep behind a string": b'["\\"]", ' + b"[" * 16 + b"]" * 17,
    "too many values": b"[" + b"1," * 10001 + b"1]",
    "quotes without end": b'"' + b'\\"' * 500000,
    "far too deep": b"[" * 100000,
    "far too deep objects": b'{"a":' * 100000,
    "single quotes": b"{'id': 1}",
}


def test_limits_of_json() -> None:
    value: Any = "]" * 20
    for _ in range(16):
        value = [value]
    assert rpc.parse(json.dumps(value).encode()) == value
    assert len(rpc.parse(json.dumps([1] * 10000).encode())) == 10000
    strings = ['["[{', "\\", '\\"[']
    assert rpc.parse(json.dumps(strings * 20).encode()) == strings * 20


@pytest.mark.parametrize("body", NOT_JSON.values(), ids=NOT_JSON.keys())
def test_not_json(body: bytes) -> None:
    with serving() as served:
        peer = served.raw()
        answer = peer.ask(post(body))
        assert answer.status == 400
        assert answer.document["id"] is None
        assert answer.error["code"] == rpc.NOT_JSON
        assert answer.error["data"]["type"] == "RequestInvalid"
        assert answer.error["data"]["code"] == 3506
        # It was read in full: the connection goes on.
        assert peer.ask(PING).status == 200


NO_REQUEST: dict[str, tuple[Any, Optional[int]]] = {
    "number": (1, None),
    "null": (None, None),
    "string": ("ping", None),
    "empty batch": ([], None),
    "batch": ([{"jsonrpc": "2.0", "id": 1, "method": "ping"}], None),
    "empty": ({}, None),
    "notification": ({"jsonrpc": "2.0", "method": "OvfStore.ping"}, None),
    "id null": ({"jsonrpc": "2.0", "id": None, "method": "x"}, None),
    "id true": ({"jsonrpc": "2.0", "id": True, "method": "x"}, None),
    "id list": ({"jsonrpc": "2.0", "id": [1], "method": "x"}, None),
    "id too long": ({"jsonrpc": "2.0", "id": "a" * 129}, None),
    "no version": ({"id": 1, "method": "OvfStore.ping"}, 1),
    "version 1": ({"jsonrpc": "1.0", "id": 1, "method": "x"}, 1),
    "version number": ({"jsonrpc": 2.0, "id": 1, "method": "x"}, 1),
    "no method": ({"jsonrpc": "2.0", "id": 1}, 1),
    "method number": ({"jsonrpc": "2.0", "id": 1, "method": 1}, 1),
    "more members": (
        {"jsonrpc": "2.0", "id": 1, "method": "OvfStore.ping", "auth": 1},
        1,
    ),
}


@pytest.mark.parametrize(
    ("request_", "id"), NO_REQUEST.values(), ids=NO_REQUEST.keys()
)
def test_no_request(request_: Any, id: Optional[int]) -> None:
    with serving() as served:
        answer = served.raw().ask(post(json.dumps(request_).encode()))
        assert answer.status == 400
        assert answer.document["id"] == id
        assert answer.error["code"] == rpc.NO_REQUEST


@pytest.mark.parametrize(
    "method",
    ["OvfStore.pin", "OvfStore.", "OvfStore", "ping", "ovfstore.ping", ""],
    ids=repr,
)
def test_unknown_verb(method: str) -> None:
    with serving() as served:
        answer = call(served.raw(), method=method)
        assert answer.status == 404
        assert answer.document["id"] == 7
        assert answer.error["code"] == rpc.NO_VERB


@pytest.mark.parametrize("params", [[], [1], None, "x", 1], ids=repr)
def test_parameters_go_by_name(params: object) -> None:
    with serving() as served:
        answer = call(served.raw(), params=params)
        assert answer.status == 400
        assert answer.error["code"] == rpc.NO_PARAMETERS
        assert answer.error["data"]["type"] == "ParametersInvalid"


def test_error_of_a_verb() -> None:
    def fail(params: object) -> object:
        raise errors.GenerationNotFound(generation=9)

    with serving() as served:
        served.service.verbs["echo"] = fail
        answer = call(served.raw())
        assert answer.status == 404
        assert answer.document == {
            "jsonrpc": "2.0",
            "id": 7,
            "error": {
                "code": 3541,
                "message": "There is no generation 9 in this store",
                "data": {
                    "type": "GenerationNotFound",
                    "code": 3541,
                    "next_step": "Run: ovfstore history DOMAIN",
                    "fields": {"generation": 9},
                },
            },
        }


def test_busy_verb() -> None:
    def fail(params: object) -> object:
        raise errors.HostBusy(reason="16 jobs run", retry_after=3)

    with serving() as served:
        served.service.verbs["echo"] = fail
        answer = call(served.raw())
        assert answer.status == 503
        assert answer.headers["retry-after"] == "3"
        assert answer.error["code"] == 3518


@pytest.mark.parametrize(
    "result", [{"a": {1}}, {"a": float("nan")}], ids=["a set", "nan"]
)
def test_result_that_is_no_json(result: object) -> None:
    with serving() as served:
        served.service.verbs["echo"] = lambda params: result
        answer = call(served.raw())
        assert answer.status == 500
        assert answer.document["id"] == 7
        assert answer.error["code"] == errors.Unexpected.code


def test_call_without_length() -> None:
    with serving() as served:
        answer = served.raw().ask(
            b"POST /ovf-store/rpc HTTP/1.1\r\n" + HOST + b"\r\n"
        )
        assert answer.status == 411
        assert answer.error["code"] == rpc.NO_REQUEST


JSON = b"Content-Type: application/json"


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param([JSON, b"Content-Encoding: gzip"], id="compressed"),
        pytest.param([b"Accept: */*"], id="no type"),
        pytest.param([b"Content-Type: text/plain"], id="text"),
        pytest.param([JSON, JSON], id="twice"),
        pytest.param([JSON + b"x"], id="longer"),
        pytest.param(
            [b"Content-Type: application/x-www-form-urlencoded"], id="form"
        ),
    ],
)
def test_call_that_is_not_of_json(fields: list[bytes]) -> None:
    """What a page in a browser can send without asking is among them."""
    with serving() as served:
        peer = served.raw()
        ping = b'{"jsonrpc":"2.0","id":1,"method":"OvfStore.ping"}'
        answer = peer.ask(post(ping, *fields))
        assert answer.status == 415
        assert answer.error["code"] == rpc.NO_REQUEST


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Type: application/json; charset=utf-8",
        b"content-type:Application/JSON ;x=y",
    ],
    ids=["charset", "other case"],
)
def test_type_with_parameters(field: bytes) -> None:
    with serving() as served:
        ping = b'{"jsonrpc":"2.0","id":1,"method":"OvfStore.ping"}'
        assert served.raw().ask(post(ping, field)).status == 200


@pytest.mark.parametrize("letter", ["x", "\u202e"], ids=["ascii", "unicode"])
def test_long_name_is_not_repeated(
    letter: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "ovfstore.host")
    with serving() as served:
        peer = served.raw()
        answer = call(peer, **{letter * 100000: 1})
        assert answer.status == 400
        assert len(answer.body) < 2000
        wait_until(lambda: "status=400" in caplog.text)
    assert max(len(r.getMessage()) for r in caplog.records) < 1000


def test_long_problem_is_cut_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def fail(params: object) -> object:
        raise errors.WorkerFailed(reason="x" * 100000)

    with serving() as served:
        served.service.verbs["echo"] = fail
        assert call(served.raw()).status == 500
        wait_until(lambda: "status=500" in caplog.text)
    (line,) = (r.getMessage() for r in caplog.records)
    assert "The worker ended" in line
    assert len(line) < 1000


def test_expected_call() -> None:
    """curl waits for 100 before it sends a call of more than 1 MiB."""
    head, body = PING.split(b"\r\n\r\n")
    with serving() as served:
        peer = served.raw()
        answer = peer.ask(head + b"\r\nExpect: 100-Continue\r\n\r\n")
        assert answer.status == 100
        assert peer.ask(body).status == 200


def test_call_that_stops() -> None:
    with serving() as served:
        peer = served.raw()
        peer.send(PING[:-1])
        peer.sock.shutdown(socket.SHUT_WR)
        answer = peer.answer()
        assert answer.status == 400
        assert answer.error["data"]["type"] == "TransferIncomplete"
        assert peer.ended()
