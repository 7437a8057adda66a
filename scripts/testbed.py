# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A storage domain, and a host that serves it, in one directory.

    WORK/storage      the domain; one from an earlier run is used again
    WORK/sanlock      a sanlock daemon of our own, unless it is LocalFS
    WORK/run/socket   ovfstored; its log is in WORK/run, too
    WORK/pki          its certificates, if it is to speak TLS

A new domain is POSIXFS with leases where sanlock is installed, else LocalFS
with flock. TYPE=posixfs or TYPE=localfs in the environment asks for one of
them. Nothing here needs root.
"""

from __future__ import annotations

import contextlib
import glob
import importlib.util
import mmap
import os
import shlex
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Optional

from scripts.pki import make_pki
from scripts.processes import (
    START,
    Failure,
    locked,
    process,
    sanlock_command,
    sanlock_daemon,
    say,
    shown,
    socket_directory,
)
from vdsm_ovfstore import errors
from vdsm_ovfstore.client import Client

_HERE = os.path.dirname(sys.executable)
OVFSTORE = os.path.join(_HERE, "ovfstore")
OVFSTORED = os.path.join(_HERE, "ovfstored")

# Seconds. Joining a lockspace takes two of these and one second more.
IO_TIMEOUT = 1

HOST_ID = 1


class Testbed(NamedTuple):
    """
    What runs.

    url is None without TLS; process is that of ovfstored.
    """

    domain: str
    socket: str
    url: Optional[str]
    pki: Path
    process: subprocess.Popen[bytes]


@contextlib.contextmanager
def testbed(
    work: str, port: Optional[int] = None, more: Sequence[str] = ()
) -> Iterator[Testbed]:
    """
    Make or find the domain, and serve it until the end of the block.

    Arguments:
        port: serve TLS on it, too.
        more: directories with LocalFS domains that are served as well.

    Raises Failure, OSError.
    """
    storage = os.path.join(work, "storage")
    os.makedirs(storage, exist_ok=True)
    _need_direct_io(work)
    with contextlib.ExitStack() as stack:
        # First, so that it is given back last: after sanlock has ended.
        lock = stack.enter_context(locked(work))
        domain = _find_domain(storage)
        command = sanlock_command()
        if domain:
            kind = _domain_fact(domain, "TYPE", "posixfs").lower()
            say(f"Using the {kind} domain {shown(domain)} again")
        else:
            kind = os.environ.get("TYPE") or (
                "posixfs" if command else "localfs"
            )
        if kind == "localfs":
            say("A LocalFS domain: flock in place of sanlock")
        elif command:
            stack.enter_context(sanlock_daemon(command, work, lock))
        else:
            raise Failure(
                f"a {kind} domain needs sanlock and its Python binding; "
                "install them, or give TYPE=localfs and another WORK"
            )
        domain = domain or _make_domain(storage, kind)
        serving = _serving(work, domain, kind, port, lock, more)
        yield stack.enter_context(serving)


# -- the domain ---------------------------------------------------------------


def _find_domain(storage: str) -> Optional[str]:
    found = sorted(glob.glob(os.path.join(glob.escape(storage), "*/dom_md")))
    return os.path.dirname(found[0]) if found else None


def _domain_fact(domain: str, wanted: str, default: str) -> str:
    path = os.path.join(domain, "dom_md", "metadata")
    with open(path, encoding="ascii") as f:
        for line in f:
            key, _, value = line.strip().partition("=")
            if key == wanted:
                return value
    return default


def _make_domain(storage: str, kind: str) -> str:
    command = [OVFSTORE, "init", shown(storage), "--type", kind]
    say(f"\n$ {shown(OVFSTORE)} " + " ".join(map(shlex.quote, command[1:])))
    if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        raise Failure(f"it has made no domain in {storage}")
    domain = _find_domain(storage)
    assert domain is not None
    if kind != "localfs":
        _hasten(domain)
    return domain


def _hasten(domain: str) -> None:
    """
    Write the empty lockspace of a new domain again, with our time-out.

    The first join waits for the time-out that is written there: 21 seconds.
    """
    sanlock: Any = importlib.import_module("sanlock")
    sanlock.write_lockspace(
        os.path.basename(domain).encode(),
        os.path.join(domain, "dom_md", "ids"),
        iotimeout=IO_TIMEOUT,
        align=int(_domain_fact(domain, "ALIGNMENT", "1048576")),
        sector=int(_domain_fact(domain, "BLOCK_SIZE", "512")),
    )


def _need_direct_io(work: str) -> None:
    """Refuse a file system that both sanlock and the store would refuse."""
    path = os.path.join(work, ".direct-io")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_DIRECT
    try:
        fd = os.open(path, flags, 0o600)
        try:
            with mmap.mmap(-1, 4096) as page:
                os.write(fd, page)
        finally:
            os.close(fd)
    except OSError as e:
        raise Failure(
            f"no direct I/O in {work} ({e.strerror}); give a directory on "
            "another file system with WORK="
        ) from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)


@contextlib.contextmanager
def _serving(
    work: str,
    domain: str,
    kind: str,
    port: Optional[int],
    lock: int,
    more: Sequence[str],
) -> Iterator[Testbed]:
    """ovfstored, when it may write to the domain."""
    pki = Path(work, "pki")
    if port is not None and not pki.exists():
        make_pki(pki)
    with contextlib.ExitStack() as stack:
        run_dir = socket_directory(stack, work, "run")
        path = os.path.join(run_dir, "socket")
        for name in ("spool", "conf.d"):
            os.makedirs(os.path.join(work, name), exist_ok=True)
        served = "\n    ".join([os.path.join(work, "storage"), *more])
        conf = [
            f"[storage]\ndomains =\n    {served}",
            f"[local]\nsocket = {path}",
            f"[limits]\nspool = {os.path.join(work, 'spool')}",
            f"[tls]\npki = {pki}",
            "[host]",
            "address =" if port is None else f"port = {port}",
        ]
        if kind != "localfs":
            conf += ["[sanlock]", "join = yes", f"host_id = {HOST_ID}"]
            conf += [f"io_timeout = {IO_TIMEOUT}"]
        conf_dir = os.path.join(work, "conf.d")
        with open(os.path.join(conf_dir, "50-testbed.conf"), "w") as f:
            f.write("\n".join(conf) + "\n")
        log = os.path.join(work, "run", "ovfstored.log")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            name = f"ovfstore-testbed-{uuid.uuid4()}"
            ready.bind("\0" + name)
            command = [OVFSTORED, "--conf-dir", conf_dir]
            env = {**os.environ, "NOTIFY_SOCKET": "@" + name}
            begin = os.path.getsize(log) if os.path.exists(log) else 0
            host = stack.enter_context(
                process("ovfstored", command, log, lock, env)
            )
            _wait_for_host(host, ready, log, begin)
        say(f"ovfstored runs, with PID {host.pid}; its log: {shown(log)}")
        _wait_for_domain(host, path, log, os.path.basename(domain))
        url = None if port is None else f"https://127.0.0.1:{port}"
        yield Testbed(domain, path, url, pki, host)


def _wait_for_host(
    process: subprocess.Popen[bytes],
    ready: socket.socket,
    log: str,
    begin: int,
) -> None:
    """begin is where the log of this run begins."""
    ready.settimeout(0.05)
    deadline = time.monotonic() + START
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(socket.timeout):
            if b"READY=1" in ready.recv(4096).split(b"\n"):
                return
    with open(log, encoding="utf-8", errors="replace") as f:
        f.seek(begin)
        said = [line for line in f if line.startswith("ovfstored: error")]
    raise Failure(said[0].rstrip() if said else f"see {shown(log)}")


def _wait_for_domain(
    process: subprocess.Popen[bytes], path: str, log: str, wanted: str
) -> None:
    """Until its lockspace is joined, if it has one."""
    state = "not found"
    deadline = time.monotonic() + START
    with Client(path) as client:
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(errors.HostUnreachable):
                for domain in client.list_domains():
                    if domain["domain"] == wanted and domain["state"] != state:
                        state = domain["state"]
                        say(f"The domain is {state}")
                if state == "ready":
                    return
            time.sleep(0.1)
    raise Failure(f"the domain is {state}, see {shown(log)}")
