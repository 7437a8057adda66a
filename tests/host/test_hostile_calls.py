# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Calls that no verb can be asked with, peers that are not let in, and more of
everything than there is room for; a real daemon over TLS.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import time
import uuid
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from tests.host.certs import Pki, certificates
from tests.host.harness import running_daemon, wait_until
from tests.host.hostbed import HostBed, request
from tests.host.peers import PING, RPC, Raw, post
from tests.store.builders import archive, make_domain
from vdsm_ovfstore import errors
from vdsm_ovfstore.api.schema import Definition

# All of them start daemons.
pytestmark = pytest.mark.slow

VERBS = Definition.load().verbs

NOT_JSON, NO_REQUEST, NO_VERB, NO_PARAMETERS = -32700, -32600, -32601, -32602


@contextlib.contextmanager
def host(
    factory: pytest.TempPathFactory, **limits: object
) -> Iterator[HostBed]:
    tmp = factory.mktemp("calls")
    domain, spool = make_domain(tmp), tmp / "spool"
    spool.mkdir()
    with running_daemon(
        tmp,
        [domain.path],
        tls=certificates().host.path,
        limits={"spool": spool, **limits},
    ) as daemon:
        bed = HostBed(daemon, domain, spool, certificates().client)
        bed.start_store()
        yield bed
        bed.assert_intact()
        bed.assert_usable()
        bed.assert_nothing_left()


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostBed]:
    with host(tmp_path_factory) as bed:
        yield bed


