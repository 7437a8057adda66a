# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
One update or one look, measured from inside a process of its own.

    python -m bench.inside update DOMAIN TAR
    python -m bench.inside look DOMAIN vms|show ...

Writes a line of JSON. Times begin when everything is imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from typing import Any
from unittest import mock

from vdsm_ovfstore.cli import direct, entities, main, source, upload
from vdsm_ovfstore.storage import filedomain
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.storage.system import System
from vdsm_ovfstore.store import launch
from vdsm_ovfstore.store.prepare import Preparer
from vdsm_ovfstore.store.reader import Reader

# Imported with the verbs, though not used by name here.
_VERBS = (direct, entities, upload)


class Counting(System):
    """Counts what is read."""

    read = 0

    def preadv(self, fd: int, view: memoryview, offset: int) -> int:
        got = super().preadv(fd, view, offset)
        Counting.read += got
        return got


def update(domain: str, tar: str) -> dict[str, Any]:
    """What `ovfstore upload` does, in parts."""
    start = time.perf_counter()
    opened = FileDomain.open(domain)
    known = {}
    with Reader(opened) as reader:
        if any(copy.seal for copy in reader.copies):
            newest = reader.open(reader.newest())
            known = {
                e.sha256: (e.kind, e.entity, e.disks) for e in newest.index()
            }
    looked = time.perf_counter()
    with Preparer(known=known) as preparer:
        for data in source.open_source(tar, opened.id).chunks:
            preparer.feed(data)
        prepared = preparer.finish()
    ready = time.perf_counter()
    answer = launch.upload(domain, prepared, launch.Options())
    end = time.perf_counter()
    return {
        "look": looked - start,
        "prepare": ready - looked,
        "worker": end - ready,
        "lease": answer["lease_seconds"],
        "unchanged": answer["unchanged"],
        "stored": prepared.segment_size,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def _counted() -> Any:
    return mock.patch.object(filedomain, "System", Counting)


def look(arguments: list[str]) -> dict[str, Any]:
    """A verb of the command that only reads."""
    with open(os.devnull, "w") as nowhere:
        with contextlib.redirect_stdout(nowhere), _counted():
            start = time.perf_counter()
            status = main.main(arguments)
            seconds = time.perf_counter() - start
    return {"status": status, "seconds": seconds, "read": Counting.read}


if __name__ == "__main__":
    if sys.argv[1] == "update":
        found = update(*sys.argv[2:])
    else:
        found = look(sys.argv[2:])
    print(json.dumps(found))
