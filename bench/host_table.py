# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The tables of what was measured of a host, and what is not as promised."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from bench import parts
from bench.host_download import Download
from bench.host_memory import Idle, Peaks
from bench.host_ping import Pings
from bench.host_update import Slow, Update
from bench.table import MAX_PEAK, MAX_RATIO, MIB, mib, ms

# Below this the start of processes is most of an update.
_RATIO_FROM = 8 * MIB

# How much longer than with a fast client a lease may be held, in seconds:
# what two runs of the same differ by.
_LEASE_NOISE = 0.2

T = TypeVar("T")


def updates(found: list[Update]) -> str:
    rows: list[tuple[str, Callable[[Update], str]]] = [
        ("archive, bytes", lambda u: f"{u.length:,}"),
        ("receiving, by a bare peer, ms", lambda u: ms(u.receive.wall)),
    ]
    for name, times in parts.NEEDED.items():
        label = f"{times} x {name}" if times > 1 else name
        rows.append((f"{label}, ms", partial(_part, name)))
    rows += [
        ("**sum of the parts**, ms", lambda u: ms(u.needed)),
        ("**update** through the host, ms", lambda u: ms(u.update.wall)),
        ("update / parts", lambda u: f"**{u.ratio:.2f}**"),
        (
            "the same in processor time, which other load spares",
            lambda u: f"{u.cpu_ratio:.2f}",
        ),
        ("within: the verb `upload`, ms", lambda u: ms(u.ask)),
        ("within: receiving and checking, ms", lambda u: ms(u.check)),
        ("within: worker, ms", lambda u: ms(u.worker)),
        ("- lease held, ms", lambda u: ms(u.lease)),
        ("update directly after another, ms", lambda u: ms(u.again)),
        ("the command without a host, ms", lambda u: ms(u.command)),
    ]
    return _columns(found, [u.title for u in found], rows)


def missed_updates(found: list[Update]) -> Iterator[str]:
    for u in found:
        if u.length >= _RATIO_FROM and u.ratio > MAX_RATIO:
            yield f"Missed: {u.title}: update / parts is {u.ratio:.2f}"


def pings(found: list[Pings]) -> str:
    lines = [
        "| host, ms | pings | median | p99 | most | echo: median | p99 "
        "| most |",
        "|---|" + "---:|" * 7,
    ]
    for p in found:
        cells = [
            *(f"{p.ping.calls:,}", _short(p.ping.median)),
            *(_short(p.ping.p99), _short(p.ping.most)),
            *(_short(p.echo.median), _short(p.echo.p99), _short(p.echo.most)),
        ]
        lines.append(f"| {p.title}, {p.seconds:.1f} s | {_cells(cells)} |")
    return "\n".join(lines)


def memory(found: list[Peaks], idle: Idle) -> str:
    lines = [
        "| peak, MiB | host before | host | errand | worker |",
        "|---|" + "---:|" * 4,
    ]
    for p in found:
        sizes = (p.before, p.host, p.errand, p.worker)
        lines.append(f"| {p.title} | {_cells(map(mib, sizes))} |")
    spares = " + ".join(map(mib, idle.spares))
    lines.append(
        f"\nIdle, of its own: the host {mib(idle.host)} MiB, its spares "
        f"{spares} MiB."
    )
    return "\n".join(lines)


def missed_memory(found: list[Peaks]) -> Iterator[str]:
    for p in found:
        for what, size in (
            *(("the host", p.host), ("an errand", p.errand)),
            ("a worker", p.worker),
        ):
            if size > MAX_PEAK:
                yield (
                    f"Missed: {p.title}: peak memory of {what} is "
                    f"{mib(size)} MiB"
                )


def slow(found: Slow) -> str:
    return "\n".join(
        (
            "| client | slow | fast |",
            "|---|---:|---:|",
            f"| lease held, ms | {ms(found.lease)} | {ms(found.fast_lease)} |",
            "",
            f"{found.length:,} bytes in {found.sending:.1f} s; meanwhile "
            f"{found.others} processes beside the host and its spares, "
            f"which worked for {found.busy:.2f} s.",
        )
    )


def missed_slow(found: Slow) -> Iterator[str]:
    if found.others:
        yield f"Missed: {found.others} processes wait for a slow client"
    if found.lease > found.fast_lease + _LEASE_NOISE:
        yield "Missed: a slow client keeps the lease for longer"


def downloads(found: list[Download]) -> str:
    rows: list[tuple[str, Callable[[Download], str]]] = [
        ("zlib, ms", lambda d: ms(d.inflate)),
        ("SHA-256, ms", lambda d: ms(d.sha)),
        ("sending, by a bare peer, ms", lambda d: ms(d.send)),
        ("**sum of the parts**, ms", lambda d: ms(d.needed)),
        ("**download** from the host, ms", lambda d: ms(d.download)),
        ("download / parts", lambda d: f"**{d.ratio:.2f}**"),
        ("within: the verb `download`, ms", lambda d: ms(d.ask)),
        ("within: until the first byte, ms", lambda d: ms(d.first)),
        ("within: from it to the last, ms", lambda d: ms(d.rest)),
    ]
    return _columns(found, [d.title for d in found], rows)


def _columns(
    found: Sequence[T],
    titles: list[str],
    rows: list[tuple[str, Callable[[T], str]]],
) -> str:
    lines = [f"| | {_cells(titles)} |", "|---|" + "---:|" * len(titles)]
    for label, cell in rows:
        lines.append(f"| {label} | {_cells(map(cell, found))} |")
    return "\n".join(lines)


def _cells(cells: Iterable[str]) -> str:
    return " | ".join(cells)


def _part(name: str, update: Update) -> str:
    return ms(update.parts[name].wall * parts.NEEDED[name])


def _short(seconds: float) -> str:
    return f"{seconds * 1e3:.2f}"
