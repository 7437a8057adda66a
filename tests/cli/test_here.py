# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""status without a domain: the plugin and the hosts of this machine."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.harness import VALIDATORS, Cli, Result
from tests.host.harness import Daemon, running_daemon
from vdsm_ovfstore.plugin import state
from vdsm_ovfstore.plugin.contract import Failure


class Machine:
    """Calls the command as if /run and /usr were below a directory."""

    def __init__(self, path: Path, sockets: Path) -> None:
        self.path = path
        self.run = path / "run"
        self.run.mkdir()
        self.launcher = path / "launcher"
        self.socket = sockets / "socket"
        self.env = dict(Cli(path).env)

    def write(self, **fields: Any) -> None:
        """The state file, as the plugin writes it in this process."""
        state.write(str(self.run), **fields)

    def change(self, **fields: Any) -> None:
        path = self.run / state.FILE
        document = json.loads(path.read_text())
        path.write_text(json.dumps({**document, **fields}))

    def __call__(self, *args: object) -> Result:
        code = (
            "import sys; from vdsm_ovfstore.cli import here, main, way; "
            f"here.STATE = {str(self.run / state.FILE)!r}; "
            f"here.LAUNCHER = {str(self.launcher)!r}; "
            f"here.SOCKETS = way.SOCKETS = ({str(self.socket)!r},); "
            "here._PATIENCE = 0.5; sys.exit(main.main())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "status", *map(str, args)],
            cwd=self.path,
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
        )
        result = Result(done.returncode, done.stdout, done.stderr.decode())
        assert "Traceback" not in result.err
        return result

    def json(self, *args: object, status: int = 0) -> Any:
        result = self(*args, "--json")
        assert result.status == status, result
        VALIDATORS["status"].validate(result.json)
        return result.json


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    # A socket's path has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ovfstore-") as sockets:
        yield Machine(tmp_path, Path(sockets))


# -- the plugin ---------------------------------------------------------------


def test_nothing_installed(machine: Machine) -> None:
    result = machine()
    assert result.status == 0
    assert result.text == (
        "Plugin in vdsmd: not installed\n\nNext: ovfstore list\n"
    )
    assert machine.json()["plugin"]["state"] == "absent"


def test_installed_and_not_started(machine: Machine) -> None:
    machine.launcher.touch()
    result = machine()
    assert result.status == 1
    assert "no vdsmd runs that was started with it" in result.text
    assert result.text.endswith("Next: systemctl restart vdsmd\n")
    assert machine.json(status=1)["plugin"]["state"] == "stopped"


def test_enabled(machine: Machine) -> None:
    machine.launcher.touch()
    machine.write(enabled=True, stock_uploads=True)
    result = machine()
    assert result.status == 0
    lines = result.text.splitlines()
    assert lines[0] == "Plugin in vdsmd: runs"
    assert "vdsm-ovfstore 0." in lines[1]
    assert lines[2] == "  the engine's uploads: taken into the store"
    assert lines[3] == "  the engine's downloads: left to VDSM"
    plugin = machine.json()["plugin"]
    assert plugin["state"] == "enabled"
    assert plugin["stock_uploads"] and not plugin["stock_downloads"]


def test_contract_failed(machine: Machine) -> None:
    """It says which names are not as the plugin knows them."""
    failed = [
        Failure("vdsm.rpc.http.ImageRequestHandler.do_PUT", "is not there"),
        Failure("vdsm.jobs.add", "takes (job, again), not (job)"),
    ]
    machine.write(reason="VDSM is another one", failed=failed)
    result = machine()
    assert result.status == 1
    assert "Plugin in vdsmd: vdsmd runs without it\n" in result.text
    assert "\n  VDSM is another one\n" in result.text
    for name, reason in failed:
        assert f"\n  {name}: {reason}\n" in result.text
    assert "Next: update vdsm-ovfstore" in result.text
    plugin = machine.json(status=1)["plugin"]
    assert plugin["failed"] == [f._asdict() for f in failed]


def test_disabled_for_another_reason(machine: Machine) -> None:
    machine.write(reason="[plugin] enable = no\x1b[31m")
    result = machine()
    assert result.status == 1
    assert "  [plugin] enable = no\\x1b[31m\n" in result.text
    assert "systemctl restart vdsmd" in result.text


def test_plugin_cannot_be_imported(machine: Machine) -> None:
    """Then the launcher writes the file, and knows no versions."""
    machine.write(reason="it cannot be loaded: SyntaxError")
    machine.change(version="", vdsm="")
    lines = machine().text.splitlines()
    assert lines[1].startswith("  since 20")
    assert lines[2] == "  it cannot be loaded: SyntaxError"


