# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What is sent again, and what never is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Callable

import pytest

from tests.client.peer import DOMAIN, JOB, TRANSFER, Peer, Told, cut, running
from vdsm_ovfstore import errors
from vdsm_ovfstore.client import Client
from vdsm_ovfstore.client.calls import READING

Call = Callable[[Client], Any]

READ: dict[str, Call] = {
    "ping": lambda c: c.ping(),
    "list": lambda c: c.list_domains(),
    "getInfo": lambda c: c.get_info(DOMAIN),
    "getTransfer": lambda c: c.get_transfer(TRANSFER),
    "getJobs": lambda c: c.get_jobs([JOB]),
    "getVm": lambda c: c.get_vm(DOMAIN, "id"),
    "getHistory": lambda c: c.get_history(DOMAIN),
    "listVms": lambda c: c.list_vms(DOMAIN),
    "diff": lambda c: c.diff(DOMAIN),
}
WRITE: dict[str, Call] = {
    "create": lambda c: c.create(DOMAIN),
    "upload": lambda c: c.begin_upload(DOMAIN, 1),
    "download": lambda c: c.begin_download(DOMAIN),
    "verify": lambda c: c.verify(DOMAIN),
    "repair": lambda c: c.repair(DOMAIN),
    "restore": lambda c: c.restore(DOMAIN, 1),
    "pin": lambda c: c.pin(DOMAIN, 1),
    "unpin": lambda c: c.unpin(DOMAIN, 1),
    "abort": lambda c: c.abort_transfer(TRANSFER),
}

ANYTHING: dict[str, list[Any]] = {"domains": [], "jobs": []}


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running() as found:
        yield found


def busy(seconds: int) -> Told:
    fields = {"reason": "16 transfers are open", "retry_after": seconds}
    return Told(type="HostBusy", code=3518, fields=fields)


def first(*steps: Any) -> Callable[[Any], Any]:
    """A verb that takes one step a call, then answers."""
    left = list(steps)

    def verb(params: Any) -> Any:
        if not left:
            return ANYTHING
        step = left.pop(0)
        if isinstance(step, Exception):
            raise step
        return step(params)

    return verb


def test_every_reading_verb_is_here() -> None:
    assert set(READ) == READING


@pytest.mark.parametrize("verb", sorted(READ))
def test_reading_is_repeated_when_a_kept_connection_breaks(
    peer: Peer, verb: str
) -> None:
    with Client(peer.url) as host:
        host.ping()
        peer.verbs[verb] = first(cut)
        READ[verb](host)
    assert peer.calls == ["ping", verb, verb]
    assert peer.connections == 2


def test_reading_is_repeated_once_only(peer: Peer) -> None:
    with Client(peer.url) as host:
        host.ping()
        peer.verbs["getInfo"] = cut
        with pytest.raises(errors.HostUnreachable, match="closed the conn"):
            host.get_info(DOMAIN)
    assert peer.calls == ["ping", "getInfo", "getInfo"]


def test_reading_is_not_repeated_on_a_new_connection(peer: Peer) -> None:
    peer.verbs["getInfo"] = cut
    with Client(peer.url) as host:
        with pytest.raises(errors.HostUnreachable):
            host.get_info(DOMAIN)
    assert peer.calls == ["getInfo"]


@pytest.mark.parametrize("verb", sorted(WRITE))
def test_nothing_else_is_repeated(peer: Peer, verb: str) -> None:
    with Client(peer.url) as host:
        host.ping()
        peer.verbs[verb] = first(cut)
        with pytest.raises(errors.HostUnreachable, match="closed the conn"):
            WRITE[verb](host)
        peer.verbs[verb] = first(busy(0))
        with pytest.raises(errors.HostBusy):
            WRITE[verb](host)
    assert peer.calls == ["ping", verb, verb]


@pytest.mark.parametrize("verb", sorted(READ))
def test_reading_waits_for_a_busy_host(
    peer: Peer, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vdsm_ovfstore.client.calls._BACKOFF_MIN", 0.02)
    peer.verbs[verb] = first(busy(0), busy(0))
    start = time.monotonic()
    with Client(peer.url) as host:
        READ[verb](host)
    # 20 and 40 ms, when the host does not say how long.
    assert 0.06 <= time.monotonic() - start < 20
    assert peer.calls == [verb] * 3
    assert peer.connections == 1


def test_waits_as_long_as_the_host_says(peer: Peer) -> None:
    peer.verbs["ping"] = first(busy(1))
    start = time.monotonic()
    with Client(peer.url) as host:
        host.ping()
    assert 1 <= time.monotonic() - start < 20


def test_does_not_wait_beyond_its_time(peer: Peer) -> None:
    peer.verbs["ping"] = first(busy(60))
    start = time.monotonic()
    with Client(peer.url, total=5) as host:
        with pytest.raises(errors.HostBusy) as caught:
            host.ping()
    assert caught.value.retry_after == 60
    assert time.monotonic() - start < 20
    assert peer.calls == ["ping"]


def test_header_tells_when_to_come_back(peer: Peer) -> None:
    body = b'{"error": {"type": "HostBusy", "code": 3518}}'
    peer.verbs["ping"] = lambda params: (
        b"HTTP/1.1 503 Busy\r\nRetry-After: 77\r\nConnection: close\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    with Client(peer.url, total=5) as host:
        with pytest.raises(errors.HostBusy) as caught:
            host.ping()
    assert caught.value.retry_after == 77
    assert "Try again in 77 seconds" in caught.value.next_step


def test_refusal_of_http_itself_is_told(peer: Peer) -> None:
    body = b'{"error": {"type": "RequestInvalid", "fields": {"reason": "r"}}}'
    peer.verbs["ping"] = lambda params: (
        b"HTTP/1.1 431 Large\r\n"
        + f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body
    )
    with Client(peer.url) as host:
        with pytest.raises(errors.RequestInvalid, match="r"):
            host.ping()


def test_connection_is_used_again_also_after_errors(peer: Peer) -> None:
    with Client(peer.url) as host:
        peer.verbs["getInfo"] = first(Told(type="Damaged", code=3540))
        with pytest.raises(errors.Damaged):
            host.get_info(DOMAIN)
        host.ping()
        host.begin_upload(DOMAIN, 1)
    assert peer.connections == 1


def test_verb_that_is_sent_once_takes_no_old_connection(
    peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client(peer.url) as host:
        host.ping()
        # As if it had been idle for longer.
        monkeypatch.setattr("vdsm_ovfstore.client.pool._FRESH", -1)
        host.begin_upload(DOMAIN, 1)
        assert peer.connections == 2
        host.ping()
    assert peer.connections == 2


def test_connection_that_the_host_closed_is_not_used(peer: Peer) -> None:
    def answer_and_close(params: Any) -> bytes:
        body = b'{"jsonrpc": "2.0", "id": 1, "result": {}}'
        length = f"Content-Length: {len(body)}\r\n\r\n".encode()
        return b"HTTP/1.1 200 OK\r\n" + length + body

    peer.verbs["ping"] = answer_and_close
    with Client(peer.url) as host:
        host.ping()
        (idle,) = host._pool._idle
        assert idle.answered(5)  # its end
        host.begin_upload(DOMAIN, 1)
    assert peer.connections == 2


def test_host_that_is_gone_meanwhile() -> None:
    with running() as peer:
        host = Client(peer.url)
        host.ping()
        (idle,) = host._pool._idle
        peer.verbs["ping"] = cut
        with pytest.raises(errors.HostUnreachable):
            host.ping()
    with host, pytest.raises(errors.HostUnreachable, match="nobody listens"):
        host.ping()
