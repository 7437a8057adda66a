# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""A service on real LocalFS domains, called as HTTP would call it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.store import builders
from vdsm_ovfstore import errors
from vdsm_ovfstore.api.service import Service
from vdsm_ovfstore.api.settings import Settings
from vdsm_ovfstore.api.task import Task
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.reader import Reader

PIECE = 64 * 1024


class FixedDomains:
    """Implements api.domains.Domains for domains that stay."""

    def __init__(self, domains: Iterable[FileDomain]) -> None:
        self.known = {d.id: d for d in domains}
        self.joining = False
        self.held: list[Task] = []

    @contextlib.contextmanager
    def _held(self, task: Task) -> Iterator[None]:
        self.held.append(task)
        yield

    def writing(
        self, domain: str, timeout: float, task: Task
    ) -> AbstractContextManager[None]:
        return self._held(task)

    def make_volumes(
        self, domain: str, copies: int, size: int, timeout: float, task: Task
    ) -> list[str] | None:
        return None

    def path(self, domain: str, write: bool = False) -> str:
        if domain not in self.known:
            raise errors.DomainNotServed(domain=domain)
        if write and self.joining:
            raise errors.LockspaceMissing(domain=domain, reason="joining")
        return self.known[domain].path

    def check_pool(self, domain: str, pool: str) -> None:
        self.path(domain)
        found = self.known[domain].metadata.pool
        if pool != found:
            raise errors.PoolMismatch(domain=domain, found=found, asked=pool)

    def problems(self) -> list[str]:
        return []

    def list(self) -> list[dict[str, Any]]:
        return [
            {
                "domain": d.id,
                "path": d.path,
                "type": d.type,
                "domain_version": d.version,
                "lock": d.lock_kind,
                "state": "ready",
                "problem": "",
            }
            for d in self.known.values()
        ]


class Bed:
    """One service; domain is the first of its domains."""

    def __init__(self, directory: Path, domains: int, settings: Any) -> None:
        self.spool = directory / "spool"
        self.spool.mkdir()
        self.domains = FixedDomains(
            builders.make_domain(directory) for _ in range(domains)
        )
        self.domain = next(iter(self.domains.known.values()))
        self._fds = _descriptors()
        # Spares are processes, too: they have a test of their own.
        settings = {"spares": False, "spool": str(self.spool), **settings}
        self.service = Service(self.domains, Settings(**settings))
        self.call("ping")

    def call(self, verb: str, **params: Any) -> dict[str, Any]:
        return self.service.call(verb, params)

    def ask(self, verb: str, **params: Any) -> dict[str, Any]:
        """Of the first domain."""
        return self.call(verb, storagedomainID=self.domain.id, **params)

    def ask_upload(self, tar: bytes, **params: Any) -> dict[str, Any]:
        return self.ask("upload", size=len(tar), **params)

    def put(
        self, url: str, tar: bytes, sha256: str | None = None
    ) -> dict[str, Any]:
        return self.send(url, len(tar), pieces(tar), sha256)

    def send(
        self,
        url: str,
        length: int,
        chunks: Iterator[bytes],
        sha256: str | None = None,
    ) -> dict[str, Any]:
        upload = self.service.transfers.begin_upload(
            ticket(url), length, sha256
        )
        try:
            return upload.receive(chunks)
        finally:
            upload.close()

    def get(self, url: str) -> bytes:
        download = self.service.transfers.begin_download(ticket(url))
        try:
            data = os.pread(download.fd, download.size + 1, 0)
            download.sent(len(data))
            return data
        finally:
            download.close()

    def state(self, transfer: dict[str, Any]) -> str:
        found = self.call("getTransfer", transferID=transfer["transferID"])
        return str(found["state"])

    def wait(self, job: str) -> dict[str, Any]:
        """The document of a job that has ended."""

        def ended() -> Any:
            (found,) = self.call("getJobs", jobIDs=[job])["jobs"]
            return found if found["status"] in _ENDED else None

        found: dict[str, Any] = wait_for(ended)
        return found

    def newest(self, domain: FileDomain | None = None) -> int:
        """The number of the newest generation, 0 without any."""
        with Reader(domain or self.domain) as reader:
            return max((g.number for g in reader.generations()), default=0)

    def assert_nothing_left(self) -> None:
        """No transfer, job, process, spool space or descriptor is in use."""
        status = self.service.status()
        assert status["transfers"] == []
        assert status["jobs"] == []
        assert status["queues"] == {}
        assert status["spool"]["used"] == 0
        assert list(self.spool.iterdir()) == []
        wait_for(lambda: not children())
        assert _descriptors() == self._fds


_ENDED = ("done", "failed", "aborted")


def pieces(tar: bytes) -> Iterator[bytes]:
    for start in range(0, len(tar), PIECE):
        yield tar[start : start + PIECE]


def ticket(url: str) -> str:
    return url.rpartition("/")[2]


def wait_for(look: Any, seconds: float = 20) -> Any:
    """What look() returns as soon as that is true."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
    return found


def children() -> list[int]:
    """The processes that we have started and that have not ended."""
    path = f"/proc/self/task/{os.getpid()}/children"
    mine = Path(path).read_text().split()
    for task in os.listdir("/proc/self/task"):
        path = f"/proc/self/task/{task}/children"
        try:
            mine += Path(path).read_text().split()
        except FileNotFoundError:
            continue
    return sorted({int(pid) for pid in mine})


def _descriptors() -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{fd}"))
        except FileNotFoundError:
            continue  # the directory itself
    return sorted(found)
