# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The service: the verbs of a host, however they come.

A call is checked against the definition, done, and its result is checked as
well. Verbs that read a store are errands; those that take long are jobs, or
transfers. What is under way lives in memory: after a restart the storage
tells what was committed.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
import time
from typing import Any, Callable, Optional, Union

from vdsm_ovfstore import __version__, errors
from vdsm_ovfstore.api.domains import Domains
from vdsm_ovfstore.api.download import Download
from vdsm_ovfstore.api.jobs import Job, Jobs, Listener
from vdsm_ovfstore.api.runner import SCAN, Runner
from vdsm_ovfstore.api.schema import Definition
from vdsm_ovfstore.api.settings import Settings
from vdsm_ovfstore.api.spool import Spool
from vdsm_ovfstore.api.task import Task
from vdsm_ovfstore.api.transfers import Registry, Transfer
from vdsm_ovfstore.api.upload import Upload
from vdsm_ovfstore.store import launch

log = logging.getLogger("ovfstore.api")

API_VERSION = 1

# How often what has expired is looked for, and how often the end of the last
# writer while we stop; in seconds.
_SWEEP = 5.0
_LOOK = 0.1

# Seconds that abort waits for the end, so as to tell how it came: a process
# that waits for a lease ends at once, a peer may be silent for longer.
_ABORTING = 2.0

# What aborted work may take to end: a process that does not is killed 10
# seconds after it was told to.
_ENDING = 12.0

# Seconds that a healing waits for leases; who has them heals as well.
_HEALING = 10.0

Params = dict[str, Any]
Result = dict[str, Any]


