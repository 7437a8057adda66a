# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What keeps the plugin out, and that vdsmd runs in any case."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.plugin.conftest import STANDIN
from vdsm_ovfstore.plugin import contract, install

PROJECT = Path(__file__).parents[2]
LAUNCHER = PROJECT / "packaging" / "vdsmd"


def state(directory: Path) -> Any:
    return json.loads((directory / "state.json").read_text())


def run(*args: object, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, args)],
        env={**os.environ, "PYTHONPATH": path},
        cwd="/",
        capture_output=True,
        text=True,
    )


def test_the_standin_has_the_shape(standin: None) -> None:
    assert contract.check(contract.CONTRACT) == []


@pytest.mark.skipif(
    importlib.util.find_spec("vdsm") is None, reason="no VDSM to import here"
)
def test_the_real_one_has_it() -> None:
    assert contract.check(contract.CONTRACT) == []


def broken(name: contract.Name) -> contract.Name:
    """The same, as it would be in another VDSM."""
    if name.sets:
        return name._replace(sets=("other",))
    if name.parameters is not None:
        return name._replace(parameters=("other",))
    path = name.path or "other"
    return name._replace(path=path[:-1] + "X")


@pytest.mark.parametrize("name", contract.CONTRACT, ids=lambda n: n.name)
def test_each_name_is_looked_at(standin: None, name: contract.Name) -> None:
    (failure,) = contract.check([broken(name)])
    assert failure.reason


def test_no_such_module(standin: None) -> None:
    (failure,) = contract.check([contract.Name("vdsm.other")])
    assert "cannot be imported" in failure.reason


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command(as_json: bool) -> None:
    args = ["-m", "vdsm_ovfstore.plugin.contract", *["--json"] * as_json]
    done = run(*args, path=f"{PROJECT}:{STANDIN}")
    assert (done.returncode, done.stderr) == (0, "")
    count = len(contract.CONTRACT)
    if as_json:
        found = json.loads(done.stdout)
        assert (found["names"], found["failed"]) == (count, [])
    else:
        assert f"{count} of {count} names" in done.stdout


def test_the_command_where_a_name_is_gone(tmp_path: Path) -> None:
    shim = tmp_path / "shim.py"
    shim.write_text(
        "import vdsm.jobs\ndel vdsm.jobs.add\n"
        "from vdsm_ovfstore.plugin.contract import main\n"
        "raise SystemExit(main([]))\n"
    )
    done = run(shim, path=f"{PROJECT}:{STANDIN}")
    assert done.returncode == 1
    assert "vdsm.jobs.add: is not there" in done.stdout


def test_the_command_without_vdsm() -> None:
    if importlib.util.find_spec("vdsm") is not None:
        pytest.skip("there is a VDSM here")
    done = run("-m", "vdsm_ovfstore.plugin.contract", path=str(PROJECT))
    assert done.returncode == 2
    assert "no VDSM" in done.stdout


# -- installing it ------------------------------------------------------------


def snapshot() -> dict[str, Any]:
    """What the plugin changes."""
    from vdsm import API
    from vdsm.api import vdsmapi
    from vdsm.clientIF import clientIF
    from vdsm.rpc import Bridge, http
    from vdsm.storage.image import Image
    from vdsm.storage.monitor import DomainMonitor

    return {
        "api": hasattr(API, "OvfStore"),
        "schema": vdsmapi.Schema.__init__,
        "start": vars(clientIF)["start"],
        "stop": vars(clientIF)["prepareForShutdown"],
        "commands": set(Bridge.command_info),
        "handler": http.ImageRequestHandler,
        "words": http.HttpDetector.HTTP_VERBS,
        "to": vars(Image)["copyToImage"],
        "from": vars(Image)["copyFromImage"],
        "leave": vars(DomainMonitor)["stopMonitoring"],
    }


