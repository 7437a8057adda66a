# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What an update cannot do without, each part by itself, on the same bytes.

SHA-256, zlib and `dd` with direct I/O are others' work; the walk along the
headers and the check of the OVFs are our own functions, without what stands
around them in an update. How fast the check could be at best is shown beside
it: expat with no handler at all.
"""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import time
import zlib
from collections.abc import Callable
from typing import NamedTuple
from xml.parsers import expat

from vdsm_ovfstore.format import ovf, segment, tarheader
from vdsm_ovfstore.store.compress import ZLIB_LEVEL

SHA = "SHA-256"
WALK = "tar walk"
CHECK = "XML check"
EXPAT = "expat alone"
ZLIB = f"zlib {ZLIB_LEVEL}"
WRITE = "write"
READ = "read"

# What a store of two copies must do. The check contains what EXPAT takes.
NEEDED = {SHA: 1, WALK: 1, CHECK: 1, ZLIB: 1, WRITE: 2, READ: 2}

_PROCESSES = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


class Part(NamedTuple):
    """Seconds of the clock and of the processors."""

    wall: float
    cpu: float


def measure(tar: str, directory: str) -> dict[str, Part]:
    """
    What each part takes once.

    Arguments:
        tar: path of the archive; it is in memory while this runs.
        directory: where a copy of it is written, and read again.
    """
    with open(tar, "rb") as file:
        data = file.read()
    ovfs = members(data)
    copy = os.path.join(directory, "copy")
    try:
        return {
            SHA: _measured(lambda: hashlib.sha256(data)),
            WALK: _measured(lambda: walk(data)),
            EXPAT: _measured(lambda: _parse(ovfs)),
            CHECK: _measured(lambda: _check(ovfs)),
            ZLIB: _measured(lambda: stored(data, ZLIB_LEVEL)),
            WRITE: _measured(lambda: _write(tar, copy)),
            READ: _measured(lambda: _read(copy)),
        }
    finally:
        os.unlink(copy)


def cpu_time() -> float:
    """Seconds of the processors, of this process and of its children."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, _PROCESSES)
    )


def walk(data: bytes) -> list[tuple[str, int, int]]:
    """(name, offset, length) of the members of a sound archive."""
    found = []
    at = 0
    while any(data[at : at + tarheader.BLOCK]):
        header = tarheader.parse(data[at : at + tarheader.BLOCK])
        at += tarheader.BLOCK
        found.append((header.name, at, header.size))
        at += tarheader.padded(header.size)
    return found


def members(data: bytes) -> list[bytes]:
    """The OVFs of an archive."""
    return [
        data[offset : offset + length]
        for name, offset, length in walk(data)
        if name.endswith(".ovf")
    ]


def stored(data: bytes, level: int) -> int:
    """Bytes that the frames of a segment take at a level of zlib."""
    return sum(
        len(zlib.compress(data[at : at + segment.FRAME_TAR], level))
        for at in range(0, len(data), segment.FRAME_TAR)
    )


def _measured(part: Callable[[], object]) -> Part:
    start, cpu_start = time.perf_counter(), cpu_time()
    part()
    return Part(time.perf_counter() - start, cpu_time() - cpu_start)


def _parse(ovfs: list[bytes]) -> None:
    for data in ovfs:
        expat.ParserCreate("UTF-8").Parse(data, True)


def _check(ovfs: list[bytes]) -> None:
    for data in ovfs:
        ovf.check_ovf(data, "an OVF")


def _write(source: str, target: str) -> None:
    _dd(f"if={source}", f"of={target}", "oflag=direct", "conv=fsync")


def _read(source: str) -> None:
    _dd(f"if={source}", "of=/dev/null", "iflag=direct")


def _dd(*operands: str) -> None:
    subprocess.run(["dd", *operands, "bs=1M", "status=none"], check=True)
