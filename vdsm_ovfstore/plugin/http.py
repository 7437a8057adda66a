# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
VDSM's HTTP handler, with more paths, and with a store behind OVF_STOREs.

    POST, PUT, GET /ovf-store/...    ours, see port.py
    PUT, GET / of an OVF_STORE       the engine's own, see transfers.py
    all else                         VDSM's own code
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable

from vdsm_ovfstore.plugin import answers, carried, port, transfers
from vdsm_ovfstore.plugin.replace import replace

# VDSM's code for "not yet": recovering from a crash, or initializing.
_RECOVERING = 99


def install(plugin: Any) -> Callable[[], None]:
    """Change VDSM's handler; returns what changes it back."""
    from vdsm.rpc import http

    with contextlib.ExitStack() as stack:
        verbs = (*http.HttpDetector.HTTP_VERBS, b"POST /")
        needed = max(map(len, verbs))
        replace(
            stack.callback,
            http,
            "ImageRequestHandler",
            handler_class(http.ImageRequestHandler, plugin),
        )
        replace(stack.callback, http.HttpDetector, "HTTP_VERBS", verbs)
        replace(stack.callback, http.HttpDetector, "REQUIRED_SIZE", needed)
        carried.wrap(stack.callback, replace)
        return stack.pop_all().close
    raise AssertionError("not reached")


def handler_class(base: Any, plugin: Any) -> Any:
    """VDSM's handler, extended."""

    class Handler(base):  # type: ignore[misc]
        def do_POST(self) -> None:
            if not self._is_ours():
                self.send_error(404, "there is nothing at this path")

        def do_PUT(self) -> None:
            if not self._is_ours() and not self._refuse_early():
                transfers.put(self, plugin, super().do_PUT)

        def do_GET(self) -> None:
            if not self._is_ours() and not self._refuse_early():
                transfers.get(self, plugin, super().do_GET)

        def handle_expect_100(self) -> bool:
            # Ours are told to send when it is known that they may.
            if self.path.startswith(port.PREFIX):
                return True
            return bool(super().handle_expect_100())

        def _is_ours(self) -> bool:
            if not self.path.startswith(port.PREFIX):
                return False
            if not self._refuse_early():
                port.serve(self, plugin.app, plugin.config.server_limits())
            return True

        def _refuse_early(self) -> bool:
            """A host that recovers knows no pool, and would give nonsense."""
            if plugin.ready():
                return False
            message = "Recovering from crash or Initializing"
            answer = {"code": _RECOVERING, "message": message}
            answers.fail(self, {"status": answer}, 503)
            return True

    return Handler
