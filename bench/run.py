# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Measure the store; prints a table in Markdown.

    python -m bench.run [DIRECTORY] [--sizes 1 16 100] [--repeat 5]

For each archive: an update of a store of two copies that holds a generation
of the same length already (no OVF of it is in the new one, so that all are
checked), beside its parts on the same bytes in the same run (parts.py); then
the verbs that look. Everything is repeated, parts and wholes in turn, and the
median counts. The directory must be on the disk that is to be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple, Optional

from bench import make_ovfs, parts, peak, stores, table
from bench.table import MIB, Result
from vdsm_ovfstore.format import segment
from vdsm_ovfstore.format.record import align
from vdsm_ovfstore.format.seal import RING_SIZE
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.reader import Reader

MANY_SIZE = 5 * 1024  # bytes of an OVF of the store of many VMs

_IMPORTS = (
    "from vdsm_ovfstore.cli import direct, main, upload",
    "import vdsm_ovfstore.store.worker",
)


class Subject(NamedTuple):
    """Two archives of the same length, with nothing in common."""

    title: str
    make: Callable[[int], Iterator[tuple[str, bytes]]]  # of a seed


def subjects(sizes: list[int], vms: int) -> list[Subject]:
    found = [
        # info.json, metadata.json and the end take 3 KiB.
        Subject(f"{mib} MiB", partial(make_ovfs.archive_ovfs, mib - 1 / 256))
        for mib in sizes
    ]
    if vms:
        many = partial(make_ovfs.some_ovfs, vms, size=MANY_SIZE)
        found.append(Subject(f"{vms:,} VMs", many))
    return found


def measure(subject: Subject, directory: str, repeat: int) -> Result:
    env = stores.environment(directory)
    tars = [os.path.join(directory, f"{seed}.tar") for seed in (1, 2)]
    wanted = ""
    entities = 0
    for seed, tar in enumerate(tars, 1):
        say(f"{subject.title}: making archive {seed} of 2")
        ovfs = list(subject.make(seed))
        stores.make_archive(tar, ovfs)
        wanted, entities = ovfs[len(ovfs) // 2][0], len(ovfs)
        del ovfs
    domain = stores.make_store(directory)
    # Warms up, and compiles what is not.
    stores.call(stores.upload(domain, tars[1]), env)
    startup = median(
        sum(timed(stores.python(code), env).wall for code in _IMPORTS)
        for _ in range(repeat + 1)
    )
    single: list[dict[str, parts.Part]] = []
    whole, inside = [], []
    for number in range(repeat):
        say(f"{subject.title}: update {number + 1} of {repeat}")
        single.append(parts.measure(tars[0], directory))
        upload = stores.upload(domain, tars[0])
        whole.append(timed(upload, env))
        inside.append(_inside(env, "update", domain, tars[1]))
    say(f"{subject.title}: memory")
    peaks = peak.peaks(stores.upload(domain, tars[0]), env)
    stores.call(stores.upload(domain, tars[1]), env)
    say(f"{subject.title}: vms and show")
    looks = {
        verb[0]: [
            _inside(env, "look", verb[0], domain, *verb[1:])
            for _ in range(repeat)
        ]
        for verb in (["vms"], ["show", wanted])
    }
    return Result(
        title=subject.title,
        length=os.path.getsize(tars[0]),
        entities=entities,
        stored=inside[-1]["stored"],
        parts={k: medians(p[k] for p in single) for k in single[0]},
        update=medians(whole),
        startup=startup,
        look=median(i["look"] for i in inside),
        prepare=median(i["prepare"] for i in inside),
        worker=median(i["worker"] for i in inside),
        lease=median(i["lease"] for i in inside),
        peaks=peaks,
        vms=median(found["seconds"] for found in looks["vms"]),
        vms_read=looks["vms"][0]["read"],
        show=median(found["seconds"] for found in looks["show"]),
        show_read=looks["show"][0]["read"],
        show_needed=show_needed(domain, wanted),
    )


def show_needed(domain: str, entity: str) -> int:
    """Bytes of the rings, the index and the frames of one entity."""
    with Reader(FileDomain.open(domain)) as reader:
        opened = reader.open(reader.newest())
        entry = opened.find(entity)
        place = reader.copies[0].find(opened.generation.identity)
        assert place is not None
        stored = reader.copies[0].segment(place)
        size = segment.HEADER_SIZE
        size += align(stored.header.table_size)
        size += align(stored.header.index_stored)
        size += sum(
            align(frame.stored)
            for frame in stored.frames
            if frame.offset < entry.offset + entry.length
            and entry.offset < frame.end
        )
        return size + RING_SIZE * len(reader.copies)


def levels(directory: str, repeat: int) -> str:
    """Time against stored size at each level of zlib."""
    lines = ["| zlib level | ms / MiB | stored |", "|---:|---:|---:|"]
    tar = os.path.join(directory, "levels.tar")
    stores.make_archive(tar, make_ovfs.archive_ovfs(16))
    with open(tar, "rb") as file:
        data = file.read()
    for level in range(1, 10):
        spent = []
        for _ in range(repeat):
            start = time.process_time()
            stored = parts.stored(data, level)
            spent.append(time.process_time() - start)
        per_mib = statistics.median(spent) / (len(data) / MIB)
        lines.append(
            f"| {level} | {per_mib * 1e3:.1f} | {stored / len(data):.1%} |"
        )
    return "\n".join(lines)


# -- one measurement ----------------------------------------------------------


def timed(command: list[str], env: dict[str, str]) -> parts.Part:
    start, cpu_start = time.perf_counter(), parts.cpu_time()
    stores.call(command, env)
    return parts.Part(
        time.perf_counter() - start, parts.cpu_time() - cpu_start
    )


def _inside(env: dict[str, str], *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "bench.inside", *arguments]
    found: dict[str, Any] = json.loads(stores.call(command, env))
    return found


def median(values: Iterable[float]) -> float:
    return float(statistics.median(values))


def medians(values: Iterable[parts.Part]) -> parts.Part:
    values = list(values)
    return parts.Part(
        median(v.wall for v in values), median(v.cpu for v in values)
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def work(parent: Optional[str]) -> Iterator[str]:
    """A directory of our own, not in /tmp: that is often memory."""
    parent = parent or os.environ.get("TMPDIR") or "/var/tmp"
    os.makedirs(parent, exist_ok=True)
    directory = tempfile.mkdtemp(prefix="ovfstore-bench-", dir=parent)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench.run", description="Measure the store."
    )
    parser.add_argument(
        "directory", nargs="?", help="where to work (default: /var/tmp)"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="*",
        default=[1, 16, 100],
        help="of the archives, in MiB (default: 1 16 100)",
    )
    parser.add_argument(
        "--vms",
        type=int,
        default=10_000,
        help="of a store of many small VMs; 0: none (default: 10000)",
    )
    parser.add_argument(
        "--repeat", type=int, default=5, help="how often (default: 5)"
    )
    parser.add_argument(
        "--levels",
        action="store_true",
        help="the levels of zlib instead",
    )
    args = parser.parse_args()
    if args.levels:
        with work(args.directory) as directory:
            print(levels(directory, args.repeat))
        return 0
    results = []
    for subject in subjects(args.sizes, args.vms):
        with work(args.directory) as directory:
            results.append(measure(subject, directory, args.repeat))
    print(table.table(results))
    for line in table.missed(results):
        print(f"\nMissed: {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
