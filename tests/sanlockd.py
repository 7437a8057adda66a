# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Several hosts on one machine: real sanlock daemons, on a fast clock.

Each host is a daemon with its own run directory. libfaketime lets its clock
run 20 times as fast: joining a lockspace takes 1 second and not 21, the
takeover of a dead host's lease 7 and not 140. The clients see real time.

The client library of sanlock remembers the first run directory it meets. So
code runs "as a host" in a process of its own, with the Python that has the
binding; the tests themselves may run under another one.

    with SanlockHost(1) as one, SanlockHost(2) as two:
        make_lockspace(one, DOMAIN, ids_path)
        join([one, two], DOMAIN, ids_path)
        one.python("-m", "vdsm_ovfstore.cli", "status", path)
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from scripts.lockdaemon import daemon_command, daemon_environment, find_sanlock

# The Python that the distribution's python3-sanlock is built for.
PYTHON = "/usr/bin/python3"
PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

# Seconds of a daemon in one second of ours. Real disk times stay as they
# are, so it must not be so high that a slow disk looks like a dead one.
SPEED = 20

_START_TIMEOUT = 10.0
_PR_SET_PDEATHSIG = 1


@functools.cache
def missing() -> str:
    """
    Say what this machine lacks for real daemons, "" if nothing.

    For pytest.mark.skipif(bool(missing()), reason=missing()).
    """
    if not find_sanlock():
        return "sanlock is not installed"
    if not _faketime():
        return "libfaketime is not installed"
    if not os.path.exists(PYTHON):
        return f"{PYTHON} is missing"
    done = subprocess.run(
        [PYTHON, "-c", "import sanlock"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        return f"{PYTHON} has no sanlock binding (python3-sanlock)"
    return ""


def _faketime() -> str:
    found = glob.glob("/usr/lib*/faketime/libfaketime.so.1")
    found += glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    return found[0] if found else ""


class SanlockHost:
    """
    One host: a sanlock daemon and the means to run code beside it.

    Arguments:
        host_id: its host id in every lockspace, from 1
        name: its name, as others see it in the lockspace

    Use it as a context manager, or call start() and close().
    """

    def __init__(self, host_id: int, name: str = "") -> None:
        self.host_id = host_id
        self.name = name or f"host-{host_id}"
        self.run_dir = ""
        self._daemon: subprocess.Popen[bytes] | None = None
        self._pids: list[int] = []
        self._clients: list[subprocess.Popen[str]] = []

    def __enter__(self) -> SanlockHost:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        """The daemon's process id."""
        assert self._daemon is not None, "not started"
        return self._daemon.pid

    @property
    def log_path(self) -> str:
        """The daemon's log."""
        return os.path.join(self.run_dir, "sanlock.log")

    @property
    def env(self) -> dict[str, str]:
        """The environment that makes a process run as this host."""
        env = {**os.environ, **daemon_environment(self.run_dir)}
        env["PYTHONPATH"] = PROJECT
        # One that a virtual environment set would hide the binding.
        env.pop("PYTHONHOME", None)
        return env

    def start(self) -> None:
        """Start the daemon, again after kill(); return when it listens."""
        if not self.run_dir:
            # Not below a test's directory: a socket's path has 107 bytes.
            self.run_dir = tempfile.mkdtemp(prefix="sanlockd-")
        env = dict(self.env, LD_PRELOAD=_faketime(), FAKETIME=f"+0 x{SPEED}")
        program = find_sanlock()
        assert program is not None, missing()
        command = daemon_command(program, self.name)
        with open(os.path.join(self.run_dir, "stderr"), "ab") as stderr:
            self._daemon = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                preexec_fn=_die_with_parent,
            )
        self._pids.append(self.pid)
        self._wait_until_ready()

    def kill(self) -> None:
        """Kill the daemon as a power cut would; its clients live on."""
        if self._daemon is not None:
            self._daemon.kill()
            self._daemon.wait()
            self._daemon = None

    def close(self) -> None:
        """End everything that was started and remove its traces."""
        for client in self._clients:
            with client:
                client.kill()
        self._clients.clear()
        self.kill()
        for pid in self._pids:
            for pattern in ("faketime_shm_%d*", "sem.faketime_sem_%d*"):
                for path in glob.glob("/dev/shm/" + pattern % pid):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(path)
        self._pids.clear()
        if self.run_dir:
            shutil.rmtree(self.run_dir)
            self.run_dir = ""

    def add_lockspace(
        self, lockspace: str, ids_path: str, io_timeout: int = 0
    ) -> None:
        """Join a lockspace; `io_timeout` in the daemon's seconds, 0 = 10."""
        join([self], lockspace, ids_path, io_timeout)

    def python(
        self, *args: str, timeout: float = 60, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        """
        Run Python as this host and wait for it.

        Arguments:
            args: its command line: "-c" and a snippet, "-m" and a module,
                or a script, with their arguments
            timeout: real seconds
            check: fail when the exit status is not 0
        """
        done = subprocess.run(
            [PYTHON, *args],
            env=self.env,
            cwd=PROJECT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{args} on {self.name}: rc {done.returncode}\n"
                f"{done.stdout}{done.stderr}"
            )
        return done

    def popen(self, *args: str, **kwargs: Any) -> subprocess.Popen[str]:
        """Start Python as this host; close() kills it if it still runs."""
        client: subprocess.Popen[str] = subprocess.Popen(
            [PYTHON, *args], env=self.env, cwd=PROJECT, text=True, **kwargs
        )
        self._clients.append(client)
        return client

    def _wait_until_ready(self) -> None:
        assert self._daemon is not None
        deadline = time.monotonic() + _START_TIMEOUT
        path = os.path.join(self.run_dir, "sanlock.sock")
        while self._daemon.poll() is None and time.monotonic() < deadline:
            with socket.socket(socket.AF_UNIX) as client:
                # ECONNREFUSED: the socket of a killed daemon
                with contextlib.suppress(
                    FileNotFoundError, ConnectionRefusedError
                ):
                    client.connect(path)
                    return
            time.sleep(0.01)
        with open(os.path.join(self.run_dir, "stderr")) as stderr:
            raise AssertionError(f"sanlock did not start: {stderr.read()}")


_JOIN = """
import sys, sanlock
name, host_id, path, io_timeout = sys.argv[1:]
sanlock.add_lockspace(
    name.encode(), int(host_id), path, iotimeout=int(io_timeout))
"""


def join(
    hosts: Iterable[SanlockHost],
    lockspace: str,
    ids_path: str,
    io_timeout: int = 0,
) -> None:
    """Let hosts join a lockspace, all at the same time."""
    joining = []
    for host in hosts:
        args = (lockspace, str(host.host_id), ids_path, str(io_timeout))
        joining.append(host.popen("-c", _JOIN, *args, stderr=subprocess.PIPE))
    for process in joining:
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr


def make_lockspace(
    host: SanlockHost,
    lockspace: str,
    ids_path: str,
    sector: int = 512,
    align: int = 1024**2,
) -> None:
    """Make the file of a lockspace and format it."""
    _make_file(ids_path, align)
    code = (
        "import sys; from vdsm_ovfstore.lease import format as f\n"
        "f.format_lockspace(*sys.argv[1:3], *map(int, sys.argv[3:]))"
    )
    host.python("-c", code, lockspace, ids_path, str(align), str(sector))


def make_leases(
    host: SanlockHost,
    leases: Iterable[tuple[str, str, str, int]],
    sector: int = 512,
    align: int = 1024**2,
) -> None:
    """Make files with one lease each and format them."""
    args = [str(align), str(sector)]
    for lockspace, resource, path, offset in leases:
        _make_file(path, offset + align)
        args += [lockspace, resource, path, str(offset)]
    code = (
        "import sys; from vdsm_ovfstore.lease import format as f\n"
        "align, sector, *rest = sys.argv[1:]\n"
        "while rest:\n"
        "    name, resource, path, offset, *rest = rest\n"
        "    f.format_lease(name, resource, path, int(offset), int(align),"
        " int(sector))"
    )
    host.python("-c", code, *args)


def _make_file(path: str, size: int) -> None:
    with open(path, "ab") as f:
        f.truncate(max(size, f.tell()))


def _die_with_parent() -> None:
    # A killed test run shall leave no daemons behind.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
