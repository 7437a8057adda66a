# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Several hosts, real sanlock daemons and one domain: they contend, they die,
they take over from each other, and no generation is lost or mixed.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import sanlockd
from tests.sanlockd import SanlockHost
from tests.store import builders
from vdsm_ovfstore import errors
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.reader import Reader
from vdsm_ovfstore.store.verify import OK, verify

pytestmark = [
    pytest.mark.sanlock,
    pytest.mark.slow,
    pytest.mark.skipif(bool(sanlockd.missing()), reason=sanlockd.missing()),
]

# The archives of these tests have nothing in common.
UPLOAD = ("upload", "--force")


def ovfstore(
    host: SanlockHost, *args: str, check: bool = True
) -> tuple[int, Any]:
    """Run the command as a host; returns its status and JSON answer."""
    done = host.python(
        "-m", "vdsm_ovfstore", "--json", *args, check=check, timeout=100
    )
    return done.returncode, json.loads(done.stdout)


@contextlib.contextmanager
def cluster(
    path: Path, count: int, *options: str
) -> Iterator[tuple[list[SanlockHost], FileDomain]]:
    """Hosts that have all joined one POSIX-FS domain with two copies."""
    with contextlib.ExitStack() as stack:
        hosts = [stack.enter_context(SanlockHost(n + 1)) for n in range(count)]
        ovfstore(hosts[0], "init", str(path), "--type", "posixfs", *options)
        domain = FileDomain.open(str(path))
        ids = os.path.join(domain.path, "dom_md", "ids")
        sanlockd.join(hosts, domain.id, ids)
        ovfstore(hosts[0], "create", domain.path, "--size", "8")
        yield hosts, domain


def write_archive(path: Path, domain: FileDomain, *names: str) -> bytes:
    tar = builders.archive(domain, names)
    path.write_bytes(tar)
    return tar


def assert_sound(domain: FileDomain) -> list[tuple[int, bytes]]:
    """All is well; returns the history, newest first."""
    with Reader(FileDomain.open(domain.path)) as reader:
        report = verify(reader)
        assert report.verdict == OK, report.problems
        return [
            (g.number, b"".join(reader.open(g).tar()))
            for g in reader.generations()
        ]


@pytest.mark.parametrize(
    "count,rounds,options",
    [
        pytest.param(2, 4, (), id="two-hosts-512"),
        pytest.param(2, 2, ("--block-size", "4096"), id="two-hosts-4096"),
        pytest.param(8, 1, (), id="eight-hosts"),
    ],
)
def test_contention(
    tmp_path: Path, count: int, rounds: int, options: tuple[str, ...]
) -> None:
    with cluster(tmp_path, count, *options) as (hosts, domain):
        sent = {}
        for turn in range(rounds):
            running = []
            for host in hosts:
                source = tmp_path / f"{host.host_id}.tar"
                name = f"vm-{host.host_id}-{turn}"
                sent[name] = write_archive(source, domain, name)
                running.append(
                    host.popen(
                        *("-m", "vdsm_ovfstore", "--json", *UPLOAD),
                        *(domain.path, str(source), "--timeout", "60"),
                        stdout=subprocess.PIPE,
                        stderr=subprocess.PIPE,
                    )
                )
            for process in running:
                output, problem = process.communicate(timeout=90)
                assert process.returncode == 0, output + problem
        history = assert_sound(domain)
        numbers = [number for number, _ in history]
        assert numbers == list(range(count * rounds, 0, -1))
        assert {data for _, data in history} == set(sent.values())


def test_takeover_from_a_dead_host(tmp_path: Path) -> None:
    """Its worker is stopped in the middle, then the host dies."""
    with cluster(tmp_path, 2) as ((one, two), domain):
        old = write_archive(tmp_path / "old.tar", domain, "old")
        ovfstore(one, *UPLOAD, domain.path, str(tmp_path / "old.tar"))
        write_archive(tmp_path / "lost.tar", domain, "lost")
        code = (
            "import os, signal, sys\n"
            "from vdsm_ovfstore.store import commit, job, prepare\n"
            "def stop(*args):\n"
            "    print('stopped', flush=True)\n"
            "    os.kill(os.getpid(), signal.SIGSTOP)\n"
            "commit.Committer.project = stop\n"
            "data = open(sys.argv[2], 'rb').read()\n"
            "content = prepare.prepare(iter([data]))\n"
            "job.Job(sys.argv[1]).upload(content)\n"
        )
        worker = one.popen(
            *("-c", code, domain.path, str(tmp_path / "lost.tar")),
            stdout=subprocess.PIPE,
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == "stopped\n"

        new = write_archive(tmp_path / "new.tar", domain, "new")
        source = str(tmp_path / "new.tar")
        upload = (*UPLOAD, domain.path, source, "--timeout")
        status, answer = ovfstore(two, *upload, "1", check=False)
        assert status == errors.EXIT_BUSY
        error = answer["error"]
        assert error["code"] == errors.LeaseBusy.code
        assert "host 1 (host-1)" in error["message"]
        assert "waited" in error["message"]
        with Reader(FileDomain.open(domain.path)) as reader:
            # The segment is committed, but nobody confirmed it yet.
            newest = reader.newest()
            assert b"".join(reader.open(newest).tar()) == old

        one.kill()
        start = time.monotonic()
        status, answer = ovfstore(two, *upload, "60")
        # 8 renewals without a sign of life and the watchdog's 60 seconds.
        assert time.monotonic() - start < 140 / sanlockd.SPEED + 20
        history = assert_sound(domain)
        assert [data for _, data in history] == [
            new,
            builders.archive(domain, ["lost"]),
            old,
        ]
        assert any("interrupted" in text for text in answer["healed"])


def test_host_that_did_not_join(tmp_path: Path) -> None:
    with cluster(tmp_path, 1) as ((one,), domain):
        write_archive(tmp_path / "1.tar", domain, "one")
        ovfstore(one, *UPLOAD, domain.path, str(tmp_path / "1.tar"))
        with SanlockHost(2) as two:
            write_archive(tmp_path / "2.tar", domain, "two")
            status, answer = ovfstore(
                *(two, *UPLOAD, domain.path, str(tmp_path / "2.tar")),
                check=False,
            )
            assert status == errors.EXIT_ERROR
            assert answer["error"]["code"] == errors.LockspaceMissing.code
            assert "Activate" in answer["error"]["next_step"]
        assert [number for number, _ in assert_sound(domain)] == [1]


def test_member_whose_lease_is_broken(tmp_path: Path) -> None:
    """It is excluded; the other copy goes on, and the answer says so."""
    with cluster(tmp_path, 1) as ((one,), domain):
        for number in (1, 2):
            source = tmp_path / f"{number}.tar"
            write_archive(source, domain, f"vm{number}")
            if number == 2:
                broken = domain.volumes()[0]
                lease = Path(broken.lease.path)
                lease.write_bytes(bytes(lease.stat().st_size))
            _, answer = ovfstore(one, *UPLOAD, domain.path, str(source))
        assert answer["generation"] == 2
        assert [d["volume"] for d in answer["degraded"]] == [broken.id]
        with Reader(FileDomain.open(domain.path)) as reader:
            report = verify(reader)
            excluded = [c.volume for c in report.copies if c.excluded]
        assert excluded == [broken.id]
