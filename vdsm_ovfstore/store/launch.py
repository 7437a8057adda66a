# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Starting a worker, and hearing what became of its job."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from typing import Any, Callable, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.store import retention
from vdsm_ovfstore.store.prepare import Prepared

log = logging.getLogger("ovfstore.store")

# A whole job, leases included. The longest wait for a lease of a host that
# died is 140 s with sanlock's defaults; writing 128 MiB twice on storage at
# 5 MB/s takes another minute.
DEADLINE = 600.0


class Options:
    """
    How a job is done.

    timeout: seconds to wait for the leases; deadline: seconds for the work
    after that.
    """

    def __init__(
        self,
        timeout: float = 60,
        deadline: float = DEADLINE,
        buffered: bool = False,
        settings: Optional[retention.Settings] = None,
        progress: Callable[[str], None] = lambda step: None,
        log_level: int = logging.CRITICAL,
    ) -> None:
        self.timeout = timeout
        self.deadline = timeout + deadline
        self.buffered = buffered
        self.settings = settings or retention.Settings()
        self.progress = progress
        self.log_level = log_level


def upload(path: str, content: Prepared, options: Options) -> dict[str, Any]:
    """
    Commit a prepared archive; returns the answer of Job.upload.

    Raises errors.Error: what the worker met, or WorkerFailed.
    """
    request = {
        "verb": "upload",
        "fds": content.fds(),
        "facts": content.facts(),
    }
    return _run(path, request, options, content.fds())


def repair(path: str, options: Options) -> dict[str, Any]:
    """Mend a store; returns the answer of Job.repair."""
    return _run(path, {"verb": "repair"}, options)


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
    worker = subprocess.Popen(
        # -c and not -m: runpy alone takes 10 ms.
        [sys.executable, "-c", _MAIN],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=fds,
        # An interrupt from the terminal is for us; the worker is told by
        # the end of its stdin.
        start_new_session=True,
    )
    assert worker.stdin is not None and worker.stdout is not None
    last = None
    try:
        # stdin stays open: its end tells the worker that we are gone.
        worker.stdin.write(json.dumps(request).encode("ascii") + b"\n")
        worker.stdin.flush()
        for line in worker.stdout:
            last = json.loads(line)
            if "progress" in last:
                options.progress(last["progress"])
    except BrokenPipeError:
        pass  # it ended early; how it ended tells more
    finally:
        with contextlib.suppress(BrokenPipeError):
            worker.stdin.close()
        worker.stdout.close()
        status = worker.wait()
    return _answer(last, status)


# Where the package lies: it may not be installed, but run from a checkout.
_HERE = os.path.dirname(os.path.abspath(__file__))
_PACKAGES = os.path.dirname(os.path.dirname(_HERE))

_MAIN = (
    f"import sys; sys.path.insert(0, {_PACKAGES!r}); "
    "from vdsm_ovfstore.store.worker import main; sys.exit(main())"
)


def _answer(last: Optional[dict[str, Any]], status: int) -> dict[str, Any]:
    if last is not None and "answer" in last:
        answer: dict[str, Any] = last["answer"]
        return answer
    if last is not None and "error" in last:
        kind = getattr(errors, last["error"]["type"], errors.Error)
        raise kind(**last["error"]["fields"])
    raise errors.WorkerFailed(reason=_reason(status))


def _reason(status: int) -> str:
    from vdsm_ovfstore.store import worker

    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    known = {
        worker.STATUS_ORPHANED: "it was told to stop",
        worker.STATUS_LOCK_LOST: "it lost the lock on the store",
        worker.STATUS_TIMED_OUT: "it took too long",
    }
    return known.get(status, f"exit status {status}")
