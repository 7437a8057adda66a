# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The worker: the short-lived process that alone changes storage.

It owns the leases: if storage is lost sanlock kills this process and not the
one that serves users, and a process stuck in the kernel hangs nobody else.
Stopping at any point is safe, that is what the commit protocol is for; so
whoever must stop simply ends the process.
"""

from __future__ import annotations

import sys
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.store import child
from vdsm_ovfstore.store.job import Job
from vdsm_ovfstore.store.prepare import Prepared
from vdsm_ovfstore.store.retention import Settings


def _run(request: dict[str, Any], watcher: child.Watcher) -> dict[str, Any]:
    job = Job(
        request["path"],
        timeout=request["timeout"],
        buffered=request["buffered"],
        settings=Settings(**request["settings"]),
        progress=child.progress,
        watch=watcher.watch,
    )
    if request["verb"] == "upload":
        tar, body = request["fds"]
        content = Prepared(tar, body, request["facts"])
        return job.upload(content, request.get("drop"))
    if request["verb"] == "stock":
        tar, *more = request["fds"]
        sent = Prepared(tar, more[0], request["facts"]) if more else None
        return job.stock(request["volume"], sent, request["sha256"], tar)
    if request["verb"] == "restore":
        return job.restore(request["wanted"])
    if request["verb"] == "pin":
        return job.pin(request["wanted"], request["keep"])
    if request["verb"] == "repair":
        return job.repair(collect=request["collect"])
    if request["verb"] == "heal":
        return job.heal()
    if request["verb"] == "join":
        return job.join()
    if request["verb"] == "create":
        from vdsm_ovfstore.lease.format import format_lease

        return job.create(request["copies"], request["capacity"], format_lease)
    raise errors.WorkerFailed(reason=f"no such verb: {request['verb']}")


def main() -> int:
    return child.serve(_run)


if __name__ == "__main__":
    sys.exit(main())
