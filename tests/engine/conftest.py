# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""One daemon for all tests of a module, and new domains of it for each."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.engine.bed import Bed
from tests.engine.ovfs import ident
from tests.host.harness import Daemon, running_daemon, wait_until
from vdsm_ovfstore.storage.filedomain import FileDomain, create_domain


class MakeBed(Protocol):
    def __call__(
        self, count: int = 2, path: str = "bed", **conf: Any
    ) -> Bed: ...


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("domains")


@pytest.fixture(scope="module")
def daemon(
    served: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Daemon]:
    with running_daemon(tmp_path_factory.mktemp("host"), [served]) as running:
        yield running


@pytest.fixture
def make_bed(daemon: Daemon, served: Path, tmp_path: Path) -> MakeBed:
    """A bed with so many domains of its own."""

    def make(count: int = 2, path: str = "bed", **conf: Any) -> Bed:
        domains = [create_domain(str(served), "LOCALFS") for _ in range(count)]
        serve(daemon, domains)
        directory = tmp_path / path
        directory.mkdir()
        return Bed(directory, [daemon.socket], domains, **conf)

    return make


def serve(daemon: Daemon, domains: list[FileDomain]) -> None:
    """Let the host look for them now."""
    daemon.signal(signal.SIGHUP)
    wanted = {domain.id for domain in domains}
    wait_until(
        lambda: wanted <= {d["domain"] for d in daemon.call("list")["domains"]}
    )


@pytest.fixture
def bed(make_bed: MakeBed) -> Bed:
    return make_bed()


@pytest.fixture
def dry(tmp_path: Path) -> Bed:
    """A bed without hosts, to look at the source only."""
    return Bed(tmp_path, ["/nowhere"], [], [ident("a"), ident("b")])
