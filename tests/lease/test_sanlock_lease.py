# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Locks among hosts, with real sanlock daemons."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.sanlockd import (
    SPEED,
    SanlockHost,
    join,
    make_leases,
    make_lockspace,
    missing,
)
from vdsm_ovfstore import errors
from vdsm_ovfstore.lease.address import LeaseAddress
from vdsm_ovfstore.lease.sanlock_lease import SanlockLock

MIB = 1024**2
AGENT = os.path.join(os.path.dirname(__file__), "lock_agent.py")

needs_sanlock = [
    pytest.mark.sanlock,
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
]


class Domain(NamedTuple):
    """What of a storage domain matters for locks."""

    id: str
    ids: str
    leases: list[LeaseAddress]
    sector: int
    align: int


class Agent:
    """A process on a host, with a lock."""

    def __init__(
        self,
        host: SanlockHost,
        domain: Domain,
        leases: list[LeaseAddress] | None = None,
    ) -> None:
        spec = {
            "domain_id": domain.id,
            "kind": "sanlock",
            "addresses": domain.leases if leases is None else leases,
            "ids_path": domain.ids,
            "store_path": "",
            "sector": domain.sector,
            "alignment": domain.align,
        }
        self.process = host.popen(
            AGENT,
            json.dumps(spec),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def send(self, command: str, *args: Any) -> None:
        assert self.process.stdin is not None
        print(json.dumps([command, *args]), file=self.process.stdin)
        self.process.stdin.flush()

    def receive(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the agent ended"
        return json.loads(line)

    def call(self, command: str, *args: Any) -> Any:
        """Return the result of a command that must not fail."""
        self.send(command, *args)
        answer = self.receive()
        assert "error" not in answer, answer
        return answer["result"]

    def fail(self, command: str, *args: Any) -> Any:
        """Return the error of a command that must fail."""
        self.send(command, *args)
        answer = self.receive()
        assert "error" in answer, answer
        return answer

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def make_domain(
    host: SanlockHost,
    path: Path,
    leases: int = 2,
    sector: int = 512,
    align: int = MIB,
) -> Domain:
    path.mkdir(exist_ok=True)
    domain_id = str(uuid.uuid4())
    ids = str(path / "ids")
    make_lockspace(host, domain_id, ids, sector, align)
    domain = Domain(domain_id, ids, [], sector, align)
    add_leases(host, domain, leases)
    return domain


def add_leases(
    host: SanlockHost, domain: Domain, count: int
) -> list[LeaseAddress]:
    added = []
    for _ in range(count):
        volume = str(uuid.uuid4())
        path = os.path.join(os.path.dirname(domain.ids), f"{volume}.lease")
        added.append(LeaseAddress(domain.id, volume, path, 0))
    make_leases(host, added, domain.sector, domain.align)
    domain.leases.extend(added)
    return added


def sleep_until(when: float) -> None:
    time.sleep(max(0, when - time.monotonic()))


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[SanlockHost]]:
    """Two hosts that no test kills."""
    with SanlockHost(1) as one, SanlockHost(2) as two:
        yield [one, two]


@pytest.fixture(scope="module")
def joined(
    hosts: list[SanlockHost], tmp_path_factory: pytest.TempPathFactory
) -> Domain:
    """A domain without leases that both hosts have joined."""
    domain = make_domain(hosts[0], tmp_path_factory.mktemp("domain"), 0)
    join(hosts, domain.id, domain.ids)
    return domain


@pytest.fixture
def domain(hosts: list[SanlockHost], joined: Domain) -> Domain:
    """The joined domain, with two fresh leases."""
    fresh = joined._replace(leases=[])
    add_leases(hosts[0], fresh, 2)
    return fresh


class TestWithDaemons:
    pytestmark = needs_sanlock

    @pytest.mark.parametrize(
        "sector,align",
        [
            pytest.param(512, MIB, id="512-1m"),
            pytest.param(4096, MIB, id="4096-1m"),
            pytest.param(4096, 8 * MIB, id="4096-8m"),
        ],
    )
    def test_excludes_and_hands_over(
        self,
        hosts: list[SanlockHost],
        tmp_path: Path,
        sector: int,
        align: int,
    ) -> None:
        domain = make_domain(hosts[0], tmp_path, 2, sector, align)
        join(hosts, domain.id, domain.ids)
        one, two = (Agent(host, domain) for host in hosts)
        one.call("acquire", 0)
        assert one.call("held")

        busy = two.fail("acquire", 0)
        assert busy["error"] == "LeaseBusy"
        assert busy["fields"]["owner"] == "host 1 (host-1)"

        one.call("release")
        assert not one.call("held")
        two.call("acquire", 10)
        assert two.call("held")

    @pytest.mark.parametrize("count,rounds", [(2, 12), (8, 2)])
    def test_never_two_holders(
        self, tmp_path: Path, count: int, rounds: int
    ) -> None:
        hosts = [SanlockHost(n + 1) for n in range(count)]
        try:
            for host in hosts:
                host.start()
            domain = make_domain(hosts[0], tmp_path)
            join(hosts, domain.id, domain.ids)
            agents = [Agent(host, domain) for host in hosts]
            for agent in agents:
                agent.send("race", str(tmp_path / "inside"), rounds)
            for agent in agents:
                assert agent.receive() == {"result": []}
        finally:
            for host in hosts:
                host.close()

    def test_takes_over_from_dead_host(self, tmp_path: Path) -> None:
        with SanlockHost(1, "left") as left, SanlockHost(2) as right:
            domain = make_domain(left, tmp_path)
            join([left, right], domain.id, domain.ids)
            one, two = Agent(left, domain), Agent(right, domain)
            one.call("acquire", 0)
            two.fail("acquire", 0)

            left.kill()
            killed = time.monotonic()

            # Nobody kills the holder, so it must see for itself.
            assert one.call("wait_for_hangup", 5)
            assert not one.call("held")
            one.call("release")
            again = one.fail("acquire", 0)
            assert again["error"] == "SanlockUnavailable"
            assert "does not run" in again["text"]

            # From 80 to 140 seconds after the last renewal sanlock blocks
            # until the host is dead; we do not.
            sleep_until(killed + 84 / SPEED)
            busy = two.fail("acquire", 0, 0.5)
            assert busy["error"] == "LeaseBusy"
            assert busy["fields"]["owner"] == "host 1 (left)"
            assert busy["fields"]["waited"] >= 0.5, "it did not block"
            # sanlock still works for that call.
            busy = two.fail("acquire", 0, 0.5)
            assert busy["error"] == "LeaseBusy"
            assert busy["fields"]["owner"] == "host 1 (left)"

            two.call("acquire", 30)
            # 8 missed renewals and 60 seconds for the watchdog, at x20,
            # less the age of the last renewal.
            assert time.monotonic() - killed > (140 - 20) / SPEED - 0.5
            assert two.call("held")

    def test_daemon_dies_during_acquire(self, tmp_path: Path) -> None:
        with SanlockHost(1) as left, SanlockHost(2) as right:
            domain = make_domain(left, tmp_path)
            join([left, right], domain.id, domain.ids)
            one, two = Agent(left, domain), Agent(right, domain)
            one.call("acquire", 0)
            left.kill()
            time.sleep(84 / SPEED)
            # It waits for the death of host 1 now, within sanlock.
            two.send("acquire", 60)
            time.sleep(0.7)
            right.kill()
            answer = two.receive()
            assert answer["error"] == "SanlockUnavailable"
            assert "its daemon ended" in answer["text"]

    def test_killed_holder(
        self, hosts: list[SanlockHost], domain: Domain
    ) -> None:
        one, two = (Agent(host, domain) for host in hosts)
        one.call("acquire", 0)
        one.kill()
        two.call("acquire", 5)

    def test_waits_until_free(
        self, hosts: list[SanlockHost], domain: Domain
    ) -> None:
        one, two = (Agent(host, domain) for host in hosts)
        one.call("acquire", 0)
        two.send("acquire", 20)
        time.sleep(2)
        one.call("release")
        answer = two.receive()
        assert answer["result"] >= 1.5

    def test_busy_error_names_owner_and_wait(
        self, hosts: list[SanlockHost], domain: Domain
    ) -> None:
        one, two = (Agent(host, domain) for host in hosts)
        one.call("acquire", 0)
        busy = two.fail("acquire", 3)
        waited = busy["fields"].pop("waited")
        assert 2.9 <= waited < 15
        assert busy == {
            "error": "LeaseBusy",
            "text": (
                f"The store of domain {domain.id} is in use by "
                f"host 1 (host-1); waited {waited:.1f} seconds"
            ),
            "fields": {
                "domain": domain.id,
                "owner": "host 1 (host-1)",
                "path": sorted(domain.leases)[0].path,
            },
        }

    def test_second_process_on_host(
        self, hosts: list[SanlockHost], domain: Domain
    ) -> None:
        one, two = (Agent(hosts[0], domain) for _ in range(2))
        one.call("acquire", 0)
        busy = two.fail("acquire", 1)
        assert busy["error"] == "LeaseBusy"
        assert busy["fields"]["owner"] == "another process on this host"
        assert 0.9 <= busy["fields"]["waited"] < 15
        one.kill()
        two.call("acquire", 5)

    def test_part_is_given_back_while_waiting(
        self, hosts: list[SanlockHost], domain: Domain
    ) -> None:
        first, second = sorted(domain.leases)
        one = Agent(hosts[0], domain, [second])
        two = Agent(hosts[1], domain)
        three = Agent(hosts[0], domain, [first])
        one.call("acquire", 0)
        two.send("acquire", 20)
        time.sleep(1)
        # Host 2 waits for the second lease and must not keep the first.
        three.call("acquire", 5)
        three.call("release")
        one.call("release")
        assert two.receive()["result"] > 1

    def test_part_is_given_back_on_failure(
        self, hosts: list[SanlockHost], domain: Domain
    ) -> None:
        first, second = sorted(domain.leases)
        os.unlink(second.path)
        two = Agent(hosts[1], domain)
        failed = two.fail("acquire", 10)
        assert failed["error"] == "LeaseFailed"
        assert failed["fields"]["resource"] == second.resource
        assert failed["fields"]["path"] == second.path
        assert "No such file" in failed["text"]
        Agent(hosts[0], domain, [first]).call("acquire", 0)

    def test_more_leases_than_one_call_takes(
        self, hosts: list[SanlockHost], domain: Domain
    ) -> None:
        add_leases(hosts[0], domain, 10)
        one, two = (Agent(host, domain) for host in hosts)
        one.call("acquire", 0)
        last = Agent(hosts[1], domain, [sorted(domain.leases)[-1]])
        assert last.fail("acquire", 0)["error"] == "LeaseBusy"
        one.call("release")
        two.call("acquire", 5)

    def test_same_object_again(
        self, hosts: list[SanlockHost], domain: Domain
    ) -> None:
        one = Agent(hosts[0], domain, domain.leases * 2)
        for _ in range(3):
            one.call("acquire", 0)
            one.call("release")
        one.call("release")

    def test_lockspace_missing(
        self, hosts: list[SanlockHost], tmp_path: Path
    ) -> None:
        domain = make_domain(hosts[0], tmp_path)
        failed = Agent(hosts[0], domain).fail("acquire", 10)
        assert failed["error"] == "LockspaceMissing"
        assert failed["fields"]["domain"] == domain.id

    def test_uninitialised_lease(
        self, hosts: list[SanlockHost], domain: Domain
    ) -> None:
        with open(domain.leases[0].path, "r+b") as f:
            f.write(bytes(MIB))
        failed = Agent(hosts[0], domain).fail("acquire", 10)
        assert failed["error"] == "LeaseFailed"
        assert "(-223)" in failed["text"]

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param({"path": "/x" * 2000}, id="path-too-long"),
            pytest.param({"path": "/x\0y"}, id="path-with-nul"),
            pytest.param({"resource": "\u00fc"}, id="not-ascii"),
            pytest.param({"resource": "v" * 49}, id="name-too-long"),
            pytest.param({"resource": "v\0"}, id="name-with-nul"),
            pytest.param({"resource": ""}, id="no-name"),
            pytest.param({"offset": -1}, id="offset-negative"),
            pytest.param({"offset": 2**64}, id="offset-too-large"),
        ],
    )
    def test_impossible_address(
        self,
        hosts: list[SanlockHost],
        domain: Domain,
        change: dict[str, Any],
    ) -> None:
        address = domain.leases[0]._replace(**change)
        failed = Agent(hosts[0], domain, [address]).fail("acquire", 0)
        assert failed["error"] == "LeaseFailed"

    def test_impossible_sector(
        self, hosts: list[SanlockHost], domain: Domain
    ) -> None:
        Agent(hosts[0], domain).call("acquire", 0)
        wrong = domain._replace(sector=1000)
        busy = Agent(hosts[1], wrong).fail("acquire", 0)
        assert busy["fields"]["owner"] == "another host"

    def test_lease_of_another_volume(
        self, hosts: list[SanlockHost], domain: Domain
    ) -> None:
        one, two = domain.leases
        swapped = one._replace(path=two.path)
        failed = Agent(hosts[0], domain, [swapped]).fail("acquire", 10)
        assert failed["error"] == "LeaseFailed"
        assert "(-227)" in failed["text"]

    def test_release_after_volume_is_gone(
        self, hosts: list[SanlockHost], domain: Domain
    ) -> None:
        gone, stays = sorted(domain.leases)
        one = Agent(hosts[0], domain)
        one.call("acquire", 0)
        os.unlink(gone.path)
        one.call("release")
        assert not one.call("held")
        two = Agent(hosts[1], domain, [stays])
        two.call("acquire", 5)
        # And the host is not left with a lease that nobody can take.
        make_leases(hosts[0], [gone], domain.sector, domain.align)
        Agent(hosts[0], domain, [gone]).call("acquire", 5)

    def test_children_do_not_inherit(
        self, hosts: list[SanlockHost], domain: Domain
    ) -> None:
        one = Agent(hosts[0], domain)
        one.call("acquire", 0)
        assert not one.call("inheritable")

    def test_without_daemon(
        self, hosts: list[SanlockHost], domain: Domain
    ) -> None:
        # Never started: no socket.
        stranger = SanlockHost(9)
        stranger.run_dir = os.path.dirname(domain.ids) + "/none"
        os.mkdir(stranger.run_dir)
        agent = Agent(stranger, domain)
        failed = agent.fail("acquire", 10)
        stranger.close()
        assert failed["error"] == "SanlockUnavailable"
        assert "does not run" in failed["text"]


ADDRESS = LeaseAddress("domain", "volume", "/nowhere", 0)


def test_without_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sanlock", None)
    lock = SanlockLock("domain", [ADDRESS], "/nowhere/ids")
    with pytest.raises(errors.SanlockUnavailable, match="binding"):
        lock.acquire(time.monotonic())
    assert not lock.held
    assert lock.fd is None
    lock.release()


def test_no_addresses() -> None:
    with pytest.raises(ValueError, match="No lease"):
        SanlockLock("domain", [], "/nowhere/ids")
