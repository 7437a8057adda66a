# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The storage domains of a host with VDSM, as the service asks for them.

VDSM says which there are, and where; what they are (type, version, lock) is
read once by an errand. Only the SPM writes, since hosts without the plugin
take no leases: VDSM's own lock is what keeps them out.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.runner import ERRAND
from vdsm_ovfstore.api.settings import Settings
from vdsm_ovfstore.api.task import Task
from vdsm_ovfstore.api.turns import Turns
from vdsm_ovfstore.host.lockspaces import FAILED, READY
from vdsm_ovfstore.plugin.vdsm import Pool, Vdsm
from vdsm_ovfstore.plugin.writers import Writers

log = logging.getLogger("ovfstore.plugin")

# Seconds for a look at one domain: as long as its monitor may take.
_DEADLINE = 30.0

# Seconds that the list of domains waits for one that nobody has looked at.
_PATIENCE = 1.0


class VdsmDomains:
    """Implements api.domains.Domains."""

    def __init__(
        self, vdsm: Vdsm, writers: Writers, settings: Settings
    ) -> None:
        self._vdsm = vdsm
        self._writers = writers
        self._settings = settings
        self._changed = threading.Condition()
        # One of ours at a time waits for VDSM's locks: whoever does keeps
        # others waiting behind him.
        self._turns = Turns()
        self._known: dict[str, dict[str, Any]] = {}  # by path
        self._looking: set[str] = set()

    # -- from memory

    def path(self, domain: str, write: bool = False) -> str:
        """
        The directory of a domain.

        Raises errors.DomainNotServed; and if it is to be written, NotSpm,
        LockspaceMissing.
        """
        pool, path = self._find(domain)
        if write:
            if not pool.spm:
                raise errors.NotSpm(pool=pool.id)
            monitored = self._vdsm.domains().get(domain)
            # LocalFS has no leases, and VDSM's monitor says it has them.
            if monitored is None or not monitored.joined:
                raise errors.LockspaceMissing(
                    domain=domain, reason="VDSM has not joined it yet"
                )
        # Without symbolic links, as all who read the storage name it.
        known = self._known.get(path)
        return known["path"] if known else path

    def check_pool(self, domain: str, pool: str) -> None:
        """Raises errors.DomainNotServed, PoolMismatch."""
        found, _ = self._find(domain)
        if found.id != pool:
            raise errors.PoolMismatch(
                domain=domain, found=found.id, asked=pool
            )

    def problems(self) -> list[str]:
        """VDSM tells of domains that are not well."""
        return []

    def _find(self, domain: str) -> tuple[Pool, str]:
        pool = self._vdsm.pool()
        if pool is not None and domain in self._vdsm.domains():
            path = self._vdsm.domain_path(pool.id, domain)
            if path is not None:
                return pool, path
        raise errors.DomainNotServed(domain=domain)

    def _look(self, domain: str, path: str) -> Optional[dict[str, Any]]:
        """What the domain is; None as long as nobody knows."""
        with self._changed:
            if path not in self._known and path not in self._looking:
                self._looking.add(path)
                threading.Thread(
                    target=self._discover,
                    args=(domain, path),
                    name="ovfstore-look",
                    daemon=True,
                ).start()
            # As a rule it takes a fraction of that, once.
            self._changed.wait_for(
                lambda: path not in self._looking, _PATIENCE
            )
            return self._known.get(path)

    def _discover(self, domain: str, path: str) -> None:
        try:
            answer = self._ask({"verb": "discover", "paths": [path]})
            for found in answer["domains"]:
                if found["domain"] == domain:
                    names = "domain path type domain_version lock".split()
                    with self._changed:
                        self._known[path] = {n: found[n] for n in names}
            for problem in answer["problems"]:
                log.warning("LOOK domain=%s %s", domain, problem["message"])
        except errors.Error as e:
            log.warning("LOOK domain=%s error=%s", domain, e)
        finally:
            with self._changed:
                self._looking.discard(path)
                self._changed.notify_all()

    # -- writing

    @contextlib.contextmanager
    def writing(
        self, domain: str, timeout: float, task: Task
    ) -> Iterator[None]:
        """
        VDSM's locks on the images of the store; and whoever takes the pool
        or the domain away ends the task.

        Raises errors.LeaseBusy, NotSpm, DomainNotServed.
        """
        path = self.path(domain, write=True)
        end = time.monotonic() + timeout
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._writers.writing(domain, task))
            stack.enter_context(
                self._turns.turn(domain, timeout, task.check)
            )
            timeout = max(end - time.monotonic(), 0)
            images = self._images(path, task)
            with self._vdsm.hold(domain, images, timeout, task.check):
                # It may have been long.
                self.path(domain, write=True)
                yield

    def has_store(self, domain: str) -> bool:
        """Whether it has an OVF_STORE volume; waits for storage."""
        path = self.path(domain)
        return bool(self._ask({"verb": "volumes", "path": path})["volumes"])

    def _images(self, path: str, task: Task) -> list[str]:
        request = {"verb": "volumes", "path": path}
        return [v["image"] for v in self._ask(request, task)["volumes"]]

    def make_volumes(
        self, domain: str, copies: int, size: int, timeout: float, task: Task
    ) -> Optional[list[str]]:
        """
        VDSM makes the volumes, in tasks of the SPM.

        Not within writing(): its task takes the same locks, and would wait
        for ever behind somebody who waits for ours.
        """
        path = self.path(domain, write=True)
        created: list[str] = []
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._writers.writing(domain, task))
            stack.enter_context(
                self._turns.turn(domain, timeout, task.check)
            )
            have = self._images(path, task)
            while len(have) + len(created) < copies:
                task.check()
                log.info("CREATE domain=%s size=%d", domain, size)
                created.append(
                    self._vdsm.create_volume(domain, size, task.check)
                )
        return created

    def _ask(
        self, request: dict[str, Any], task: Optional[Task] = None
    ) -> dict[str, Any]:
        """An errand. Raises what it met."""
        request = {
            **request,
            "buffered": False,
            "deadline": _DEADLINE,
            "log_level": self._settings.log_level,
        }
        process = self._settings.process(ERRAND).give(request)
        if task is not None:
            task.started(process)
        return process.wait()

    # -- last, since it hides the type of its name

    def list(self) -> list[dict[str, Any]]:
        """Those that are known by now, sorted by path."""
        documents = []
        for domain, status in self._vdsm.domains().items():
            try:
                _, path = self._find(domain)
            except errors.DomainNotServed:
                continue
            known = self._look(domain, path)
            if known is None:
                continue
            problem = "" if status.valid else "its monitor has a problem"
            documents.append(
                {
                    **known,
                    "state": READY if status.valid else FAILED,
                    "problem": problem,
                }
            )
        return sorted(documents, key=lambda d: str(d["path"]))
