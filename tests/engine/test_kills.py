# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
kill -9 of the updater, of the host and of its worker, over and over, while
the directory changes: at the end each store equals it, and nothing went back.

OVFSTORE_KILLS says how many; OVFSTORE_SEED repeats a run's decisions, though
not its timing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.engine.bed import Bed
from tests.engine.ovfs import Disk, ident, make_ovf
from tests.host.harness import (
    PROJECT,
    Daemon,
    running_daemon,
    wait_until,
    write_conf,
)
from tests.host.hostbed import children
from vdsm_ovfstore import errors
from vdsm_ovfstore.engine.source import IMAGE_LOCKED
from vdsm_ovfstore.storage.filedomain import create_domain

KILLS = int(os.environ.get("OVFSTORE_KILLS", "200"))
SEED = int(os.environ.get("OVFSTORE_SEED", str(time.time_ns() % 10**6)))

DOMAINS = 3
NAMES = [f"vm{number}" for number in range(24)]

# Seconds. Until all is current after the last kill.
PATIENCE = 120.0


class Directory(threading.Thread):
    """
    Changes the directory until it is told to stop.

    Each change of a VM has a generation above all that there were.
    """

    def __init__(self, bed: Bed, rng: random.Random) -> None:
        super().__init__(daemon=True)
        self._bed = bed
        self._rng = rng
        self._end = threading.Event()
        self._generation = 0
        self._locked: set[str] = set()
        self.vms: dict[str, tuple[set[str], bytes]] = {}
        self.changes = 0
        for name in NAMES[::2]:
            self._write(name)

    def run(self) -> None:
        while not self._end.wait(self._rng.uniform(0.0, 0.06)):
            name = self._rng.choice(NAMES)
            kind = self._rng.random()
            if kind < 0.15 and len(self.vms) > 6:
                self._remove(name)
            elif kind < 0.25:
                self._lock(name)
            else:
                self._write(name, slowly=kind > 0.85)
            self.changes += 1

    def stop(self) -> None:
        """Ends with all VMs unlocked."""
        self._end.set()
        self.join()
        self._locked.clear()
        self._statuses()

    def _write(self, name: str, slowly: bool = False) -> None:
        self._generation += 1
        count = self._rng.choice((0, 1, 1, 1, 2))
        domains = set(self._rng.sample(self._bed.ids, count))
        notes = "x" * self._rng.randrange(20000)
        disks = [Disk(domain) for domain in sorted(domains)]
        data = make_ovf(name, disks, self._generation, notes=notes)
        if slowly:
            # In place, and half of it first.
            path = self._bed.ovfs / f"{ident(name)}.ovf"
            with path.open("wb") as file:
                file.write(data[: len(data) // 2])
                file.flush()
                time.sleep(0.02)
                file.write(data[len(data) // 2 :])
        else:
            self._bed.write(name, data)
        self.vms[name] = (domains or set(self._bed.ids), data)

    def _remove(self, name: str) -> None:
        if self.vms.pop(name, None) is not None:
            self._bed.remove(name)

    def _lock(self, name: str) -> None:
        self._locked ^= {name}
        self._statuses()

    def _statuses(self) -> None:
        found = {ident(name): IMAGE_LOCKED for name in self._locked}
        path = self._bed.ovfs / "metadata.json"
        new = path.with_suffix(".new")
        new.write_text(json.dumps({"VM Status": found}))
        new.rename(path)


class Updater:
    """The command, in a process of its own; its log goes on."""

    def __init__(self, bed: Bed, tmp_path: Path) -> None:
        self.log_path = tmp_path / "updater.log"
        conf = tmp_path / "updater.conf.d"
        conf.mkdir()
        write_conf(
            conf / "50-test.conf",
            {
                "source": {"directory": bed.ovfs},
                "hosts": {
                    "addresses": bed.conf.hosts.addresses[0],
                    "lease_timeout": "5 s",
                },
                "domains": {"size": "8 MiB"},
                "updates": {
                    "interval": "200 ms",
                    "check_interval": "5 s",
                    "retry_min": "100 ms",
                    "retry_max": "1 s",
                    "removals": 100,
                },
                "state": {"path": bed.state_path},
            },
        )
        self._command = [sys.executable, "-m"]
        self._command += ["vdsm_ovfstore.engine.command"]
        self._command += ["--conf-dir", str(conf), "run"]
        self._process: Optional[subprocess.Popen[bytes]] = None

    def start(self) -> None:
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)

    def acknowledged(self) -> Iterator[tuple[str, int, str]]:
        """Domain, number and digest of what hosts have committed."""
        pattern = r"STORED domain=(\S+) generation=(\d+) sha256=(\w+)"
        for found in re.finditer(pattern, self.log_path.read_text()):
            yield found[1], int(found[2]), found[3]


class Killer:
    def __init__(
        self, daemon: Daemon, updater: Updater, rng: random.Random
    ) -> None:
        self._daemon = daemon
        self._updater = updater
        self._rng = rng
        self.killed: Counter[str] = Counter()

    def kill(self) -> None:
        time.sleep(self._rng.uniform(0.0, 0.7))
        what = self._rng.choice(("updater", "host", "worker"))
        if what == "worker" and not self._kill_worker():
            what = "updater"
        if what == "updater":
            self._updater.kill()
            self._pause()
            self._updater.start()
        elif what == "host":
            self._daemon.kill()
            self._pause()
            self._daemon.start()
        self.killed[what] += 1

    def _pause(self) -> None:
        time.sleep(self._rng.choice((0.0, 0.0, 0.3)))

    def _kill_worker(self) -> bool:
        """One that writes; one appears with each update."""
        deadline = time.monotonic() + 2
        while time.monotonic() < deadline:
            for pid in children(self._daemon.pid):
                with contextlib.suppress(OSError):
                    line = Path(f"/proc/{pid}/cmdline").read_bytes()
                    busy = len(os.listdir(f"/proc/{pid}/task")) > 1
                    if b"store.worker" in line and busy:
                        time.sleep(self._rng.uniform(0.0, 0.03))
                        os.kill(pid, signal.SIGKILL)
                        return True
        return False


@pytest.fixture
def beside(tmp_path: Path) -> Iterator[tuple[Bed, Daemon]]:
    (tmp_path / "domains").mkdir()
    (tmp_path / "bed").mkdir()
    domains = [
        create_domain(str(tmp_path / "domains"), "LOCALFS")
        for _ in range(DOMAINS)
    ]
    with running_daemon(tmp_path, [tmp_path / "domains"]) as daemon:
        yield Bed(tmp_path / "bed", [daemon.socket], domains), daemon


@pytest.mark.campaign
@pytest.mark.timeout(3600)
def test_nothing_is_lost(beside: tuple[Bed, Daemon], tmp_path: Path) -> None:
    run(*beside, tmp_path, KILLS)


@pytest.mark.slow
def test_some_kills(beside: tuple[Bed, Daemon], tmp_path: Path) -> None:
    run(*beside, tmp_path, 3)


def run(bed: Bed, daemon: Daemon, tmp_path: Path, kills: int) -> None:
    print(f"OVFSTORE_SEED={SEED}")
    rng = random.Random(SEED)
    directory = Directory(bed, random.Random(SEED + 1))
    updater = Updater(bed, tmp_path)
    killer = Killer(daemon, updater, rng)
    try:
        updater.start()
        directory.start()
        for _ in range(kills):
            killer.kill()
        directory.stop()
        wait_until(lambda: differences(bed, directory) == [], PATIENCE)
        assert updater.stop() == 0
    finally:
        directory.stop()
        updater.kill()
    log = updater.log_path.read_text()
    assert "Traceback" not in log
    found = bed.report()
    assert {d["state"] for d in found["domains"]} == {"current"}
    assert found["bad"] == found["waiting"] == found["unregistered"] == []
    counts = check_history(bed, updater)
    print(
        f"kills={dict(killer.killed)} changes={directory.changes} "
        f"updates={counts}"
    )


def differences(bed: Bed, directory: Directory) -> list[str]:
    """Domains whose store is not what the directory says."""
    found = []
    for domain in bed.ids:
        wanted = {
            ident(name): hashlib.sha256(data).hexdigest()
            for name, (domains, data) in directory.vms.items()
            if domain in domains
        }
        try:
            listed = bed.client.all_vms(domain)["entities"]
        except errors.Error:
            listed = []
        if {e["id"]: e["sha256"] for e in listed} != wanted:
            found.append(domain)
    return found


def check_history(bed: Bed, updater: Updater) -> dict[str, int]:
    """No VM went back, no committed generation is another one now."""
    counts: dict[str, int] = {}
    for domain in bed.ids:
        history: list[Any] = list(
            bed.client.get_history(domain)["generations"]
        )
        kept = {g["number"]: g["sha256"] for g in history}
        assert len(kept) == len(history), "a number has two contents"
        counts[domain] = max(kept)
        for where, number, sha256 in updater.acknowledged():
            if where == domain:
                assert kept.get(number, sha256) == sha256
                assert number <= max(kept)
        seen: dict[str, int] = {}
        for number in sorted(kept):
            members = bed.members(domain, number)
            manifest = json.loads(members["manifest.json"])
            for entity, entry in manifest["entities"].items():
                assert entry["generation"] >= seen.get(entity, 0), number
                seen[entity] = entry["generation"]
                data = members[f"{entity}.ovf"]
                assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    return counts
