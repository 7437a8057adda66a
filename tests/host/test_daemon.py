# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""`ovfstored` from its start to its end, with real signals and sockets."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.host.certs import Pki, certificates
from tests.host.harness import (
    PROJECT,
    Daemon,
    DaemonFailed,
    command,
    running_daemon,
    wait_until,
    write_conf,
)
from vdsm_ovfstore import __version__
from vdsm_ovfstore.storage.filedomain import create_domain


@pytest.fixture
def domain(tmp_path: Path) -> str:
    directory = tmp_path / "domain"
    directory.mkdir()
    return create_domain(str(directory), "LOCALFS").id


def run(*args: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(sys.executable, *args),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )


# -- the start ----------------------------------------------------------------


def test_version_and_usage() -> None:
    assert run("--version").stdout == f"{__version__}\n"
    done = run("--confdir", "/tmp")
    assert done.returncode == 2
    assert "ovfstored: error 3548: " in done.stderr
    assert "Traceback" not in done.stderr


def test_ready(tmp_path: Path, domain: str) -> None:
    with running_daemon(tmp_path, [tmp_path / "domain"]) as daemon:
        listening = f"{daemon.url} {daemon.socket}"
        assert f"STATUS=Listening on {listening}" in daemon.messages
        assert f"STARTING version={__version__} pid={daemon.pid}" in daemon.log
        assert f"READY addresses='{listening}'" in daemon.log
        assert daemon.call("ping")["version"] == __version__
        assert daemon.status()["pid"] == daemon.pid
        st = os.stat(daemon.socket)
        assert stat.S_IMODE(st.st_mode) == 0o660
        with socket.create_connection(("127.0.0.1", daemon.port)):
            pass


def test_without_tcp(tmp_path: Path, domain: str) -> None:
    with running_daemon(
        tmp_path, [tmp_path / "domain"], host={"address": ""}
    ) as daemon:
        assert (daemon.url, daemon.port) == ("", 0)
        assert daemon.call("ping")["api"] == 1


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root is in all groups")
def test_group_of_the_socket(tmp_path: Path) -> None:
    with running_daemon(
        tmp_path, [tmp_path], local={"group": "daemon"}
    ) as daemon:
        assert Path(daemon.socket).group() == "daemon"


def fails(
    tmp_path: Path, tls: Optional[Path] = None, **conf: Any
) -> DaemonFailed:
    """Start with this configuration; what it says is one error."""
    with pytest.raises(DaemonFailed) as e:
        with running_daemon(tmp_path, [tmp_path], tls, **conf):
            pass
    lines = [
        line
        for line in e.value.log.splitlines()
        if line.startswith("ovfstored: ")
    ]
    assert 1 <= len(lines) <= 2, e.value.log
    assert lines[0].startswith("ovfstored: error ")
    assert "Traceback" not in e.value.log
    return e.value


@pytest.mark.parametrize(
    "conf, words",
    [
        pytest.param(
            {"host": {"address": "0.0.0.0"}},
            "[host] address is '0.0.0.0', expected is a loopback address",
            id="plain for everybody",
        ),
        pytest.param(
            {"host": {"address": "127.0.0.1", "port": 1 << 16}},
            "[host] port is '65536'",
            id="not a port",
        ),
        pytest.param(
            {"limits": {"spool": "/nowhere"}},
            "Configuration: [limits] spool: /nowhere: No such file",
            id="no spool",
        ),
        pytest.param(
            {"local": {"socket": "/nowhere/socket"}},
            "[local] socket: /nowhere/socket.lock: No such file",
            id="no directory for the socket",
        ),
        pytest.param(
            {"local": {"group": "no-such-group"}},
            "there is no group 'no-such-group'",
            id="no group",
        ),
        pytest.param(
            {"host": {"prot": 1}},
            "[host] has no key prot",
            id="wrong key",
        ),
    ],
)
def test_no_start(tmp_path: Path, conf: dict[str, Any], words: str) -> None:
    failed = fails(tmp_path, **conf)
    assert words in failed.log
    assert failed.status == 2
    assert "packaging/ovfstored.conf" in failed.log


def test_no_start_where_no_socket_can_be(tmp_path: Path) -> None:
    """It leaves no lock beside what it must not touch."""
    path = tmp_path / "directory"
    path.mkdir()
    failed = fails(tmp_path, local={"socket": path})
    assert f"[local] socket: {path} is no socket" in failed.log
    assert failed.status == 2
    assert not (tmp_path / "directory.lock").exists()


