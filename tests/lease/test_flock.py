# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The lock of a LocalFS domain, between real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.held import held
from vdsm_ovfstore import errors
from vdsm_ovfstore.lease import FLOCK, lock_for
from vdsm_ovfstore.lease.flock import FlockLock

AGENT = os.path.join(os.path.dirname(__file__), "lock_agent.py")
PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(AGENT)))


class Agent:
    """Another process with a lock on the same directory."""

    def __init__(self, path: Path) -> None:
        spec = {
            "domain_id": "domain",
            "kind": FLOCK,
            "addresses": [],
            "ids_path": "",
            "store_path": str(path),
        }
        self.process = subprocess.Popen(
            [sys.executable, AGENT, json.dumps(spec)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=dict(os.environ, PYTHONPATH=PROJECT),
            text=True,
        )

    def send(self, *command: Any) -> None:
        assert self.process.stdin is not None
        print(json.dumps(command), file=self.process.stdin, flush=True)

    def receive(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def call(self, *command: Any) -> Any:
        self.send(*command)
        return self.receive()


@pytest.fixture
def agents(tmp_path: Path) -> Iterator[list[Agent]]:
    running = [Agent(tmp_path) for _ in range(3)]
    yield running
    for agent in running:
        with agent.process:
            agent.process.kill()


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    running = Agent(tmp_path)
    yield running
    with running.process:
        running.process.kill()


def is_held(lock: FlockLock) -> bool:
    # A function, lest a type checker thinks that it cannot change.
    return lock.held


def test_excludes_within_process(tmp_path: Path) -> None:
    one, two = (FlockLock("domain", str(tmp_path)) for _ in range(2))
    one.acquire(time.monotonic())
    assert is_held(one)
    assert one.fd is None
    with pytest.raises(errors.LeaseBusy) as e:
        two.acquire(time.monotonic())
    assert e.value.fields()["owner"] == "another thread of this process"
    assert not is_held(two)
    one.release()
    assert not is_held(one)
    two.acquire(time.monotonic())
    two.release()
    two.release()


def test_excludes_other_process(tmp_path: Path, agent: Agent) -> None:
    assert "error" not in agent.call("acquire", 0)
    lock = lock_for("domain", FLOCK, [], "", str(tmp_path))
    with pytest.raises(errors.LeaseBusy) as e:
        lock.acquire(time.monotonic() + 0.5)
    fields = e.value.fields()
    assert fields["domain"] == "domain"
    assert fields["path"] == str(tmp_path)
    assert 0.49 <= fields["waited"] < 15
    assert fields["owner"] in (
        # /proc/locks shows it, where the file system plays along.
        f"process {agent.process.pid} ({_name(agent.process.pid)})"
        " on this host",
        "another process on this host",
    )
    agent.process.kill()
    lock.acquire(time.monotonic() + 5)
    lock.release()


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def test_waits_until_free(tmp_path: Path, agent: Agent) -> None:
    lock = FlockLock("domain", str(tmp_path))
    lock.acquire(time.monotonic())
    agent.send("acquire", 20)
    time.sleep(0.5)
    lock.release()
    # The agent may have needed long to start, so no lower limit.
    assert agent.receive()["result"] < 15
    with pytest.raises(errors.LeaseBusy):
        lock.acquire(time.monotonic())


def test_never_two_holders(tmp_path: Path, agents: list[Agent]) -> None:
    for agent in agents:
        agent.send("race", str(tmp_path / "inside"), 20)
    for agent in agents:
        assert agent.receive() == {"result": []}


def test_by_directory_fd(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        one = FlockLock("domain", "shown", fd)
        two = FlockLock("domain", str(tmp_path))
        one.acquire(time.monotonic())
        with pytest.raises(errors.LeaseBusy):
            two.acquire(time.monotonic())
        one.release()
        os.fstat(fd)  # still the caller's
        two.acquire(time.monotonic())
        with pytest.raises(errors.LeaseBusy, match="in use by"):
            one.acquire(time.monotonic())
        two.release()
    finally:
        os.close(fd)


def test_acquired_twice(tmp_path: Path) -> None:
    lock = FlockLock("domain", str(tmp_path))
    lock.acquire(time.monotonic())
    with pytest.raises(RuntimeError):
        lock.acquire(time.monotonic())
    assert lock.held
    lock.release()


def test_forked_child_does_not_keep_it(tmp_path: Path) -> None:
    lock = FlockLock("domain", str(tmp_path))
    lock.acquire(time.monotonic())
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    lock.release()
    other = FlockLock("domain", str(tmp_path))
    try:
        other.acquire(time.monotonic())
    finally:
        os.close(writer)
        os.waitpid(child, 0)
        os.close(reader)
    other.release()


@pytest.mark.parametrize("kind", ["missing", "file", "symlink"])
def test_not_a_directory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "ovf_store"
    if kind == "file":
        path.write_bytes(b"")
    if kind == "symlink":
        path.symlink_to(tmp_path)
    lock = FlockLock("domain", str(path))
    with pytest.raises(errors.LeaseFailed) as e:
        lock.acquire(time.monotonic())
    assert e.value.fields()["path"] == str(path)
    assert not lock.held


def test_removed_while_waiting(tmp_path: Path) -> None:
    path = tmp_path / "ovf_store"
    path.mkdir()
    one, two = (FlockLock("domain", str(path)) for _ in range(2))
    one.acquire(time.monotonic())

    def remove() -> None:
        path.rmdir()
        one.release()

    timer = threading.Timer(0.3, remove)
    timer.start()
    with pytest.raises(errors.LeaseFailed, match="removed"):
        two.acquire(time.monotonic() + 10)
    timer.join()


def test_failed_acquire_leaks_no_fd(tmp_path: Path) -> None:
    one, two = (FlockLock("domain", str(tmp_path)) for _ in range(2))
    one.acquire(time.monotonic())
    before = held()
    for _ in range(3):
        with pytest.raises(errors.LeaseBusy):
            two.acquire(time.monotonic())
    assert held() - before == set()
    one.release()


def test_unknown_kind() -> None:
    with pytest.raises(ValueError, match="Unknown kind"):
        lock_for("domain", "paper", [], "", "")
