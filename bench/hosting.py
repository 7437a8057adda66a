# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""A real daemon to measure: its client, its processes, and its log."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Optional, TypeVar

from bench import peak, stores
from bench.bare import Bare
from scripts import pki as certificates
from vdsm_ovfstore.client import Client

# The processes that a host keeps ready: two errands and a worker.
SPARES = 4

_DAEMON = (
    "import sys; from vdsm_ovfstore.host.daemon import main; sys.exit(main())"
)
_CONFIGURATION = """\
[host]
port = 0
[tls]
pki = {pki}
[storage]
domains =
    {domains}
[limits]
spool = {spool}
[local]
socket = {socket}
"""

_START = 60.0  # seconds; a start takes half a second, two cores may be busy
_LOOK = 0.02  # seconds
_IDLE = 0.2  # seconds without processor time: a spare is up

# Lines of the log of an upload, and those between them; each begins with the
# time in 23 characters.
_UPLOAD = (
    r"(?m)^(.{{23}}) .* ADD transfer={transfer} .*\n(?:.*\n)*?"
    r"(.{{23}}) .* ACQUIRE .*\n(?:.*\n)*?"
    r"(.{{23}}) .* END transfer={transfer} "
)
_STAMP = "%Y-%m-%d %H:%M:%S,%f"
_TICK = os.sysconf("SC_CLK_TCK")


T = TypeVar("T")


class Access(NamedTuple):
    """Where a host is, and files: whom to trust, and who we are."""

    url: str
    ca: str
    cert: str
    key: str

    def client(self) -> Client:
        return Client(self.url, self.ca, self.cert, self.key)


class Steps(NamedTuple):
    """Seconds of an upload, by the log of its host."""

    check: float  # from the answer of the verb to the start of the worker
    worker: float  # from there to the end


class Host:
    """
    A daemon that runs.

    Attributes:
        domains: ids of what it serves, in the order they were given.
        access: to it, for who has a certificate.
    """

    def __init__(self, pid: int, pki: str, domains: list[str], log: str):
        self.pid = pid
        self.domains = [os.path.basename(path) for path in domains]
        self._log = log
        ready = wait_for(lambda: self._find(r"READY .*(https://[^ ']+)"))
        self.access = Access(
            ready[1],
            os.path.join(pki, "certs", "cacert.pem"),
            os.path.join(pki, "client", "cert.pem"),
            os.path.join(pki, "client", "key.pem"),
        )
        with self.client() as client:
            wait_for(lambda: self._serves_all(client))
        self.wait_for_spares()

    def client(self) -> Client:
        return self.access.client()

    def children(self) -> list[int]:
        """The processes that it has started, oldest first."""
        return sorted(peak.children(self.pid))

    def wait_for_spares(self) -> None:
        """Until they are up, and nothing else of it runs: a quiet host."""
        before: dict[int, float] = {}
        while True:
            now = {pid: cpu_time(pid) for pid in self.children()}
            if len(now) == SPARES and now == before:
                return
            before = now
            time.sleep(_IDLE)

    def steps(self, transfer: str) -> Steps:
        """Of an upload beside which there was no other."""
        pattern = _UPLOAD.format(transfer=transfer)
        found = wait_for(lambda: self._find(pattern))
        added, started, ended = (
            datetime.strptime(stamp, _STAMP).timestamp()
            for stamp in found.groups()
        )
        return Steps(started - added, ended - started)

    def _find(self, pattern: str) -> Optional[re.Match[str]]:
        return re.search(pattern, Path(self._log).read_text())

    def _serves_all(self, client: Client) -> bool:
        states = [domain["state"] for domain in client.list_domains()]
        return states == ["ready"] * len(self.domains)


@contextlib.contextmanager
def hosting(directory: str, pki: str, domains: list[str]) -> Iterator[Host]:
    """A daemon for these domains; it is stopped at the end."""
    log = os.path.join(directory, "ovfstored.log")
    env = stores.environment(directory)
    # Its log is to have the time in it.
    env.pop("JOURNAL_STREAM", None)
    # A socket's path has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="ovfstored-") as run:
        configuration = os.path.join(run, "bench.conf")
        Path(configuration).write_text(
            _CONFIGURATION.format(
                pki=pki,
                domains="\n    ".join(domains),
                spool=directory,
                socket=os.path.join(run, "socket"),
            )
        )
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-c", _DAEMON, "--conf-dir", run],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )
        try:
            yield Host(process.pid, pki, domains, log)
        except BaseException:
            sys.stderr.write(Path(log).read_text())
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()


@contextlib.contextmanager
def beside_bare(
    directory: str, pki: str, domains: list[str]
) -> Iterator[tuple[Host, Bare, Client]]:
    """A daemon, a bare peer to compare it with, and a client."""
    with contextlib.ExitStack() as stack:
        host = stack.enter_context(hosting(directory, pki, domains))
        taken = os.path.join(directory, "taken")
        env = stores.environment(directory)
        bare = stack.enter_context(Bare(pki, taken, env))
        yield host, bare, stack.enter_context(host.client())


def make_pki(directory: str) -> str:
    return str(certificates.make_pki(Path(directory, "pki")))


def cpu_time(pid: int, ended: bool = False) -> float:
    """
    Seconds; 0 for a process that has ended.

    ended: those of its children that have ended are counted as well.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return 0.0
    return sum(map(int, fields.split()[11 : 15 if ended else 13])) / _TICK


def wait_for(check: Callable[[], Optional[T]]) -> T:
    """What check() returns as soon as it is true."""
    deadline = time.monotonic() + _START
    while not (found := check()):
        if time.monotonic() > deadline:
            raise TimeoutError("the host does not do what it should")
        time.sleep(_LOOK)
    return found
