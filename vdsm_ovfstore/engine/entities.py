# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What the source has: the rows of entities, and where each belongs.

All functions but the looks are to be called within state.writing(). Whatever
changes what a store has to show marks it before.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
import time
import zlib
from typing import NamedTuple, Optional

from vdsm_ovfstore.engine import marks
from vdsm_ovfstore.engine.facts import EVERYWHERE, EXTERNAL, Facts
from vdsm_ovfstore.engine.source import DOWN
from vdsm_ovfstore.format import ovf

# Fast; an OVF of 10 KiB takes a quarter of it then.
_LEVEL = 1


class Known(NamedTuple):
    """What a look at the source has to know of an entity."""

    version: str
    sha256: str
    status: int
    waiting: str
    waiting_since: float
    problem: str
    refused: str


def all_known(connection: sqlite3.Connection) -> dict[str, Known]:
    """By the id."""
    rows = connection.execute(
        "SELECT id, version, sha256, status, waiting, waiting_since, "
        "problem, refused FROM entities"
    )
    return {row[0]: Known(*row[1:]) for row in map(tuple, rows)}


def placements(connection: sqlite3.Connection, entity: str) -> set[str]:
    rows = connection.execute(
        "SELECT domain FROM placements WHERE entity = ?", (entity,)
    )
    return {row["domain"] for row in rows}


def take(
    connection: sqlite3.Connection, entity: str, data: bytes, facts: Facts
) -> None:
    """The source has this OVF of an entity now."""
    before, after = placements(connection, entity), set(facts.domains)
    marks.mark(connection, before | after)
    _ensure(connection, entity)
    external = facts.kind == EXTERNAL
    connection.execute(
        "UPDATE entities SET kind = ?, name = ?, generation = ?, "
        "sha256 = ?, length = ?, ovf = ?, disks = ?, memory = ?, "
        "problem = '', problem_since = 0, refused = '' WHERE id = ?",
        (
            facts.kind,
            facts.name,
            facts.generation,
            hashlib.sha256(data).hexdigest(),
            len(data),
            None if external else pack(data),
            json.dumps(facts.disks),
            json.dumps(facts.memory),
            entity,
        ),
    )
    place(connection, entity, before, after)
    if not external:
        register(connection, entity)


def place(
    connection: sqlite3.Connection,
    entity: str,
    before: set[str],
    after: set[str],
) -> None:
    connection.executemany(
        "DELETE FROM placements WHERE domain = ? AND entity = ?",
        [(domain, entity) for domain in before - after],
    )
    connection.executemany(
        "INSERT INTO placements (domain, entity) VALUES (?, ?)",
        [(domain, entity) for domain in after - before],
    )


def register(connection: sqlite3.Connection, entity: str) -> None:
    """What the source knows is carried by no store as unregistered."""
    rows = connection.execute(
        "SELECT domain FROM unregistered WHERE entity = ?", (entity,)
    )
    marks.mark(connection, [row["domain"] for row in rows])
    connection.execute("DELETE FROM unregistered WHERE entity = ?", (entity,))


def remove(connection: sqlite3.Connection, entity: str) -> None:
    """The source has it no more."""
    before = placements(connection, entity)
    marks.mark(connection, before)
    place(connection, entity, before, set())
    connection.execute("DELETE FROM entities WHERE id = ?", (entity,))


def set_version(
    connection: sqlite3.Connection, entity: str, version: str
) -> None:
    """What the source had when it was seen, and no longer waits."""
    _ensure(connection, entity)
    connection.execute(
        "UPDATE entities SET version = ?, waiting = '', waiting_since = 0 "
        "WHERE id = ?",
        (version, entity),
    )


def set_status(
    connection: sqlite3.Connection, entity: str, before: int, status: int
) -> None:
    """
    The engine's VMStatus.

    It is written with the next archive. One that stops or starts is worth an
    archive of its own; from one running state to the next is not.
    """
    _ensure(connection, entity)
    if (before == DOWN) != (status == DOWN):
        marks.mark(connection, placements(connection, entity))
    connection.execute(
        "UPDATE entities SET status = ? WHERE id = ?", (status, entity)
    )


def wait(connection: sqlite3.Connection, entity: str, reason: str) -> None:
    """It is locked or changes: what is known of it stays for now."""
    _ensure(connection, entity)
    connection.execute(
        "UPDATE entities SET waiting = ?, waiting_since = CASE waiting_since "
        "WHEN 0 THEN ? ELSE waiting_since END WHERE id = ?",
        (reason, time.time(), entity),
    )


def spoilt(connection: sqlite3.Connection, entity: str, reason: str) -> None:
    """Its OVF is bad: the last good one stays."""
    _ensure(connection, entity)
    connection.execute(
        "UPDATE entities SET problem = ?, problem_since = CASE problem_since "
        "WHEN 0 THEN ? ELSE problem_since END WHERE id = ?",
        (reason, time.time(), entity),
    )


def refuse(connection: sqlite3.Connection, entity: str, sha256: str) -> None:
    """A host does not take this OVF: it is not looked at again."""
    connection.execute(
        "UPDATE entities SET refused = ? WHERE id = ?", (sha256, entity)
    )


def healed(connection: sqlite3.Connection, entity: str) -> None:
    connection.execute(
        "UPDATE entities SET problem = '', problem_since = 0 WHERE id = ?",
        (entity,),
    )


def pack(data: bytes) -> bytes:
    return zlib.compress(data, _LEVEL)


def unpack(blob: bytes) -> bytes:
    """Raises zlib.error for what pack() has not made."""
    return zlib.decompressobj().decompress(blob, ovf.MAX_OVF + 1)


def one(connection: sqlite3.Connection, entity: str) -> Optional[sqlite3.Row]:
    row: Optional[sqlite3.Row] = connection.execute(
        "SELECT * FROM entities WHERE id = ?", (entity,)
    ).fetchone()
    return row


def of_domain(domain: str) -> tuple[str, tuple[str, ...]]:
    """SQL that follows FROM: the entities of a domain that have an OVF."""
    text = (
        "entities e WHERE e.ovf IS NOT NULL AND e.id IN (SELECT entity FROM "
        "placements WHERE domain IN (?, ?, (SELECT ? || pool FROM domains "
        "WHERE id = ?)))"
    )
    return text, (domain, EVERYWHERE, EVERYWHERE, domain)


def _ensure(connection: sqlite3.Connection, entity: str) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO entities (id) VALUES (?)", (entity,)
    )