class Service:
    """
    All verbs of one host, and its transfers.

    listener: hears of each job; for a host that has jobs of its own.
    """

    def __init__(
        self,
        domains: Domains,
        settings: Settings,
        listener: Optional[Listener] = None,
    ) -> None:
        self.settings = settings
        self._domains = domains
        self._definition = Definition.load()
        self._runner = Runner(settings, domains.writing)
        self._spool = Spool(settings.spool, settings.spool_bytes)
        kept = settings.remember, settings.remembered
        self._jobs = Jobs(settings.jobs, *kept, listener)
        self._registry = Registry(settings.transfers, *kept)
        self.transfers = Transfers(self._registry)
        self._started = time.time()
        self._stopping = threading.Event()
        self._verbs: dict[str, Callable[[Params], Result]] = {
            "ping": self._ping,
            "list": self._list,
            "getInfo": self._get_info,
            "create": self._create,
            "upload": self._upload,
            "download": self._download,
            "getTransfer": self._get_transfer,
            "getJobs": self._get_jobs,
            "abort": self._abort,
            "listVms": self._list_vms,
            "getVm": self._get_vm,
            "getHistory": self._get_history,
            "diff": self._diff,
            "verify": self._verify,
            "repair": self._repair,
            "restore": self._restore,
            "pin": functools.partial(self._pin, True),
            "unpin": functools.partial(self._pin, False),
        }
        threading.Thread(target=self._sweep, name="sweep", daemon=True).start()

    def call(self, verb: str, params: Any) -> Result:
        """
        One call of a verb.

        Raises errors.RequestInvalid for one that is not there,
        ParametersInvalid, and what the verb meets.
        """
        checked = self._definition.check_params(verb, params)
        pool = checked.get("storagepoolID")
        if pool is not None:
            self._domains.check_pool(checked["storagedomainID"], pool)
        result = self._verbs[verb](checked)
        self._definition.check_result(verb, result)
        return result

    @property
    def runner(self) -> Runner:
        """The processes of this service, for who does more with them."""
        return self._runner

    @property
    def spool(self) -> Spool:
        """Its spool files; likewise."""
        return self._spool

    def heal(self, domain: str) -> Job:
        """
        Start a job that mends what an upload would, and waits for nobody.

        It shows as a repair. Raises errors.DomainNotServed, HostBusy,
        AbortRefused, what keeps this host from writing.
        """
        params = {"storagedomainID": domain, "timeout": _HEALING}
        return self._start_writer("repair", params, launch.heal)

    def tasks(self) -> list[Task]:
        """The jobs and transfers that are under way."""
        return [*self._jobs.running(), *self._registry.running()]

    def status(self) -> Result:
        """The whole host, for local admins; from memory."""
        return {
            "version": __version__,
            "pid": os.getpid(),
            "host": os.uname().nodename,
            "uptime": int(time.time() - self._started),
            "stopping": self._stopping.is_set(),
            "buffered": self.settings.buffered,
            "domains": self._domains.list(),
            "problems": self._domains.problems(),
            "queues": self._runner.turns.waiting(),
            "transfers": [t.document() for t in self._registry.running()],
            "jobs": [j.document() for j in self._jobs.running()],
            "spool": {
                "directory": self.settings.spool,
                "used": self._spool.used,
                "limit": self.settings.spool_bytes,
            },
        }

    def stop(self, grace: float, ending: float = _ENDING) -> None:
        """
        Take no new work, let writers end, then abort what is left.

        Returns after all has ended. Arguments are in seconds; `ending` after
        it was aborted, what is left is killed.
        """
        self._stopping.set()
        deadline = time.monotonic() + grace
        while self.tasks() and time.monotonic() < deadline:
            # Again and again: a verb that came before us may add one.
            for task in self.tasks():
                if not task.writes:
                    task.abort(force=True)
            time.sleep(_LOOK)
        left = self.tasks()
        for task in left:
            log.warning("ABORT %s step=%s", task.what, task.step)
            task.abort(force=True)
        deadline = time.monotonic() + ending
        while self.tasks() and time.monotonic() < deadline:
            time.sleep(_LOOK)
        self._runner.close()

    def _sweep(self) -> None:
        while not self._stopping.wait(_SWEEP):
            try:
                self._registry.sweep()
            except Exception:
                log.exception("SWEEP failed")

    def _check_open(self) -> None:
        if self._stopping.is_set():
            raise errors.HostBusy(reason="it is stopping", retry_after=10)

    # -- the host -------------------------------------------------------------

    def _ping(self, params: Params) -> Result:
        return {
            "version": __version__,
            "api": API_VERSION,
            "host": os.uname().nodename,
        }

    def _list(self, params: Params) -> Result:
        return {"domains": self._domains.list()}

    # -- reading --------------------------------------------------------------

    def _read(self, verb: str, params: Params, **request: Any) -> Result:
        path = self._domains.path(params["storagedomainID"])
        task = Task(f"{verb} of domain {params['storagedomainID']}")
        return self._runner.run(task, {"verb": verb, "path": path, **request})

    def _get_info(self, params: Params) -> Result:
        return self._read("info", params)

    def _get_history(self, params: Params) -> Result:
        return self._read("history", params)

    def _list_vms(self, params: Params) -> Result:
        return self._read(
            "vms",
            params,
            generation=_generation(params),
            first=params["first"],
            count=params["count"],
        )

    def _get_vm(self, params: Params) -> Result:
        return self._read(
            "vm",
            params,
            generation=_generation(params),
            wanted=_wanted(params),
        )

    def _diff(self, params: Params) -> Result:
        return self._read(
            "diff",
            params,
            old=_generation(params, "old"),
            new=_generation(params, "new"),
            first=params["first"],
            count=params["count"],
        )

    # -- jobs -----------------------------------------------------------------

    def _start(
        self, verb: str, params: Params, run: Callable[[Job], Result]
    ) -> Job:
        self._check_open()

        def checked(job: Job) -> Result:
            result = run(job)
            self._definition.check_job_result(verb, result)
            return result

        return self._jobs.start(verb, params["storagedomainID"], checked)

    def _verify(self, params: Params) -> Result:
        path = self._domains.path(params["storagedomainID"])
        request = {"verb": "check", "path": path, "quick": params["quick"]}
        job = self._start(
            "verify",
            params,
            lambda job: self._runner.run(job, request, kind=SCAN),
        )
        return {"jobID": job.id}

    def _create(self, params: Params) -> Result:
        copies, size = params["copies"], params["size"]
        created: Optional[list[str]] = None

        def before(job: Job) -> None:
            nonlocal created
            domain, timeout = params["storagedomainID"], params["timeout"]
            created = self._domains.make_volumes(
                domain, copies, size, timeout, job
            )

        def run(path: str, options: launch.Options) -> Result:
            if created is None:
                return launch.create(path, copies, size, options)
            return {**launch.join(path, options), "created": created}

        job = self._start_writer("create", params, run, before)
        return {"jobID": job.id}

    def _repair(self, params: Params) -> Result:
        run = functools.partial(
            launch.repair, collect=params["collectOrphans"]
        )
        job = self._start_writer("repair", params, run)
        return {"jobID": job.id}

    def _restore(self, params: Params) -> Result:
        wanted = self._named(params)
        job = self._start_writer(
            "restore",
            params,
            lambda path, options: launch.restore(path, wanted, options),
        )
        return {"jobID": job.id}

    def _pin(self, keep: bool, params: Params) -> Result:
        wanted = self._named(params)
        job = self._start_writer(
            "pin" if keep else "unpin",
            params,
            lambda path, options: launch.pin(path, wanted, keep, options),
        )
        return {"jobID": job.id}

    def _named(self, params: Params) -> str:
        """
        A generation that is there, before anything is locked.

        Raises errors.GenerationNotFound, GenerationAmbiguous, StoreEmpty.
        """
        wanted = str(params["generation"])
        self._read("locate", params, generation=wanted, wanted=None)
        return wanted

    def _start_writer(
        self,
        verb: str,
        params: Params,
        run: Callable[[str, launch.Options], Result],
        before: Callable[[Job], None] = lambda job: None,
    ) -> Job:
        domain, timeout = params["storagedomainID"], params["timeout"]
        path = self._domains.path(domain, write=True)

        def work(job: Job) -> Result:
            before(job)
            with self._runner.writer(job, domain, path, timeout) as options:
                answer = run(path, options)
            return {"domain": domain, "path": path, **answer}

        return self._start(verb, params, work)

    def _get_jobs(self, params: Params) -> Result:
        ids = params.get("jobIDs")
        jobs = (
            self._jobs.all()
            if ids is None
            else [self._jobs.get(job_id) for job_id in dict.fromkeys(ids)]
        )
        return {"jobs": [job.document() for job in jobs]}

    # -- transfers ------------------------------------------------------------

    def _upload(self, params: Params) -> Result:
        self._check_open()
        domain, size = params["storagedomainID"], params["size"]
        path = self._domains.path(domain, write=True)
        self._registry.check_room()
        terms = self._read("terms", params, size=size)
        room = self._spool.reserve_upload(size)
        upload = self._registry.add(
            Upload(
                self._runner,
                domain,
                path,
                size,
                params.get("sha256"),
                params["timeout"],
                room,
                self.settings.transfer_expires,
                functools.partial(
                    self._definition.check_upload_result, "upload"
                ),
                None if params["force"] else self.settings.guard_drop,
            )
        )
        return {
            "transferID": upload.id,
            "url": upload.url,
            "expires": upload.expires,
            "limit": terms["limit"],
        }

    def _download(self, params: Params) -> Result:
        self._check_open()
        domain = params["storagedomainID"]
        path = self._domains.path(domain)
        self._registry.check_room()
        found = self._read(
            "locate",
            params,
            generation=_generation(params),
            wanted=_wanted(params),
        )
        room = self._spool.reserve(found["size"])
        download = self._registry.add(
            Download(
                self._runner,
                domain,
                path,
                found,
                room,
                self.settings.transfer_expires,
            )
        )
        return {
            "transferID": download.id,
            "url": download.url,
            "expires": download.expires,
            **found,
        }

    def _get_transfer(self, params: Params) -> Result:
        return self._registry.get(params["transferID"]).document()

    def _abort(self, params: Params) -> Result:
        if "transferID" in params:
            transfer = self._registry.get(params["transferID"])
            _abort(transfer)
            return {"aborted": transfer.aborted, "state": transfer.state}
        job = self._jobs.get(params["jobID"])
        _abort(job)
        return {"aborted": job.aborted, "state": job.document()["status"]}


