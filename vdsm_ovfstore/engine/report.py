# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What `ovfstore-updater status` tells, read from the state alone."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli import text
from vdsm_ovfstore.cli.table import table
from vdsm_ovfstore.engine import look, marks
from vdsm_ovfstore.engine.facts import EVERYWHERE
from vdsm_ovfstore.engine.source import NOT_GIVEN
from vdsm_ovfstore.engine.state import meta, reading

# States of a domain.
CURRENT = "current"  # its store shows what it has to
DUE = "due"  # it will be updated
FAILED = "failed"  # the last try has failed
CONTESTED = "contested"  # somebody else writes it: refused
OFF = "off"  # the user wants no store there
INACTIVE = "inactive"  # the source says so
EMPTY = "empty"  # nothing to store, and no store of ours

VERSION = 1

# Entities of each kind that a report names.
_NAMED = 100


def document(
    connection: sqlite3.Connection, stores: bool, unregistered: bool = False
) -> dict[str, Any]:
    """
    The state of all stores.

    stores: whether domains have one that nobody has chosen; unregistered:
    list what is carried so.
    """
    with reading(connection):
        domains = [
            _domain(connection, row, stores)
            for row in connection.execute(
                "SELECT * FROM domains ORDER BY name, id"
            )
        ]
        return {
            "version": VERSION,
            "updater": meta(connection, "updater"),
            "source": _source(connection),
            "domains": [d for d in domains if d is not None],
            "waiting": _entities(connection, "waiting"),
            "bad": _entities(connection, "problem"),
            "unregistered": _unregistered(connection) if unregistered else [],
        }


def exit_status(found: dict[str, Any]) -> int:
    """EXIT_OK when all is current, else EXIT_STALE."""
    good = (CURRENT, OFF, INACTIVE, EMPTY)
    current = all(d["state"] in good for d in found["domains"])
    # What the source can never give is no news each time, once it is stored.
    bad = [
        entity
        for entity in found["bad"]
        if not entity["stored"] or NOT_GIVEN not in entity["reason"]
    ]
    if current and not found["source"]["problem"] and not bad:
        return errors.EXIT_OK
    return errors.EXIT_STALE


def lines(found: dict[str, Any]) -> Iterator[str]:
    """The same for people."""
    now = time.time()
    source = found["source"]
    seen = "never seen"
    if source["looked"]:
        seen = f"seen {text.age(now - source['looked'])} ago"
    yield f"Source: {source['name'] or 'none yet'}, {seen}"
    yield from _trouble("  ", source)
    yield ""
    titles = "DOMAIN STATE GENERATION ENTITIES SIZE UPDATED HOST".split()
    yield from table(
        titles,
        [_row(d, now) for d in found["domains"]],
        right="GENERATION ENTITIES SIZE",
    )
    for domain in found["domains"]:
        yield from _remarks(domain, now)
    for kind, what in (("waiting", "waits"), ("bad", "is bad")):
        if found[kind]:
            yield ""
        for entity in found[kind]:
            name = text.escaped(entity["name"] or "of unknown name")
            age = text.age(now - entity["since"])
            reason = text.escaped(entity["reason"])
            stored = "" if entity["stored"] else "; no OVF of it is stored"
            yield f"{name} ({entity['id']}) {what} for {age}: {reason}{stored}"
    if found["unregistered"]:
        yield ""
        yield from table(
            "UNREGISTERED NAME DOMAIN SINCE".split(),
            [
                (
                    *(e["id"], e["name"], e["domain"]),
                    text.age(now - e["since"]),
                )
                for e in found["unregistered"]
            ],
        )


def _row(domain: dict[str, Any], now: float) -> tuple[object, ...]:
    updated = domain["updated"]
    return (
        domain["name"] or domain["domain"],
        domain["state"],
        domain["generation"],
        domain["entities"],
        text.size(domain["length"]) if domain["generation"] else None,
        f"{text.age(now - updated)} ago" if updated else None,
        domain["host"] or None,
    )


