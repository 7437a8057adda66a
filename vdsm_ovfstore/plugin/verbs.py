# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The verbs as VDSM's clients call them: OvfStore.getInfo beside
StorageDomain.getInfo.

VDSM has eight threads for all of its verbs. Ours that look at storage wait
for a process, a few seconds where storage is slow; so only few of them at a
time, and who is one too many is told to come again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Callable, Protocol

from vdsm_ovfstore import errors
from vdsm_ovfstore.plugin.jobs import status

log = logging.getLogger("ovfstore.plugin")

_RETRY_AFTER = 2  # seconds; a look takes some tenths of one

# Those that answer from memory.
_AT_ONCE = frozenset(
    "ping list create verify repair getTransfer getJobs abort".split()
)

Call = Callable[[Any, dict[str, Any]], dict[str, Any]]


class Service(Protocol):
    def call(self, verb: str, params: Any) -> dict[str, Any]: ...


class Verbs:
    """
    What VDSM's Bridge calls.

    threads: of VDSM's, that may wait in our verbs.
    """

    def __init__(self, service: Service, threads: int) -> None:
        self._service = service
        self._free = threading.BoundedSemaphore(threads)

    def command_info(
        self, namespace: str, names: Mapping[str, Any]
    ) -> dict[str, dict[str, Any]]:
        """What is added to Bridge.command_info."""
        return {
            f"{namespace}_{name}": {"call": self.caller(name), "ret": "result"}
            for name in names
        }

    def caller(self, verb: str) -> Call:
        """
        A function that does the verb.

        Given the arguments as the client gave them: Bridge would leave out
        what it does not know, and put the rest in the wrong places.
        """

        def call(api: Any, params: dict[str, Any]) -> dict[str, Any]:
            return self.answer(verb, params)

        return call

    def answer(self, verb: str, params: dict[str, Any]) -> dict[str, Any]:
        """In the shape of VDSM's answers; raises nothing."""
        try:
            with self._thread(verb):
                result = self._service.call(verb, params)
        except errors.Error as e:
            log.info("REFUSED verb=%s code=%d error=%s", verb, e.code, e)
            return status(e)
        except Exception as e:
            log.exception("FAILED verb=%s", verb)
            kind = type(e).__name__
            return status(
                errors.Unexpected(kind=kind, reason="vdsm.log tells more")
            )
        return {"status": {"code": 0, "message": "Done"}, "result": result}

    @contextmanager
    def _thread(self, verb: str) -> Iterator[None]:
        if verb in _AT_ONCE:
            yield
            return
        if not self._free.acquire(blocking=False):
            raise errors.HostBusy(
                reason="others read stores through VDSM",
                retry_after=_RETRY_AFTER,
            )
        try:
            yield
        finally:
            self._free.release()
