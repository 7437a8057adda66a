# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The engine's own update of both volumes of a domain: two uploads of one
archive through the store, beside `dd` as VDSM calls it, twice.

    python -m bench.stock [DIRECTORY] [--sizes 1 16] [--repeat 9]

What VDSM does around both (HTTP, its task, preparing the image) is left out.
Each archive has new dates, and one OVF of a hundred is new. It is done with a
LocalFS domain, then with a POSIX-FS domain and leases, where there is sanlock.
Then a few updates more with the log on, for the table of the steps. The
directory must be on the disk that is to be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Optional

from bench import make_ovfs, stock_steps
from bench.run import median, say
from bench.stock_domains import leased, local, sanlock
from scripts.processes import sanlock_command
from vdsm_ovfstore.api.runner import Runner
from vdsm_ovfstore.api.settings import Settings
from vdsm_ovfstore.api.spool import Spool
from vdsm_ovfstore.api.stock import Stock
from vdsm_ovfstore.format import description
from vdsm_ovfstore.format.archive_writer import engine_members, write_archive
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.storage.filevolume import FileVolume

_PIECE = 64 * 1024  # VDSM reads the body in pieces of this size

# Between two uploads the engine changes two descriptions, and its database.
_PAUSE = 0.5

RECEIVE = "receiving"
CHECK = "check, after the last byte"
WORKER = "the worker"
DD = "stock: `dd conv=fsync`, twice"

Steps = dict[str, float]  # seconds


class Update(NamedTuple):
    """Of both volumes: stock's seconds, and the steps of our two uploads."""

    dd: float
    first: Steps
    second: Steps

    @property
    def ours(self) -> float:
        steps = (self.first, self.second)
        return sum(s[k] for s in steps for k in (RECEIVE, CHECK, WORKER))


class Archives:
    """The archives of a data center, one after the other."""

    def __init__(self, domain: str, mib: int) -> None:
        self._domain = domain
        # info.json, metadata.json and the end take 3 KiB.
        self._ovfs = list(make_ovfs.archive_ovfs(mib - 1 / 256))
        self._when = 1_700_000_000
        self._random = random.Random(1)

    def next(self) -> bytes:
        self._when += 3600
        count = max(1, len(self._ovfs) // 100)
        for at in self._random.sample(range(len(self._ovfs)), count):
            name, data = self._ovfs[at]
            self._ovfs[at] = name, make_ovfs.edited(data)
        members = engine_members(
            self._domain,
            ((name, len(data), [data]) for name, data in self._ovfs),
            self._when,
            {},
        )
        return b"".join(write_archive(members, self._when))


class Engine:
    """An engine, and what the plugin in vdsmd has: one store."""

    def __init__(self, domain: FileDomain, directory: str, level: int) -> None:
        self.domain = domain
        settings = Settings(spool=directory, log_level=level)
        self._runner = Runner(settings, lambda *_: contextlib.nullcontext())
        self._stock = Stock(
            self._runner, Spool(directory, settings.spool_bytes)
        )

    def close(self) -> None:
        self._runner.close()

    def update(
        self, tar: bytes, log: Optional[stock_steps.Log] = None
    ) -> list[Steps]:
        """Of the volumes, one after the other."""
        return [self._upload(v, tar, log) for v in self.domain.volumes()]

    def _upload(
        self, volume: FileVolume, tar: bytes, log: Optional[stock_steps.Log]
    ) -> Steps:
        _describe(volume, tar, False)
        time.sleep(_PAUSE)
        body = Body(tar)
        start = time.monotonic()
        known = self._stock.volume(self.domain.path, volume.image, volume.id)
        assert known is not None
        upload = self._stock.receive(
            self.domain.path, known, len(tar), iter(body)
        )
        with contextlib.closing(upload):
            checked, began = time.monotonic(), stock_steps.now()
            if log is not None:
                log.steps(began, began)
            answer = upload.commit(60)
            assert answer["generation"], upload.fallback
            done, ended = time.monotonic(), stock_steps.now()
        steps = {
            RECEIVE: body.ended - start,
            CHECK: checked - body.ended,
            WORKER: done - checked,
        }
        if log is not None:
            steps.update(log.steps(began, ended))
        _describe(volume, tar, True)
        return steps


class Body:
    """What is sent; ended: when the last of it was taken."""

    def __init__(self, tar: bytes) -> None:
        self._tar = tar
        self.ended = 0.0

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._tar), _PIECE):
            yield self._tar[start : start + _PIECE]
        self.ended = time.monotonic()


