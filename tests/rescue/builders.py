# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Stores with frames of their own for the tests of a rescue."""

from __future__ import annotations

import functools
import hashlib
import random
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.store import builders
from vdsm_ovfstore import errors
from vdsm_ovfstore.format.tarheader import BLOCK
from vdsm_ovfstore.rescue.salvage import Report, salvage
from vdsm_ovfstore.rescue.sources import open_sources
from vdsm_ovfstore.rescue.versions import Version
from vdsm_ovfstore.storage.filedomain import FileDomain

KIB = 1024
MIB = 1024**2

# Of half a MiB each, two make up a frame.
NAMES = tuple(f"vm{n}" for n in range(8))


def large(seed: int, names: Sequence[str] = NAMES) -> dict[str, str]:
    """Notes that make each OVF half a MiB, and hard to compress."""
    return {
        name: builders.incompressible(450 * KIB, 100 * seed + number)
        for number, name in enumerate(names)
    }


def domain_of_two(path: Path) -> tuple[FileDomain, dict[int, bytes]]:
    """A store of two generations with several frames; their archives."""
    domain = builders.make_domain(path, capacity=16 * MIB)
    archives = {}
    for number in (1, 2):
        when = builders.EPOCH + number
        tar = builders.archive(domain, large(number), when)
        builders.upload(domain, tar)
        archives[number] = tar
    return domain, archives


class Part(NamedTuple):
    """A range of bytes of a file that only works as a whole."""

    path: str
    begin: int
    end: int

    def is_hit(self, path: str, begin: int, end: int) -> bool:
        return path == self.path and begin < self.end and self.begin < end


class Map(NamedTuple):
    """
    Where everything lies, for an oracle of what can be had.

    frames maps a VM to the frames that hold it, on each copy; heads to its
    tar member, header and data, on each copy.
    """

    frames: dict[str, list[Part]]
    heads: dict[str, list[Part]]
    headers: list[Part]
    tables: list[Part]
    indexes: list[Part]


def mapped(domain: FileDomain, number: int) -> Map:
    """Of one generation; its frames are those of NAMES."""
    found = Map({}, {}, [], [], [])
    with builders.opened(domain) as copies:
        for copy in copies:
            entry = next(e for e in copy.entries() if e.generation == number)
            segment = copy.segment(entry)
            header, log = segment.header, copy.volume.log_path
            at = entry.offset
            found.headers.append(Part(log, at, at + 4096))
            end = at + 4096 + header.table_size
            found.tables.append(Part(log, at + 4096, end))
            begin = at + header.index_position
            found.indexes.append(Part(log, begin, begin + header.index_stored))
            head = copy.seal.head if copy.seal else None
            for member in segment.index():
                if not member.entity:
                    continue
                for frame in segment.frames:
                    if frame.offset <= member.offset < frame.end:
                        assert member.offset + member.length <= frame.end
                        begin = at + frame.position
                        part = Part(log, begin, begin + frame.stored)
                        found.frames.setdefault(member.entity, []).append(part)
                if head is not None and head.generation == number:
                    part = Part(
                        copy.volume.path,
                        member.offset - BLOCK,
                        member.offset + member.length,
                    )
                    found.heads.setdefault(member.entity, []).append(part)
    return found


def stored(archive: bytes) -> dict[str, str]:
    """The digest of each OVF in an archive, by its id."""
    found = {}
    for name in NAMES:
        at = archive.find(f"{builders.vm_id(name)}.ovf".encode())
        if at >= 0:
            size = int(archive[at + 124 : at + 135], 8)
            data = archive[at + BLOCK : at + BLOCK + size]
            found[builders.vm_id(name)] = hashlib.sha256(data).hexdigest()
    return found


def rescue(*paths: object, **options: object) -> Report:
    """Salvage; what the versions consist of stays readable."""
    problems: list[errors.Error] = []
    with open_sources([str(p) for p in paths], problems) as sources:
        report = salvage(sources, **options)  # type: ignore[arg-type]
        for entity, version in report.versions.best.items():
            data = version.read()
            assert data is not None, version
            kept = version._replace(fetch=functools.partial(bytes, data))
            report.versions.best[entity] = kept
            for other in report.versions.others(version.entity):
                assert other.read() is not None, other
        assert [str(p) for p in problems] == []
        return report


def graded(report: Report) -> dict[str, str]:
    """The grade of each entity, by its name."""
    return {
        v.text.name or v.entity: v.grade for v in report.versions.best.values()
    }


def best(report: Report, name: str) -> Version:
    return report.versions.best[builders.vm_id(name)]


def image(domain: FileDomain, path: Path, at: int = 0) -> Path:
    """Logs and heads of a domain one after the other, in one file."""
    with path.open("wb") as file:
        file.seek(at)
        for volume in domain.volumes():
            file.write(Path(volume.log_path).read_bytes())
            file.write(Path(volume.path).read_bytes())
    return path


def overwrite(path: object, begin: int, end: int, data: bytes = b"") -> None:
    """
    Other data over part of a file; noise by default.

    Noise is no text: what text was overwritten with other text only a
    digest can tell.
    """
    with open(str(path), "r+b") as file:
        file.seek(begin)
        noise = random.Random(end).randbytes(end - begin)
        file.write((data or b"\xff" + noise)[: end - begin])


def dd(source: object, target: object, *more: str) -> None:
    """The stock dd."""
    subprocess.run(
        ["dd", f"if={source}", f"of={target}", "status=none", *more],
        check=True,
    )
