# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What scripts/make-man makes: man1, man5, man8, ovfstore.bash."""
    target = tmp_path_factory.mktemp("man")
    command = [sys.executable, str(PROJECT / "scripts" / "make-man")]
    subprocess.run([*command, str(target)], check=True, cwd=PROJECT)
    return target
