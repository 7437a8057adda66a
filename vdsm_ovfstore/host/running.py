# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The parts of a daemon: put together, started and stopped in order."""

from __future__ import annotations

import logging
import ssl
import time
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.service import Service
from vdsm_ovfstore.host import tls
from vdsm_ovfstore.host.app import App
from vdsm_ovfstore.host.config import Config
from vdsm_ovfstore.host.domains import FoundDomains
from vdsm_ovfstore.host.lockspaces import Lockspaces
from vdsm_ovfstore.host.scan import Scanner
from vdsm_ovfstore.host.server import Server

log = logging.getLogger("ovfstore.host")

# Beside the socket, and named after it: the lock of the socket is that of the
# file, too, and another daemon may have its socket in the same directory.
STATE = ".lockspaces.json"

# Seconds at a stop, after the service has ended: for answers on their way,
# and for lockspaces; sanlock takes a second for one.
_LAST_ANSWERS = 2.0
_LEAVING = 15.0


class Running:
    """
    A daemon's parts, from a configuration.

    Raises errors.CertificateInvalid, AddressUnavailable, ConfigInvalid;
    nothing of it runs then, or is left.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        context = None
        if config.tls.enable and config.host.address:
            context = tls.server_context(config.tls.pki)
        self._lockspaces = Lockspaces(
            config.sanlock.host_id if config.sanlock.join else 0,
            config.sanlock.io_timeout,
            config.local.socket + STATE,
        )
        self._domains = FoundDomains(
            Scanner(
                config.storage.domains,
                config.storage.allow_buffered_io,
                config.log_level,
            ),
            self._lockspaces,
            config.storage.scan_interval,
        )
        self._service = Service(self._domains, config.settings())
        self._servers: list[Server] = []
        self.addresses: list[str] = []
        """Where it listens, as clients take it: a URL, a path."""
        try:
            self._listen(context)
        except BaseException:
            for server in self._servers:
                server.stop()
            self._service.stop(0)
            raise

    def _listen(self, context: Optional[ssl.SSLContext]) -> None:
        app, config = App(self._service), self._config
        limits = config.server_limits()
        if config.host.address:
            where = (config.host.address, config.host.port)
            self._servers.append(Server(app, where, context, limits))
            port = self._servers[0].port
            self.addresses.append(_url(where[0], port, context))
        group = config.local.group or None
        local = Server(app, config.local.socket, limits=limits, group=group)
        self._servers.append(local)
        self.addresses.append(config.local.socket)

    def start(self) -> None:
        """
        Begin to look for domains, and serve.

        Raises errors.ConfigInvalid: no state can be kept.
        """
        self._lockspaces.start()
        self._domains.start()
        for server in self._servers:
            server.start()

    def status(self) -> dict[str, Any]:
        """As the service tells it; hangs if the service does."""
        return self._service.status()

    def reload(self) -> None:
        """Look for domains, take new certificates; old ones stay if bad."""
        self._domains.rescan()
        if not self._config.tls.enable or not self._config.host.address:
            return
        try:
            context = tls.server_context(self._config.tls.pki)
        except errors.CertificateInvalid as e:
            log.error("RELOAD error=%s", e)
            return
        self._servers[0].reload_tls(context)
        log.info("RELOADED pki=%s", self._config.tls.pki)

    def stop(self, grace: float) -> None:
        """
        No new work; writers have `grace` seconds, then they are ended.

        What was asked meanwhile is refused in words: the servers go last.
        """
        started = time.monotonic()
        self._service.stop(grace)
        for server in self._servers:
            server.stop(_LAST_ANSWERS)
        self._domains.stop()
        self._lockspaces.stop(_LEAVING)
        log.info("ENDED seconds=%.1f", time.monotonic() - started)


def _url(address: str, port: int, context: object) -> str:
    host = f"[{address}]" if ":" in address else address
    return f"{'https' if context else 'http'}://{host}:{port}"
