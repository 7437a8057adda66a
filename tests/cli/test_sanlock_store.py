# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The command on a domain with leases, from two hosts."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.harness import archive
from tests.sanlockd import SanlockHost, join, missing

pytestmark = [
    pytest.mark.sanlock,
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
]


@pytest.fixture(scope="module")
def hosts() -> Iterator[list[SanlockHost]]:
    with SanlockHost(1, "left") as one, SanlockHost(2, "right") as two:
        yield [one, two]


def answer(host: SanlockHost, *args: object) -> Any:
    command = ("-m", "vdsm_ovfstore", *map(str, args), "--json")
    return json.loads(host.python(*command).stdout)


@pytest.fixture
def domain(hosts: list[SanlockHost], tmp_path: Path) -> str:
    made = answer(hosts[0], "init", tmp_path)
    assert made["lock"] == "sanlock"
    path = str(made["path"])
    join(hosts, made["domain"], f"{path}/dom_md/ids")
    assert len(answer(hosts[0], "create", path, "--size", 8)["created"]) == 2
    return path


def test_two_hosts_at_once(
    hosts: list[SanlockHost], domain: str, tmp_path: Path
) -> None:
    running = []
    for number, host in enumerate(hosts):
        source = tmp_path / f"{number}.tar"
        source.write_bytes(archive(f"vm{number}"))
        running.append(
            host.popen(
                *("-m", "vdsm_ovfstore", "upload", domain, str(source)),
                "--json",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        )
    numbers = []
    for process in running:
        out, err = process.communicate(timeout=90)
        assert process.returncode == 0, err
        numbers.append(json.loads(out)["generation"])
    assert sorted(numbers) == [1, 2]
    for host in hosts:
        assert answer(host, "verify", domain)["verdict"] == "ok"
        found = answer(host, "history", domain)["generations"]
        assert [g["number"] for g in found] == [2, 1]


def test_lockspace_not_joined(
    hosts: list[SanlockHost], domain: str, tmp_path: Path
) -> None:
    with SanlockHost(3) as stranger:
        done = stranger.python(
            *("-m", "vdsm_ovfstore", "create", domain, "--copies", "3"),
            check=False,
        )
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first.startswith("ovfstore: error 661: ")
    assert second.startswith("ovfstore: Activate")
    assert len(answer(hosts[0], "status", domain)["copies"]) == 2