def test_a_missing_name(
    standin: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import vdsm.jobs

    before = snapshot()
    monkeypatch.delattr(vdsm.jobs, "add")
    assert not install.install(str(tmp_path))
    assert snapshot() == before
    found = state(tmp_path)
    assert not found["enabled"]
    assert "vdsm.jobs.add is not there" in found["reason"]
    assert found["failed"] == [
        {"name": "vdsm.jobs.add", "reason": "is not there"}
    ]


def test_what_fails_late_is_undone(
    standin: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot()

    def fail(*args: Any) -> None:
        raise RuntimeError("late")

    monkeypatch.setattr(install, "_follow", fail)
    assert not install.install(str(tmp_path))
    assert snapshot() == before
    assert state(tmp_path)["reason"] == "RuntimeError: late"


def test_a_namespace_of_that_name(standin: None, tmp_path: Path) -> None:
    from vdsm import API

    API.OvfStore = object
    assert not install.install(str(tmp_path))
    assert "of its own" in state(tmp_path)["reason"]


def test_installed(standin: None, tmp_path: Path) -> None:
    from vdsm import API
    from vdsm.clientIF import clientIF
    from vdsm.rpc import Bridge

    assert install.install(str(tmp_path))
    found = state(tmp_path)
    assert (found["enabled"], found["pid"]) == (True, os.getpid())
    bridge = Bridge.DynamicBridge()
    assert "OvfStore.getInfo" in bridge._schema._methods
    assert "Host.ping2" in bridge._schema._methods
    answer = bridge._dynamicMethod("OvfStore", "ping")
    assert answer["status"] == {"code": 0, "message": "Done"}
    assert answer["result"]["api"] == 1
    assert issubclass(API.OvfStore, API.APIBase)
    clientIF.getInstance().prepareForShutdown()


def test_a_domain_is_left_after_ours(
    standin: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else sanlock would refuse VDSM to leave its lockspace, for good."""
    from vdsm.clientIF import clientIF

    from vdsm_ovfstore.plugin.core import Plugin

    monitor = clientIF.getInstance().irs._obj.domainMonitor
    monitor.found["one"] = object()
    left: list[tuple[list[str], bool]] = []

    def leave(self: Plugin, domains: list[str]) -> None:
        left.append((list(domains), "one" in monitor.found))
        raise RuntimeError("not of VDSM's concern")

    monkeypatch.setattr(Plugin, "leave", leave)
    assert install.install(str(tmp_path))
    monitor.stopMonitoring(iter(["one"]))
    assert left == [(["one"], True)]
    assert not monitor.found
    clientIF.getInstance().prepareForShutdown()


# -- the launcher -------------------------------------------------------------


def test_vdsmd_with_the_plugin() -> None:
    done = run(LAUNCHER, path=f"{PROJECT}:{STANDIN}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "serving, 18 verbs of ours\n"


@pytest.mark.parametrize(
    "text",
    ["raise SystemExit(3)", "1/0", "import nothing_of_that_name", "def x(:"],
    ids=["exit", "error", "import", "syntax"],
)
def test_vdsmd_with_a_broken_plugin(tmp_path: Path, text: str) -> None:
    package = tmp_path / "vdsm_ovfstore"
    package.mkdir()
    (package / "__init__.py").write_text(text + "\n")
    done = run(LAUNCHER, path=f"{tmp_path}:{STANDIN}")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "serving, 0 verbs of ours\n"


def test_vdsmd_without_the_package() -> None:
    if importlib.util.find_spec("vdsm_ovfstore.plugin") is None:
        pytest.skip("not installed")
    done = subprocess.run(
        # -S: nothing of ours is on its path.
        [sys.executable, "-S", str(LAUNCHER)],
        env={"PYTHONPATH": STANDIN, "PATH": os.environ["PATH"]},
        cwd="/",
        capture_output=True,
        text=True,
    )
    assert done.stdout == "serving, 0 verbs of ours\n", done.stderr


def test_another_vdsmd_without_serve_clients(tmp_path: Path) -> None:
    (tmp_path / "vdsm").mkdir()
    (tmp_path / "vdsm" / "__init__.py").touch()
    text = "def main():\n    print('stock')\n"
    (tmp_path / "vdsm" / "vdsmd.py").write_text(text)
    done = run(LAUNCHER, path=f"{tmp_path}:{PROJECT}")
    assert (done.returncode, done.stdout) == (0, "stock\n")
