# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Processes that are up before they are needed.

The start of an interpreter takes 60 to 100 ms, and an update needs three:
more than all the rest for a small archive. A spare has done nothing yet but
its imports, and is used once, as any other.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from typing import Callable, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.store.process import Process

log = logging.getLogger("ovfstore.api")

# New ones are started when nobody works, so as not to take the processor
# from those they are to help; but in any case after that, since some work
# goes on for minutes. In seconds.
_LATEST = 5.0
_LOOK = 0.05


class Spares:
    """
    Keeps processes ready.

    Arguments:
        wanted: how many, by module; {} for none.
        is_busy: tells if processes that were taken are at work.
        start: starts one.
    """

    def __init__(
        self,
        wanted: Mapping[str, int],
        is_busy: Callable[[], bool],
        start: Callable[[str], Process] = Process,
    ) -> None:
        self._start_one = start
        self._wanted = wanted
        self._is_busy = is_busy
        self._ready: dict[str, list[Process]] = {m: [] for m in wanted}
        self._changed = threading.Condition()
        self._stopped = False
        if wanted:
            threading.Thread(
                target=self._main, name="spares", daemon=True
            ).start()

    def take(self, module: str) -> Process:
        """One that is ready, else a new one. Raises errors.WorkerFailed."""
        with self._changed:
            process = self._pop(module)
            self._changed.notify()
        return process or self._start_one(module)

    def close(self) -> None:
        with self._changed:
            self._stopped = True
            left = [p for ready in self._ready.values() for p in ready]
            self._ready = {}
            self._changed.notify()
        # Told all before one is waited for.
        for process in left:
            process.cancel()
        for process in left:
            process.discard()

    def _pop(self, module: str) -> Optional[Process]:
        ready = self._ready.get(module, [])
        while ready:
            process = ready.pop(0)
            if process.is_alive():
                return process
            process.discard()
        return None

    def _main(self) -> None:
        while True:
            with self._changed:
                while not self._stopped and not self._missing():
                    self._changed.wait()
            self._wait_for_quiet()
            with self._changed:
                if self._stopped:
                    return
                missing = self._missing()
            try:
                for module in missing:
                    self._start(module)
            except errors.WorkerFailed as e:
                # Who needs one will be told so.
                log.warning("SPARE error=%s", e)
                time.sleep(_LATEST)

    def _missing(self) -> list[str]:
        return [
            module
            for module, count in self._wanted.items()
            for _ in range(count - len(self._ready[module]))
        ]

    def _wait_for_quiet(self) -> None:
        latest = time.monotonic() + _LATEST
        while self._is_busy() and time.monotonic() < latest:
            if self._stopped:
                return
            time.sleep(_LOOK)

    def _start(self, module: str) -> None:
        process = self._start_one(module)
        with self._changed:
            if not self._stopped:
                self._ready[module].append(process)
                return
        with contextlib.suppress(errors.Error):
            process.discard()
