# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The benchmark of a host runs, as small as it can be."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

# All of them start daemons.
pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]

_NUMBER = r" \**[\d.,]+\**"

# What each of its tables must hold.
_PARTS = [
    pytest.param(
        "update",
        [
            rf"\| update / parts \|{_NUMBER} \|",
            rf"\| - lease held, ms \|{_NUMBER} \|",
        ],
        id="update",
    ),
    pytest.param(
        "download", [rf"\| download / parts \|{_NUMBER} \|"], id="download"
    ),
    pytest.param(
        "slow",
        [
            rf"\| lease held, ms \|{_NUMBER} \|{_NUMBER} \|",
            r"meanwhile 0 processes beside the host and its spares",
        ],
        id="slow client",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        "ping",
        [
            rf"\| idle, .* s \| 5( \|{_NUMBER}){{6}} \|",
            rf"\| 2 x 1 MiB to 2 domains, .* s( \|{_NUMBER}){{7}} \|",
            rf"\| 2 x 1 MiB to one domain, .* s( \|{_NUMBER}){{7}} \|",
        ],
        id="ping",
        marks=pytest.mark.slow,
    ),
    pytest.param(
        "memory",
        [
            rf"\| 1 x 1 MiB( \|{_NUMBER}){{4}} \|",
            rf"\| 10 x 10 VMs, 4 at a time( \|{_NUMBER}){{4}} \|",
            rf"the host{_NUMBER} MiB, its spares{_NUMBER}( \+{_NUMBER}){{2}}",
        ],
        id="memory",
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize("what, expected", _PARTS)
def test_part_of_the_benchmark(
    tmp_path: Path, what: str, expected: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.host", str(tmp_path), "--only", what]
        + "--sizes 1 --vms 0 --repeat 1 --uploads 2 --load 1".split()
        + "--pings 5 --small 10 --rate 4".split(),
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for pattern in expected:
        assert re.search(pattern, done.stdout), done.stdout
    assert not list(tmp_path.iterdir())
