# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What a host and its processes take of the memory."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Optional

from bench import peak, stores
from bench.host_update import make_tars
from bench.hosting import Host, hosting
from bench.run import Subject, say
from bench.senders import sending

_EVERY = 0.01  # seconds between two looks

ERRAND, WORKER = "errand", "worker"


class Peaks(NamedTuple):
    """Bytes; of an errand and of a worker, the largest there was."""

    title: str
    before: int  # the host, before the first upload
    host: int
    errand: int
    worker: int


class Idle(NamedTuple):
    """Bytes that are of one process alone, of an idle host."""

    host: int
    spares: list[int]


def idle(directory: str, pki: str) -> Idle:
    with hosting(directory, pki, [stores.make_store(directory)]) as host:
        return Idle(_private(host.pid), [_private(p) for p in host.children()])


def at_once(subject: Subject, directory: str, pki: str, uploads: int) -> Peaks:
    """
    Of a new host, which takes so many uploads to as many domains, and then
    as many to the same ones: a store that is full takes more memory.
    """
    tars = make_tars(subject, directory)
    return _peaks(
        f"{uploads} x {subject.title}",
        directory,
        pki,
        [tars] * uploads,
        uploads,
    )


def in_turn(
    subject: Subject, directory: str, pki: str, uploads: int, domains: int
) -> Peaks:
    """Of a new host, which takes so many uploads, a few at a time."""
    tars = make_tars(subject, directory)
    each = [tars[number % 2] for number in range(-(-uploads // domains))]
    return _peaks(
        f"{uploads} x {subject.title}, {domains} at a time",
        directory,
        pki,
        [each] * domains,
        domains,
    )


def _peaks(
    title: str,
    directory: str,
    pki: str,
    wanted: list[list[str]],
    threads: int,
) -> Peaks:
    """wanted: for each domain, the archives that it is sent."""
    env = stores.environment(directory)
    paths = [stores.make_store(directory) for _ in wanted]
    say(f"memory: {title}")
    with hosting(directory, pki, paths) as host:
        uploads = [
            (domain, tar)
            for row in zip(*wanted)
            for domain, tar in zip(host.domains, row)
        ]
        before = peak.high_water(host.pid) or 0
        with _watching(host) as found:
            with sending(host, uploads, threads, env) as process:
                process.wait()
        after = peak.high_water(host.pid) or 0
    return Peaks(title, before, after, found[ERRAND], found[WORKER])


@contextlib.contextmanager
def _watching(host: Host) -> Iterator[dict[str, int]]:
    """
    The largest process of each kind that there is meanwhile.

    What one takes in its last milliseconds may be missed.
    """
    found = {ERRAND: 0, WORKER: 0}
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_EVERY):
            for pid in host.children():
                kind, size = _kind(pid), peak.high_water(pid)
                if kind is not None and size is not None:
                    found[kind] = max(found[kind], size)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _kind(pid: int) -> Optional[str]:
    """None for one that is still a copy of the host, or has ended."""
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        for kind in (ERRAND, WORKER):
            if f".{kind} import".encode() in command:
                return kind
    return None


def _private(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * sum(
        int(line.split()[1]) for line in lines if line.startswith("Private_")
    )
