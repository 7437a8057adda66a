# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""How long a host takes to say that it is there, idle and at work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from bench import stores
from bench.host_update import make_tars
from bench.hosting import beside_bare
from bench.run import Subject, median, say
from bench.senders import sending

_PAUSE = 0.002  # seconds between two


class Latency(NamedTuple):
    """Seconds, of so many calls."""

    calls: int
    median: float
    p99: float
    most: float


class Pings(NamedTuple):
    """
    What the host did meanwhile; its pings, and echoes of a bare peer in turn
    with them, which show what the machine itself adds.
    """

    title: str
    seconds: float
    ping: Latency
    echo: Latency


def measure(
    subject: Subject, directory: str, pki: str, uploads: int, count: int
) -> list[Pings]:
    """
    Arguments:
        uploads: at the same time.
        count: of pings of an idle host.
    """
    env = stores.environment(directory)
    tars = make_tars(subject, directory, uploads)
    paths = [stores.make_store(directory) for _ in range(uploads)]
    found = []
    with beside_bare(directory, pki, paths) as (host, bare, client):

        def beat(title: str, is_over: Callable[[int], bool]) -> None:
            say(f"pings: {title}")
            pings: list[float] = []
            echoes: list[float] = []
            start = time.perf_counter()
            while not is_over(len(pings)):
                pings.append(_timed(client.ping))
                echoes.append(_timed(bare.echo))
                time.sleep(_PAUSE)
            seconds = time.perf_counter() - start
            found.append(
                Pings(title, seconds, _latency(pings), _latency(echoes))
            )

        beat("idle", lambda done: done >= count)
        each, last = host.domains, host.domains[-1:] * uploads
        for title, domains in (
            (f"{uploads} x {subject.title} to {uploads} domains", each),
            (f"{uploads} x {subject.title} to one domain", last),
        ):
            given = list(zip(domains, tars))
            with sending(host, given, uploads, env) as process:
                beat(title, lambda done: process.poll() is not None)
            host.wait_for_spares()
    return found


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _latency(values: list[float]) -> Latency:
    values = sorted(values)
    return Latency(
        len(values),
        median(values),
        values[len(values) * 99 // 100],
        values[-1],
    )
