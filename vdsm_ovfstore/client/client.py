# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A host of OVF stores, from outside: its verbs, and its streams.

    with Client("/run/ovfstored/socket") as host:
        job = host.create(domain)
        host.wait_job(job)
        host.upload(domain, "archive.tar")

Results are the documents of schema/verbs.json; their types stand in
documents.py. Every error is one of errors.Error.
"""

from __future__ import annotations

import contextlib
import os
import time
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Optional,
    Union,
    cast,
)

from vdsm_ovfstore import errors
from vdsm_ovfstore.client import address as addresses
from vdsm_ovfstore.client import failure, targets
from vdsm_ovfstore.client.downloads import Download, DownloadResult
from vdsm_ovfstore.client.pool import Pool
from vdsm_ovfstore.client.sources import Data, open_source
from vdsm_ovfstore.client.told import told
from vdsm_ovfstore.client.transfer import Patience, Progress, Ticket, silent
from vdsm_ovfstore.client.uploads import upload
from vdsm_ovfstore.client.verbs import Generation, Verbs

if TYPE_CHECKING:
    import ssl

    from vdsm_ovfstore.client import documents

# Seconds. A host takes at most 60 for a verb that looks at a store; what
# takes longer is a job.
TIMEOUT = 30.0
TOTAL = 90.0


class Client(Verbs):
    """
    A host of OVF stores. May be used by several threads at once.

    Arguments:
        address: path of a unix socket, https://HOST:PORT, or
            http://HOST:PORT where HOST is this one (127.0.0.1, [::1]).
        ca: file of the CAs that are trusted; those of the system by default.
        cert, key: files, who we are; the key may stand in cert.
        timeout: seconds for connecting, and that may pass in a stream
            without a byte moving or news of what the host is doing.
        total: seconds for the call of a verb, with its repetitions. The
            resolver may take longer than that to say that a name is not
            known.

    Nothing is connected before the first call. Every method may raise the
    host's error and errors.HostUnreachable. Calls that only look (ping,
    list_domains, get_...) are sent again where a kept connection broke, and
    for as long as `total` allows when the host is busy; nothing else ever
    is sent twice: what happened to the first call is not known.

    Raises errors.UsageError for an address that is none, and a key without
    a certificate.
    """

    def __init__(
        self,
        address: Union[str, os.PathLike[str]],
        ca: Optional[str] = None,
        cert: Optional[str] = None,
        key: Optional[str] = None,
        timeout: float = TIMEOUT,
        total: float = TOTAL,
    ) -> None:
        self.address = addresses.parse(address)
        if key is not None and cert is None:
            raise errors.UsageError(reason="A key needs a certificate")
        self._files = (ca, cert, key)
        self._timeout = timeout
        pool = Pool(self.address, self._make_tls, cert, timeout)
        super().__init__(pool, total)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that are kept."""
        self._pool.close()

    def _make_tls(self) -> ssl.SSLContext:
        from vdsm_ovfstore.client.trust import context

        return context(*self._files)

    # -- several calls for one ------------------------------------------------

    def all_vms(
        self,
        domain: str,
        generation: Optional[Generation] = None,
        pool: Optional[str] = None,
    ) -> documents.Vms:
        """As list_vms, but all of them; newest generation if None."""
        page = self.list_vms(domain, generation, pool=pool)
        seen = _name(page["generation"])
        self._all(
            page,
            "entities",
            page["total"],
            lambda first: self.list_vms(domain, seen, first, pool=pool),
        )
        return page

    def whole_diff(
        self,
        domain: str,
        old: Optional[Generation] = None,
        new: Optional[Generation] = None,
        pool: Optional[str] = None,
    ) -> documents.Diff:
        """As diff, with all changes."""
        page = self.diff(domain, old, new, pool=pool)
        seen = _name(page["old"]), _name(page["new"])
        self._all(
            page,
            "changes",
            page["removed"] + page["added"] + page["changed"],
            lambda first: self.diff(domain, *seen, first, pool=pool),
        )
        return page

    def _all(
        self, page: Any, name: str, total: int, ask: Callable[[int], Any]
    ) -> None:
        """Complete a page with those that follow."""
        found = self._items(page, name)
        while len(found) < total:
            more = self._items(ask(len(found)), name)
            if not more:
                break
            found += more
        page[name], page["first"] = found, 0

    def wait_job(
        self,
        job: str,
        timeout: Optional[float] = None,
        progress: Progress = silent,
    ) -> dict[str, Any]:
        """
        Wait for the end of a job, and return its result: by the verb, one
        of documents.Created, Checked, Repaired.

        timeout: seconds; none by default: a host ends its jobs by itself.
        Then errors.HostBusy is raised, and the job goes on; as it does when
        this is interrupted (see abort_job). progress gets per cent.

        Raises the error the job has failed with; errors.Aborted, JobNotFound.
        """
        end = None if timeout is None else time.monotonic() + timeout
        patience = Patience(self._timeout)
        while True:
            try:
                seen = self._find_job(job)
            except (errors.HostUnreachable, errors.HostBusy) as e:
                if patience.is_over or not failure.may_pass(e):
                    raise
            else:
                patience.renew()
                if seen.get("status") in ("done", "failed", "aborted"):
                    return self._job_result(seen)
                step = str(seen.get("step") or seen.get("status"))
                percent = seen.get("progress")
                done = percent if isinstance(percent, (int, float)) else 0
                progress(step, int(done), 100)
            if end is not None and time.monotonic() >= end:
                raise errors.HostBusy(
                    reason=f"job {job} has not ended after {timeout:g} "
                    "seconds",
                    retry_after=1,
                )
            time.sleep(patience.pause())

    # -- streams --------------------------------------------------------------

    def send(
        self,
        ticket: Ticket,
        source: Data,
        size: Optional[int] = None,
        sha256: Optional[str] = None,
        progress: Progress = silent,
    ) -> documents.Uploaded:
        """Send an archive to the transfer that begin_upload gave."""
        with open_source(source, size, sha256) as opened:
            result = upload(ticket, opened, progress)
        return cast("documents.Uploaded", result)

    def upload(
        self,
        domain: str,
        source: Data,
        size: Optional[int] = None,
        sha256: Optional[str] = None,
        timeout: float = 60,
        progress: Progress = silent,
        pool: Optional[str] = None,
        force: bool = False,
    ) -> documents.Uploaded:
        """
        Send an archive; returns when it is the newest generation.

        source: bytes, a path, a file object, or an iterable of bytes.
        size: in bytes; needed where the source does not tell it.
        sha256: of the archive, if it is known: another one is refused.
        timeout: seconds to wait for the leases.
        force: see begin_upload.

        Never repeated by itself, for a commit may have happened. The caller
        may: content that is the newest generation already changes nothing.
        If the connection breaks after all was sent, the outcome is asked
        for; the host goes on without us, also when this is interrupted.

        Raises errors.SourceUnreadable; the transfer is aborted then.
        """
        with open_source(source, size, sha256) as opened:
            ticket = self.begin_upload(
                domain, opened.size, opened.sha256, timeout, pool, force
            )
            result = upload(ticket, opened, progress)
        return cast("documents.Uploaded", result)

    def open_download(
        self,
        domain: str,
        generation: Optional[Generation] = None,
        vm: Optional[str] = None,
        name: Optional[str] = None,
        progress: Progress = silent,
        pool: Optional[str] = None,
    ) -> Download:
        """
        The pieces of an archive or OVF, to be piped on; a context manager.

        Raises errors.Damaged at the end when it is not what the host
        announced.
        """

        def ask(pinned: Optional[Generation]) -> Ticket:
            return self.begin_download(domain, pinned, vm, name, pool)

        return Download(ask(generation), ask, progress)

    def download(
        self,
        domain: str,
        target: targets.Target = None,
        generation: Optional[Generation] = None,
        vm: Optional[str] = None,
        name: Optional[str] = None,
        progress: Progress = silent,
        pool: Optional[str] = None,
    ) -> DownloadResult:
        """
        Get an archive, or one OVF, verified.

        target: a path, whose file appears when all of it is there and
        right; a file object, which may have got bytes when errors.Damaged
        is raised; None for the content itself.

        Raises errors.TargetRefused, Damaged.
        """
        path: Optional[str] = None
        pieces: list[bytes] = []
        with contextlib.ExitStack() as stack:
            write: Callable[[bytes], None] = pieces.append
            if target is not None and hasattr(target, "write"):
                write = stack.enter_context(targets.stream(target))
            elif target is not None:
                path = os.path.abspath(cast("str", target))
                write = stack.enter_context(targets.file_behind(path))
            download = stack.enter_context(
                self.open_download(
                    domain, generation, vm, name, progress, pool
                )
            )
            for data in download:
                write(data)
        return DownloadResult(
            download.size,
            download.sha256,
            download.generation,
            download.entity,
            path,
            b"".join(pieces) if target is None else None,
        )

    # -- what came ------------------------------------------------------------

    def _find_job(self, job: str) -> dict[str, Any]:
        for seen in cast("list[Any]", self.get_jobs([job])):
            if isinstance(seen, dict) and seen.get("jobID") == job:
                return seen
        raise errors.JobNotFound(job=job)

    def _job_result(self, seen: dict[str, Any]) -> dict[str, Any]:
        if isinstance(seen.get("error"), dict):
            raise told(seen["error"])
        if seen.get("status") == "aborted":
            raise errors.Aborted(what=f"job {seen.get('jobID')}")
        result = seen.get("result")
        if not isinstance(result, dict):
            raise failure.bad_answer(self.address, "a job without a result")
        return result


def _name(generation: documents.Generation) -> str:
    """So that what is written meanwhile is another one."""
    return f"{generation['number']}:{generation['sha256']}"
