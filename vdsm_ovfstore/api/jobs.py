# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Jobs: verbs that take longer than a caller waits.

The words are those of VDSM's jobs (lib/vdsm/jobs.py), which take their place
inside VDSM.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import Any, Callable, Optional, Protocol

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.ended import RETRY_AFTER, Kept
from vdsm_ovfstore.api.faults import error_document, unexpected
from vdsm_ovfstore.api.task import Task
from vdsm_ovfstore.format.record import isotime

log = logging.getLogger("ovfstore.api")

PENDING = "pending"
RUNNING = "running"
DONE = "done"
ABORTING = "aborting"
ABORTED = "aborted"
FAILED = "failed"


class Listener(Protocol):
    """Hears of each job, for a host that has jobs of its own."""

    def added(self, job: Job) -> None:
        """It is about to start; nobody knows its id yet."""

    def ended(self, job: Job) -> None:
        """Whichever way."""


class Job(Task):
    """
    One job. run does the work and returns its result; ended is told of its
    end.
    """

    def __init__(
        self,
        verb: str,
        domain: str,
        run: Callable[[Job], dict[str, Any]],
        ended: Callable[[Job], None] = lambda job: None,
    ) -> None:
        super().__init__(f"{verb} of domain {domain}")
        self.id = str(uuid.uuid4())
        self.verb = verb
        self.changes = verb != "verify"
        self.domain = domain
        self._ended = ended
        self.status = PENDING
        self.progress = 0
        self.started_at = int(time.time())
        self.ended_at: Optional[float] = None  # in time.monotonic()
        self.result: Optional[dict[str, Any]] = None
        self.error: Optional[dict[str, Any]] = None
        self.thread = threading.Thread(
            target=self._main, args=(run,), name=f"job-{verb}", daemon=True
        )

    def read(self, step: str) -> None:
        """Progress of an errand: "42 verifying generation 7"."""
        percent, _, what = step.partition(" ")
        self.progress = int(percent)
        super().read(what)

    def document(self) -> dict[str, Any]:
        """What getJobs tells of it."""
        with self._lock:
            status = self.status
            if self.aborted and self.ended_at is None:
                status = ABORTING
            return {
                "jobID": self.id,
                "verb": self.verb,
                "storagedomainID": self.domain,
                "status": status,
                "progress": self.progress,
                "step": self.step,
                "started": isotime(self.started_at),
                "result": self.result,
                "error": self.error,
            }

    def cannot_start(self, e: Exception) -> None:
        """There is no thread for it: it ends before it began."""
        self.error, self.status = error_document(unexpected(e)), FAILED
        self.ended_at = time.monotonic()
        self._ended(self)

    def _main(self, run: Callable[[Job], dict[str, Any]]) -> None:
        log.info(
            "JOB id=%s verb=%s domain=%s", self.id, self.verb, self.domain
        )
        self.status = RUNNING
        try:
            self.check()
            self._end(DONE, result=run(self))
        except errors.Aborted:
            self._end(ABORTED, errors.Aborted(what=self.what))
        except errors.Error as e:
            self._end(FAILED, e)
        except Exception as e:
            log.exception("UNEXPECTED job=%s", self.id)
            self._end(FAILED, unexpected(e))

    def _end(
        self,
        status: str,
        error: Optional[errors.Error] = None,
        result: Optional[dict[str, Any]] = None,
    ) -> None:
        # All at once: who sees the status looks for the rest, and finds room
        # for the next job.
        with self._lock:
            if result is not None:
                self.progress = 100
            self.result = result
            self.error = error_document(error) if error else None
            self.step = ""
            self.status = status
            self.ended_at = time.monotonic()
        self._ended(self)
        log.info("JOB id=%s status=%s", self.id, status)


class Jobs:
    """All jobs, those that ended included for a while; see Kept."""

    def __init__(
        self,
        limit: int,
        remember: float,
        remembered: int,
        listener: Optional[Listener] = None,
    ) -> None:
        self._listener = listener
        self._kept: Kept[Job] = Kept(limit, remember, remembered)
        self._lock = threading.Lock()

    def start(
        self, verb: str, domain: str, run: Callable[[Job], dict[str, Any]]
    ) -> Job:
        """Raises errors.HostBusy."""
        job = Job(verb, domain, run, self._has_ended)
        with self._lock:
            self._kept.forget()
            self._kept.check_room("jobs are under way")
            if self._listener is not None:
                self._listener.added(job)
            try:
                job.thread.start()
            except RuntimeError as e:
                job.cannot_start(e)
                raise errors.HostBusy(
                    reason=str(e), retry_after=RETRY_AFTER
                ) from None
            self._kept.add(job.id, job)
        return job

    def _has_ended(self, job: Job) -> None:
        if self._listener is not None:
            self._listener.ended(job)

    def get(self, job_id: str) -> Job:
        """Raises errors.JobNotFound."""
        with self._lock:
            self._kept.forget()
            job = self._kept.get(job_id)
        if job is None:
            raise errors.JobNotFound(job=job_id)
        return job

    def all(self) -> list[Job]:
        """In the order in which they came."""
        with self._lock:
            self._kept.forget()
            return self._kept.all()

    def running(self) -> list[Job]:
        with self._lock:
            return self._kept.running()
