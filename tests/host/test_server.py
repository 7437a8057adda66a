# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Connections in numbers, addresses, and the end of a server."""

from __future__ import annotations

import os
import resource
import socket
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.held import held, wait_until_released
from tests.host.certs import certificates
from tests.host.harness import wait_until
from tests.host.peers import PING, Raw, post, serving
from tests.host.standin import StandIn
from vdsm_ovfstore import errors
from vdsm_ovfstore.host import server as server_module
from vdsm_ovfstore.host import tls
from vdsm_ovfstore.host.app import App
from vdsm_ovfstore.host.limits import Limits
from vdsm_ovfstore.host.listener import Address
from vdsm_ovfstore.host.server import Server

WAIT = post(b'{"jsonrpc":"2.0","id":1,"method":"OvfStore.wait"}')


def server(address: Address, secure: bool = False) -> Server:
    context = None
    if secure:
        context = tls.server_context(str(certificates().host.path))
    return Server(App(StandIn()), address, context)


# -- many ---------------------------------------------------------------------


def test_200_connections_at_once() -> None:
    """More than there are threads for: they wait for their turn."""
    full = threading.Event()
    with serving(Limits(connections=16)) as served:
        most = 0

        def ping(params: Any) -> Any:
            nonlocal most
            full.wait(20)
            most = max(most, served.server.connections)
            return {}

        served.service.verbs["ping"] = ping
        peers = [served.raw() for _ in range(200)]
        request = PING.replace(b"HTTP/1.1", b"HTTP/1.0")
        for peer in peers:
            peer.send(request)
        wait_until(lambda: served.server.connections == 16)
        full.set()
        assert [p.answer().status for p in peers] == [200] * 200
        assert most == 16


def test_idle_connections_give_way() -> None:
    with serving(Limits(connections=2)) as served:
        first, second = served.raw(), served.raw()
        assert first.ask(PING).status == 200
        assert second.ask(PING).status == 200
        # The one that asked last stays. Its thread shall see it so, too.
        time.sleep(0.2)
        assert first.ask(PING).status == 200
        began = time.monotonic()
        assert served.raw().ask(PING).status == 200
        assert time.monotonic() - began < 5
        assert second.ended()
        assert first.ask(PING).status == 200


def test_busy_connections_stay() -> None:
    go_on = threading.Event()
    with serving(Limits(connections=1)) as served:
        served.service.verbs["wait"] = lambda params: {"ok": go_on.wait(20)}
        busy, waiting = served.raw(), served.raw()
        busy.send(WAIT)
        wait_until(lambda: served.server.connections == 1)
        waiting.send(PING)
        waiting.sock.settimeout(1.5)
        with pytest.raises(socket.timeout):
            waiting.answer()
        go_on.set()
        waiting.sock.settimeout(20)
        assert busy.answer().document["result"] == {"ok": True}
        busy.sock.close()
        assert waiting.answer().status == 200


def test_descriptors_run_out(caplog: pytest.LogCaptureFixture) -> None:
    """Who came meanwhile waits, and is served when there are some again."""
    with serving() as served:
        client = socket.socket()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        free = os.dup(client.fileno())
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            client.connect(("127.0.0.1", served.server.port))
            wait_until(lambda: "EXHAUSTED" in caplog.text)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert Raw(client).ask(PING).status == 200
        client.close()


