# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The benchmark of the updater runs, as small as it can be."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

_NUMBER = r" [\d.,]+ \|"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_updater(tmp_path: Path) -> None:
    options = ["--vms", "20", "--domains", "2", "--changed", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.updater", str(tmp_path), *options],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for what, stores in (
        ("first update", 2),
        ("nothing has changed", 0),
        ("1 % changed, on 1 domains", 1),
    ):
        row = rf"\| 20 \| {what} \|{_NUMBER} {stores} \|{_NUMBER}"
        assert re.search(row, done.stdout), done.stdout