def test_no_certificates(tmp_path: Path) -> None:
    failed = fails(tmp_path, tls=tmp_path / "no")
    key = tmp_path / "no" / "keys" / "vdsmkey.pem"
    assert f"error 3529: Cannot use {key}: cannot be read" in failed.log
    assert "[tls] pki" in failed.log
    assert failed.status == 2


def test_port_in_use(tmp_path: Path) -> None:
    """It may be free later: systemd is to try again."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        failed = fails(tmp_path, host={"port": port})
    assert (
        f"error 3528: Cannot listen on 127.0.0.1:{port}: Address already"
    ) in failed.log
    assert "[host] address and port" in failed.log
    assert failed.status == 1


def test_a_second_one(tmp_path: Path) -> None:
    with running_daemon(tmp_path, [tmp_path]) as first:
        second = run("--conf-dir", first.conf_dir)
        assert second.returncode == 1
        assert second.stderr.splitlines()[-2:] == [
            f"ovfstored: error 3528: Cannot listen on {first.socket}: another "
            f"ovfstored serves it, with PID {first.pid}",
            "ovfstored: Free it, or set another one: [local] socket",
        ]
        assert first.call("ping")["api"] == 1
        # A socket that is left over is no obstacle.
        first.kill()
        assert os.path.exists(first.socket)
        first.start()
        assert first.call("ping")["api"] == 1


def test_without_jsonschema(tmp_path: Path) -> None:
    """An interpreter that sees the standard library and us only."""
    write_conf(tmp_path / "50.conf", {"log": {"level": "info"}})
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _MAIN, str(tmp_path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    # Else systemd would try again and again.
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"ovfstored: error 3500: {sys.executable} has no jsonschema",
        "ovfstored: Install python3-jsonschema",
    ]


_MAIN = (
    f"import sys; sys.path.insert(0, {str(PROJECT)!r}); "
    "from vdsm_ovfstore.host.daemon import main; "
    "sys.exit(main(['--conf-dir', sys.argv[1]]))"
)


def test_descriptors(tmp_path: Path) -> None:
    """A limit below what the configuration allows is raised."""

    def soft(pid: int) -> int:
        return resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        with running_daemon(
            tmp_path, [tmp_path], limits={"connections": 500}
        ) as daemon:
            assert soft(daemon.pid) >= 1000
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


# -- signals ------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop(tmp_path: Path, domain: str, number: int) -> None:
    with running_daemon(tmp_path, [tmp_path / "domain"]) as daemon:
        daemon.signal(number)
        assert daemon.wait() == 0
        assert "STOPPING=1" in daemon.messages
        assert not os.path.exists(daemon.socket)
        assert daemon.log.splitlines()[-1].endswith("STOPPED")


def children(daemon: Daemon) -> set[int]:
    found: set[int] = set()
    for task in Path(f"/proc/{daemon.pid}/task").iterdir():
        # The thread of a connection may have ended meanwhile.
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found.update(map(int, (task / "children").read_text().split()))
    return found


def stopped_writer(daemon: Daemon, domain: str) -> set[int]:
    """Stop the processes of a job while it makes 16 copies."""
    job = daemon.call("create", storagedomainID=domain, copies=16)["jobID"]

    def now() -> Any:
        return daemon.call("getJobs", jobIDs=[job])["jobs"][0]

    images = Path(daemon.call("list")["domains"][0]["path"], "images")
    wait_until(lambda: list(images.iterdir()))
    pids = children(daemon)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    assert now()["status"] == "running"
    return pids


def test_stop_lets_a_writer_end(tmp_path: Path, domain: str) -> None:
    with running_daemon(tmp_path, [tmp_path / "domain"]) as daemon:
        pids = stopped_writer(daemon, domain)
        daemon.signal(signal.SIGTERM)
        wait_until(lambda: "STOPPING=1" in daemon.messages)
        busy = daemon.error("verify", storagedomainID=domain)
        assert busy["type"] == "HostBusy"
        for pid in pids & children(daemon):
            os.kill(pid, signal.SIGCONT)
        assert daemon.wait() == 0
        images = tmp_path / "domain" / domain / "images"
        assert len(list(images.glob("*/*.meta"))) == 16
        assert "ABORT" not in daemon.log


def test_stop_is_bounded(tmp_path: Path, domain: str) -> None:
    """A writer that hangs in the storage is told to end when that lets go."""
    with running_daemon(
        tmp_path, [tmp_path / "domain"], limits={"stop": "1 s"}
    ) as daemon:
        pids = stopped_writer(daemon, domain)
        try:
            daemon.signal(signal.SIGTERM)
            wait_until(lambda: "ABORT" in daemon.log)
        finally:
            for pid in pids & children(daemon):
                os.kill(pid, signal.SIGCONT)
        assert daemon.wait() == 0
        for pid in pids:
            assert not os.path.exists(f"/proc/{pid}")
        images = tmp_path / "domain" / domain / "images"
        assert len(list(images.glob("*/*.meta"))) < 16


def seen_certificate(daemon: Daemon, pki: Pki) -> Optional[bytes]:
    connection = http.client.HTTPSConnection(
        "127.0.0.1", daemon.port, timeout=10, context=pki.client_context()
    )
    connection.connect()
    try:
        assert isinstance(connection.sock, ssl.SSLSocket)
        return connection.sock.getpeercert(binary_form=True)
    finally:
        connection.close()


def test_new_certificates_with_sighup(tmp_path: Path) -> None:
    known = certificates()
    pki = tmp_path / "pki"
    shutil.copytree(known.host.path, pki)
    with running_daemon(tmp_path, [tmp_path], tls=pki) as daemon:
        assert daemon.url.startswith("https://")
        before = seen_certificate(daemon, known.client)
        shutil.copytree(known.later.path, pki, dirs_exist_ok=True)
        assert seen_certificate(daemon, known.client) == before
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "RELOADED" in daemon.log)
        after = seen_certificate(daemon, known.client)
        assert after != before
        # Bad ones are told, and the good ones stay.
        (pki / "keys" / "vdsmkey.pem").write_text("nonsense")
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "RELOAD error=" in daemon.log)
        assert seen_certificate(daemon, known.client) == after
        assert "CERTIFICATE" not in daemon.log
        shutil.copytree(known.expired.path, pki, dirs_exist_ok=True)
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: "CERTIFICATE path=" in daemon.log)
        assert "WARNING" in next(
            line for line in daemon.log.splitlines() if "expired=" in line
        )


def test_a_mistake_of_a_client_is_no_error_of_ours(
    tmp_path: Path, domain: str
) -> None:
    with running_daemon(tmp_path, [tmp_path / "domain"]) as daemon:
        error = daemon.error("getHistory", storagedomainID=domain)
        assert error["type"] == "VolumeNotFound"
        assert " INFO ovfstore.worker: ERROR code=201" in daemon.log
        assert " ERROR ovfstore" not in daemon.log


def test_heartbeats(tmp_path: Path) -> None:
    env = {**os.environ, "WATCHDOG_USEC": "100000"}
    with running_daemon(tmp_path, [tmp_path], env=env) as daemon:
        wait_until(lambda: daemon.messages.count("WATCHDOG=1") >= 3)


def test_log_for_the_journal(tmp_path: Path, domain: str) -> None:
    """That of its processes is like its own."""
    log = tmp_path / "ovfstored.log"
    log.touch()
    found = log.stat()
    env = {
        **os.environ,
        "JOURNAL_STREAM": f"{found.st_dev}:{found.st_ino}",
    }
    paths = [tmp_path / "domain", tmp_path / "missing"]
    with running_daemon(tmp_path, paths, env=env) as daemon:
        daemon.error("getInfo", storagedomainID=domain)
        assert f"<6>ovfstore.host: STARTING version={__version__}" in (
            daemon.log
        )
        assert "<4>ovfstore.host: SCAN problem=" in daemon.log
        wait_until(lambda: ">ovfstore.worker: ERROR code=201" in daemon.log)
        assert all(line[0] == "<" for line in daemon.log.splitlines())


def test_log_beside_the_journal(tmp_path: Path) -> None:
    """The variable is inherited, the stream may be another."""
    env = {**os.environ, "JOURNAL_STREAM": "1:2"}
    with running_daemon(tmp_path, [tmp_path], env=env) as daemon:
        assert " INFO ovfstore.host: STARTING" in daemon.log
        assert "<6>" not in daemon.log


# -- the unit -----------------------------------------------------------------


@pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="there is no systemd"
)
def test_unit(tmp_path: Path) -> None:
    """systemd finds nothing to say about it."""
    unit = (PROJECT / "packaging" / "ovfstored.service").read_text()
    program = "ExecStart=/usr/bin/ovfstored"
    assert program in unit
    # It wants the program to be there.
    copy = tmp_path / "ovfstored.service"
    copy.write_text(unit.replace(program, "ExecStart=/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