def measure(
    mib: int, domain: FileDomain, directory: str, repeat: int
) -> tuple[list[Update], list[list[Steps]]]:
    """The updates; and the steps of the uploads of some others."""
    archives = Archives(domain.id, mib)
    updates = []
    with contextlib.closing(Engine(domain, directory, 50)) as engine:
        # Two generations, as in any store after some hours.
        for _ in range(2):
            engine.update(archives.next())
        for number in range(repeat):
            say(f"{domain.type} {mib} MiB: {number + 1} of {repeat}")
            tar = archives.next()
            plain = _dd_twice(directory, tar)
            updates.append(Update(plain, *engine.update(tar)))
    say(f"{domain.type} {mib} MiB: steps")
    with stock_steps.logged() as log:
        engine = Engine(domain, directory, logging.INFO)
        with contextlib.closing(engine):
            # The first one starts the processes.
            engine.update(archives.next(), log)
            steps = [
                engine.update(archives.next(), log)
                for _ in range(max(1, repeat // 2))
            ]
    return updates, steps


def _dd_twice(directory: str, tar: bytes) -> float:
    """Over a volume that has an archive, as VDSM does it."""
    took = 0.0
    for number in (1, 2):
        path = os.path.join(directory, f"plain{number}")
        command = ["dd", f"of={path}", "bs=1048576", "conv=fsync"]
        start = time.monotonic()
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdin is not None
            for data in Body(tar):
                process.stdin.write(data)
        took += time.monotonic() - start
        assert process.returncode == 0
    return took


def _describe(volume: FileVolume, tar: bytes, updated: bool) -> None:
    text = description.build(volume.domain, len(tar), int(time.time()))
    if not updated:
        text = text.replace('"Updated":true', '"Updated":false')
    metadata = volume.read_metadata()._replace(description=text)
    new = f"{volume.metadata_path}.new"
    with open(new, "wb") as file:
        file.write(metadata.text(volume.domain_version))
    os.rename(new, volume.metadata_path)


# -- tables -------------------------------------------------------------------


def _ms(values: list[float]) -> str:
    return f"{median(values) * 1000:.0f}"


def totals(kind: str, found: dict[int, list[Update]]) -> Iterator[str]:
    """A table in Markdown, a column for each size."""
    sizes = sorted(found)
    yield f"| {kind}, ms | " + " | ".join(f"{s} MiB" for s in sizes) + " |"
    yield "|---|" + "---:|" * len(sizes)
    rows: list[tuple[str, Any]] = [
        (DD, lambda u: u.dd),
        ("through the store, twice", lambda u: u.ours),
    ]
    for title, value in rows:
        cells = [_ms([value(u) for u in found[s]]) for s in sizes]
        yield f"| {title} | " + " | ".join(cells) + " |"
    cells = []
    for size in sizes:
        ours = [u.ours * 1000 for u in found[size]]
        cells.append(f"{min(ours):.0f} to {max(ours):.0f}")
    yield "| fastest and slowest | " + " | ".join(cells) + " |"


def breakdown(mib: int, uploads: list[list[Steps]]) -> Iterator[str]:
    yield f"| steps at {mib} MiB, ms | first volume | second |"
    yield "|---|---:|---:|"
    names = list(dict.fromkeys(k for u in uploads for s in u for k in s))
    for name in names:
        cells = [
            _ms([u[number].get(name, 0.0) for u in uploads])
            for number in (0, 1)
        ]
        yield f"| {name} | " + " | ".join(cells) + " |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", nargs="?")
    parser.add_argument("--sizes", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--lock", choices=["flock", "sanlock"], help="only")
    options = parser.parse_args()
    where = options.directory or os.environ.get("TMPDIR") or "/var/tmp"
    if options.lock != "sanlock":
        with tempfile.TemporaryDirectory(dir=where) as top:
            _run("flock (LOCALFS)", local, top, options)
    if options.lock == "flock":
        return 0
    if sanlock_command() is None:
        say("skipped: sanlock (POSIXFS), which is not installed here")
        return 0
    with tempfile.TemporaryDirectory(dir=where) as top, sanlock(top):
        _run("sanlock (POSIXFS)", leased, top, options)
    return 0


def _run(
    kind: str,
    make: Callable[[str], FileDomain],
    top: str,
    options: argparse.Namespace,
) -> None:
    found, steps = {}, {}
    for mib in options.sizes:
        directory = os.path.join(top, str(mib))
        os.mkdir(directory)
        found[mib], steps[mib] = measure(
            mib, make(directory), directory, options.repeat
        )
    print("\n".join(totals(kind, found)), end="\n\n")
    for mib, uploads in steps.items():
        print("\n".join(breakdown(mib, uploads)), end="\n\n", flush=True)


if __name__ == "__main__":
    sys.exit(main())
