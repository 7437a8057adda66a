# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What fails, hangs, is full or is locked concerns nobody else.

Each failure is named in the report, and is tried again by itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.bed import Bed
from tests.engine.conftest import MakeBed
from tests.engine.ovfs import ident
from tests.host.harness import Daemon, running_daemon, wait_until
from vdsm_ovfstore import errors
from vdsm_ovfstore.storage.filedomain import FileDomain, create_domain

# They start daemons, whose processes take seconds.
pytestmark = pytest.mark.slow

# Seconds. In one of them all that can be current has to be.
INTERVAL = 10.0


@contextlib.contextmanager
def locked(domain: FileDomain) -> Iterator[None]:
    """As another host has it that writes the store."""
    fd = os.open(os.path.join(domain.path, "ovf_store"), os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


@contextlib.contextmanager
def full(directory: Path) -> Iterator[None]:
    """No byte more fits on the file system of that directory."""
    path = directory / "ballast"
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))
    try:
        yield
    finally:
        path.unlink()


@contextlib.contextmanager
def stopped(daemon: Daemon) -> Iterator[None]:
    """A host that takes connections and answers nothing."""
    daemon.signal(signal.SIGSTOP)
    try:
        yield
    finally:
        daemon.signal(signal.SIGCONT)


@pytest.mark.root
def test_one_of_each_at_once(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    small: Path = request.getfixturevalue("filesystem")(size=32 << 20)
    for name in ("first", "second", "bed"):
        (tmp_path / name).mkdir()
    domains = [
        create_domain(str(tmp_path / "first"), "LOCALFS") for _ in range(4)
    ]
    domains.append(create_domain(str(small), "LOCALFS"))
    domains.append(create_domain(str(tmp_path / "second"), "LOCALFS"))
    with contextlib.ExitStack() as stack:
        first, second = (
            stack.enter_context(running_daemon(tmp_path / name, served))
            for name, served in (
                ("first", [tmp_path / "first", small]),
                ("second", [tmp_path / "second"]),
            )
        )
        bed = Bed(
            tmp_path / "bed",
            [second.socket, first.socket],
            domains,
            hosts={"timeout": 2.0, "lease_timeout": 1.0},
            updates={"interval": INTERVAL, "retry_min": 1.0},
        )
        bed.client = bed.client.__class__(first.socket)
        good, busy, room, away = bed.ids[:3], *bed.ids[3:]
        for number, domain in enumerate(bed.ids):
            bed.vm(f"vm{number}", domain)
        bed.vm("spoilt", good[0])
        bed.once()
        assert {d["state"] for d in bed.report()["domains"]} == {"current"}

        stack.enter_context(locked(bed.domains[busy]))
        stack.enter_context(full(small))
        with stopped(second):
            for number, domain in enumerate(bed.ids):
                bed.vm(f"vm{number}", domain, generation=2)
            bed.write("spoilt", b"<x/>")
            with bed.running():
                begin = time.monotonic()
                wait_until(
                    lambda: all(
                        bed.row(domain)["generation"] == 2 for domain in good
                    ),
                    INTERVAL,
                )
                assert time.monotonic() - begin < INTERVAL
                wait_until(
                    lambda: all(
                        bed.row(d)["state"] == "failed"
                        for d in (busy, room, away)
                    )
                )
            found = bed.report()
        # The full one failed in one way or another: it is named.
        codes = {d: bed.row(d, found)["code"] for d in bed.ids}
        assert codes[busy] == errors.LeaseBusy.code
        assert codes[room] in (
            *(errors.StorageFull.code, errors.NoCopyWritten.code),
        )
        assert codes[away] == errors.NoHost.code
        assert second.socket in bed.row(away, found)["problem"]
        (bad,) = found["bad"]
        assert bad["id"] == ident("spoilt")
        for domain in good:
            assert bed.row(domain, found)["state"] == "current"
        for domain in (busy, room, away):
            row = bed.row(domain, found)
            assert row["problem"] and row["next_step"] and row["retry"]
        assert bed.manifest(good[0])["entities"][ident("spoilt")]


def test_what_failed_is_tried_again(make_bed: MakeBed) -> None:
    bed = make_bed(
        1, updates={"interval": 3600.0, "retry_min": 0.2, "retry_max": 0.5}
    )
    bed.vm("web", bed.a)
    bed.once()
    bed.vm("web", bed.a, generation=2)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(bed.domains[bed.a]))
        running = contextlib.ExitStack()
        running.enter_context(bed.running())
        with running:
            wait_until(lambda: bed.row(bed.a)["failures"] > 1)
            stack.close()
            wait_until(lambda: bed.row(bed.a)["state"] == "current")
    assert bed.row(bed.a)["generation"] == 2


