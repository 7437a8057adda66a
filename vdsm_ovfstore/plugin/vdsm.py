# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What VDSM knows, and what it does for us.

The one place where its objects are touched. What is asked here comes from its
memory; none of it waits for storage, but for hold() and create_volume(),
which do what VDSM's own tasks do, in a thread of ours.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterable, Iterator
from typing import Any, Callable, NamedTuple, Optional

from vdsm_ovfstore import errors

# As the engine makes them, CreateOvfVolumeForStorageDomainCommand.java:64.
_RAW = 5
_SPARSE = 2
_DESCRIPTION = '{"DiskAlias":"OVF_STORE","DiskDescription":"OVF_STORE"}'
_BLANK = "00000000-0000-0000-0000-000000000000"

# Between two looks at a task, in seconds; and before it is cleared: what VDSM
# calls finished is written down a moment later, and a task that is cleared
# before that comes back with the next SPM.
_LOOK = 0.1
_SETTLE = 0.3

_FINISHED = ("finished", "aborted", "cleaned")


class Pool(NamedTuple):
    """
    The storage pool that this host is connected with.

    host: our number in it; path: where its domains are linked.
    """

    id: str
    path: str
    spm: bool
    host: int


class Domain(NamedTuple):
    """
    A domain of the pool, as its monitor sees it.

    valid: the monitor looked, and all was well; joined: it has our host id,
    so that leases can be used.
    """

    valid: bool
    joined: bool


class Vdsm:
    """
    Arguments:
        client_interface: gives VDSM's clientIF, which is made late.
    """

    def __init__(self, client_interface: Callable[[], Any]) -> None:
        self._client_interface = client_interface

    @property
    def _irs(self) -> Any:
        return self._client_interface().irs

    @property
    def _hsm(self) -> Any:
        return self._irs._obj

    def ready(self) -> bool:
        """False while vdsmd starts and recovers: it refuses all verbs."""
        return bool(self._client_interface().ready)

    def pool(self) -> Optional[Pool]:
        """None when this host is connected with none."""
        from vdsm.storage import sp

        pool = self._hsm._pool
        if not pool.is_connected():
            return None
        spm = pool.spmRole == sp.SPM_ACQUIRED
        return Pool(pool.spUUID, pool.poolPath, spm, pool.id)

    def domains(self) -> dict[str, Domain]:
        """The domains of the pool that are active on this host, by id."""
        monitor = self._hsm.domainMonitor
        mine = set(monitor.poolDomains)
        return {
            domain: Domain(
                bool(status.actual and status.valid), bool(status.hasHostId)
            )
            for domain, status in monitor.getDomainsStatus()
            if domain in mine
        }

    def domain_path(self, pool: str, domain: str) -> Optional[str]:
        """
        The directory of a domain of the connected pool; None if there is
        none. The link that VDSM made for it is on the root file system.
        """
        connected = self.pool()
        if connected is None or connected.id != pool:
            return None
        try:
            link = os.readlink(os.path.join(connected.path, domain))
        except OSError:
            return None
        return os.path.join(connected.path, link)

    @contextlib.contextmanager
    def hold(
        self,
        domain: str,
        images: Iterable[str],
        timeout: float,
        check: Callable[[], None],
    ) -> Iterator[None]:
        """
        VDSM's own locks on images, as its jobs take them: the domain shared,
        then each image, in the order of their names.

        check raises when nobody wants them any more. Raises errors.LeaseBusy
        after timeout seconds, VdsmRefused.
        """
        from vdsm.storage import constants as sc
        from vdsm.storage import resourceManager as rm

        wanted = [(sc.STORAGE, domain, rm.SHARED)]
        space = rm.getNamespace(sc.IMAGE_NAMESPACE, domain)
        wanted += [(space, i, rm.EXCLUSIVE) for i in sorted(set(images))]
        started = time.monotonic()

        def waits(owner: str) -> None:
            check()
            waited = time.monotonic() - started
            if waited >= timeout:
                raise errors.LeaseBusy(
                    domain=domain, owner=owner, waited=waited
                )

        with contextlib.ExitStack() as stack:
            for lock in wanted:
                held = self._acquire(lock, waits)
                stack.callback(held.release)
            yield

    def _acquire(
        self, lock: tuple[str, str, str], waits: Callable[[str], None]
    ) -> Any:
        from vdsm.storage import resourceManager as rm

        namespace, name, mode = lock
        while True:
            try:
                # In whole seconds; one after which we look, and ask again.
                return rm.acquireResource(namespace, name, mode, 1)
            except rm.RequestTimedOutError:
                waits(f"a task of VDSM, which has {namespace}.{name}")
            except Exception as e:
                # Among others: a domain that VDSM has not used yet.
                raise errors.VdsmRefused(
                    what=f"lock {namespace}.{name}",
                    reason=str(e) or type(e).__name__,
                ) from None

    def create_volume(
        self, domain: str, size: int, check: Callable[[], None]
    ) -> str:
        """
        Make an OVF_STORE volume, as the engine does; returns its id.

        check raises when nobody wants it any more: the task is stopped then,
        and VDSM takes back what it did. Raises errors.VdsmRefused, NotSpm.
        """
        pool = self.pool()
        if pool is None or not pool.spm:
            raise errors.NotSpm(pool=pool.id if pool else "none")
        image, volume = str(uuid.uuid4()), str(uuid.uuid4())
        answer = self._irs.createVolume(
            domain,
            pool.id,
            image,
            str(size),
            _RAW,
            _SPARSE,
            "OVFS",
            volume,
            _DESCRIPTION,
            _BLANK,
            _BLANK,
        )
        self._finish(_accepted(answer)["uuid"], check)
        return volume

    def begun(self, task: str) -> Begun:
        """
        A task that VDSM has just made for us.

        Raises errors.VdsmRefused: it knows of none.
        """
        try:
            found = self._hsm.taskMng._getTask(task)
        except Exception as e:
            # Its role as SPM ended in this instant.
            raise errors.VdsmRefused(
                what=f"tell of task {task}", reason=str(e) or type(e).__name__
            ) from None
        return Begun(found, self._clear)

    def _clear(self, task: str) -> None:
        """Forget a task that has ended."""
        time.sleep(_SETTLE)
        self._irs.clearTask(task)

    def _finish(self, task: str, check: Callable[[], None]) -> None:
        """Wait for a task, then clear it."""
        try:
            status = self._wait(task, check)
        except BaseException:
            self._irs.stopTask(task)
            # Without the SPM there is no such task any more.
            with contextlib.suppress(errors.Error):
                self._wait(task, lambda: None)
            raise
        finally:
            self._clear(task)
        if status["taskResult"] != "success":
            raise _refused(status["code"], status["message"])

    def _wait(self, task: str, check: Callable[[], None]) -> Any:
        while True:
            status = _accepted(self._irs.getTaskStatus(task))["taskStatus"]
            if status["taskState"] in _FINISHED:
                return status
            check()
            time.sleep(_LOOK)


