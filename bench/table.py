# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The table of what was measured, and what of it is not as promised."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from bench import parts

MIB = 1024**2

# What the store promises.
MAX_RATIO = 1.5
MAX_PEAK = 64 * MIB
MAX_SHOW = 0.05  # seconds


class Result(NamedTuple):
    """Medians of one subject. Seconds and bytes."""

    title: str
    length: int
    entities: int
    stored: int
    parts: dict[str, parts.Part]
    update: parts.Part
    startup: float
    look: float
    prepare: float
    worker: float
    lease: float
    peaks: list[int]  # of the command and of its worker
    vms: float
    vms_read: int
    show: float
    show_read: int
    show_needed: int

    @property
    def needed(self) -> float:
        """Seconds of all parts, each as often as an update needs it."""
        return sum(self.parts[n].wall * t for n, t in parts.NEEDED.items())

    @property
    def least(self) -> float:
        """What is needed if the XML check were free of our own code."""
        check, expat = self.parts[parts.CHECK], self.parts[parts.EXPAT]
        return self.needed - (check.wall - expat.wall)

    @property
    def ratio(self) -> float:
        return self.update.wall / self.needed

    @property
    def cpu_ratio(self) -> float:
        needed = sum(self.parts[n].cpu * t for n, t in parts.NEEDED.items())
        return self.update.cpu / needed


def table(results: list[Result]) -> str:
    """One table: a column per archive."""
    rows: list[tuple[str, Callable[[Result], str]]] = [
        ("archive, bytes", lambda r: f"{r.length:,}"),
        ("VMs and templates", lambda r: f"{r.entities:,}"),
        ("segment, of the archive", lambda r: f"{r.stored / r.length:.1%}"),
    ]
    for name, times in parts.NEEDED.items():
        label = f"{times} x {name}" if times > 1 else name
        rows.append((f"{label}, ms", partial(_part, name)))
    rows += [
        ("**sum of the parts**, ms", lambda r: ms(r.needed)),
        ("**update** (`ovfstore upload`), ms", lambda r: ms(r.update.wall)),
        ("update / parts", lambda r: f"**{r.ratio:.2f}**"),
        (
            "the same with expat alone for the XML check",
            lambda r: f"{r.update.wall / r.least:.2f}",
        ),
        (
            "the same in processor time, which other load spares",
            lambda r: f"{r.cpu_ratio:.2f}",
        ),
        (
            "the same without start-up",
            lambda r: f"{(r.update.wall - r.startup) / r.needed:.2f}",
        ),
        ("start-up of command and worker, ms", lambda r: ms(r.startup)),
        (
            "start-up, of the update",
            lambda r: f"{r.startup / r.update.wall:.0%}",
        ),
        ("within: reading what is there, ms", lambda r: ms(r.look)),
        ("within: preparing, ms", lambda r: ms(r.prepare)),
        ("within: worker, ms", lambda r: ms(r.worker)),
        ("- lease held, ms", lambda r: ms(r.lease)),
        ("peak memory of the command, MiB", lambda r: mib(r.peaks[0])),
        ("peak memory of the worker, MiB", lambda r: mib(r.peaks[1])),
        ("`vms` in process, ms", lambda r: ms(r.vms)),
        ("`vms` reads, KiB", lambda r: kib(r.vms_read)),
        ("`show` in process, ms", lambda r: ms(r.show)),
        ("`show` reads, KiB", lambda r: kib(r.show_read)),
        ("- rings, index and the VM's frame", lambda r: kib(r.show_needed)),
    ]
    lines = [
        "| | " + " | ".join(r.title for r in results) + " |",
        "|---|" + "---:|" * len(results),
    ]
    for label, cell in rows:
        cells = " | ".join(cell(r) for r in results)
        lines.append(f"| {label} | {cells} |")
    return "\n".join(lines)


def missed(results: list[Result]) -> Iterator[str]:
    """What the store promises and does not keep."""
    for r in results:
        # Below this the start of two interpreters is most of it.
        if r.length >= 8 * MIB and r.ratio > MAX_RATIO:
            yield f"{r.title}: update / parts is {r.ratio:.2f}"
        if max(r.peaks) > MAX_PEAK:
            yield f"{r.title}: peak memory is {mib(max(r.peaks))} MiB"
        if r.show > MAX_SHOW:
            yield f"{r.title}: show takes {ms(r.show)} ms"
        # Beside these, the metadata of the domain and of its volumes.
        if r.show_read > r.show_needed + 64 * 1024:
            yield f"{r.title}: show reads {kib(r.show_read)} KiB"


def _part(name: str, result: Result) -> str:
    return ms(result.parts[name].wall * parts.NEEDED[name])


def ms(value: float) -> str:
    return f"{value * 1e3:,.0f}" if value >= 0.1 else f"{value * 1e3:.1f}"


def mib(value: float) -> str:
    return f"{value / MIB:.1f}"


def kib(value: float) -> str:
    return f"{value / 1024:,.0f}"