class Mute(threading.Thread):
    """A host that takes connections, and reads, and says nothing."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.bind(str(path))
        self._sock.listen(16)
        self.path = str(path)
        self._kept: list[socket.socket] = []

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._kept.append(self._sock.accept()[0])

    def close(self) -> None:
        self._sock.close()
        for sock in self._kept:
            sock.close()


def test_a_host_that_is_mute(bed: Bed, tmp_path: Path) -> None:
    """It is asked first, and delays nobody."""
    with contextlib.closing(Mute(tmp_path / "mute")) as mute:
        mute.start()
        addresses = (mute.path, *bed.conf.hosts.addresses)
        bed.set(hosts={"addresses": addresses, "timeout": 600.0})
        bed.vm("web", bed.a)
        bed.once()
    assert bed.names(bed.a) == ["web"]


def test_the_spm_has_moved(bed: Bed, tmp_path: Path) -> None:
    """The host that did it last is gone; another one serves the domain."""
    bed.vm("web", bed.a)
    path = tmp_path / "second"
    path.mkdir()
    with running_daemon(path, [bed.domains[bed.a].path]) as second:
        first = bed.conf.hosts.addresses
        bed.set(hosts={"addresses": (second.socket,)})
        bed.once()
        assert bed.row(bed.a)["host"] == second.socket
        bed.set(hosts={"addresses": (second.socket, *first)})
        bed.vm("web", bed.a, generation=2)
        with bed.running():
            wait_until(lambda: bed.row(bed.a)["generation"] == 2)
            assert bed.row(bed.a)["host"] == second.socket
            second.stop()
            bed.vm("web", bed.a, generation=3)
            with bed.state.connect() as connection:
                connection.execute("UPDATE domains SET mark = mark + 1")
            # Not before it is looked at: what is marked has not changed.
            wait_until(lambda: bed.row(bed.a)["host"] == first[0])
        bed.once()
        assert bed.row(bed.a)["generation"] == 3
        second.start()


def test_a_host_that_is_not_the_spm(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """VDSM's 654, from the first host; the second one writes."""
    from vdsm_ovfstore.client import Client

    class NotSpm(errors.Error):
        code = 654
        msg = "Not SPM"

    (address,) = bed.conf.hosts.addresses
    alias = Path(bed.ovfs.parent, "alias")
    alias.symlink_to(address)
    original = Client.create

    def create(self: Client, *args: object, **options: object) -> str:
        if self.address.text == str(alias):
            raise NotSpm
        return original(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Client, "create", create)
    bed.set(hosts={"addresses": (str(alias), address)})
    bed.vm("web", bed.a)
    row = bed.row(bed.a, bed.once())
    assert (row["state"], row["host"]) == ("current", address)


def test_a_decision_reaches_who_runs(bed: Bed) -> None:
    from vdsm_ovfstore.engine import decisions

    bed.set(updates={"interval": 3600.0})
    bed.vm("web", bed.a)
    with bed.running():
        wait_until(lambda: bed.row(bed.a)["generation"] == 1)
        with bed.state.connect() as connection:
            # In the same second it would be the same archive.
            time.sleep(1.1)
            decisions.force(connection, bed.a)
        wait_until(lambda: bed.row(bed.a)["generation"] == 2)
