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
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.store import Document
from vdsm_ovfstore.cli.text import count, escaped
from vdsm_ovfstore.cli.way import SOCKETS, chosen, wants_nobody

# Written by the plugin at each start of vdsmd, plugin/state.py; and what is
# there where the plugin is installed.
STATE = "/run/vdsm-ovfstore/state.json"
LAUNCHER = "/usr/libexec/vdsm_ovfstore/vdsmd"

# Seconds for a host, which answers from memory; and bytes of what it says.
_PATIENCE = 3.0
_LONGEST = 16 * 1024**2

# What is said of the plugin, and what to do next.
ENABLED, DISABLED, STOPPED, ABSENT, UNKNOWN = (
    *("enabled", "disabled", "stopped", "absent", "unknown"),
)
_WORDS = {
    ENABLED: "runs",
    DISABLED: "vdsmd runs without it",
    STOPPED: "installed, but no vdsmd runs that was started with it",
    ABSENT: "not installed",
    UNKNOWN: "nobody can tell",
}
_RESTART = "systemctl restart vdsmd"


def run(args: Any, console: Console) -> int:
    """Ends with 1 where a plugin is installed and off, or a host fails."""
    plugin = _plugin()
    hosts = [_host(path) for path in _sockets(args, plugin)]
    step = _next_step(plugin)
    console.answer(
        {"plugin": plugin, "hosts": hosts, "next_step": step},
        lambda: _lines(plugin, hosts, step, console),
    )
    well = plugin["state"] in (ENABLED, ABSENT)
    if well and not any(host["error"] for host in hosts):
        return errors.EXIT_OK
    return errors.EXIT_ERROR


# -- the plugin ---------------------------------------------------------------


def _plugin() -> Document:
    """What the state file says, or why there is none."""
    found: Document = {
        "state": STOPPED if os.path.exists(LAUNCHER) else ABSENT,
        "reason": "",
        "failed": [],
        "version": None,
        "vdsm": None,
        "since": None,
        "stock_uploads": False,
        "stock_downloads": False,
        "socket": "",
    }
    try:
        with open(STATE, encoding="utf-8") as f:
            state = json.loads(f.read(_LONGEST))
        if os.path.exists(f"/proc/{int(state['pid'])}"):
            found.update(_running(state))
    except FileNotFoundError:
        pass
    except OSError as e:
        reason = f"Cannot read {STATE}: {e.strerror}"
        found.update(state=UNKNOWN, reason=reason)
    except (ValueError, KeyError, TypeError):
        reason = f"Cannot read {STATE}: it is damaged"
        found.update(state=UNKNOWN, reason=reason)
    return found


def _running(state: Document) -> Document:
    return {
        "state": ENABLED if state["enabled"] else DISABLED,
        "reason": str(state["reason"]),
        "failed": [
            {"name": str(f["name"]), "reason": str(f["reason"])}
            for f in state["failed"]
        ],
        "version": str(state["version"]),
        "vdsm": str(state["vdsm"]),
        "since": str(state["time"]),
        "stock_uploads": bool(state["stock_uploads"]),
        "stock_downloads": bool(state["stock_downloads"]),
        "socket": str(state["socket"]),
    }


def _next_step(plugin: Document) -> str:
    if plugin["state"] in (ENABLED, ABSENT):
        return "ovfstore list"
    if plugin["failed"]:
        return f"update vdsm-ovfstore, then: {_RESTART}"
    if plugin["state"] == DISABLED:
        return f"mend that; /var/log/vdsm/vdsm.log tells more; {_RESTART}"
    return _RESTART


# -- hosts --------------------------------------------------------------------


def _sockets(args: Any, plugin: Document) -> list[str]:
    """Raises errors.UsageError."""
    host = chosen(args)
    if host is not None and host.is_named:
        if "://" in host.address:
            raise errors.UsageError(
                reason="status: a host tells this on its own machine only; "
                "give DOMAIN, or see: ovfstore list --host "
                f"{host.address}"
            )
        return [host.address]
    if wants_nobody(args):
        return []
    known = dict.fromkeys((plugin["socket"], *SOCKETS))
    return [path for path in known if path and os.path.exists(path)]


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
    error, status = "", None
    try:
        with contextlib.closing(_Local(path)) as connection:
            connection.request("GET", "/ovf-store/status")
            answer = connection.getresponse()
            status = json.loads(answer.read(_LONGEST))
            if answer.status != 200 or not isinstance(status, dict):
                raise ValueError(f"HTTP status {answer.status}")
    except (OSError, ValueError, http.client.HTTPException) as e:
        error = getattr(e, "strerror", None) or str(e) or type(e).__name__
        status = None
    return {"socket": path, "error": error, "status": status}


# -- for people ---------------------------------------------------------------


def _lines(
    plugin: Document, hosts: list[Document], step: str, console: Console
) -> Iterator[str]:
    yield f"Plugin in vdsmd: {_WORDS[plugin['state']]}"
    if plugin["since"]:
        # A plugin that cannot even be imported knows no versions.
        about = [
            f"vdsm-ovfstore {plugin['version']}" * bool(plugin["version"]),
            f"VDSM {plugin['vdsm']}" * bool(plugin["vdsm"]),
            f"since {plugin['since']}",
        ]
        yield escaped(f"  {', '.join(filter(None, about))}")
    if plugin["state"] == ENABLED:
        yield f"  the engine's uploads: {_served(plugin['stock_uploads'])}"
        yield f"  the engine's downloads: {_served(plugin['stock_downloads'])}"
    if plugin["reason"]:
        yield escaped(f"  {plugin['reason']}")
    for failure in plugin["failed"]:
        yield escaped(f"  {failure['name']}: {failure['reason']}")
    for host in hosts:
        yield ""
        yield escaped(f"Host at {host['socket']}: {host['error'] or 'serves'}")
        if host["status"] is not None:
            yield from _host_lines(host["status"], console)
    yield ""
    yield console.next_line(step)


def _served(taken: bool) -> str:
    return "taken into the store" if taken else "left to VDSM"


def _host_lines(status: Document, console: Console) -> Iterator[str]:
    """As much as is there: the host may be of another version."""
    with contextlib.suppress(KeyError, TypeError, AttributeError):
        transfers = count(len(status["transfers"]), "transfer")
        jobs = count(len(status["jobs"]), "job")
        version, pid = status["version"], status["pid"]
        yield escaped(f"  version {version}, PID {pid}, {transfers}, {jobs}")
        rows = [
            (d["domain"], d["type"].lower(), d["state"], d["problem"] or None)
            for d in status["domains"]
        ]
        if rows:
            yield from console.table("DOMAIN TYPE STATE PROBLEM", rows)