class Transfers:
    """The transfers, for who speaks HTTP."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def begin_upload(
        self, ticket: str, length: int, sha256: Optional[str] = None
    ) -> Upload:
        """
        A peer is about to send; before any of its bytes is read.

        Raises errors.TransferNotFound, TransferRefused, ArchiveMismatch.
        """
        upload = self._registry.of_ticket(ticket, Upload)
        upload.begin(length, sha256)
        return upload

    def begin_download(self, ticket: str) -> Download:
        """
        A peer asks; returns when what it gets is verified.

        Raises errors.TransferNotFound, TransferRefused; what is wrong with
        the storage.
        """
        download = self._registry.of_ticket(ticket, Download)
        download.begin()
        return download


def _generation(params: Params, name: str = "generation") -> Optional[str]:
    generation = params.get(name)
    return None if generation is None else str(generation)


def _wanted(params: Params) -> Optional[str]:
    """The VM or template that is meant: its id, or its name."""
    wanted: Optional[str] = params.get("vmID", params.get("name"))
    return wanted


def _abort(task: Union[Job, Transfer]) -> None:
    """
    Abort, and wait a moment for the end.

    Raises errors.AbortRefused, also when the worker had the leases first.
    """
    if task.ended_at is not None:
        return
    task.abort()
    deadline = time.monotonic() + _ABORTING
    while task.aborted and task.ended_at is None:
        if time.monotonic() > deadline:
            return
        time.sleep(_LOOK / 10)
    if not task.aborted:
        raise task.not_aborted()
