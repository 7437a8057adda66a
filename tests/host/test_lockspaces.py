# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Lockspaces that a daemon joins, or that others joined, with real sanlock."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests.host.harness import Daemon, running_daemon, wait_until
from tests.sanlockd import PYTHON, SanlockHost, join, missing

pytestmark = [
    pytest.mark.sanlock,
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
]

JOIN = {"join": "yes", "host_id": 1}


@pytest.fixture
def host() -> Iterator[SanlockHost]:
    with SanlockHost(1) as host:
        yield host


class Domain:
    """A POSIXFS domain, and the lockspaces of a host as sanlock has them."""

    def __init__(self, host: SanlockHost, directory: Path) -> None:
        directory.mkdir()
        made = host.python(
            *("-m", "vdsm_ovfstore", "init", str(directory), "--json")
        )
        answer = json.loads(made.stdout)
        self.id: str = answer["domain"]
        self.path = Path(answer["path"])
        self.ids = str(self.path / "dom_md" / "ids")

    def joined(self, host: SanlockHost) -> list[int]:
        """The number with which a host has joined; [] if it has not."""
        return [number for number, flags in self.known(host) if not flags]

    def known(self, host: SanlockHost) -> list[tuple[int, int]]:
        """The same, and one that is just being joined or left has flags."""
        code = (
            "import sanlock, sys; print([[ls['host_id'], ls['flags']] for ls "
            "in sanlock.get_lockspaces() "
            "if ls['lockspace'] == sys.argv[1].encode()])"
        )
        found: list[tuple[int, int]] = json.loads(
            host.python("-c", code, self.id).stdout
        )
        return found


@pytest.fixture
def domain(host: SanlockHost, tmp_path: Path) -> Domain:
    return Domain(host, tmp_path / "mnt")


def daemon_on(
    host: SanlockHost,
    tmp_path: Path,
    sanlock: dict[str, object],
    beside: str = "",
) -> AbstractContextManager[Daemon]:
    """beside: socket of another daemon, in whose directory it has its own."""
    own = tmp_path / ("other" if beside else "daemon")
    own.mkdir()
    local = {"socket": f"{beside}-other"} if beside else {}
    return running_daemon(
        own,
        [tmp_path / "mnt"],
        env=host.env,
        python=PYTHON,
        storage={"scan_interval": "1 h"},
        sanlock=sanlock,
        local=local,
    )


def listed(daemon: Daemon) -> Any:
    (found,) = daemon.call("list")["domains"]
    return found


def wait_for_state(daemon: Daemon, state: str) -> Any:
    return wait_until(
        lambda: listed(daemon)["state"] == state and listed(daemon)
    )


def state_of(daemon: Daemon) -> Any:
    """What it keeps for the next start."""
    return json.loads(Path(daemon.socket + ".lockspaces.json").read_text())


def wait_for_generation(daemon: Daemon, domain: Domain) -> None:
    wait_until(lambda: state_of(daemon)[domain.id]["generation"])


def test_join_write_leave(
    host: SanlockHost, domain: Domain, tmp_path: Path
) -> None:
    with daemon_on(host, tmp_path, JOIN) as daemon:
        # The first join takes a second with this clock.
        early = daemon.error("create", storagedomainID=domain.id)
        assert early["type"] == "HostBusy"
        assert "is joining the lockspace" in early["message"]
        assert early["next_step"] == "Try again in 21 seconds"
        assert listed(daemon)["state"] == "joining"
        info = daemon.error("getInfo", storagedomainID=domain.id)
        assert info["type"] == "VolumeNotFound", "reading works already"
        wait_for_state(daemon, "ready")
        job = daemon.job("create", storagedomainID=domain.id, size=8 << 20)
        assert job["status"] == "done", job
        # After a kill the next one knows that it was ours.
        wait_for_generation(daemon, domain)
        daemon.kill()
        assert domain.joined(host) == [1]
        daemon.start()
        wait_for_state(daemon, "ready")
        assert domain.joined(host) == [1]
        assert daemon.stop() == 0
        assert domain.joined(host) == []


def test_what_another_daemon_joined_is_used_and_kept(
    host: SanlockHost, domain: Domain, tmp_path: Path
) -> None:
    """With the same number, and what it keeps in the same directory."""
    with daemon_on(host, tmp_path, JOIN) as first:
        wait_for_state(first, "ready")
        with daemon_on(host, tmp_path, JOIN, first.socket) as second:
            wait_for_state(second, "ready")
            job = second.job("create", storagedomainID=domain.id, size=8 << 20)
            assert job["status"] == "done", job
            assert second.stop() == 0
        assert domain.joined(host) == [1]
        assert first.stop() == 0
    assert domain.joined(host) == []


