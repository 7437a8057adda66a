# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Does a host serve the domain that was given?"""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Sequence
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.remote import Remote
from vdsm_ovfstore.cli.way import Host
from vdsm_ovfstore.client import Client

log = logging.getLogger("ovfstore.cli")

# Seconds for a host that nobody asked for: it answers from memory, and one
# that hangs must not keep anybody from a rescue.
PATIENCE = 3.0

# The options that say who is spoken with, and as whom.
_OPTIONS = ("host", "cacert", "cert", "key")


def find(host: Host, args: Any, console: Console) -> Optional[Remote]:
    """
    The store of the domain that was given, as the host serves it.

    None if a host that was not named is not there, or not ready for it.

    Raises errors.UsageError; of a host that was named, errors.DomainNotServed
    and HostUnreachable.
    """
    if host.is_named:
        domain = _find_named(host, args, console)
    else:
        domain = _find_here(host, args)
    if domain is None:
        return None
    log.info("STORE through=%s domain=%s", host.address, domain["domain"])
    return Remote(_client(host, args), domain, console)


def served(host: Host, args: Any, console: Console) -> list[Any]:
    """
    The documents of all domains that a host serves.

    What is proposed from now on names the host as it was named here. Raises
    errors.UsageError, HostUnreachable.
    """
    console.options = "".join(
        f" --{name} {shlex.quote(value)}"
        for name in _OPTIONS
        if (value := getattr(args, name))
    )
    with _client(host, args) as client:
        return list(client.list_domains())


class _NotServed(errors.DomainNotServed):
    hint = "Run: ovfstore list HOST"


def _client(host: Host, args: Any) -> Client:
    return Client(host.address, args.cacert, args.cert, args.key)


def _find_named(host: Host, args: Any, console: Console) -> Any:
    domains = served(host, args, console)
    for domain in domains:
        if domain["domain"] == args.domain:
            return domain
    found = _at(args.domain, domains)
    if found is None:
        raise _NotServed(domain=args.domain)
    return found


def _find_here(host: Host, args: Any) -> Any:
    try:
        with Client(host.address, timeout=PATIENCE, total=PATIENCE) as client:
            found = _at(args.domain, client.list_domains())
    except errors.Error as e:
        log.info("HOST address=%s error=%d %s", host.address, e.code, e)
        return None
    state = found["state"] if found else "not served"
    log.info("HOST address=%s state=%r", host.address, state)
    return found if state == "ready" else None


def _at(path: str, domains: Sequence[Any]) -> Any:
    """
    The domain at a path, or the only one in that directory, as it would be
    found without a host; None if there is none.
    """
    real = os.path.realpath(path)
    below = []
    for domain in domains:
        if domain["path"] == real:
            return domain
        if os.path.dirname(domain["path"]) == real:
            below.append(domain)
    if len(below) != 1:
        return None
    if os.path.isdir(real):
        from vdsm_ovfstore.storage.discovery import domains_in

        # The host may serve one of several.
        if len(domains_in(real)) != 1:
            return None
    return below[0]
