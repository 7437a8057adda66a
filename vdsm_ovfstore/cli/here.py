# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""status without a domain: what of this program runs on this machine."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
from collections.abc import Iterator
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.store import Document
from vdsm_ovfstore.cli.way import SOCKETS

# Written by the plugin at each start of vdsmd, plugin/state.py.
STATE = "/run/vdsm-ovfstore/state.json"

# Seconds for a host, which answers from memory; and bytes of its answer.
_PATIENCE = 3.0
_LONGEST = 16 * 1024**2


def run(console: Console) -> int:
    """Ends with 1 when vdsmd runs without the plugin, or a host is silent."""
    plugin, problem = _plugin()
    hosts = [_host(path) for path in SOCKETS if os.path.exists(path)]
    found = {"plugin": plugin, "problem": problem, "hosts": hosts}
    step = _next_step(plugin)
    console.answer(
        {**found, "next_step": step}, lambda: _lines(found, step, console)
    )
    silent = any(host["error"] for host in hosts)
    disabled = plugin is not None and not plugin["enabled"]
    bad = disabled or silent or problem
    return errors.EXIT_ERROR if bad else errors.EXIT_OK


def _plugin() -> tuple[Optional[Document], str]:
    """What the state file says; None if there is none, or none to be read."""
    try:
        with open(STATE, encoding="utf-8") as f:
            found = json.loads(f.read(_LONGEST))
        keys = ("version", "vdsm", "pid", "time", "enabled", "reason")
        plugin = {key: found[key] for key in keys}
        plugin["failed"] = [
            {"name": str(f["name"]), "reason": str(f["reason"])}
            for f in found["failed"]
        ]
        plugin["running"] = os.path.exists(f"/proc/{int(found['pid'])}")
    except FileNotFoundError:
        return None, ""
    except OSError as e:
        return None, f"Cannot read {STATE}: {e.strerror}"
    except (ValueError, KeyError, TypeError):
        return None, f"Cannot read {STATE}: it is damaged"
    return plugin, ""


class _Local(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(self._path)


def _host(path: str) -> Document:
    """What a host tells of itself over its local socket."""
    try:
        with contextlib.closing(_Local(path)) as connection:
            connection.request("GET", "/ovf-store/status")
            answer = connection.getresponse()
            status = json.loads(answer.read(_LONGEST))
            if answer.status != 200:
                raise ValueError(f"HTTP status {answer.status}")
        return {"socket": path, "error": "", "status": status}
    except (OSError, ValueError, http.client.HTTPException) as e:
        reason = getattr(e, "strerror", None) or str(e) or type(e).__name__
        return {"socket": path, "error": reason, "status": None}


def _next_step(plugin: Optional[Document]) -> str:
    if plugin is None or plugin["enabled"]:
        return "ovfstore list DIRECTORY"
    if plugin["failed"]:
        return "update vdsm-ovfstore, then: systemctl restart vdsmd"
    return "see /var/log/vdsm/vdsm.log, then: systemctl restart vdsmd"


def _lines(found: Document, step: str, console: Console) -> Iterator[str]:
    plugin = found["plugin"]
    if found["problem"]:
        yield found["problem"]
    elif plugin is None:
        yield "Plugin in vdsmd: none was ever started here"
    else:
        state = "enabled" if plugin["enabled"] else "disabled"
        if not plugin["running"]:
            state = f"was {state}; vdsmd does not run"
        # A plugin that cannot even be imported knows no versions.
        about = [
            f"vdsm-ovfstore {plugin['version']}" * bool(plugin["version"]),
            f"VDSM {plugin['vdsm']}" * bool(plugin["vdsm"]),
            f"since {plugin['time']}",
        ]
        yield f"Plugin in vdsmd: {state} ({', '.join(filter(None, about))})"
        if plugin["reason"]:
            yield f"  {plugin['reason']}"
        for failure in plugin["failed"]:
            yield f"  {failure['name']} {failure['reason']}"
    for host in found["hosts"]:
        yield ""
        yield f"Host at {host['socket']}: {host['error'] or 'serves'}"
        if host["status"] is not None:
            yield from _served(host["status"], console)
    yield ""
    yield console.next_line(step)


def _served(status: Any, console: Console) -> Iterator[str]:
    with contextlib.suppress(KeyError, TypeError):
        yield (
            f"  version {status['version']}, PID {status['pid']}, "
            f"{len(status['transfers'])} transfers and "
            f"{len(status['jobs'])} jobs under way"
        )
        yield from console.table(
            "DOMAIN TYPE STATE PROBLEM",
            [
                (d["domain"], d["type"].lower(), d["state"], d["problem"])
                for d in status["domains"]
            ],
        )
