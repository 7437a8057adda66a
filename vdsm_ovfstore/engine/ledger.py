# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What was sent to which store, and what each of them holds of ours."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from typing import Any, NamedTuple, Optional

from vdsm_ovfstore.engine.content import Content
from vdsm_ovfstore.engine.state import writing

# Archives of one store that may still arrive: a host may go on without us.
_SENT = 32


class Stored(NamedTuple):
    """
    What the state says of a store; generation is None before the first one.

    accepted is the SHA-256 of a foreign archive that the user has accepted,
    or "*" for the one that will be found next.
    """

    generation: Optional[int]
    sha256: str
    content: str
    forced: bool
    accepted: str


def stored(connection: sqlite3.Connection, domain: str) -> Stored:
    row = connection.execute(
        "SELECT generation, sha256, content, forced, accepted FROM domains "
        "WHERE id = ?",
        (domain,),
    ).fetchone()
    return Stored(row[0], row[1], row[2], bool(row[3]), row[4])


def sent(
    connection: sqlite3.Connection, domain: str, sha256: str
) -> Optional[str]:
    """
    The content of an archive that we have sent, arrived or not.

    None for one that is not ours.
    """
    found = connection.execute(
        "SELECT content FROM sent WHERE domain = ? AND sha256 = ?",
        (domain, sha256),
    ).fetchone()
    return None if found is None else str(found["content"])


def note_sending(
    connection: sqlite3.Connection, domain: str, sha256: str, content: str
) -> None:
    """To be called, and so on the disk, before the first byte is sent."""
    with writing(connection):
        connection.execute(
            "INSERT OR REPLACE INTO sent (domain, sha256, content, time) "
            "VALUES (?, ?, ?, ?)",
            (domain, sha256, content, time.time()),
        )
        connection.execute(
            "DELETE FROM sent WHERE domain = ? AND sha256 NOT IN (SELECT "
            "sha256 FROM sent WHERE domain = ? ORDER BY time DESC LIMIT ?)",
            (domain, domain, _SENT),
        )


def note_stored(
    connection: sqlite3.Connection,
    domain: str,
    content: Content,
    answer: Any,
    host: str,
) -> None:
    """The host has committed this content; answer is its document."""
    degraded = "; ".join(
        f"copy {d['volume']}: {d['reason']}" for d in answer["degraded"]
    )
    with writing(connection):
        connection.execute(
            "UPDATE domains SET generation = ?, sha256 = ?, content = ?, "
            "entities = ?, length = ?, updated = ? WHERE id = ?",
            (
                answer["generation"],
                answer["sha256"],
                content.digest,
                content.entities,
                answer["length"],
                time.time(),
                domain,
            ),
        )
        connection.execute("DELETE FROM stored WHERE domain = ?", (domain,))
        connection.executemany(
            "INSERT INTO stored (domain, entity, generation, sha256) "
            "VALUES (?, ?, ?, ?)",
            [
                (domain, held.id, held.generation, held.sha256)
                for held in content.registered
            ],
        )
        _note_current(connection, domain, content.mark, host, degraded)


def note_unchanged(
    connection: sqlite3.Connection,
    domain: str,
    mark: int,
    host: str,
    degraded: Iterable[str],
) -> None:
    """The store shows already what it has to; degraded: what is wrong."""
    with writing(connection):
        _note_current(connection, domain, mark, host, "; ".join(degraded))


def _note_current(
    connection: sqlite3.Connection,
    domain: str,
    mark: int,
    host: str,
    degraded: str,
) -> None:
    connection.execute(
        "UPDATE domains SET done = MAX(done, ?), forced = 0, current = ?, "
        # What was to be accepted has been, or there was nothing.
        "accepted = CASE accepted WHEN '*' THEN '' ELSE accepted END, "
        "host = ?, degraded = ?, failures = 0, retry = 0, code = 0, "
        "problem = '', step = '' WHERE id = ?",
        (mark, time.time(), host, degraded, domain),
    )
