# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The command ovfstore-updater: its configuration, its verbs, its signals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine.bed import Bed
from tests.engine.ovfs import ident
from tests.host.harness import PROJECT, wait_until, write_conf
from vdsm_ovfstore import errors
from vdsm_ovfstore.engine import command, config
from vdsm_ovfstore.engine.config import Config

DOMAIN = ident("domain")


class Tool:
    """The command, with a configuration of its own."""

    def __init__(self, tmp_path: Path, **conf: Any) -> None:
        self.conf_dir = tmp_path / "conf.d"
        self.conf_dir.mkdir()
        (tmp_path / "source").mkdir()
        self.state = tmp_path / "updater.db"
        own: dict[str, Any] = {
            "source": {"directory": tmp_path / "source"},
            "hosts": {"addresses": tmp_path / "nobody"},
            "state": {"path": self.state},
        }
        for section, values in conf.items():
            own.setdefault(section, {}).update(values)
        write_conf(self.conf_dir / "50.conf", own)

    def call(self, *arguments: str) -> int:
        return command.main(["--conf-dir", str(self.conf_dir), *arguments])

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        module = "vdsm_ovfstore.engine.command"
        line = [sys.executable, "-m", module, "--conf-dir", str(self.conf_dir)]
        return subprocess.Popen(
            [*line, *arguments],
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    return Tool(tmp_path)


# -- the configuration --------------------------------------------------------


def test_the_example_shows_every_key_and_its_default(tmp_path: Path) -> None:
    """Uncommented, it changes nothing and names all there is."""
    example = PROJECT / "packaging" / "ovfstore-updater.conf"
    lines = re.sub(
        r"^#(?=\[|[a-z_]+ =|    /)", "", example.read_text(), flags=re.M
    )
    (tmp_path / "50.conf").write_text(lines)
    loaded = config.load([str(tmp_path)])
    assert loaded.config == Config()
    assert {k for s in loaded.document().values() for k in s} == {
        key for _, key in loaded.sources
    }


ENGINE = "[source]\nkind = engine\nurl = https://e/ovirt-engine/api\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[source]\nkind = engine\n", "[source] url"),
        (ENGINE, "[source] token_file"),
        (f"{ENGINE}token_file = /a\npassword_file = /b\n", "not both"),
        (f"{ENGINE}password_file = /b\n", "[source] user"),
        ("[source]\nurl = http://e\n", "https://"),
        ("[updates]\nretry_max = 1 s\n", "at least retry_min"),
        ("[updates]\ninterval = soon\n", "a time from"),
        ("[hots]\nx = 1\n", "no section [hots]"),
        ("[hosts]\naddress = /x\n", "no key address"),
    ],
)
def test_refused(
    tool: Tool, capsys: pytest.CaptureFixture[str], text: str, words: str
) -> None:
    (tool.conf_dir / "60.conf").write_text(text)
    assert tool.call("run", "--once") == errors.EXIT_USAGE
    first, second = capsys.readouterr().err.splitlines()
    assert words in first
    assert "packaging/ovfstore-updater.conf" in second


def test_addresses() -> None:
    assert Config().addresses == (config.SOCKET,)


def test_the_engines_hosts(tool: Tool) -> None:
    (tool.conf_dir / "60.conf").write_text(
        f"{ENGINE}token_file = /a\n[hosts]\naddresses =\n"
    )
    assert config.load([str(tool.conf_dir)]).config.addresses == ()


def test_show_config(tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.call("--show-config") == errors.EXIT_OK
    shown = json.loads(capsys.readouterr().out)
    assert shown["state"]["path"]["value"] == str(tool.state)
    assert shown["updates"]["interval"]["from"] == "default"


def test_an_address_that_is_none(tool: Tool) -> None:
    (tool.conf_dir / "60.conf").write_text("[hosts]\naddresses = a:1\n")
    process = tool.start("run", "--once")
    _, log = process.communicate(timeout=30)
    assert process.returncode == errors.EXIT_USAGE
    assert "https://a:1" in log and "Traceback" not in log


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="no systemd here"
)
def test_the_unit(tmp_path: Path) -> None:
    unit = (PROJECT / "packaging" / "ovfstore-updater.service").read_text()
    copy = tmp_path / "ovfstore-updater.service"
    copy.write_text(unit.replace("/usr/bin/ovfstore-updater", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)],
        capture_output=True,
        text=True,
    )
    assert "ovfstore-updater" not in done.stderr, done.stderr


