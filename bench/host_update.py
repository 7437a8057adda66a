# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""An update through a host, beside what it cannot do without."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import NamedTuple

from bench import parts, stores
from bench.hosting import Host, beside_bare, cpu_time, hosting
from bench.run import Subject, median, medians, say, timed
from vdsm_ovfstore.client import Client

_PIECE = 64 * 1024  # of a slow client


class Update(NamedTuple):
    """Medians of one subject. Seconds and bytes."""

    title: str
    length: int
    parts: dict[str, parts.Part]
    receive: parts.Part  # by a bare peer
    update: parts.Part  # processor time: with the start of its processes
    again: float  # directly after another
    command: float  # `ovfstore upload`, without a host
    ask: float
    check: float
    worker: float
    lease: float

    @property
    def needed(self) -> float:
        """Seconds of all parts, each as often as an update needs it."""
        return self.receive.wall + sum(
            self.parts[n].wall * t for n, t in parts.NEEDED.items()
        )

    @property
    def ratio(self) -> float:
        return self.update.wall / self.needed

    @property
    def cpu_ratio(self) -> float:
        needed = sum(self.parts[n].cpu * t for n, t in parts.NEEDED.items())
        return self.update.cpu / (self.receive.cpu + needed)


class Slow(NamedTuple):
    """An upload of a slow client. Seconds and bytes."""

    length: int
    sending: float
    lease: float
    fast_lease: float
    others: int  # processes beside the host and its spares, while it sends
    busy: float  # processor time of the spares meanwhile


def make_tars(subject: Subject, directory: str, count: int = 2) -> list[str]:
    """Archives with nothing in common."""
    tars = []
    for seed in range(1, count + 1):
        say(f"{subject.title}: making archive {seed} of {count}")
        tars.append(os.path.join(directory, f"{seed}.tar"))
        stores.make_archive(tars[-1], subject.make(seed))
    return tars


def measure(subject: Subject, directory: str, pki: str, repeat: int) -> Update:
    env = stores.environment(directory)
    tars = make_tars(subject, directory)
    domain = stores.make_store(directory)
    single, received, commands, whole, again = [], [], [], [], []
    with beside_bare(directory, pki, [domain]) as (host, bare, client):
        # Warms up, and compiles what is not.
        _update(host, client, tars[1])
        stores.call(stores.upload(domain, tars[0]), env)
        for number in range(repeat):
            say(f"{subject.title}: update {number + 1} of {repeat}")
            # Each writes what the one before did not.
            first, second = tars[(number + 1) % 2], tars[number % 2]
            single.append(parts.measure(first, directory))
            clock = _Clock(bare.pid)
            bare.take(first)
            received.append(clock.read())
            host.wait_for_spares()
            whole.append(_update(host, client, first))
            again.append(_update(host, client, second))
            host.wait_for_spares()
            command = stores.upload(domain, first)
            commands.append(timed(command, env).wall)
    return Update(
        title=subject.title,
        length=os.path.getsize(tars[0]),
        parts={k: medians(p[k] for p in single) for k in single[0]},
        receive=medians(received),
        update=medians(u.took for u in whole),
        again=median(u.took.wall for u in again),
        command=median(commands),
        ask=median(u.ask for u in whole),
        check=median(u.check for u in whole),
        worker=median(u.worker for u in whole),
        lease=median(u.lease for u in whole),
    )


def slow(
    subject: Subject, directory: str, pki: str, rate: float, repeat: int
) -> Slow:
    """rate: what the slow client sends, in bytes a second."""
    tars = make_tars(subject, directory)
    domain = stores.make_store(directory)
    length = os.path.getsize(tars[0])
    with hosting(directory, pki, [domain]) as host, host.client() as client:
        _update(host, client, tars[0])
        fast = []
        for number in range(repeat):
            host.wait_for_spares()
            fast.append(_update(host, client, tars[(number + 1) % 2]).lease)
        last = tars[(repeat + 1) % 2]
        say(f"{subject.title}: a slow client")
        seen = _Seen(host)
        ticket = client.begin_upload(host.domains[0], length, force=True)
        source = seen.while_sending(_slowly(last, rate))
        result = client.send(ticket, source, length)
    return Slow(
        length=length,
        sending=seen.seconds,
        lease=result["lease_seconds"],
        fast_lease=median(fast),
        others=len(seen.others),
        busy=seen.busy,
    )


class _Seen:
    """Which processes of a host there are while it is sent something."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.others: set[int] = set()
        self.seconds = self.busy = 0.0

    def while_sending(self, source: Iterator[bytes]) -> Iterator[bytes]:
        # That which has answered the verb is replaced meanwhile.
        self._host.wait_for_spares()
        spares = self._host.children()
        before = sum(map(cpu_time, spares))
        start = time.perf_counter()
        for data in source:
            self.others.update(self._host.children())
            # Before the last piece can be sent: the next thing is its end.
            self.seconds = time.perf_counter() - start
            self.busy = sum(map(cpu_time, spares)) - before
            yield data
        self.others.difference_update(spares)


def _slowly(tar: str, rate: float) -> Iterator[bytes]:
    start, sent = time.monotonic(), 0
    with open(tar, "rb") as file:
        while data := file.read(_PIECE):
            time.sleep(max(0.0, start + sent / rate - time.monotonic()))
            sent += len(data)
            yield data


class _Once(NamedTuple):
    took: parts.Part
    ask: float
    check: float
    worker: float
    lease: float


def _update(host: Host, client: Client, tar: str) -> _Once:
    clock = _Clock(host.pid)
    length = os.path.getsize(tar)
    ticket = client.begin_upload(host.domains[0], length, force=True)
    asked = clock.read().wall
    result = client.send(ticket, tar)
    took = clock.read()
    assert not result["unchanged"]
    return _Once(took, asked, *host.steps(ticket.id), result["lease_seconds"])


class _Clock:
    """Time of ours and of another process and its children, from now on."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._start = self._now()

    def read(self) -> parts.Part:
        now = self._now()
        return parts.Part(
            now.wall - self._start.wall, now.cpu - self._start.cpu
        )

    def _now(self) -> parts.Part:
        cpu = time.process_time() + cpu_time(self._pid, ended=True)
        return parts.Part(time.perf_counter(), cpu)