def test_what_others_joined_is_used_and_kept(
    host: SanlockHost, domain: Domain, tmp_path: Path
) -> None:
    host.host_id = 2
    with daemon_on(host, tmp_path, {"join": "no"}) as daemon:
        found = wait_for_state(daemon, "failed")
        assert "nobody has joined it" in found["problem"]
        error = daemon.error("create", storagedomainID=domain.id)
        assert error["code"] == 661
        assert "[sanlock] join" in error["next_step"]
        assert domain.known(host) == []
        join([host], domain.id, domain.ids)
        wait_for_state(daemon, "ready")
        job = daemon.job("create", storagedomainID=domain.id, size=8 << 20)
        assert job["status"] == "done", job
        # The number is not that of others, and need not be.
        with daemon_on(host, tmp_path, JOIN, daemon.socket) as joining:
            wait_for_state(joining, "ready")
    assert domain.joined(host) == [2]


REJOIN = """
import sys, sanlock
name, path = sys.argv[1].encode(), sys.argv[2]
sanlock.rem_lockspace(name, 1, path)
sanlock.add_lockspace(name, 1, path)
"""


def test_what_another_joined_after_a_kill_is_kept(
    host: SanlockHost, domain: Domain, tmp_path: Path
) -> None:
    """The same number at the same path: only the generation tells."""
    with daemon_on(host, tmp_path, JOIN) as daemon:
        wait_for_state(daemon, "ready")
        wait_for_generation(daemon, domain)
        daemon.kill()
        host.python("-c", REJOIN, domain.id, domain.ids)
        daemon.start()
        wait_until(lambda: state_of(daemon) == {})
        wait_for_state(daemon, "ready")
    assert domain.joined(host) == [1]


def test_what_another_joined_after_a_kill_in_a_join_is_kept(
    host: SanlockHost, domain: Domain, tmp_path: Path
) -> None:
    """The generation of our join was never told."""
    with daemon_on(host, tmp_path, JOIN) as daemon:
        wait_until(lambda: domain.known(host))
        daemon.kill()
        wait_until(lambda: domain.joined(host))
        host.python("-c", REJOIN, domain.id, domain.ids)
        daemon.start()
        wait_for_state(daemon, "ready")
        wait_until(lambda: state_of(daemon) == {})
    assert domain.joined(host) == [1]


def test_a_domain_that_went_is_left(
    host: SanlockHost, domain: Domain, tmp_path: Path
) -> None:
    with daemon_on(host, tmp_path, JOIN) as daemon:
        wait_for_state(daemon, "ready")
        shutil.move(domain.path, tmp_path / "away")
        daemon.signal(signal.SIGHUP)
        wait_for_state(daemon, "failed")
        wait_until(lambda: domain.joined(host) == [])
        shutil.move(tmp_path / "away", domain.path)
        daemon.signal(signal.SIGHUP)
        wait_for_state(daemon, "ready")
        daemon.kill()  # a stop takes longer


@pytest.mark.slow
def test_the_number_of_another_host(
    host: SanlockHost, domain: Domain, tmp_path: Path
) -> None:
    # sanlock watches the other host for 14 of these.
    quick = 5
    with SanlockHost(1, "other") as other:
        join([other], domain.id, domain.ids, quick)
        with daemon_on(
            host, tmp_path, {**JOIN, "io_timeout": quick}
        ) as daemon:
            found = wait_for_state(daemon, "failed")
            assert "cannot join as host 1" in found["problem"]
            assert "used by another host" in found["problem"]
            error = daemon.error("create", storagedomainID=domain.id)
            assert error["type"] == "LockspaceMissing"
            assert "goes on trying to join" in error["next_step"]


HOLD = """
import sys, sanlock
fd = sanlock.register()
name, path = sys.argv[1].encode(), sys.argv[2]
sanlock.acquire(name, b"SDM", [(path, 1048576)], slkfd=fd)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_lease_that_somebody_holds_is_not_torn_away(
    host: SanlockHost, domain: Domain, tmp_path: Path
) -> None:
    from subprocess import PIPE

    leases = str(domain.path / "dom_md" / "leases")
    with daemon_on(host, tmp_path, JOIN) as daemon:
        wait_for_state(daemon, "ready")
        wait_for_generation(daemon, domain)
        holder = host.popen(
            "-c", HOLD, domain.id, leases, stdin=PIPE, stdout=PIPE
        )
        with holder:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            assert daemon.stop() == 0
            assert holder.poll() is None
            assert domain.joined(host) == [1]
            assert "a process holds it" in daemon.log
            holder.communicate()
        # The next one knows that it was ours.
        daemon.start()
        wait_for_state(daemon, "ready")
        assert daemon.stop() == 0
        assert domain.joined(host) == []


def test_without_a_sanlock_daemon(
    host: SanlockHost, domain: Domain, tmp_path: Path
) -> None:
    host.kill()
    with daemon_on(host, tmp_path, JOIN) as daemon:
        found = wait_for_state(daemon, "failed")
        assert "the daemon does not run" in found["problem"]
        error = daemon.error("create", storagedomainID=domain.id)
        assert error["type"] == "SanlockUnavailable"
        host.start()
        wait_for_state(daemon, "ready")
        daemon.kill()  # a stop takes longer


def test_a_stop_calls_off_a_join(
    host: SanlockHost, domain: Domain, tmp_path: Path
) -> None:
    with daemon_on(host, tmp_path, JOIN) as daemon:
        wait_for_state(daemon, "joining")
        assert daemon.stop() == 0
        wait_until(lambda: not domain.known(host), seconds=5)