class Begun:
    """
    A task of VDSM that was begun for us.

    The task itself, and not its name: VDSM forgets those of an SPM when that
    role ends, while they still run.

    Arguments:
        clear: makes VDSM forget the one of this id.
    """

    def __init__(self, task: Any, clear: Callable[[str], None]) -> None:
        self._task = task
        self._clear = clear
        self.id = str(task.id)

    def has_ended(self, timeout: float = 0) -> bool:
        """Whether it has ended by now, or within so many seconds."""
        return bool(self._task.wait(timeout))

    def failure(self) -> Optional[dict[str, Any]]:
        """VDSM's answer about one that failed; None if it did not."""
        found = self._task.deprecated_getStatus()
        if found["taskResult"] == "success":
            return None
        known = {"code": found["code"] or 100, "message": found["message"]}
        return {"status": known}

    def clear(self) -> None:
        """Let VDSM forget it, once it has ended."""
        self._clear(self.id)


def _accepted(answer: Any) -> Any:
    """Raises errors.VdsmRefused unless VDSM did what it was asked for."""
    status = answer["status"]
    if status["code"] == errors.NotSpm.code:
        raise errors.NotSpm(pool="of this domain")
    if status["code"]:
        raise _refused(status["code"], status["message"])
    return answer


def _refused(code: Any, message: Any) -> errors.VdsmRefused:
    return errors.VdsmRefused(
        what="create a volume", reason=f"error {code}: {message}"
    )
