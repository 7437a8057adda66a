# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Everything that can be had out of damaged, cut, overwritten or foreign data.

    1  each source is looked through once, from its begin to its end
    2  each generation that a sound record or a frame names is put together,
       the newest first: by its index, or by the tar in its frames
    3  what lies about as a tar: archives that a record knows, then the rest
    4  OVFs whose tar header is gone

Reads only. What 3 and 4 find may be what 2 has missed: a member that is
wanted is known by its digest, wherever it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional

from vdsm_ovfstore.rescue.carved import Carved
from vdsm_ovfstore.rescue.findings import Findings, Key, Known
from vdsm_ovfstore.rescue.generation import Recovered, Recovery
from vdsm_ovfstore.rescue.runs import Run, runs
from vdsm_ovfstore.rescue.scan import Scan
from vdsm_ovfstore.rescue.source import Source
from vdsm_ovfstore.rescue.tars import Tars
from vdsm_ovfstore.rescue.versions import Versions

Progress = Callable[[str, int, int], None]


class Lost(NamedTuple):
    """An entity that something names and nothing has. name may be empty."""

    entity: str
    name: str
    domain: str
    number: int


class Report(NamedTuple):
    """What was found. scanned counts bytes; holes are none."""

    sources: Sequence[Source]
    scanned: int
    findings: Findings
    generations: list[Recovered]
    versions: Versions
    lost: list[Lost]


def salvage(
    sources: Sequence[Source],
    domain: Optional[str] = None,
    all_versions: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> Report:
    """
    Look for everything.

    Arguments:
        domain: leave out what belongs to another one.
        all_versions: keep every content of every entity, not the best only.
        progress: is told what is being done, and how far it is.

    Raises errors.StorageFailed: a source cannot be read at all any more.
    """
    return _Salvage(sources, domain, all_versions, progress).run()


class _Salvage:
    def __init__(
        self,
        sources: Sequence[Source],
        domain: Optional[str],
        all_versions: bool,
        progress: Progress,
    ) -> None:
        self._sources = sources
        self._domain = domain
        self._progress = progress
        self._findings = Findings()
        self._versions = Versions(all_versions)
        self._recovery = Recovery(self._versions)
        self._tars = Tars(sources, self._versions, self._recovery)

    def run(self) -> Report:
        scanned = self._scan()
        self._findings.settle()
        tars = [
            run
            for run in runs(self._sources, self._findings)
            if self._domain is None or run.domain in ("", self._domain)
        ]
        generations = self._generations(tars)
        for number, run in enumerate(tars):
            self._progress("looking at tars", number, len(tars))
            if run.proven is None:
                for one in run.members(self._findings):
                    self._tars.member(one, run)
        for place in self._findings.loose:
            self._tars.loose(place)
        return Report(
            self._sources,
            scanned,
            self._findings,
            generations,
            self._versions,
            self._lost(),
        )

    def _generations(self, tars: Sequence[Run]) -> list[Recovered]:
        """From segments, then from tars that are that very archive."""
        findings, found = self._findings, []
        proven: dict[Key, list[Run]] = {}
        for run in tars:
            if run.proven is not None:
                proven.setdefault(run.proven, []).append(run)
        keys = [
            key
            for key in findings.generations()
            if self._domain in (None, key.domain)
        ]
        times = _times(keys, findings.known)
        newest = set(findings.newest().values())
        for number, key in enumerate(keys):
            self._progress("putting together", number, len(keys))
            known = findings.known.get(key)
            generation = Recovered(key, known, times[key], key in newest)
            found.append(generation)
            carved = Carved(
                self._sources,
                key,
                findings.headers.get(key, ()),
                findings.frames.get(key, ()),
            )
            self._recovery.recover(generation, carved)
            for run in proven.get(key, ()):
                if generation.is_complete:
                    break  # it has nothing new
                for one in run.members(findings):
                    self._tars.proven_member(one, generation)
        return found

    def _scan(self) -> int:
        total = sum(source.size for source in self._sources)
        before = scanned = 0
        for number, source in enumerate(self._sources):

            def tell(done: int, before: int = before) -> None:
                self._progress("reading", before + done, total)

            scanned += Scan(source, number, self._findings, tell).run()
            before += source.size
        return scanned

    # -- what is not there ----------------------------------------------------

    def _lost(self) -> list[Lost]:
        lost = {e: Lost(e, "", d, 0) for e, d in self._tars.named.items()}
        for generation, entry in self._recovery.unsolved():
            entity = entry.name[: -len(".ovf")]
            key = generation.key
            lost[entity] = Lost(entity, entry.entity, key.domain, key.number)
        for entity in list(lost):
            if entity in self._versions.best:
                del lost[entity]
        return sorted(lost.values(), key=lambda one: (one.name, one.entity))


def _times(keys: Sequence[Key], known: dict[Key, Known]) -> dict[Key, int]:
    """
    A time for each generation that grows with its number.

    Clocks differ, and a host without us may have written its own date; what
    is newer is said by the number.
    """
    times: dict[Key, int] = {}
    latest: dict[str, int] = {}
    for key in sorted(keys, key=lambda key: (key.domain, key.number)):
        when = known[key].time if key in known else 0
        if key.number:
            when = max(when, latest.get(key.domain, 0))
            latest[key.domain] = when
        times[key] = when
    return times