def test_error_of_ours_ends_one_connection_only(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(sock: socket.socket) -> None:
        raise KeyError(sock)

    with serving() as served:
        with monkeypatch.context() as patch:
            patch.setattr(server_module, "_tune", fail)
            assert served.raw().ended()
        assert served.raw().ask(PING).status == 200
    assert "ACCEPT failed" in caplog.text


# -- stop ---------------------------------------------------------------------


def test_stop_lets_requests_end() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def wait(params: object) -> object:
        begun.set()
        return {"ok": go_on.wait(20)}

    with serving() as served:
        served.service.verbs["wait"] = wait
        busy, idle, silent = served.raw(), served.raw(), served.raw()
        assert idle.ask(PING).status == 200
        busy.send(WAIT)
        # Else the stop may come before the request was read.
        assert begun.wait(20)
        wait_until(lambda: served.server.connections == 3)
        stopping = threading.Thread(target=served.server.stop, args=(20,))
        stopping.start()
        assert idle.ended()
        assert silent.ended()
        with pytest.raises(OSError):
            socket.create_connection(("127.0.0.1", served.server.port))
        go_on.set()
        assert busy.answer().document["result"] == {"ok": True}
        assert busy.ended()
        stopping.join()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
def test_stop_cuts_what_does_not_end(secure: bool) -> None:
    context = client = None
    if secure:
        context = tls.server_context(str(certificates().host.path))
        client = certificates().client.client_context()
    with serving(tls=context) as served:
        sending, reading = served.raw(client), served.raw(client)
        sending.send(
            b"PUT /ovf-store/transfers/up HTTP/1.1\r\nHost: a\r\n"
            b"Content-Length: 1000\r\n\r\nx"
        )
        served.service.transfers.offer("down", bytes(64 * 1024**2))
        reading.send(
            b"GET /ovf-store/transfers/down HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        wait_until(lambda: served.service.transfers.open == 2)
        began = time.monotonic()
        served.server.stop(0.1)
        assert time.monotonic() - began < 10
        assert served.server.connections == 0
        assert served.service.transfers.open == 0


def test_stop_waits_not_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A verb may hang as long as the storage that it asks."""
    monkeypatch.setattr(server_module, "_ENDING", 0.1)
    go_on = threading.Event()
    with serving() as served:
        served.service.verbs["wait"] = lambda params: {"ok": go_on.wait(20)}
        busy = served.raw()
        busy.send(WAIT)
        wait_until(lambda: served.server.connections == 1)
        time.sleep(0.1)  # for its thread, to have the request
        began = time.monotonic()
        served.server.stop(0.1)
        assert time.monotonic() - began < 5
        assert busy.ended()
        go_on.set()
        wait_until(lambda: served.server.connections == 0)
    (record,) = (r for r in caplog.records if "STOP" in r.getMessage())
    assert "connections=1" in record.getMessage()
    assert record.levelname == "WARNING"


def test_stop_before_start_and_twice() -> None:
    before = held()
    unused = server(("127.0.0.1", 0))
    unused.stop()
    unused.stop()
    wait_until_released(before)


# -- addresses ----------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.1.2.3", "localhost", "::1"]
)
def test_plain_on_loopback(host: str) -> None:
    one = server((host, 0))
    one.start()
    try:
        with socket.create_connection((host, one.port)) as sock:
            assert Raw(sock).ask(PING).status == 200
    finally:
        one.stop()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_plain_elsewhere_is_refused(host: str) -> None:
    before = held()
    with pytest.raises(errors.ConfigInvalid, match="loopback"):
        server((host, 0))
    wait_until_released(before)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_any_address_takes_both(host: str) -> None:
    one = server(("::", 0), secure=True)
    one.start()
    context = certificates().client.client_context()
    try:
        with (
            socket.create_connection((host, one.port)) as sock,
            context.wrap_socket(sock, server_hostname=host) as secured,
        ):
            assert Raw(secured).ask(PING).status == 200
    finally:
        one.stop()


def test_address_is_refused() -> None:
    one = server(("127.0.0.1", 0))
    try:
        with pytest.raises(errors.AddressUnavailable, match="in use"):
            server(("127.0.0.1", one.port))
    finally:
        one.stop()
    with pytest.raises(errors.AddressUnavailable, match="no such address"):
        server(("nowhere.invalid", 0))
    with pytest.raises(errors.AddressUnavailable, match="assign"):
        server(("192.0.2.1", 0), secure=True)


# -- the socket in the file system --------------------------------------------


def test_socket_in_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with serving(path=str(path)) as served:
        found = path.lstat()
        assert stat.S_ISSOCK(found.st_mode)
        assert stat.S_IMODE(found.st_mode) == 0o660
        assert served.server.port == 0
        assert served.raw().ask(PING).status == 200
    assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give it away")
def test_group_of_the_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    one = Server(App(StandIn()), str(path), group="daemon")
    found = path.stat()
    one.stop()
    assert found.st_gid == 1
    assert found.st_uid == os.geteuid()


def test_unknown_group(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with pytest.raises(errors.ConfigInvalid, match="no group 'nobody-here'"):
        Server(App(StandIn()), str(path), group="nobody-here")
    assert not path.exists()


def test_socket_of_the_dead_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
        dead.listen()
    with serving(path=str(path)) as served:
        assert served.raw().ask(PING).status == 200


def test_socket_of_the_living_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    with serving(path=path) as served:
        before = held()
        with pytest.raises(errors.AddressUnavailable, match="another process"):
            server(path)
        # It looked whether somebody answers.
        wait_until_released(before)
        assert served.raw().ask(PING).status == 200


@pytest.mark.parametrize("kind", ["file", "directory", "link"])
def test_what_is_no_socket_is_not_replaced(tmp_path: Path, kind: str) -> None:
    path, target = tmp_path / "socket", tmp_path / "target"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        path.symlink_to(target)
    with pytest.raises(errors.ConfigInvalid, match="no socket"):
        server(str(path))
    assert path.is_symlink() or path.exists()


def test_socket_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(errors.AddressUnavailable, match="No such file"):
        server(str(tmp_path / "none" / "socket"))
    with pytest.raises(errors.AddressUnavailable, match="too long"):
        server(str(tmp_path / ("a" * 120)))


def test_socket_of_a_successor_stays(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    first = server(str(path))
    path.unlink()
    second = server(str(path))
    first.stop()
    assert path.exists()
    second.stop()
    assert not path.exists()
