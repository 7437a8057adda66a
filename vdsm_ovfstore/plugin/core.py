# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The parts of the plugin, put together."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Iterable
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.jobs import FAILED, Job
from vdsm_ovfstore.api.service import Service
from vdsm_ovfstore.api.stock import Stock
from vdsm_ovfstore.host.app import App
from vdsm_ovfstore.host.server import Server
from vdsm_ovfstore.plugin.childlog import ChildLog
from vdsm_ovfstore.plugin.config import Config
from vdsm_ovfstore.plugin.domains import VdsmDomains
from vdsm_ovfstore.plugin.jobs import Jobs
from vdsm_ovfstore.plugin.vdsm import Vdsm
from vdsm_ovfstore.plugin.watch import Watch
from vdsm_ovfstore.plugin.writers import Writers

log = logging.getLogger("ovfstore.plugin")

# Stores that are healed at a time: an SPM may have fifty domains.
_HEALING = 2
_LOOK = 0.5  # seconds, at such a job

# Seconds at the end of vdsmd, which systemd gives 10: after the time that
# writers have ([limits] stop), for those that were ended; and for answers on
# their way.
_ENDING = 2.0
_LAST_ANSWERS = 0.5

# Seconds that VDSM waits for our workers before it leaves a domain; and then
# for sanlock, which takes back their leases in the background.
_LEAVING = 2.0
_RELEASING = 0.3


class Plugin:
    """
    One plugin in one vdsmd.

    start() when VDSM serves, stop() when it ends. Attributes: app answers
    what is asked over HTTP, stock takes the engine's own uploads and
    downloads, writers are those whose work ends with the pool, socket is
    where it listens on this machine, or "".
    """

    def __init__(self, vdsm: Vdsm, config: Config) -> None:
        self.vdsm = vdsm
        self.config = config
        self.writers = Writers(lambda d: self._domains.path(d, write=True))
        self._log = ChildLog()
        settings = dataclasses.replace(
            config.settings(), log_fd=self._log.fd
        )
        self._domains = VdsmDomains(vdsm, self.writers, settings)
        self.service = Service(self._domains, settings, Jobs(vdsm))
        self.app = App(self.service)
        self.stock = Stock(self.service.runner, self.service.spool)
        self._watch = Watch(
            vdsm,
            self.writers,
            self.service.tasks,
            self._begin_to_heal if config.heal.enable else None,
            config.heal.pause,
            config.heal.interval,
        )
        self._healing = threading.Semaphore(_HEALING)
        self._server: Optional[Server] = None
        self.socket = ""

    def start(self) -> None:
        """Watch VDSM, and serve the local socket."""
        self._watch.start()
        if not self.config.local.enable:
            return
        try:
            self._server = Server(
                self.app,
                self.config.local.socket,
                limits=self.config.server_limits(),
                group=self.config.local.group or None,
                # The processes of qemu are in VDSM's own group.
                mode=0o660 if self.config.local.group else 0o600,
            )
            self._server.start()
            self.socket = self.config.local.socket
        except errors.Error as e:
            # VDSM's port serves the same.
            log.warning("SOCKET error=%s", e)

    def stop(self) -> None:
        """Returns after all has ended, in a few seconds."""
        self._watch.stop()
        self.service.stop(self.config.limits.stop, _ENDING)
        if self._server is not None:
            self._server.stop(_LAST_ANSWERS)
        self.socket = ""
        self._log.close()

    def leave(self, domains: Iterable[str]) -> None:
        """
        VDSM is about to leave these domains; returns soon.

        It asks sanlock once to leave the lockspace, which refuses while a
        worker of ours has a lease there.
        """
        if self.writers.leave(frozenset(domains), _LEAVING):
            time.sleep(_RELEASING)

    def _begin_to_heal(self, domain: str) -> None:
        threading.Thread(
            target=self._heal,
            args=(domain,),
            name="ovfstore-heal",
            daemon=True,
        ).start()

    def _heal(self, domain: str) -> None:
        try:
            with self._healing:
                # Most domains have a store; one that has none is no failure.
                if self._domains.has_store(domain):
                    self._wait(domain, self.service.heal(domain))
        except errors.Error as e:
            log.info("HEAL domain=%s error=%s", domain, e)
            self._watch.again(domain)
        except Exception:
            log.exception("HEAL domain=%s failed", domain)

    def _wait(self, domain: str, job: Job) -> None:
        while job.ended_at is None:
            time.sleep(_LOOK)
        if job.status == FAILED:
            # As a rule others had the leases; and one that is damaged so
            # that it cannot be healed is no harm to look at again.
            self._watch.again(domain)

    def ready(self) -> bool:
        """False while VDSM starts or recovers."""
        return self.vdsm.ready()

    def state(self) -> dict[str, Any]:
        """What the state file says of it."""
        return {
            "stock_uploads": self.config.stock.uploads,
            "stock_downloads": self.config.stock.downloads,
            "socket": self.socket,
        }
