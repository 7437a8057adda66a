# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A real daemon in a process of its own.

    with running_daemon(tmp_path, [domain], limits={"transfers": 2}) as d:
        d.call("ping")
        Client(d.url)

It listens on a socket, and on a free port of 127.0.0.1: plain, or with TLS
when `tls` is a directory like that of certs.certificates().host.path. It is
gone after the block, whatever happens; a test that went well has no traceback
in the log.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

PROJECT = Path(__file__).parents[2]

# Seconds. A daemon is ready after half a second; two cores may be busy.
START = 30.0
STOP = 30.0

Conf = Mapping[str, Mapping[str, object]]


class DaemonFailed(AssertionError):
    """It did not start; status and log are there."""

    def __init__(self, status: Optional[int], log: str) -> None:
        super().__init__(f"exit status {status}: {log}")
        self.status = status
        self.log = log


class Daemon:
    """
    A running `ovfstored`.

    Attributes:
        socket: path of its socket.
        url: https://127.0.0.1:PORT or http://...; "" without TCP.
        port: 0 without TCP.
        log_path: its stderr, and that of its children.
        conf_dir: where its configuration lies.
        env: its environment at the next start.
    """

    def __init__(
        self,
        tmp_path: Path,
        conf: Conf,
        env: Optional[Mapping[str, str]] = None,
        python: str = sys.executable,
    ) -> None:
        self.url = ""
        self.port = 0
        self.log_path = tmp_path / "ovfstored.log"
        self.conf_dir = tmp_path / "conf.d"
        self.conf_dir.mkdir(exist_ok=True)
        write_conf(self.conf_dir / "50-test.conf", conf)
        self.socket = str(conf["local"]["socket"])
        self._python = python
        self.env = dict(os.environ if env is None else env)
        self.env["PYTHONPATH"] = str(PROJECT)
        self._process: Optional[subprocess.Popen[bytes]] = None
        self._messages: list[str] = []
        # As systemd would listen. Without a name in the file system, for
        # that could be too long.
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        name = f"ovfstored-test-{uuid.uuid4()}"
        self._notify.bind("\0" + name)
        self._notify.setblocking(False)
        self.env["NOTIFY_SOCKET"] = "@" + name

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text()

    @property
    def messages(self) -> list[str]:
        """What it told the service manager since its start."""
        with contextlib.suppress(BlockingIOError):
            while True:
                self._messages += self._notify.recv(4096).decode().split("\n")
        return self._messages

    def start(self) -> None:
        """Start it, again after stop() or kill(); raises DaemonFailed."""
        self.messages.clear()
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                command(self._python, "--conf-dir", self.conf_dir),
                cwd=PROJECT,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        process = self._process
        wait_until(
            lambda: "READY=1" in self.messages or process.poll() is not None,
            START,
        )
        if process.poll() is not None:
            raise DaemonFailed(process.returncode, self.log)
        (status,) = (m for m in self.messages if m.startswith("STATUS="))
        for address in status.split():
            if address.startswith("http"):
                self.url = address
                self.port = int(address.rpartition(":")[2])

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, seconds: float = STOP) -> int:
        """Its exit status, when it ends by itself."""
        assert self._process is not None
        return self._process.wait(seconds)

    def stop(self) -> int:
        """Ask it to stop; returns its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        """As the kernel would when memory is short. Idempotent."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def close(self) -> None:
        self.kill()
        self._notify.close()

    # -- talking with it through the socket

    def call(self, verb: str, **params: object) -> Any:
        """The result of a verb; an error is an AssertionError."""
        answer = self.rpc(verb, **params)
        assert "result" in answer, answer
        return answer["result"]

    def error(self, verb: str, **params: object) -> Any:
        """Message and data of the error of a verb that must fail."""
        answer = self.rpc(verb, **params)
        assert "error" in answer, answer
        error = answer["error"]
        return {"message": error["message"], **error["data"]}

    def rpc(self, verb: str, **params: object) -> Any:
        request = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": f"OvfStore.{verb}",
            "params": params,
        }
        headers = {"Content-Type": "application/json"}
        body = json.dumps(request).encode()
        return json.loads(
            self.request("POST", "/ovf-store/rpc", body, headers)[1]
        )

    def status(self) -> Any:
        status, body = self.request("GET", "/ovf-store/status")
        assert status == 200, body
        return json.loads(body)

    def request(
        self,
        method: str,
        path: str,
        body: Optional[bytes] = None,
        headers: Optional[Mapping[str, str]] = None,
    ) -> tuple[int, bytes]:
        """Status and body of a request."""
        with contextlib.closing(_LocalConnection(self.socket)) as connection:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            return answer.status, answer.read()

    def job(self, verb: str, **params: object) -> Any:
        """The document of a job that has ended."""
        job_id = self.call(verb, **params)["jobID"]
        return wait_until(
            lambda: next(
                (
                    job
                    for job in self.call("getJobs", jobIDs=[job_id])["jobs"]
                    if job["status"] in ("done", "failed", "aborted")
                ),
                None,
            )
        )


class _LocalConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


@contextlib.contextmanager
def running_daemon(
    tmp_path: Path,
    domains: Iterable[object],
    tls: Optional[Path] = None,
    env: Optional[Mapping[str, str]] = None,
    python: str = sys.executable,
    **conf: Mapping[str, object],
) -> Iterator[Daemon]:
    """
    A daemon that serves these domains, or what lies below these directories.

    Arguments:
        tls: a directory with certificates.
        env, python: to run it as a host of tests/sanlockd.py.
        conf: section={key: value}, over what the harness sets.
    """
    # Not below tmp_path: a socket's path has 107 bytes.
    with tempfile.TemporaryDirectory(prefix="ovfstored-") as run:
        own: dict[str, dict[str, object]] = {
            "host": {"address": "127.0.0.1", "port": 0},
            "tls": {"enable": "yes", "pki": tls} if tls else {"enable": "no"},
            "storage": {"domains": "\n  ".join(map(str, domains))},
            "limits": {"spool": tmp_path, "stop": "10 s"},
            "local": {"socket": os.path.join(run, "socket")},
        }
        for section, keys in conf.items():
            own.setdefault(section, {}).update(keys)
        daemon = Daemon(tmp_path, own, env, python)
        try:
            daemon.start()
            yield daemon
            daemon.stop()
            assert "Traceback" not in daemon.log, daemon.log
        finally:
            daemon.close()


def command(python: str, *args: object) -> list[str]:
    module = "vdsm_ovfstore.host.daemon"
    return [python, "-m", module, *map(str, args)]


def write_conf(path: Path, conf: Conf) -> None:
    lines = []
    for section, keys in conf.items():
        lines.append(f"[{section}]")
        lines += [f"{key} = {value}" for key, value in keys.items()]
    path.write_text("\n".join(lines) + "\n")


def wait_until(check: Any, seconds: float = 30.0) -> Any:
    """What check() returns as soon as it is true."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"still {found!r}"
        time.sleep(0.02)
