# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A real daemon, peers that do what they want, and a look at what they leave.

    bed = HostBed(daemon, domain, spool, pki)
    bed.start_store()             a first generation, which must survive
    answer = bed.put(url, tar)    over TLS, or plain if pki is None
    bed.assert_intact()           the generation is whole, for readers and dd
    bed.assert_nothing_left()     the daemon holds nothing any more
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Optional

from tests.host.certs import Pki
from tests.host.harness import Daemon, wait_until
from tests.host.peers import RPC, Answer, Raw
from tests.store.builders import archive, archives, head
from vdsm_ovfstore.storage.filedomain import FileDomain

# What the daemon keeps ready: two errands and a worker.
SPARES = 4

# Seconds until all of a transfer is given back; nothing here takes one.
PATIENCE = 10.0

TRANSFERS = "/ovf-store/transfers/"

_ENDED = ("done", "failed", "aborted", "expired")


class Holding(NamedTuple):
    """What a daemon at rest has open, its spare processes left out."""

    threads: int
    sockets: int
    pipes: int
    others: tuple[tuple[str, int], ...]


class HostBed:
    """domain is the one that the daemon serves; its store has two copies."""

    def __init__(
        self,
        daemon: Daemon,
        domain: FileDomain,
        spool: Path,
        pki: Optional[Pki] = None,
    ) -> None:
        self.daemon = daemon
        self.domain = domain
        self.spool = spool
        self.context = pki.client_context() if pki else None
        self.tar = b""
        self._rest: Optional[Holding] = None

    def start_store(self) -> None:
        """Upload a first archive; what is there then must stay."""
        self.upload(archive(self.domain, ["web", "db"]))
        # The daemon has now done once all that it imports late for.
        self.download()
        wait_until(lambda: len(self.children()) == SPARES)
        self._rest = self._settled()

    def _settled(self) -> Holding:
        """What it holds when nothing has changed for half a second."""
        seen = [self.holding()]

        def settled() -> bool:
            seen.append(self.holding())
            if seen[-1] != seen[0] or not self._at_rest():
                del seen[:-1]
            return len(seen) > 25

        wait_until(settled)
        return seen[0]

    # -- peers

    @contextlib.contextmanager
    def plain(self) -> Iterator[Raw]:
        """A connection to the TCP port, before any TLS."""
        with socket.create_connection(("127.0.0.1", self.daemon.port)) as sock:
            yield Raw(sock)

    @contextlib.contextmanager
    def peer(self) -> Iterator[Raw]:
        """A connection as a client of the host has it."""
        with self.plain() as raw:
            if self.context is None:
                yield raw
                return
            with self.context.wrap_socket(
                raw.sock, server_hostname="localhost"
            ) as sock:
                yield Raw(sock)

    def ask(self, data: bytes) -> Answer:
        """The answer to these bytes, on a connection of their own."""
        with self.peer() as peer:
            return peer.ask(data)

    def rpc(self, body: bytes, *lines: str) -> Answer:
        """The answer to the body of a call."""
        kind = "Content-Type: application/json"
        return self.ask(request("POST", RPC, body, kind, *lines))

    def verb(self, name: str, params: Any) -> Answer:
        call = {
            "jsonrpc": "2.0",
            "id": 7,
            "method": f"OvfStore.{name}",
            "params": params,
        }
        return self.rpc(json.dumps(call).encode())

    def ask_upload(self, tar: bytes, **params: Any) -> Any:
        """The result of the verb; size may be among params."""
        # The archives of these tests have nothing in common.
        params = {"size": len(tar), "force": True, **params}
        return self.daemon.call(
            "upload", storagedomainID=self.domain.id, **params
        )

    def ask_download(self, **params: Any) -> Any:
        return self.daemon.call(
            "download", storagedomainID=self.domain.id, **params
        )

    def put(self, url: str, tar: bytes, *lines: str) -> Answer:
        return self.ask(request("PUT", url, tar, *lines))

    def get(self, url: str, *lines: str) -> Answer:
        return self.ask(request("GET", url, None, *lines))

    # -- what works

    def upload(self, tar: bytes) -> Any:
        """Upload what must be taken; the store has to have it afterwards."""
        answer = self.put(self.ask_upload(tar)["url"], tar)
        assert answer.status == 200, answer.body
        self.tar = tar
        return answer.document

    def download(self, **params: Any) -> bytes:
        answer = self.get(self.ask_download(**params)["url"])
        assert answer.status == 200, answer.body
        return answer.body

    def state(self, transfer: Any) -> str:
        found = self.daemon.call(
            "getTransfer", transferID=transfer["transferID"]
        )
        return str(found["state"])

    def wait_for_state(self, transfer: Any, *states: str) -> None:
        wait_until(lambda: self.state(transfer) in states)

    def wait_for_end(self, transfer: Any) -> Any:
        """The document of a transfer that has ended."""

        def ended() -> Any:
            found = self.daemon.call(
                "getTransfer", transferID=transfer["transferID"]
            )
            return found if found["state"] in _ENDED else None

        return wait_until(ended)

    # -- what is left

    def assert_intact(self) -> None:
        """The last good archive is the newest, and shows on both copies."""
        found = archives(self.domain)
        assert found[max(found)] == self.tar
        for volume in self.domain.volumes():
            assert head(volume, len(self.tar)) == self.tar

    def assert_usable(self) -> None:
        """The same, as the daemon and `dd | tar` have it."""
        assert self.download() == self.tar
        for volume in self.domain.volumes():
            line = f"dd if={volume.path} bs=4k status=none | tar -tf -"
            done = subprocess.run(
                line, shell=True, check=True, capture_output=True, text=True
            )
            assert ".ovf" in done.stdout and done.stderr == ""

    def assert_nothing_left(self) -> None:
        """No work, no room, no descriptor, process, thread, file or lock."""
        wait_until(lambda: not self.work(), PATIENCE)
        assert list(self.spool.iterdir()) == []
        assert not self.locks()
        wait_until(self._at_rest, PATIENCE)
        wait_until(lambda: self._rest in (None, self.holding()), PATIENCE)

    def clean_up(self) -> None:
        """So that one test that fails is one test that fails."""
        for transfer in self.daemon.status()["transfers"]:
            self.daemon.rpc("abort", transferID=transfer["transferID"])

    def work(self) -> list[Any]:
        """What the daemon says that it does, and the room that is taken."""
        status = self.daemon.status()
        return [
            *status["transfers"],
            *status["jobs"],
            *status["queues"].items(),
            *[status["spool"]["used"]] * bool(status["spool"]["used"]),
        ]

    def locks(self) -> list[str]:
        """The lines of /proc/locks about files of the domain."""
        mine = {
            os.lstat(os.path.join(parent, name)).st_ino
            for parent, dirs, files in os.walk(self.domain.path)
            for name in (*dirs, *files)
        }
        found = []
        for line in Path("/proc/locks").read_text().splitlines():
            inode = re.search(r":(\d+) ", line)
            if inode and int(inode[1]) in mine:
                found.append(line)
        return found

    def children(self) -> list[int]:
        """The processes that the daemon has now."""
        return children(self.daemon.pid)

    def working(self, module: str = "") -> list[int]:
        """Those of its processes that do something."""
        return [
            pid
            for pid in self.children()
            if module in _command(pid) and _threads(pid) > 1
        ]

    def holding(self) -> Holding:
        pid, spares = self.daemon.pid, len(self.children())
        kinds = Counter(_kind(name) for name in _descriptors(pid))
        # Each spare has a socket and a pipe of the daemon's.
        sockets = kinds.pop("socket", 0) - spares
        pipes = kinds.pop("pipe", 0) - spares
        others = tuple(sorted(kinds.items()))
        return Holding(_threads(pid), sockets, pipes, others)

    def _at_rest(self) -> bool:
        mine = self.children()
        # A process that works has a second thread, which watches.
        return len(mine) <= SPARES and all(_threads(pid) == 1 for pid in mine)


def request(
    method: str, path: str, body: Optional[bytes] = None, *lines: str
) -> bytes:
    """A request for one connection; lines are further ones of its head."""
    all_lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    if body is not None:
        all_lines.append(f"Content-Length: {len(body)}")
    all_lines += ["Connection: close", *lines, "", ""]
    return "\r\n".join(all_lines).encode() + (body or b"")


def children(pid: int) -> list[int]:
    """The processes whose parent is pid, those that nobody reaped too."""
    found: set[int] = set()
    with contextlib.suppress(FileNotFoundError):
        for task in os.listdir(f"/proc/{pid}/task"):
            path = Path(f"/proc/{pid}/task/{task}/children")
            with contextlib.suppress(FileNotFoundError):
                found.update(map(int, path.read_text().split()))
    return sorted(found)


def _threads(pid: int) -> int:
    """0 for a process that is no more."""
    try:
        return len(os.listdir(f"/proc/{pid}/task"))
    except FileNotFoundError:
        return 0


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _descriptors(pid: int) -> list[str]:
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def _kind(name: str) -> str:
    """A descriptor without the number that tells it from others."""
    return re.sub(r":\[\d+\]$|#\d+", "", name)