@pytest.fixture(scope="module")
def shared_tight(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[HostBed]:
    with host(
        tmp_path_factory,
        connections=4,
        transfers=3,
        spool_bytes="4 MiB",
        idle="1 s",
        # Three are open at the same time, however slow the machine is.
        transfer_expires="5 s",
    ) as bed:
        yield bed


@pytest.fixture
def tight(shared_tight: HostBed) -> Iterator[HostBed]:
    """A host with little of everything."""
    yield shared_tight
    shared_tight.clean_up()


# -- JSON-RPC -----------------------------------------------------------------


def call(**changes: Any) -> bytes:
    """A good call with these changes; None leaves a key out."""
    good = {
        "jsonrpc": "2.0",
        "id": 7,
        "method": "OvfStore.ping",
        "params": {},
    }
    good.update(changes)
    return json.dumps({k: v for k, v in good.items() if v != ...}).encode()


CALLS: dict[str, tuple[bytes, int, int, str]] = {
    "batch": (b"[" + call() + b"]", 400, NO_REQUEST, "batches"),
    "empty batch": (b"[]", 400, NO_REQUEST, "batches"),
    "notification": (call(id=...), 400, NO_REQUEST, "without an id"),
    "null id": (call(id=None), 400, NO_REQUEST, "without an id"),
    "id is true": (call(id=True), 400, NO_REQUEST, "id is"),
    "id is a list": (call(id=[1]), 400, NO_REQUEST, "id is"),
    "id is an object": (call(id={}), 400, NO_REQUEST, "id is"),
    "long id": (call(id="x" * 10_000), 400, NO_REQUEST, "id has"),
    "huge id": (call(id=10**30), 400, NOT_JSON, "digits"),
    "by position": (call(params=[1]), 400, NO_PARAMETERS, ""),
    "params is text": (call(params="x"), 400, NO_PARAMETERS, ""),
    "params is null": (call(params=None), 400, NO_PARAMETERS, ""),
    "no JSON": (b"ping", 400, NOT_JSON, "not JSON"),
    "XML": (b"<methodCall/>", 400, NOT_JSON, "not JSON"),
    "nothing": (b"", 400, NOT_JSON, "not JSON"),
    "blank": (b" \r\n", 400, NOT_JSON, "not JSON"),
    "text": (b'"ping"', 400, NO_REQUEST, "an object"),
    "null": (b"null", 400, NO_REQUEST, "an object"),
    "half": (call()[:-1], 400, NOT_JSON, "not JSON"),
    "two": (call() + call(), 400, NOT_JSON, "not JSON"),
    "twice the same key": (
        call()[:-1] + b', "method": "OvfStore.list"}',
        400,
        NOT_JSON,
        "given twice",
    ),
    "Latin-1": (call()[:-1] + b', "x": "\xe4"}', 400, NOT_JSON, "UTF-8"),
    "UTF-16": (call().decode().encode("utf-16"), 400, NOT_JSON, "UTF-8"),
    "half a character": (
        call()[:-1] + b', "x": "\\ud800"}',
        400,
        NOT_JSON,
        "surrogate",
    ),
    "NaN": (call()[:-1] + b', "x": NaN}', 400, NOT_JSON, "NaN"),
    "endless": (call()[:-1] + b', "x": 1e999}', 400, NOT_JSON, "large"),
    "many digits": (
        b'{"id": ' + b"9" * 500_000 + b"}",
        400,
        NOT_JSON,
        "digits",
    ),
    "deep list": (b"[" * 500_000, 400, NOT_JSON, "nested"),
    "deep object": (b'{"a":' * 100_000, 400, NOT_JSON, "nested"),
    "deep parameter": (
        call(params={"x": json.loads("[" * 100 + "]" * 100)}),
        400,
        NOT_JSON,
        "nested",
    ),
    "no version": (call(jsonrpc=...), 400, NO_REQUEST, "jsonrpc"),
    "version 1": (call(jsonrpc="1.0"), 400, NO_REQUEST, "jsonrpc"),
    "version as a number": (call(jsonrpc=2.0), 400, NO_REQUEST, "jsonrpc"),
    "no method": (call(method=...), 400, NO_REQUEST, "method"),
    "method is a number": (call(method=1), 400, NO_REQUEST, "method"),
    "method is null": (call(method=None), 400, NO_REQUEST, "method"),
    "other namespace": (call(method="Host.ping"), 404, NO_VERB, ""),
    "no namespace": (call(method="ping"), 404, NO_VERB, ""),
    "no verb": (call(method="OvfStore."), 404, NO_VERB, ""),
    "unknown": (call(method="OvfStore.format"), 404, NO_VERB, "format"),
    "in capitals": (call(method="OvfStore.PING"), 404, NO_VERB, "ping"),
    "private": (call(method="OvfStore._ping"), 404, NO_VERB, ""),
    "of Python": (call(method="OvfStore.__class__"), 404, NO_VERB, ""),
    "long method": (call(method="OvfStore." + "x" * 9999), 404, NO_VERB, ""),
    "not ASCII": (call(method="OvfStore.píng\x1b[1m"), 404, NO_VERB, ""),
    "2 MiB": (call(x="x" * 2**21), 413, NO_REQUEST, "bytes"),
}


def assert_refused(document: Any, code: int, *words: str) -> None:
    error = document["error"]
    assert document["jsonrpc"] == "2.0"
    assert error["code"] == code, error
    data = error["data"]
    assert data["code"] == getattr(errors, data["type"]).code
    for text in (error["message"], data["next_step"]):
        assert text and text.isprintable() and len(text) < 400
    for word in words:
        assert word in error["message"]


@pytest.mark.parametrize("name", CALLS)
def test_bad_call(bed: HostBed, name: str) -> None:
    body, status, code, word = CALLS[name]
    answer = bed.rpc(body)
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert_refused(answer.document, code, word)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
def test_call_by_other_method(bed: HostBed, method: str) -> None:
    answer = bed.ask(request(method, RPC))
    assert answer.status == 405
    assert answer.headers["allow"] == "POST"


def test_status_is_not_for_others(bed: HostBed) -> None:
    answer = bed.ask(request("GET", "/ovf-store/status"))
    assert answer.status == 404
    assert b"pid" not in answer.body


# -- parameters ---------------------------------------------------------------

ODD: dict[str, Any] = {
    "null": None,
    "true": True,
    "negative": -1,
    "fraction": 1.5,
    "huge": 10**19,
    "list": [[]],
    "object": {"x": 1},
    "empty": "",
    "long": "x" * 100_000,
    "not ASCII": "ü\x00\x1b[31m\u202e",
    "path": "../../etc/passwd",
}


def wrong_params(verb: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is wrong with them, and parameters."""
    good = VERBS[verb].example["params"]
    yield "unknown", {**good, "evil": 1}
    for name in VERBS[verb].params["required"]:
        yield name, {k: v for k, v in good.items() if k != name}
    for name, schema in VERBS[verb].params["properties"].items():
        for odd in ODD.values():
            if _fits(name, schema, odd):
                continue
            yield name, {**good, name: odd}


def _fits(name: str, schema: Any, odd: Any) -> bool:
    """What is a good value of that parameter after all."""
    if name == "timeout":
        return bool(odd == 1.5)
    if name in ("quick", "force", "collectOrphans"):
        return odd is True
    if name == "name":
        return isinstance(odd, str) and 0 < len(odd) < 256
    return False


@pytest.mark.parametrize("verb", VERBS)
def test_wrong_parameters(bed: HostBed, verb: str) -> None:
    with bed.peer() as peer:
        for name, params in wrong_params(verb):
            body = call(method=f"OvfStore.{verb}", params=params)
            answer = peer.ask(post(body))
            assert answer.status == 400, (name, params, answer.body)
            assert_refused(answer.document, NO_PARAMETERS, f"{verb}: ")
            assert answer.document["id"] == 7


def test_unknown_ids(bed: HostBed) -> None:
    """Well-formed ones, of nothing."""
    for verb in VERBS:
        if "storagedomainID" not in VERBS[verb].params["properties"]:
            continue
        params = dict(VERBS[verb].example["params"])
        answer = bed.verb(verb, params)
        assert answer.status == 404, (verb, answer.body)
        assert_refused(answer.document, 358, params["storagedomainID"])
        # Of a domain that is here, but of another pool.
        params["storagedomainID"] = bed.domain.id
        params["storagepoolID"] = str(uuid.uuid4())
        answer = bed.verb(verb, params)
        assert answer.status == 400
        assert_refused(answer.document, 3537, params["storagepoolID"])
    other = str(uuid.uuid4())
    for verb, params, code in (
        ("getTransfer", {"transferID": other}, 3508),
        ("abort", {"transferID": other}, 3508),
        ("abort", {"jobID": other}, 3525),
        ("getJobs", {"jobIDs": [other]}, 3525),
        (
            "getVm",
            {"storagedomainID": bed.domain.id, "vmID": other},
            3543,
        ),
        (
            "download",
            {"storagedomainID": bed.domain.id, "generation": 99},
            3541,
        ),
    ):
        answer = bed.verb(verb, params)
        assert answer.status == 404
        assert_refused(answer.document, code)


# -- who is not let in --------------------------------------------------------


def hello() -> bytes:
    """The first bytes of TLS."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(
        incoming, outgoing, server_hostname="localhost"
    )
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def shows(pki: Pki, identified: bool = True) -> ssl.SSLContext:
    """Who trusts the host, and shows the certificate of pki or none."""
    context = certificates().client.client_context(identified=False)
    if identified:
        context.load_cert_chain(pki.certificate, pki.key)
    return context


STRANGERS: dict[str, Callable[[], ssl.SSLContext]] = {
    "foreign": lambda: shows(certificates().foreign),
    "expired": lambda: shows(certificates().expired),
    "none": lambda: shows(certificates().client, identified=False),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_stranger(bed: HostBed, name: str) -> None:
    with bed.plain() as raw, pytest.raises((ssl.SSLError, OSError)):
        context = STRANGERS[name]()
        with context.wrap_socket(
            raw.sock, server_hostname="localhost"
        ) as sock:
            # With TLS 1.3 it is only told after its first words.
            Raw(sock).ask(PING)
    bed.assert_nothing_left()


NOISE = {
    "plain HTTP": PING,
    "zeros": bytes(5000),
    "noise": os.urandom(5000),
    "half of TLS": hello()[:20],
    "TLS with rubbish": hello() + os.urandom(1000),
    "nothing": b"",
}


@pytest.mark.parametrize("name", NOISE)
def test_no_tls(bed: HostBed, name: str) -> None:
    with bed.plain() as raw:
        raw.send(NOISE[name])
        raw.sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while got := raw.sock.recv(4096):
                assert not got.startswith(b"HTTP/")
    bed.assert_nothing_left()


@pytest.mark.parametrize("name", ["TLS", "noise", "zeros", "line"])
def test_no_http_on_the_socket(bed: HostBed, name: str) -> None:
    noise = {"TLS": hello(), "line": b"hello\r\n\r\n", **NOISE}[name]
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(bed.daemon.socket)
        peer = Raw(sock)
        peer.send(noise)
        answer = peer.answer()
        assert answer.status == 400
        assert answer.error["type"] == "RequestInvalid"
        assert peer.ended()
    bed.assert_nothing_left()


def test_who_says_nothing(bed: HostBed) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(bed.plain())
            stack.enter_context(bed.peer())
        assert bed.verb("ping", {}).status == 200
    bed.assert_nothing_left()


# -- more than there is room for ----------------------------------------------


def test_more_connections_than_threads(tight: HostBed) -> None:
    """Those that say nothing make room; nobody is refused."""
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(tight.peer())
        for _ in range(3):
            stack.enter_context(tight.plain())
        assert tight.verb("ping", {}).status == 200
        # The local socket has threads of its own.
        assert tight.daemon.call("ping")["api"] == 1
    tight.assert_nothing_left()


def test_more_transfers_than_places(tight: HostBed) -> None:
    transfers = [tight.ask_download() for _ in range(3)]
    for verb, params in (("download", {}), ("upload", {"size": 2048})):
        answer = tight.verb(
            verb, {"storagedomainID": tight.domain.id, **params}
        )
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert_refused(answer.document, 3518, "3 transfers are open")
    # One that is done makes room for one. The peer may have the last byte
    # before the host knows that it sent it.
    assert tight.get(transfers[0]["url"]).body == tight.tar
    assert tight.wait_for_end(transfers[0])["state"] == "done"
    again = tight.ask_download()
    for transfer in (again, *transfers[1:]):
        tight.daemon.call("abort", transferID=transfer["transferID"])
    tight.assert_nothing_left()


def test_spool_is_taken(tight: HostBed) -> None:
    """Who waits as he was told gets through, for the others expire."""
    tar = archive(tight.domain, {"big": "x" * 700_000})
    up, down = tight.ask_upload(tar), tight.ask_download()
    params = {
        "storagedomainID": tight.domain.id,
        "size": len(tar),
        "force": True,
    }
    answer = tight.verb("upload", params)
    assert answer.status == 503
    assert 0 < int(answer.headers["retry-after"]) <= 60
    assert_refused(answer.document, 3518, "other transfers use its spool")
    answer = wait_until(
        lambda: (a := tight.verb("upload", params)).status == 200 and a
    )
    url = answer.document["result"]["url"]
    assert tight.put(url, tar).status == 200
    tight.tar = tar
    for transfer in (up, down):
        assert tight.wait_for_end(transfer)["state"] == "expired"
    for answer in (tight.put(up["url"], tar), tight.get(down["url"])):
        assert answer.status == 410
        assert answer.error["type"] == "TransferRefused"
        assert "nobody came for it" in answer.error["message"]
    tight.assert_intact()
    tight.assert_nothing_left()


@pytest.mark.parametrize("sent", [0, 1000], ids=["at once", "in the midst"])
def test_stalled_upload(tight: HostBed, sent: int) -> None:
    tar = archive(tight.domain, ["slow"])
    transfer = tight.ask_upload(tar)
    whole = request("PUT", transfer["url"], tar)
    began = time.monotonic()
    with tight.peer() as peer:
        answer = peer.ask(whole[: len(whole) - len(tar) + sent])
        assert answer.status == 408
        assert answer.error["type"] == "TransferIncomplete"
        assert f"after {sent} of {len(tar)}" in answer.error["message"]
        assert peer.ended()
    assert time.monotonic() - began < 10
    assert tight.state(transfer) == "failed"
    tight.assert_intact()
    tight.assert_nothing_left()


def test_stalled_head(tight: HostBed) -> None:
    with tight.peer() as peer:
        answer = peer.ask(PING[:40])
        assert answer.status == 408
        assert peer.ended()
    tight.assert_nothing_left()


@pytest.mark.campaign
def test_drips(bed: HostBed) -> None:
    """A byte now and then is no way to stay: 30 s a head, 60 s a body."""
    tar = archive(bed.domain, ["drip"])
    transfer = bed.ask_upload(tar)
    head = request("PUT", transfer["url"], tar)[: -len(tar)]
    began = time.monotonic()
    ended: dict[str, float] = {}
    with bed.peer() as body, bed.peer() as field:
        body.send(head)
        field.send(b"GET / HTTP/1.1\r\nX: ")
        peers = {"body": body, "field": field}
        while len(ended) < 2:
            assert time.monotonic() - began < 100
            for name in set(peers) - set(ended):
                peers[name].sock.settimeout(0.5)
                try:
                    peers[name].send(b"x")
                    assert peers[name].answer().status == 408
                except TimeoutError:
                    continue
                ended[name] = time.monotonic() - began
    assert 25 < ended["field"] < 45
    assert 55 < ended["body"] < 75
    bed.assert_intact()
    bed.assert_nothing_left()
