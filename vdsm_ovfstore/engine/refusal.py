# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
An OVF that passes our checks, and not those of a host of another version.

It must not keep the others out of the store: the OVF that the store has of
that entity takes its place, until the source has another one.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.client import Client
from vdsm_ovfstore.engine import entities, facts, marks
from vdsm_ovfstore.engine.state import writing
from vdsm_ovfstore.format import member

log = logging.getLogger("ovfstore.updater")


def set_aside(
    connection: sqlite3.Connection,
    client: Client,
    domain: str,
    refused: errors.Error,
) -> bool:
    """
    Use the last good OVF of the entity that the host refuses.

    Returns whether that changes anything: whether it is worth trying again.
    """
    name = str(refused.fields().get("name"))
    if member.member_kind(name) != member.VM:
        return False
    entity = name[: -len(".ovf")]
    row = entities.one(connection, entity)
    if row is None or row["ovf"] is None:
        return False
    last = _last_good(client, domain, entity)
    if last is not None and _digest(last) == row["sha256"]:
        return False
    reason = f"The host refuses it: {refused}"
    log.error("REFUSED entity=%s reason=%r", entity, reason)
    with writing(connection):
        if last is not None:
            found = facts.read_facts(last, entity)
            entities.take(connection, entity, last, found)
        else:
            marks.mark(connection, entities.placements(connection, entity))
            connection.execute(
                "UPDATE entities SET ovf = NULL, sha256 = '' WHERE id = ?",
                (entity,),
            )
        entities.spoilt(connection, entity, reason)
        entities.refuse(connection, entity, row["sha256"])
    return True


def _last_good(client: Client, domain: str, entity: str) -> Optional[bytes]:
    try:
        data: Any = client.download(domain, vm=entity).data
        facts.read_facts(data, entity)
    except (errors.EntityNotFound, errors.StoreEmpty, errors.OvfRefused):
        return None
    return bytes(data)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
