# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What `make run` and `make serve` start, and that it ends with them."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from scripts import testbed
from scripts.lockdaemon import find_sanlock
from scripts.processes import Failure, locked, process
from tests.host.harness import PROJECT

pytestmark = pytest.mark.skipif(
    not os.path.exists(testbed.OVFSTORED),
    reason=f"there is no {testbed.OVFSTORED}",
)


def gone(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}")


def test_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TYPE", "localfs")
    with testbed.testbed(str(tmp_path)) as bed:
        with pytest.raises(Failure, match="another make run or make serve"):
            with testbed.testbed(str(tmp_path)):
                pass
        # The log of the one that runs goes on.
        assert (tmp_path / "run" / "ovfstored.log").stat().st_size > 0
        assert bed.process.poll() is None
    with testbed.testbed(str(tmp_path)) as again:
        assert again.domain == bed.domain
        assert gone(bed.process.pid)
    log = (tmp_path / "run" / "ovfstored.log").read_text()
    assert log.count("STARTING") == 2


def test_what_outlives_us_keeps_the_lock(tmp_path: Path) -> None:
    """As when make serve was killed, and its sanlock is ending still."""
    with locked(str(tmp_path)) as lock:
        command = ["sleep", "60"]
        log = str(tmp_path / "log")
        sleeping = process("sleep", command, log, lock)
        left = sleeping.__enter__()
    try:
        with pytest.raises(Failure, match="has not ended yet"):
            with locked(str(tmp_path)):
                pass
    finally:
        sleeping.__exit__(None, None, None)
    assert gone(left.pid)
    with locked(str(tmp_path)):
        pass


@pytest.mark.sanlock
@pytest.mark.slow
@pytest.mark.skipif(
    find_sanlock() is None or importlib.util.find_spec("sanlock") is None,
    reason="sanlock or its Python binding is not installed",
)
def test_ends_soon_after_a_kill_of_its_host(tmp_path: Path) -> None:
    """The lockspace is joined still, so sanlock would not end by itself."""
    # A process of its own: sanlock's library remembers where its daemon is.
    serve = subprocess.Popen(
        [sys.executable, "scripts/serve", str(tmp_path), "0"],
        cwd=PROJECT,
        env={**os.environ, "TYPE": "posixfs"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    with serve:
        assert serve.stdout is not None
        said = ""
        while "Ctrl-C stops it" not in said:
            line = serve.stdout.readline()
            assert line, said
            said += line
        pids = dict(re.findall(r"(sanlock|ovfstored).* PID (\d+)", said))
        os.kill(int(pids["ovfstored"]), signal.SIGKILL)
        rest, _ = serve.communicate(timeout=20)
    assert "make serve: ovfstored ended, status -9" in rest
    assert all(gone(int(pid)) for pid in pids.values())
