# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The client and a real daemon, on a real LocalFS domain."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.cli.harness import IDS, OVF, Cli, archive, make_store, tar
from tests.host.certs import certificates
from tests.host.harness import Daemon, running_daemon
from vdsm_ovfstore import errors
from vdsm_ovfstore.client import Client, downloads


class Site:
    """A daemon, the only domain that it serves, and a way to it."""

    def __init__(self, daemon: Daemon, domain: Path) -> None:
        self.daemon = daemon
        self.path = domain
        self.domain = domain.name

    def client(self) -> Client:
        pki = certificates().client
        return Client(
            self.daemon.url,
            ca=str(pki.authority),
            cert=str(pki.certificate),
            key=str(pki.key),
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    parent = tmp_path_factory.mktemp("client")
    path = make_store(Cli(parent), parent).path
    with running_daemon(parent, [path], tls=certificates().host.path) as d:
        yield Site(d, path)


def large(count: int, name: str) -> bytes:
    """An archive of a few MiB."""
    filler = f"<!--{os.urandom(20000).hex()}-->"
    members = (
        (f"{IDS[i]}.ovf", OVF.format(name=f"{name}{i}") + filler)
        for i in range(count)
    )
    return tar(*members)


def test_the_whole_way(site: Site, tmp_path: Path) -> None:
    data = large(20, "vm")
    with site.client() as host:
        assert host.ping()["api"] == 1
        (served,) = host.list_domains()
        assert (served["domain"], served["state"]) == (site.domain, "ready")
        job = host.create(site.domain, size=8 << 20)
        assert len(host.wait_job(job, 30)["copies"]) == 2

        steps: list[str] = []
        made = host.upload(
            site.domain, data, progress=lambda *a: steps.append(a[0])
        )
        assert made["entities"] == 20 and not made["unchanged"]
        assert steps[-1] == "sending"
        again = host.upload(site.domain, iter([data[:9], data[9:]]), len(data))
        assert again["unchanged"]

        number = made["generation"]
        assert host.get_info(site.domain)["verdict"] == "ok"
        history = host.get_history(site.domain)["generations"]
        assert history[0]["number"] == number
        names = [e["name"] for e in host.all_vms(site.domain)["entities"]]
        assert sorted(names) == sorted(f"vm{i}" for i in range(20))
        vm = host.get_vm(site.domain, name="vm3")
        assert vm["entity"]["id"] == IDS[3]

        assert host.download(site.domain).data == data
        got = host.download(site.domain, tmp_path / "a.tar", number)
        assert (tmp_path / "a.tar").read_bytes() == data
        assert got.generation["number"] == number
        ovf = host.download(site.domain, vm=IDS[3])
        assert (ovf.data or b"").decode() == vm["ovf"]

        checked = host.wait_job(host.verify(site.domain), 60)
        assert checked["verdict"] == "ok"
        mended = host.wait_job(host.repair(site.domain), 60)
        assert mended["generation"] == number
        assert host.get_jobs()


def test_errors_of_the_host(site: Site) -> None:
    with site.client() as host:
        with pytest.raises(errors.DomainNotServed, match=IDS[0]):
            host.get_info(IDS[0])
        with pytest.raises(errors.GenerationNotFound, match="999"):
            host.download(site.domain, generation=999)
        with pytest.raises(errors.EntityNotFound, match="'nobody'"):
            host.get_vm(site.domain, name="nobody")
        with pytest.raises(errors.ParametersInvalid, match="storagedomainID"):
            host.get_info("not a UUID")
        with pytest.raises(errors.ArchiveTooLarge):
            host.upload(site.domain, iter([b"x"]), 1 << 39)
        with pytest.raises(errors.JobNotFound):
            host.wait_job(IDS[0])
        with pytest.raises(errors.PoolMismatch):
            host.get_info(site.domain, pool=IDS[0])


def test_archives_that_are_refused(site: Site) -> None:
    """Early in a stream that is larger than all buffers between us."""
    with site.client() as host:
        host.upload(site.domain, archive("a"), force=True)
        with pytest.raises(errors.NotAnArchive, match="byte 0"):
            host.upload(site.domain, bytes([7]) * 7_000_000)
        with pytest.raises(errors.ArchiveMismatch, match="announced"):
            host.upload(site.domain, io.BytesIO(archive("b")), sha256="0" * 64)
        with pytest.raises(errors.SourceUnreadable, match="after 512 of"):
            host.upload(site.domain, iter([archive("b")[:512]]), 10240)
        # The host has given everything back, and goes on.
        assert host.upload(site.domain, archive("a"), force=True)["unchanged"]


def test_transfers_are_spent(site: Site) -> None:
    data = archive("c")
    with site.client() as host:
        ticket = host.begin_upload(site.domain, len(data))
        host.send(ticket, data)
        assert host.get_transfer(ticket.id)["state"] == "done"
        with pytest.raises(errors.TransferRefused) as caught:
            host.send(ticket, data)
        assert caught.value.gone
        ticket = host.begin_upload(site.domain, len(data))
        assert host.abort_transfer(ticket.id)["aborted"]
        with pytest.raises(errors.TransferRefused, match="aborted"):
            host.send(ticket, data)


def test_several_at_once(site: Site) -> None:
    with site.client() as host, ThreadPoolExecutor(4) as pool:
        made = list(
            pool.map(
                lambda n: host.upload(
                    site.domain, archive(f"p{n}"), force=True
                ),
                range(4),
            )
        )
        assert len({m["generation"] for m in made}) == 4
        newest = max(m["generation"] for m in made)
        found = host.get_info(site.domain)["newest"]
        assert found is not None
        assert found["number"] == newest


class Cutter:
    """A proxy to a socket that cuts connections after some bytes of answer."""

    def __init__(self, path: str) -> None:
        self.cuts: list[int] = []
        self._path = path
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._server.accept()
                there = socket.socket(socket.AF_UNIX)
                there.connect(self._path)
                for pair in ((here, there, False), (there, here, True)):
                    threading.Thread(
                        target=self._pump, args=pair, daemon=True
                    ).start()

    def _pump(
        self, source: socket.socket, target: socket.socket, answer: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                # Small answers are those of verbs.
                if answer and self.cuts and len(data) > 10000:
                    data = data[: self.cuts[0]]
                    target.sendall(data)
                    self.cuts.pop(0)
                    break
                target.sendall(data)
        for sock in (source, target):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def test_download_through_a_bad_line(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_PAUSES", (0.1,) * 7)
    data = large(40, "line")
    proxy = Cutter(site.daemon.socket)
    with contextlib.closing(proxy), Client(proxy.url) as host:
        host.upload(site.domain, data, force=True)
        proxy.cuts = [5000, 60000, 1, 30000]
        assert host.download(site.domain).data == data
        assert proxy.cuts == []
        # All that is left fits into a buffer: the host has done its part.
        small = host.download(site.domain, vm=IDS[1]).data
        proxy.cuts = [2000]
        assert host.download(site.domain, vm=IDS[1]).data == small
        assert proxy.cuts == []


def test_daemon_that_is_killed(site: Site) -> None:
    """The last test: the daemon is another one then."""
    first, second = large(40, "first"), large(40, "second")
    daemon, domain = site.daemon, site.domain
    with Client(daemon.socket, timeout=0.5) as host:
        number = host.upload(domain, first)["generation"]

        def killing() -> Iterator[bytes]:
            yield second[:500_000]
            daemon.kill()
            yield second[500_000:]

        with pytest.raises(errors.HostUnreachable) as caught:
            host.upload(domain, killing(), len(second))
        assert caught.value.fields()["kind"] == "lost"

        # Started again it has forgotten the transfer, not the archive.
        daemon.start()
        received = b""
        with host.open_download(domain) as download:
            for piece in download:
                if not received:
                    daemon.kill()
                    daemon.start()
                received += piece
        assert received == first
        assert host.upload(domain, second)["generation"] == number + 1
