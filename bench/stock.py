# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The engine's own update of both volumes of a domain: two uploads of one
archive through the store, beside `dd` as VDSM calls it, twice.

    python -m bench.stock --sizes 1,16 --repeat 9

What VDSM does around both (HTTP, its task, preparing the image) is left out.
Each archive has new dates, and one OVF of a hundred is new.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import NamedTuple

from bench import make_ovfs, stores
from bench.run import median, say
from vdsm_ovfstore.api.runner import Runner
from vdsm_ovfstore.api.settings import Settings
from vdsm_ovfstore.api.spool import Spool
from vdsm_ovfstore.api.stock import Stock
from vdsm_ovfstore.format import description
from vdsm_ovfstore.format.archive_writer import engine_members, write_archive
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.storage.filevolume import FileVolume

_MIB = 1024**2
_PIECE = 64 * 1024  # VDSM reads the body in pieces of this size

# Between two uploads the engine changes two descriptions, and its database.
_PAUSE = 0.5


class Times(NamedTuple):
    """Seconds of one update of both volumes."""

    stock: float
    ours: float
    first: tuple[float, float]  # receive and check, worker
    second: tuple[float, float]


class Archives:
    """The archives of a data center, one after the other."""

    def __init__(self, domain: str, mib: int) -> None:
        self._domain = domain
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


def measure(mib: int, directory: str, repeat: int) -> list[Times]:
    domain = FileDomain.open(stores.make_store(directory))
    archives = Archives(domain.id, mib)
    settings = Settings(spool=directory)
    runner = Runner(settings, lambda *_: contextlib.nullcontext())
    stock = Stock(runner, Spool(directory, settings.spool_bytes))
    found = []
    try:
        # Two generations, as in any store after some hours.
        for _ in range(2):
            _update(stock, domain, archives.next())
        for number in range(repeat):
            say(f"{mib} MiB: {number + 1} of {repeat}")
            tar = archives.next()
            plain = _stock(directory, tar)
            first, second = _update(stock, domain, tar)
            found.append(
                Times(plain, sum(first) + sum(second), first, second)
            )
    finally:
        runner.close()
    return found


def _stock(directory: str, tar: bytes) -> float:
    took = 0.0
    for number in (1, 2):
        path = os.path.join(directory, f"plain{number}")
        command = ["dd", f"of={path}", "bs=1048576", "conv=fsync"]
        start = time.monotonic()
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as process:
            assert process.stdin is not None
            for data in _pieces(tar):
                process.stdin.write(data)
        took += time.monotonic() - start
    return took


def _update(
    stock: Stock, domain: FileDomain, tar: bytes
) -> list[tuple[float, float]]:
    found = []
    for volume in domain.volumes():
        _describe(volume, tar, False)
        time.sleep(_PAUSE)
        start = time.monotonic()
        known = stock.volume(domain.path, volume.image, volume.id)
        assert known is not None
        upload = stock.receive(domain.path, known, len(tar), _pieces(tar))
        received = time.monotonic()
        with contextlib.closing(upload):
            answer = upload.commit(60)
            assert answer["generation"], upload.fallback
        ended = time.monotonic()
        found.append((received - start, ended - received))
        _describe(volume, tar, True)
    return found


def _describe(volume: FileVolume, tar: bytes, updated: bool) -> None:
    text = description.build(volume.domain, len(tar), int(time.time()))
    if not updated:
        text = text.replace('"Updated":true', '"Updated":false')
    metadata = volume.read_metadata()._replace(description=text)
    new = f"{volume.metadata_path}.new"
    with open(new, "wb") as file:
        file.write(metadata.text(volume.domain_version))
    os.rename(new, volume.metadata_path)


def _pieces(tar: bytes) -> Iterator[bytes]:
    for start in range(0, len(tar), _PIECE):
        yield tar[start : start + _PIECE]


def _show(mib: int, times: list[Times]) -> None:
    rows = [
        ("dd, twice", [t.stock for t in times]),
        ("through the store, twice", [t.ours for t in times]),
        ("  first: receive and check", [t.first[0] for t in times]),
        ("  first: worker", [t.first[1] for t in times]),
        ("  second: receive", [t.second[0] for t in times]),
        ("  second: worker", [t.second[1] for t in times]),
    ]
    print(f"{mib} MiB")
    for title, values in rows:
        low, high = min(values) * 1000, max(values) * 1000
        print(
            f"  {title:30} {median(values) * 1000:7.0f} ms"
            f"  ({low:.0f} to {high:.0f})"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="1,16", help="MiB")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--directory", help="where; a file system on disk")
    options = parser.parse_args()
    for mib in map(int, options.sizes.split(",")):
        with tempfile.TemporaryDirectory(
            dir=options.directory or os.environ.get("TMPDIR", "/var/tmp")
        ) as directory:
            _show(mib, measure(mib, directory, options.repeat))
    return 0


if __name__ == "__main__":
    sys.exit(main())
