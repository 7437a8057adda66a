# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Our jobs are jobs of VDSM as well: Host.getJobs tells of them, of type
"storage", under the same id.

VDSM's is a view of ours, which does the work: so it is there when the verb
answers, says "aborting" while that goes on, and an error of ours is no
traceback in VDSM's log.
"""

from __future__ import annotations

import logging
import threading
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.jobs import Job
from vdsm_ovfstore.plugin.vdsm import Vdsm

log = logging.getLogger("ovfstore.plugin")


class Jobs:
    """Implements api.jobs.Listener; raises nothing."""

    def __init__(self, vdsm: Vdsm) -> None:
        self._vdsm = vdsm
        self._lock = threading.Lock()
        self._views: dict[str, Any] = {}

    def added(self, job: Job) -> None:
        """Our job goes on, also if VDSM does not want it."""
        try:
            pool = self._vdsm.pool()
            view = _view(job, pool.host if pool else 0)
        except Exception:
            log.exception("JOB id=%s is no job of VDSM", job.id)
            return
        with self._lock:
            self._views[job.id] = view

    def ended(self, job: Job) -> None:
        """VDSM deletes it after a while, and tells who listens to events."""
        with self._lock:
            view = self._views.pop(job.id, None)
        if view is None:
            return
        try:
            view._autodelete_if_required()
            view._send_event()
        except Exception:
            log.exception("JOB id=%s: VDSM does not hear of its end", job.id)


def _view(job: Job, host: int) -> Any:
    from vdsm import jobs
    from vdsm.storage.sdm.api import base

    class StoreJob(base.Job):  # type: ignore[misc]
        @property
        def status(self) -> str:
            return str(job.document()["status"])

        @property
        def progress(self) -> float:
            # The engine casts it to a Double.
            return float(job.progress)

        @property
        def error(self) -> Optional[_Told]:
            return None if job.error is None else _Told(job.error)

        def abort(self) -> None:
            if job.ended_at is not None:
                raise jobs.JobNotActive()
            try:
                job.abort()
            except errors.AbortRefused:
                raise jobs.AbortNotSupported() from None

    view = StoreJob(job.id, f"{job.verb} OVF store of {job.domain}", host)
    jobs.add(view)
    return view


class _Told:
    """An error of ours, as VDSM's jobs tell of theirs."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def info(self) -> dict[str, Any]:
        words = self._document["message"], self._document["next_step"]
        return {
            "code": self._document["code"],
            "message": ". ".join(filter(None, words)),
        }


def sentence(error: errors.Error) -> str:
    """An error and its next step in a line, as VDSM's answers have room."""
    return ". ".join(filter(None, (str(error), error.next_step)))


def status(error: errors.Error) -> dict[str, Any]:
    """An error as the answer of a verb of VDSM."""
    return {"status": {"code": error.code, "message": sentence(error)}}