def _remarks(domain: dict[str, Any], now: float) -> Iterator[str]:
    name = domain["name"] or domain["domain"]
    if domain["problem"]:
        yield ""
        yield f"{text.escaped(name)}: error {domain['code']}"
        yield from _trouble("  ", domain)
        if domain["retry"] > now and domain["state"] == FAILED:
            failures = text.count(domain["failures"], "failure")
            wait = text.age(domain["retry"] - now)
            yield f"  {failures}, next try in {wait}"
    if domain["degraded"]:
        yield f"{text.escaped(name)}: {text.escaped(domain['degraded'])}"
    if domain["unregistered"]:
        count = text.count(domain["unregistered"], "unregistered entity")
        yield (
            f"{text.escaped(name)}: {count} carried forward; see status "
            "--unregistered, and drop"
        )


def _trouble(indent: str, found: dict[str, Any]) -> Iterator[str]:
    for line in (found["problem"], found["next_step"]):
        if line:
            yield indent + text.escaped(line)


def _source(connection: sqlite3.Connection) -> dict[str, Any]:
    return {
        "name": meta(connection, "source") or "",
        "looked": float(meta(connection, "looked") or 0),
        "problem": meta(connection, look.PROBLEM) or "",
        "code": int(meta(connection, look.CODE) or 0),
        "next_step": meta(connection, look.STEP) or "",
    }


def _domain(
    connection: sqlite3.Connection, row: sqlite3.Row, stores: bool
) -> Any:
    """None for one that is nothing to us any more."""
    (carried,) = connection.execute(
        "SELECT COUNT(*) FROM unregistered WHERE domain = ?", (row["id"],)
    ).fetchone()
    (placed,) = connection.execute(
        "SELECT COUNT(*) FROM placements WHERE domain = ? OR ? AND domain IN "
        "(?, ?)",
        (
            *(row["id"], row["known"]),
            *(EVERYWHERE, EVERYWHERE + row["pool"]),
        ),
    ).fetchone()
    if not (row["known"] or placed or row["choice"]):
        return None
    return {
        "domain": row["id"],
        "name": row["name"],
        "state": _state(row, placed, stores),
        "choice": row["choice"] or "auto",
        "generation": row["generation"],
        "sha256": row["sha256"],
        "entities": row["entities"],
        "length": row["length"],
        "host": row["host"],
        "updated": row["updated"],
        "checked": row["current"],
        "changes_wait": row["mark"] > row["done"],
        "failures": row["failures"],
        "retry": row["retry"],
        "code": row["code"],
        "problem": row["problem"],
        "next_step": row["step"],
        "degraded": row["degraded"],
        "unregistered": carried,
    }


def _state(row: sqlite3.Row, placed: int, stores: bool) -> str:
    if row["choice"] == marks.OFF or not (stores or row["choice"] == marks.ON):
        return OFF
    if row["known"] == marks.INACTIVE:
        return INACTIVE
    if row["code"] == errors.StoreContested.code:
        return CONTESTED
    if row["failures"]:
        return FAILED
    if row["generation"] is None and not placed:
        return EMPTY
    return DUE if row["mark"] > row["done"] or row["forced"] else CURRENT


def _entities(
    connection: sqlite3.Connection, column: str
) -> list[dict[str, Any]]:
    rows = connection.execute(
        f"SELECT id, name, {column} AS reason, {column}_since AS since, "
        f"ovf IS NOT NULL AS stored FROM entities WHERE {column} <> '' "
        "ORDER BY since LIMIT ?",
        (_NAMED,),
    )
    return [{**dict(row), "stored": bool(row["stored"])} for row in rows]


def _unregistered(connection: sqlite3.Connection) -> list[dict[str, Any]]:
    rows = connection.execute(
        "SELECT entity AS id, name, kind, domain, generation, since FROM "
        "unregistered ORDER BY domain, name, entity"
    )
    return [dict(row) for row in rows]