# -- the verbs ----------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "",
        "stauts",
        "run --twice",
        "run --force x",
        "drop",
        f"drop {DOMAIN}",
        f"drop {DOMAIN} --all {DOMAIN}",
        f"drop {DOMAIN} x",
        "enable x",
    ],
)
def test_usage(
    tool: Tool, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    assert tool.call(*line.split()) == errors.EXIT_USAGE
    assert capsys.readouterr().err.startswith("ovfstore-updater: error ")


def test_choices(tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    def state() -> Any:
        tool.call("status", "--json")
        (domain,) = json.loads(capsys.readouterr().out)["domains"]
        return domain["choice"], domain["state"]

    assert tool.call("disable", DOMAIN.upper()) == errors.EXIT_OK
    assert state() == ("off", "off")
    assert tool.call("enable", DOMAIN) == errors.EXIT_OK
    assert state() == ("on", "empty")
    assert tool.call("accept", ident("unknown")) == errors.EXIT_USAGE
    assert tool.call("drop", DOMAIN, "--all") == errors.EXIT_USAGE


def test_status_of_nothing(
    tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.call("status") == errors.EXIT_OK
    assert "never seen" in capsys.readouterr().out


def test_no_directory_for_the_state(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = Tool(tmp_path, state={"path": tmp_path / "missing" / "state.db"})
    assert tool.call("status") == errors.EXIT_ERROR
    assert "there is no directory" in capsys.readouterr().err


def test_what_is_wrong_is_shown(
    dry: Bed, tool: Tool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Names come from OVFs: none of them steers a terminal."""
    dry.vm("web", dry.a)
    dry.look()
    name = "we\x1b[31mb"
    dry.query("UPDATE entities SET name = ?", name)
    dry.write("web", b"<x/>")
    dry.look()
    dry.query(
        "UPDATE domains SET problem = 'It \x1b is so', step = 'Do this', "
        "code = 3532, failures = 3, retry = 9e9, degraded = 'copy x: gone'"
    )
    write_conf(tool.conf_dir / "60.conf", {"state": {"path": dry.state_path}})
    assert tool.call("status") == errors.EXIT_STALE
    out = capsys.readouterr().out
    assert "\x1b" not in out
    for words in ("is bad for", "3 failures", "Do this", "copy x: gone"):
        assert words in out


@pytest.mark.parametrize("name", ["operations.md", "architecture.md"])
def test_documented_commands_parse(name: str) -> None:
    text = (PROJECT / "docs" / name).read_text()
    found = re.findall(r"`(ovfstore-updater [^`]+)`", text)
    for line in found:
        line = " ".join(line.split()).replace("DOMAIN", DOMAIN)
        line = line.replace("ENTITY...", DOMAIN)
        try:
            command.make_parser().parse_args(line.split()[1:])
        except SystemExit as e:
            assert e.code == 0, line
    assert found or name != "operations.md"


# -- running ------------------------------------------------------------------


@pytest.fixture
def running(tool: Tool) -> Iterator[subprocess.Popen[str]]:
    process = tool.start("run")
    wait_until(lambda: locked(tool))
    yield process
    process.kill()
    process.communicate()


def locked(tool: Tool) -> bool:
    lock = Path(f"{tool.state}.lock")
    return lock.exists() and bool(lock.read_text())


@pytest.mark.slow
def test_one_at_a_time(tool: Tool, running: subprocess.Popen[str]) -> None:
    second = tool.start("run", "--once")
    _, log = second.communicate(timeout=30)
    assert second.returncode == errors.EXIT_BUSY
    assert f"PID {running.pid}" in log
    # What can be asked of who runs is asked.
    second = tool.start("run", "--force")
    out, _ = second.communicate(timeout=30)
    assert second.returncode == errors.EXIT_OK
    assert f"PID {running.pid}" in out


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals(
    running: subprocess.Popen[str], number: signal.Signals
) -> None:
    running.send_signal(signal.SIGHUP)
    running.send_signal(number)
    _, log = running.communicate(timeout=30)
    assert running.returncode == 0
    assert "SIGNAL SIGHUP" in log and "STOPPED" in log
    assert "Traceback" not in log


@pytest.mark.slow
def test_it_tells_systemd(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        name = f"ovfstore-updater-test-{os.getpid()}"
        manager.bind("\0" + name)
        manager.settimeout(30)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        monkeypatch.setenv("WATCHDOG_USEC", "200000")
        process = tool.start("run")
        try:
            seen = b""
            while b"WATCHDOG=1" not in seen:
                seen += manager.recv(4096)
            assert b"READY=1" in seen
        finally:
            process.terminate()
            process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.slow
def test_a_state_that_breaks(tool: Tool) -> None:
    """Without it nothing can go on: an error, and an end."""
    process = tool.start("run")
    wait_until(lambda: locked(tool))
    tool.state.write_bytes(b"x" * 8192)
    for name in ("-wal", "-shm"):
        Path(f"{tool.state}{name}").unlink(missing_ok=True)
    process.send_signal(signal.SIGHUP)
    _, log = process.communicate(timeout=30)
    assert process.returncode == errors.EXIT_ERROR
    assert f"error {errors.StateUnusable.code}" in log
    assert "Traceback" not in log
