# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""A vdsmd for the tests: the stand-in's, with the plugin as installed."""

from __future__ import annotations

import http.client
import threading
import time
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

from tests.store import builders
from vdsm_ovfstore.plugin import http as handlers
from vdsm_ovfstore.plugin.config import Config, Heal, Limits, Local
from vdsm_ovfstore.plugin.core import Plugin
from vdsm_ovfstore.plugin.vdsm import Vdsm
from vdsm_ovfstore.storage.filevolume import FileVolume

POOL = "0b6a4b0e-3f0d-4b07-8f6e-0a3d4a9e51c1"


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Bed:
    """Attributes: hsm, pool: the stand-in's; plugin; domain; volumes."""

    def __init__(self, tmp_path: Path) -> None:
        from vdsm.clientIF import clientIF
        from vdsm.rpc import http as rpc_http
        from vdsm.storage import monitor, sp

        self.domain = builders.make_domain(tmp_path)
        self.volumes = self.domain.volumes()
        links = tmp_path / "data-center" / POOL
        links.mkdir(parents=True)
        (links / self.domain.id).symlink_to(self.domain.path)
        self.cif = clientIF.getInstance()
        self.hsm: Any = self.cif.irs._obj
        self.pool = sp.StoragePool(POOL, str(links))
        self.hsm._pool = self.pool
        self.monitor: Any = self.hsm.domainMonitor
        self.monitor.found[self.domain.id] = monitor.Status()
        self.http: Any = rpc_http
        spool = tmp_path / "spool"
        spool.mkdir()
        self.config = Config(
            heal=Heal(enable=False),
            limits=Limits(spool=str(spool), spool_bytes=64 * builders.MIB),
            local=Local(enable=False),
        )
        self.plugin = Plugin(Vdsm(clientIF.getInstance), self.config)
        self._undo = handlers.install(self.plugin)
        self.server = ThreadingHTTPServer(
            ("127.0.0.1", 0), rpc_http.Server(None, None).handler
        )
        self.server.daemon_threads = True
        threading.Thread(
            target=self.server.serve_forever, args=(0.05,), daemon=True
        ).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._undo()
        self.plugin.stop()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    # -- the engine's

    def headers(self, volume: FileVolume, **more: str) -> dict[str, str]:
        return {
            "Storage-Pool-Id": POOL,
            "Storage-Domain-Id": self.domain.id,
            "Image-Id": volume.image,
            "Volume-Id": volume.id,
            **more,
        }

    def put(self, volume: FileVolume, data: bytes) -> Answer:
        return self.ask("PUT", "/", self.headers(volume), data)

    def get(self, volume: FileVolume, length: int) -> Answer:
        span = f"bytes=0-{length - 1}"
        return self.ask("GET", "/", self.headers(volume, Range=span))

    def ask(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: Optional[bytes] = None,
    ) -> Answer:
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=30
        )
        try:
            connection.request(method, path, body, headers)
            found = connection.getresponse()
            lower = {k.lower(): v for k, v in found.getheaders()}
            # VDSM's 200 has no length: it says "connection: close".
            data = b"" if "task-id" in lower and method == "PUT" else None
            return Answer(
                found.status, lower, found.read() if data is None else data
            )
        finally:
            connection.close()

    # -- verbs

    def call(self, verb: str, **params: Any) -> Any:
        params.setdefault("storagedomainID", self.domain.id)
        return self.plugin.service.call(verb, params)

    def job(self, verb: str, **params: Any) -> Any:
        job = self.call(verb, **params)["jobID"]

        def ended() -> Any:
            (found,) = self.plugin.service.call(
                "getJobs", {"jobIDs": [job]}
            )["jobs"]
            return found if found["status"] in _ENDED else None

        return wait_for(ended)


_ENDED = ("done", "failed", "aborted")


def wait_for(check: Callable[[], Any], seconds: float = 30) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, f"still {found!r}"
        time.sleep(0.02)
