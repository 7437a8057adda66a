# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Starting a worker, and hearing what became of its job."""

from __future__ import annotations

import logging
import os
from typing import Any, Callable, Optional

from vdsm_ovfstore.store import retention
from vdsm_ovfstore.store.prepare import Prepared
from vdsm_ovfstore.store.process import WORKER, Process

# A whole job, leases included. The longest wait for a lease of a host that
# died is 140 s with sanlock's defaults; writing 128 MiB twice on storage at
# 5 MB/s takes another minute.
DEADLINE = 600.0


class Options:
    """
    How a job is done.

    timeout: seconds to wait for the leases; deadline: seconds for the work
    after that. progress is told what begins. process starts the worker, or
    has it already; started is given it, it may be cancelled.
    """

    def __init__(
        self,
        timeout: float = 60,
        deadline: float = DEADLINE,
        buffered: bool = False,
        settings: Optional[retention.Settings] = None,
        progress: Callable[[str], None] = lambda step: None,
        log_level: int = logging.CRITICAL,
        process: Callable[[str], Process] = Process,
        started: Callable[[Process], None] = lambda process: None,
    ) -> None:
        self.timeout = timeout
        self.deadline = timeout + deadline
        self.buffered = buffered
        self.settings = settings or retention.Settings()
        self.progress = progress
        self.log_level = log_level
        self.process = process
        self.started = started


def upload(
    path: str,
    content: Prepared,
    options: Options,
    drop: Optional[int] = None,
) -> dict[str, Any]:
    """
    Commit a prepared archive; returns the answer of Job.upload.

    drop as there. Raises errors.Error: what the worker met, or WorkerFailed.
    """
    request = {
        "verb": "upload",
        "facts": content.facts(),
        "drop": drop,
    }
    return _run(path, request, options, content.fds())


def stock(
    path: str,
    volume: str,
    content: Optional[Prepared],
    sha256: str,
    tar: int,
    options: Options,
) -> dict[str, Any]:
    """Commit an upload of the engine's own; returns that of Job.stock."""
    request = {
        "verb": "stock",
        "volume": volume,
        "sha256": sha256,
        "facts": content.facts() if content else None,
    }
    return _run(path, request, options, content.fds() if content else (tar,))


def restore(path: str, wanted: str, options: Options) -> dict[str, Any]:
    """Bring a generation back; returns the answer of Job.restore."""
    return _run(path, {"verb": "restore", "wanted": wanted}, options)


def pin(
    path: str, wanted: str, keep: bool, options: Options
) -> dict[str, Any]:
    """Keep a generation, or not; returns the answer of Job.pin."""
    request = {"verb": "pin", "wanted": wanted, "keep": keep}
    return _run(path, request, options)


def repair(
    path: str, options: Options, collect: bool = False
) -> dict[str, Any]:
    """Mend a store; returns the answer of Job.repair."""
    return _run(path, {"verb": "repair", "collect": collect}, options)


def heal(path: str, options: Options) -> dict[str, Any]:
    """Mend what every upload would; returns the answer of Job.heal."""
    return _run(path, {"verb": "heal"}, options)


def join(path: str, options: Options) -> dict[str, Any]:
    """Let all volumes be members; returns the answer of Job.join."""
    return _run(path, {"verb": "join"}, options)


def create(
    path: str, copies: int, capacity: int, options: Options
) -> dict[str, Any]:
    """Make volumes; returns the answer of Job.create."""
    request = {"verb": "create", "copies": copies, "capacity": capacity}
    return _run(path, request, options)


def _run(
    path: str,
    request: dict[str, Any],
    options: Options,
    fds: tuple[int, ...] = (),
) -> dict[str, Any]:
    request = {
        **request,
        "path": os.path.abspath(path),
        "timeout": options.timeout,
        "deadline": options.deadline,
        "buffered": options.buffered,
        "settings": options.settings._asdict(),
        "log_level": options.log_level,
    }
    worker = options.process(WORKER).give(request, fds)
    options.started(worker)
    return worker.wait(options.progress)
