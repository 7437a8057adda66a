# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The verbs of a host, one method each.

Results are the documents of schema/verbs.json; their types stand in
documents.py. The names of parameters: storagedomainID is domain,
storagepoolID is pool, vmID is vm, jobID is job, transferID is transfer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Optional, Union, cast

from vdsm_ovfstore.client import failure
from vdsm_ovfstore.client.calls import Caller
from vdsm_ovfstore.client.pool import Pool
from vdsm_ovfstore.client.transfer import Ticket

if TYPE_CHECKING:
    from vdsm_ovfstore.client import documents

# A number, or "NUMBER:DIGEST" with the first digits of a SHA-256.
Generation = Union[int, str]


class Verbs:
    """Every method may raise the host's error, errors.HostUnreachable."""

    def __init__(self, pool: Pool, total: float) -> None:
        self._pool = pool
        self._caller = Caller(pool, total)

    # -- looking --------------------------------------------------------------

    def ping(self) -> documents.Ping:
        """Who answers: version of the package, of the verbs, its name."""
        return cast("documents.Ping", self._caller.call("ping", {}))

    def list_domains(self) -> list[documents.Domain]:
        """The storage domains that the host serves."""
        result = self._caller.call("list", {})
        return cast("list[documents.Domain]", self._items(result, "domains"))

    def get_info(
        self, domain: str, pool: Optional[str] = None
    ) -> documents.Status:
        """The state of a store and of its copies."""
        result = self._domain_verb("getInfo", domain, pool)
        return cast("documents.Status", result)

    def get_history(
        self, domain: str, pool: Optional[str] = None
    ) -> documents.History:
        """The generations of a store, newest first."""
        result = self._domain_verb("getHistory", domain, pool)
        return cast("documents.History", result)

    def list_vms(
        self,
        domain: str,
        generation: Optional[Generation] = None,
        first: int = 0,
        count: int = 1000,
        pool: Optional[str] = None,
    ) -> documents.Vms:
        """A page of the VMs and templates of a generation; newest if None."""
        result = self._domain_verb(
            "listVms",
            domain,
            pool,
            generation=generation,
            first=first,
            count=count,
        )
        return cast("documents.Vms", result)

    def get_vm(
        self,
        domain: str,
        vm: Optional[str] = None,
        name: Optional[str] = None,
        generation: Optional[Generation] = None,
        pool: Optional[str] = None,
    ) -> documents.Vm:
        """One VM or template, by id or by name, with its OVF."""
        result = self._domain_verb(
            "getVm", domain, pool, vmID=vm, name=name, generation=generation
        )
        return cast("documents.Vm", result)

    def diff(
        self,
        domain: str,
        old: Optional[Generation] = None,
        new: Optional[Generation] = None,
        first: int = 0,
        count: int = 1000,
        pool: Optional[str] = None,
    ) -> documents.Diff:
        """
        A page of what is different between two generations.

        The newest if new is None; the one before that if old is None.
        """
        result = self._domain_verb(
            "diff", domain, pool, old=old, new=new, first=first, count=count
        )
        return cast("documents.Diff", result)

    def get_transfer(self, transfer: str) -> documents.Transfer:
        """How far an upload or download is."""
        result = self._caller.call("getTransfer", {"transferID": transfer})
        return cast("documents.Transfer", result)

    def get_jobs(
        self, jobs: Optional[Sequence[str]] = None
    ) -> list[documents.Job]:
        """How far jobs are; all jobs of the host by default."""
        wanted = None if jobs is None else list(jobs)
        result = self._caller.call("getJobs", {"jobIDs": wanted})
        return cast("list[documents.Job]", self._items(result, "jobs"))

    # -- jobs -----------------------------------------------------------------

    def create(
        self,
        domain: str,
        copies: int = 2,
        size: int = 128 * 1024**2,
        timeout: float = 60,
        pool: Optional[str] = None,
    ) -> str:
        """
        Make volumes until the store has so many copies; returns the job.

        size: bytes of a new copy; timeout: seconds to wait for the leases.
        Never sent twice; but it may be called again: copies that are there
        count.
        """
        params = {"copies": copies, "size": size, "timeout": timeout}
        return self._job("create", domain, pool, **params)

    def verify(
        self, domain: str, quick: bool = False, pool: Optional[str] = None
    ) -> str:
        """
        Read and check what is on the storage; returns the job.

        quick: only the records, the indexes and the heads. Never sent
        twice: each is a full reading of the store.
        """
        return self._job("verify", domain, pool, quick=quick)

    def repair(
        self,
        domain: str,
        timeout: float = 60,
        pool: Optional[str] = None,
        collect: bool = False,
    ) -> str:
        """
        Mend what can be mended; returns the job.

        timeout: seconds to wait for the leases. Never sent twice; but it
        may be called again: what is sound is left alone.
        collect: remove the logs that nobody has used for a month.
        """
        how = {"timeout": timeout, "collectOrphans": collect or None}
        return self._job("repair", domain, pool, **how)

    def restore(
        self,
        domain: str,
        generation: Generation,
        timeout: float = 60,
        pool: Optional[str] = None,
    ) -> str:
        """
        Make an older generation the newest; returns the job.

        timeout: seconds to wait for the leases. Never sent twice; but it
        may be called again: what is the newest already gets no new number.
        """
        how = {"generation": generation, "timeout": timeout}
        return self._job("restore", domain, pool, **how)

    def pin(
        self,
        domain: str,
        generation: Generation,
        timeout: float = 60,
        pool: Optional[str] = None,
    ) -> str:
        """Keep a generation; returns the job. As restore."""
        how = {"generation": generation, "timeout": timeout}
        return self._job("pin", domain, pool, **how)

    def unpin(
        self,
        domain: str,
        generation: Generation,
        timeout: float = 60,
        pool: Optional[str] = None,
    ) -> str:
        """Let a generation go in its time; returns the job. As restore."""
        how = {"generation": generation, "timeout": timeout}
        return self._job("unpin", domain, pool, **how)

    def abort_job(self, job: str) -> documents.Aborted:
        """End a job early. Raises errors.AbortRefused once it writes."""
        result = self._caller.call("abort", {"jobID": job})
        return cast("documents.Aborted", result)

    def abort_transfer(self, transfer: str) -> documents.Aborted:
        """End a transfer early. Raises errors.AbortRefused once it writes."""
        result = self._caller.call("abort", {"transferID": transfer})
        return cast("documents.Aborted", result)

    # -- transfers ------------------------------------------------------------

    def begin_upload(
        self,
        domain: str,
        size: int,
        sha256: Optional[str] = None,
        timeout: float = 60,
        pool: Optional[str] = None,
        force: bool = False,
    ) -> Ticket:
        """
        Ask for an upload of so many bytes; send() is the rest.

        For who wants to know the transfer (ticket.id) before, to abort it.
        force: take it, though it lacks many VMs, is older than the newest
        generation, or of another domain (errors.UploadDoubtful).
        """
        result = self._domain_verb(
            "upload",
            domain,
            pool,
            size=size,
            sha256=sha256,
            timeout=timeout,
            # A host of an earlier version does not know it.
            force=force or None,
        )
        return Ticket(self._pool, self._caller, result)

    def begin_download(
        self,
        domain: str,
        generation: Optional[Generation] = None,
        vm: Optional[str] = None,
        name: Optional[str] = None,
        pool: Optional[str] = None,
    ) -> Ticket:
        """Ask for a download, of a whole archive or of one OVF."""
        result = self._domain_verb(
            "download", domain, pool, generation=generation, vmID=vm, name=name
        )
        return Ticket(self._pool, self._caller, result)

    # -- what came ------------------------------------------------------------

    def _domain_verb(
        self, verb: str, domain: str, pool: Optional[str], **params: Any
    ) -> dict[str, Any]:
        params = {"storagedomainID": domain, "storagepoolID": pool, **params}
        return self._caller.call(verb, params)

    def _items(self, result: Any, name: str) -> list[Any]:
        items = result.get(name)
        if not isinstance(items, list):
            raise failure.bad_answer(self._pool.address, f"no {name}")
        return items

    def _job(
        self, verb: str, domain: str, pool: Optional[str], **params: Any
    ) -> str:
        """The job that a verb starts."""
        job = self._domain_verb(verb, domain, pool, **params).get("jobID")
        if not isinstance(job, str):
            raise failure.bad_answer(self._pool.address, "a job without an id")
        return job
