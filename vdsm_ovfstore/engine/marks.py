# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What each store has to show: the rows of domains, and their marks.

A domain is dirty while its mark is above what is done. All functions but the
looks are to be called within state.writing().
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.engine.facts import EVERYWHERE
from vdsm_ovfstore.engine.source import DataDomain

# What is known of a domain: nothing but that VMs lie there, that it can be
# written, that it cannot now.
UNSEEN, ACTIVE, INACTIVE = 0, 1, 2

_HAS = (
    "EXISTS (SELECT 1 FROM placements p JOIN entities e ON e.id = p.entity "
    "WHERE p.domain IN ({}) AND e.ovf IS NOT NULL)"
)

_ALL = f"'{EVERYWHERE}', '{EVERYWHERE}' || d.pool"

# The user's choice of a domain; "" is what [domains] stores says.
ON, OFF, AUTO = "on", "off", ""


def mark(connection: sqlite3.Connection, domains: Iterable[str]) -> None:
    """
    What these stores have to show has changed.

    domains are as in placements: ids, or EVERYWHERE and perhaps a pool.
    """
    wanted: set[str] = set()
    for placement in domains:
        if placement.startswith(EVERYWHERE):
            rows = connection.execute(
                "SELECT id FROM domains WHERE ? IN (?, ? || pool)",
                (placement, EVERYWHERE, EVERYWHERE),
            )
            wanted.update(row["id"] for row in rows)
        else:
            wanted.add(placement)
    for domain in sorted(wanted):
        connection.execute(
            "INSERT INTO domains (id) VALUES (?) "
            "ON CONFLICT (id) DO UPDATE SET mark = mark + 1",
            (domain,),
        )


def known_domains(
    connection: sqlite3.Connection,
    found: Sequence[DataDomain],
    complete: bool = True,
) -> None:
    """
    These are data domains; complete: all that there are.

    One that is not active is left alone until it is.
    """
    if complete:
        connection.execute("UPDATE domains SET known = 0")
    for domain in found:
        connection.execute(
            "INSERT INTO domains (id, name, pool, known) "
            "VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
            "mark = mark + (pool <> excluded.pool), pool = excluded.pool, "
            "known = excluded.known, name = CASE excluded.name WHEN '' THEN "
            "name ELSE excluded.name END",
            (
                *(domain.id, domain.name, domain.pool),
                ACTIVE if domain.active else INACTIVE,
            ),
        )


def due(
    connection: sqlite3.Connection,
    stores: bool,
    age: float,
    longest: Optional[float],
) -> list[str]:
    """
    The domains that something is to be done about.

    Those that have failed come last: each of them may take its time, which
    the others do not have to wait for. The oldest come first.

    Arguments:
        stores: Whether domains have stores that nobody has chosen.
        age: Stores that were not seen for so many seconds are looked at, even
            if nothing has changed.
        longest: The longest pause after a failure, in seconds; what is to be
            retried later is left out. None: it is not.
    """
    now = time.time()
    rows = connection.execute(
        "SELECT id FROM domains d WHERE (choice = ? OR choice = ? AND ?) "
        "AND known <> ? AND (mark > done OR forced OR "
        # Times that lie ahead are those of a clock that was set back.
        "current NOT BETWEEN ? AND ?) AND (? OR retry NOT BETWEEN ? AND ?) "
        "AND ("
        # A store is made when there is something to put into it.
        f"{_HAS.format('d.id')} OR known AND (generation IS NOT NULL OR "
        f"{_HAS.format(_ALL)})) ORDER BY failures > 0, current, id",
        (
            *(ON, AUTO, stores, INACTIVE),
            *(now - age, now),
            *(longest is None, now, now + (longest or 0)),
        ),
    )
    return [row["id"] for row in rows]


def last_host(connection: sqlite3.Connection, domain: str) -> str:
    """Which host has updated it last; "" for none."""
    row = connection.execute(
        "SELECT host FROM domains WHERE id = ?", (domain,)
    ).fetchone()
    return str(row["host"]) if row else ""


def force(connection: sqlite3.Connection, domain: Optional[str]) -> None:
    """
    Send the archive of a domain, or of all, though nothing has changed.

    Raises errors.DomainUnknown.
    """
    _change(connection, "forced = 1, retry = 0", domain)


def accept(connection: sqlite3.Connection, domain: str) -> None:
    """
    What lies in the store was written once, by somebody who has stopped.

    Raises errors.DomainUnknown.
    """
    _change(connection, "accepted = '*', retry = 0", domain)


def choose(connection: sqlite3.Connection, domain: str, choice: str) -> None:
    """
    Keep the user's choice of a domain, also of one that is not there yet.
    """
    connection.execute(
        "INSERT INTO domains (id, choice) VALUES (?, ?) "
        "ON CONFLICT (id) DO UPDATE SET choice = excluded.choice, retry = 0",
        (domain, choice),
    )


def failed(
    connection: sqlite3.Connection,
    domain: str,
    error: errors.Error,
    host: str,
    retry: tuple[float, float],
) -> None:
    """
    Note that an update has failed, and when it is tried again.

    retry: seconds of the first pause, and of the longest one.
    """
    row = connection.execute(
        "SELECT failures FROM domains WHERE id = ?", (domain,)
    ).fetchone()
    failures = row["failures"] if row else 0
    pause = min(retry[0] * 2 ** min(failures, 20), retry[1])
    connection.execute(
        "UPDATE domains SET failures = failures + 1, retry = ?, code = ?, "
        "problem = ?, step = ?, host = CASE ? WHEN '' THEN host ELSE ? END "
        "WHERE id = ?",
        (
            time.time() + pause,
            error.code,
            str(error),
            error.next_step,
            host,
            host,
            domain,
        ),
    )


def _change(
    connection: sqlite3.Connection, change: str, domain: Optional[str]
) -> None:
    if domain is None:
        connection.execute(f"UPDATE domains SET {change}")
        return
    done = connection.execute(
        f"UPDATE domains SET {change} WHERE id = ?", (domain,)
    )
    if not done.rowcount:
        raise errors.DomainUnknown(domain=domain)
