# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Looking for storage domains, in processes of their own.

Storage may hang: a dead NFS server stops whoever looks below its mount. Each
configured path gets a process with a time limit. If one takes too long, the
mounts below that path get one each, so that one dead mount hides no other
domain.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import threading
from collections.abc import Sequence
from typing import NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.runner import ERRAND
from vdsm_ovfstore.store.process import Process

log = logging.getLogger("ovfstore.host")

# Seconds for one look. A domain takes some milliseconds; NFS answers a call
# after 60 s when it retries once (timeo=600), and then is no good anyway.
DEADLINE = 30.0

# Looks at the same time; each is a process of 25 MiB.
PARALLEL = 4

_MOUNTS = "/proc/self/mountinfo"


class Found(NamedTuple):
    """A domain, as its metadata says it is."""

    domain: str
    path: str
    type: str
    domain_version: int
    lock: str
    pool: Optional[str]
    block_size: int
    alignment: int


class Look(NamedTuple):
    """
    What was found below one path.

    hidden: paths that could not be looked at. A domain that is not among
    `found` and has nothing to do with one of them is gone.
    """

    found: list[Found]
    problems: list[str]
    hidden: list[str]

    @classmethod
    def failed(cls, path: str, reason: str) -> Look:
        return cls([], [f"Cannot look below {path}: {reason}"], [path])


class Scanner:
    """
    Looks for domains below `paths`.

    Arguments:
        buffered: for development, without direct I/O.
        log_level: of the processes.
    """

    def __init__(
        self,
        paths: Sequence[str],
        buffered: bool,
        log_level: int,
        deadline: float = DEADLINE,
    ) -> None:
        self._paths = paths
        self._buffered = buffered
        self._log_level = log_level
        self._deadline = deadline
        # Processes that the kernel does not let go, by path.
        self._stuck: dict[str, int] = {}

    def scan(self) -> dict[str, Look]:
        """What is below each path, in the order of the configuration."""
        looks = self._look_at_all(self._paths)
        for path, look in looks.items():
            if path in look.hidden:
                parts = self._look_at_all(_mounts_below(path))
                looks[path] = _together(look, list(parts.values()))
        return looks

    def _look_at_all(self, paths: Sequence[str]) -> dict[str, Look]:
        looks: dict[str, Look] = {}
        slots = threading.Semaphore(PARALLEL)

        def run(path: str) -> None:
            with slots:
                try:
                    looks[path] = self._look(path)
                except Exception as e:
                    log.exception("SCAN path=%s failed", path)
                    looks[path] = Look.failed(path, type(e).__name__)

        # Not those of an executor: the end of Python waits for them, and
        # one that hangs must not keep us from stopping.
        threads = [
            threading.Thread(target=run, args=(path,), daemon=True)
            for path in paths
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {path: looks[path] for path in paths}

    def _look(self, path: str) -> Look:
        pid = self._stuck.pop(path, 0)
        if pid and os.path.exists(f"/proc/{pid}"):
            self._stuck[path] = pid
            return Look.failed(path, f"process {pid} still hangs there")
        process = None
        request = {
            "verb": "discover",
            "paths": [path],
            "buffered": self._buffered,
            "deadline": self._deadline,
            "log_level": self._log_level,
        }
        try:
            process = Process(ERRAND)
            answer = process.give(request).wait()
        except errors.Error as e:
            if process and os.path.exists(f"/proc/{process.pid}"):
                self._stuck[path] = process.pid
            return Look.failed(path, str(e))
        return Look(
            [Found(**domain) for domain in answer["domains"]],
            [str(p["message"]) for p in answer["problems"]],
            [
                p["fields"].get("path", path)
                for p in answer["problems"]
                if p["fields"].get("errno") != errno.ENOENT
            ],
        )


def _together(whole: Look, parts: list[Look]) -> Look:
    found = {f.path: f for part in parts for f in part.found}
    return Look(
        list(found.values()),
        whole.problems + [p for part in parts for p in part.problems],
        whole.hidden,
    )


def _mounts_below(path: str) -> list[str]:
    """
    Mount points below a path, sorted; read from the kernel, not from there.

    A line: `36 35 98:0 /root /mount/point options - type source options`.
    """
    top = path.rstrip("/") + "/"
    found = set()
    with open(_MOUNTS, encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            point = re.sub(
                r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), line.split()[4]
            )
            if point.startswith(top):
                found.add(point)
    return sorted(found)
