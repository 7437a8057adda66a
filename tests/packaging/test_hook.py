# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The hook after Host.getCapabilities, run as VDSM runs hooks: a process, with
the module hooking on its path and the capabilities in a file.

With VDSM's own hooking where VDSM can be imported; else with one that reads
and writes the same file, which leaves unproved that VDSM's still does.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vdsm_ovfstore.plugin import state

HOOK = Path(__file__).parents[2] / "packaging" / "after_get_caps"
CAPS = {"hooks": {}, "kvmEnabled": "true", "größe": [1, None]}

STANDIN = """
import json
import os


def read_json():
    with open(os.environ["_hook_json"]) as f:
        return json.loads(f.read())


def write_json(data):
    with open(os.environ["_hook_json"], "w") as f:
        f.write(json.dumps(data))
"""


class Vdsm:
    """Runs the hook, which finds the state file in this directory."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = path / "run"
        self.run.mkdir()
        self._json = path / "caps.json"
        self._json.write_text(json.dumps(CAPS))
        (path / "hook").mkdir()
        self.hooking = path / "hook" / "hooking.py"
        self.hooking.write_text(STANDIN)
        self.path_of_vdsm: list[str] = []
        text = HOOK.read_text()
        known = f"{state.DIRECTORY}/{state.FILE}"
        assert text.count(known) == 1
        self._hook = path / "50_ovfstore"
        self._hook.write_text(text.replace(known, str(self.run / state.FILE)))

    def caps(self, err: str = "", status: int = 0) -> Any:
        """The capabilities afterwards; err must be in what it says."""
        hooking = str(self.hooking.parent)
        done = subprocess.run(
            [sys.executable, str(self._hook)],
            env={
                **os.environ,
                "PYTHONPATH": ":".join((*self.path_of_vdsm, hooking)),
                "_hook_json": str(self._json),
            },
            cwd="/",
            capture_output=True,
            text=True,
        )
        assert done.returncode == status, done
        assert done.stdout == ""
        assert err in done.stderr if err else not done.stderr, done
        return json.loads(self._json.read_text())


@pytest.fixture
def vdsm(tmp_path: Path) -> Vdsm:
    return Vdsm(tmp_path)


def test_is_a_program() -> None:
    assert os.access(HOOK, os.X_OK)
    assert HOOK.read_text().startswith("#!/usr/bin/python3\n")


def test_enabled(vdsm: Vdsm) -> None:
    state.write(str(vdsm.run), enabled=True, stock_uploads=True)
    told = json.loads((vdsm.run / state.FILE).read_text())
    assert vdsm.caps() == {
        **CAPS,
        "ovfStore": {
            "version": told["version"],
            "stock_uploads": True,
            "stock_downloads": False,
        },
    }


@pytest.mark.skipif(
    importlib.util.find_spec("vdsm") is None, reason="no VDSM to import here"
)
def test_with_the_real_module(vdsm: Vdsm) -> None:
    spec = importlib.util.find_spec("vdsm.hook")
    assert spec is not None and spec.submodule_search_locations
    (directory,) = spec.submodule_search_locations
    vdsm.hooking = Path(directory) / "hooking.py"
    vdsm.path_of_vdsm = sys.path
    state.write(str(vdsm.run), enabled=True)
    assert "ovfStore" in vdsm.caps()


def test_disabled(vdsm: Vdsm) -> None:
    state.write(str(vdsm.run), reason="the configuration says so")
    assert vdsm.caps() == CAPS


def test_never_started(vdsm: Vdsm) -> None:
    assert vdsm.caps() == CAPS


def test_that_vdsmd_is_gone(vdsm: Vdsm) -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    state.write(str(vdsm.run), enabled=True, pid=gone.pid)
    assert vdsm.caps() == CAPS


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"[]", id="another"),
        pytest.param(b'{"enabled": true, "pid": "../1"}', id="types"),
        pytest.param(b'{"enabled": true, "pid": 1}', id="part"),
        pytest.param(b"\xff", id="bytes"),
    ],
)
def test_state_is_damaged(vdsm: Vdsm, content: bytes) -> None:
    """Told in VDSM's log, where what a hook says goes."""
    (vdsm.run / state.FILE).write_bytes(content)
    assert vdsm.caps(err="ovfstore: cannot use ") == CAPS


def test_without_hooking(vdsm: Vdsm) -> None:
    """VDSM goes on after a hook that failed."""
    vdsm.hooking.unlink()
    state.write(str(vdsm.run), enabled=True)
    assert vdsm.caps(err="hooking", status=1) == CAPS
