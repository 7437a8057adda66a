# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The benchmark of an engine's own uploads runs, as small as it can be."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_stock(tmp_path: Path) -> None:
    options = ["--sizes", "1", "--repeat", "1", "--lock", "flock"]
    done = subprocess.run(
        [sys.executable, "-m", "bench.stock", str(tmp_path), *options],
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"\| through the store, twice \| \d+ \|", done.stdout)
    steps = re.findall(r"(?m)^\| (.+?) \| \d+ \| \d+ \|$", done.stdout)
    # Every step was found in the log of the worker.
    assert len(steps) == 12, done.stdout
