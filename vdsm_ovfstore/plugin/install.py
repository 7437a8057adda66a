# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Putting the plugin into a vdsmd that is about to serve.

Everything is made, checked and imported first. Then a few objects of VDSM are
changed, each with a way back; if one change fails those before it are undone,
and vdsmd is as it was.
"""

from __future__ import annotations

import contextlib
import logging
from typing import Any, Callable, Optional

from vdsm_ovfstore import __version__, errors
from vdsm_ovfstore.plugin import config, contract, state
from vdsm_ovfstore.plugin.replace import replace

log = logging.getLogger("ovfstore.plugin")


class Refused(Exception):
    """Why the plugin stays out."""

    def __init__(
        self, reason: str, failed: Optional[list[contract.Failure]] = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.failed = failed or []


def install(directory: str = state.DIRECTORY) -> bool:
    """
    Install it, or say why not, in the log and in the state file.

    Returns whether it is installed. Raises nothing: vdsmd goes on.
    """
    try:
        _install(directory)
    except Refused as e:
        log.error("DISABLED %s; vdsmd runs without the plugin", e.reason)
        state.write(directory, reason=e.reason, failed=e.failed)
        return False
    except Exception as e:
        log.exception("DISABLED unexpected; vdsmd runs without the plugin")
        state.write(directory, reason=f"{type(e).__name__}: {e}")
        return False
    log.info("ENABLED version=%s", __version__)
    return True


def _install(directory: str) -> None:
    try:
        loaded = config.load()
    except errors.Error as e:
        raise Refused(f"{e}") from None
    settings: config.Config = loaded.config
    if not settings.plugin.enable:
        raise Refused("the configuration says so: [plugin] enable = no")
    failed = contract.check(contract.CONTRACT)
    if failed:
        first = failed[0]
        raise Refused(
            f"VDSM {contract.vdsm_version()} is not as the plugin knows it: "
            f"{first.name} {first.reason}"
            + (f", and {len(failed) - 1} more" if failed[1:] else ""),
            failed,
        )
    logging.getLogger("ovfstore").setLevel(settings.log_level)
    # Only now: what they import needs VDSM, and jsonschema.
    from vdsm.clientIF import clientIF

    from vdsm_ovfstore.plugin.core import Plugin
    from vdsm_ovfstore.plugin.vdsm import Vdsm

    plugin = Plugin(Vdsm(clientIF.getInstance), settings)
    with contextlib.ExitStack() as undo:
        undo.callback(plugin.stop)
        _register(plugin, undo.callback)
        _follow(plugin, undo.callback, directory)
        undo.pop_all()
    state.write(directory, enabled=True, **plugin.state())


def _register(plugin: Any, undo: Callable[..., Any]) -> None:
    """The namespace, its verbs, and the HTTP handler."""
    from vdsm import API
    from vdsm.api import vdsmapi
    from vdsm.rpc import Bridge

    from vdsm_ovfstore.api.schema import Definition
    from vdsm_ovfstore.plugin import http, schema
    from vdsm_ovfstore.plugin.verbs import Verbs

    definition = Definition.load()
    methods, types = schema.methods(definition), schema.types(definition)
    taken = [name for name in methods if name in _known(vdsmapi)]
    if taken or hasattr(API, schema.NAMESPACE):
        raise Refused(f"VDSM has a namespace {schema.NAMESPACE} of its own")
    load = vdsmapi.Schema.__init__

    def load_ours_too(self: Any, schema_types: Any, strict_mode: Any) -> None:
        schema_types = tuple(schema_types)
        load(self, schema_types, strict_mode)
        if vdsmapi.SchemaType.VDSM_API in schema_types:
            self._methods.update(methods)
            self._types.update(types)

    replace(undo, vdsmapi.Schema, "__init__", load_ours_too)
    ours = type(schema.NAMESPACE, (API.APIBase,), {})
    replace(undo, API, schema.NAMESPACE, ours)
    commands = Verbs(
        plugin.service, plugin.config.limits.verbs
    ).command_info(schema.NAMESPACE, definition.verbs)
    for name, command in commands.items():
        Bridge.command_info[name] = command
        undo(Bridge.command_info.pop, name, None)
    undo(http.install(plugin))


def _known(vdsmapi: Any) -> Any:
    return vdsmapi.Schema((vdsmapi.SchemaType.VDSM_API,), False)._methods


def _follow(plugin: Any, undo: Callable[..., Any], directory: str) -> None:
    """Start and stop with VDSM's servers, and leave domains before it."""
    from vdsm.clientIF import clientIF
    from vdsm.storage.monitor import DomainMonitor

    leave = DomainMonitor.stopMonitoring
    start, stop = clientIF.start, clientIF.prepareForShutdown

    def start_ours_too(self: Any) -> Any:
        answer = start(self)
        _guarded(plugin.start)
        # It listens now, or cannot.
        state.write(directory, enabled=True, **plugin.state())
        return answer

    def stop_ours_too(self: Any) -> Any:
        _guarded(plugin.stop)
        state.remove(directory)
        return stop(self)

    def leave_after_ours(self: Any, sdUUIDs: Any) -> Any:
        sdUUIDs = tuple(sdUUIDs)
        _guarded(lambda: plugin.leave(sdUUIDs))
        return leave(self, sdUUIDs)

    replace(undo, DomainMonitor, "stopMonitoring", leave_after_ours)
    replace(undo, clientIF, "start", start_ours_too)
    replace(undo, clientIF, "prepareForShutdown", stop_ours_too)


def _guarded(work: Callable[[], None]) -> None:
    try:
        work()
    except Exception:
        log.exception("FAILED; vdsmd goes on")