def test_vdsmd_is_gone(machine: Machine) -> None:
    """What it has left says nothing any more."""
    machine.launcher.touch()
    machine.write(enabled=True)
    gone = subprocess.Popen(["true"])
    gone.wait()
    machine.change(pid=gone.pid)
    plugin = machine.json(status=1)["plugin"]
    assert plugin["state"] == "stopped"
    assert plugin["version"] is None


@pytest.mark.parametrize(
    "content",
    [
        pytest.param("", id="empty"),
        pytest.param("[]", id="another"),
        pytest.param('{"pid": 1}', id="part"),
        pytest.param('{"pid": "x"}', id="types"),
        pytest.param("\xff", id="bytes"),
    ],
)
def test_state_is_damaged(machine: Machine, content: str) -> None:
    (machine.run / state.FILE).write_bytes(content.encode("latin-1"))
    plugin = machine.json(status=1)["plugin"]
    assert plugin["state"] == "unknown"
    assert "damaged" in plugin["reason"]
    assert "it is damaged" in machine().text


def test_state_cannot_be_read(machine: Machine) -> None:
    (machine.run / state.FILE).mkdir()
    plugin = machine.json(status=1)["plugin"]
    assert plugin["reason"].endswith("Is a directory")


# -- hosts --------------------------------------------------------------------


@pytest.fixture
def daemon(machine: Machine) -> Iterator[Daemon]:
    with running_daemon(machine.path, [machine.path]) as daemon:
        machine.socket.symlink_to(daemon.socket)
        yield daemon


@pytest.mark.slow
class TestHost:
    def test_serves(self, machine: Machine, daemon: Daemon) -> None:
        host = machine.json()["hosts"][0]
        assert host["socket"] == str(machine.socket)
        assert host["status"]["pid"] == daemon.pid
        text = machine().text
        assert f"\nHost at {machine.socket}: serves\n" in text
        assert f"PID {daemon.pid}, 0 transfers, 0 jobs\n" in text

    def test_named(self, machine: Machine, daemon: Daemon) -> None:
        moved = machine.socket.with_name("moved")
        machine.socket.rename(moved)
        assert machine.json()["hosts"] == []
        hosts = machine.json("--host", moved)["hosts"]
        assert [h["socket"] for h in hosts] == [str(moved)]
        # As the plugin says where it listens.
        machine.write(enabled=True, socket=str(moved))
        hosts = machine.json()["hosts"]
        assert [h["socket"] for h in hosts] == [str(moved)]

    @pytest.mark.parametrize("way", ["--direct", "--host=none", ""])
    def test_nobody(self, machine: Machine, daemon: Daemon, way: str) -> None:
        if not way:
            machine.env["OVFSTORE_HOST"] = "none"
        assert machine.json(*filter(None, [way]))["hosts"] == []

    def test_url(self, machine: Machine) -> None:
        result = machine("--host", "https://host7:54321")
        assert result.status == 2
        assert "ovfstore list --host https://host7:54321" in result.err


@pytest.fixture
def silent(machine: Machine) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(machine.socket))
        listener.listen()
        yield listener


def test_host_is_silent(machine: Machine, silent: socket.socket) -> None:
    host = machine.json(status=1)["hosts"][0]
    assert host["error"] == "timed out"
    assert host["status"] is None


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="none"),
        pytest.param(b"nonsense\r\n\r\n", id="nonsense"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n[]", id="no-object"),
        pytest.param(b"HTTP/1.1 404 Away\r\n\r\n{}", id="refused"),
    ],
)
def test_host_is_another(
    machine: Machine, silent: socket.socket, answer: bytes
) -> None:
    def serve() -> None:
        connection, _ = silent.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    server = threading.Thread(target=serve)
    server.start()
    host = machine.json(status=1)["hosts"][0]
    server.join()
    assert host["error"]


def test_host_of_another_version(
    machine: Machine, silent: socket.socket
) -> None:
    """What it tells is shown as far as it is known."""

    def serve() -> None:
        connection, _ = silent.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b'HTTP/1.1 200 OK\r\n\r\n{"version": "9"}')

    server = threading.Thread(target=serve)
    server.start()
    result = machine()
    server.join()
    assert result.status == 0
    assert f"Host at {machine.socket}: serves\n" in result.text


def test_host_has_gone(machine: Machine, silent: socket.socket) -> None:
    silent.close()
    assert os.path.exists(machine.socket)
    host = machine.json(status=1)["hosts"][0]
    assert host["error"] == "Connection refused"
