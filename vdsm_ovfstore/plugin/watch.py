# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Watching VDSM: who may still work, and what may need healing.

Asked once a second, from VDSM's memory. VDSM tells of some of this by
callbacks, of some not at all, and a callback that is missed would never come
again.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Callable, Optional

from vdsm_ovfstore.api.task import Task
from vdsm_ovfstore.plugin.vdsm import Pool, Vdsm
from vdsm_ovfstore.plugin.writers import Writers

log = logging.getLogger("ovfstore.plugin")

# Seconds: how late a worker ends whose pool is gone. Another host needs far
# longer to become SPM.
_LOOK = 1.0


class Watch:
    """
    Arguments:
        tasks: gives those that are under way, of verbs: readers among them,
            who would keep VDSM from unmounting.
        heal: is called with the id of a domain that this host, being SPM,
            sees well for the first time, or whose interval is over, and does
            not wait. None: nobody heals.
        pause: seconds between two healings of one domain, at least.
        interval: the same, at most.
    """

    def __init__(
        self,
        vdsm: Vdsm,
        writers: Writers,
        tasks: Callable[[], list[Task]],
        heal: Optional[Callable[[str], None]],
        pause: float,
        interval: float,
    ) -> None:
        self._vdsm = vdsm
        self._writers = writers
        self._tasks = tasks
        self._heal = heal
        self._pause = pause
        self._interval = interval
        self._failed: set[str] = set()
        # Domains that were well at the last look, as long as we are SPM; and
        # when they were healed, in time.monotonic().
        self._well: set[str] = set()
        self._healed: dict[str, float] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name="ovfstore-watch", daemon=True
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()

    def again(self, domain: str) -> None:
        """Its healing failed for now; from any thread."""
        self._failed.add(domain)

    def _run(self) -> None:
        while not self._stopping.wait(_LOOK):
            try:
                if self._vdsm.ready():
                    self.look()
            except Exception:
                log.exception("WATCH failed")

    def look(self) -> None:
        """One look."""
        pool = self._vdsm.pool()
        spm = pool if pool is not None and pool.spm else None
        domains = self._vdsm.domains() if pool is not None else {}
        self._writers.end(lambda d: spm is not None and d in domains)
        self._end_tasks(set(domains), spm is not None)
        if spm is None:
            self._well.clear()
            return
        well = {d for d, s in domains.items() if s.valid and s.joined}
        while self._failed:
            self._well.discard(self._failed.pop())
        for domain in sorted(well):
            if domain not in self._well or self._is_due(domain):
                if self._try_to_heal(spm, domain):
                    self._well.add(domain)
                else:
                    self._well.discard(domain)
        self._well &= well

    def _end_tasks(self, domains: set[str], spm: bool) -> None:
        """Those of domains that are gone; writers also without the SPM."""
        for task in self._tasks():
            if task.domain in domains and (spm or not task.changes):
                continue
            if not task.aborted:
                log.warning("END domain=%s %s", task.domain, task.what)
            task.abort(force=True)

    def _is_due(self, domain: str) -> bool:
        last = self._healed.get(domain)
        return last is None or time.monotonic() - last >= self._interval

    def _try_to_heal(self, pool: Pool, domain: str) -> bool:
        """False if it is to be tried again."""
        if self._heal is None:
            return True
        now = time.monotonic()
        last = self._healed.get(domain)
        if last is not None and now - last < self._pause:
            return False
        log.info("HEAL domain=%s pool=%s", domain, pool.id)
        self._healed[domain] = now
        self._heal(domain)
        return True
