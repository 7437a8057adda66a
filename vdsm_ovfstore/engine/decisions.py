# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What people decide: written to the state, and done by who runs.

A running updater reads its state again each second.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence

from vdsm_ovfstore import errors
from vdsm_ovfstore.engine import marks
from vdsm_ovfstore.engine.state import writing

log = logging.getLogger("ovfstore.updater")


def drop(
    connection: sqlite3.Connection, domain: str, wanted: Sequence[str]
) -> int:
    """
    Carry these no longer, or none of a domain; returns how many those were.

    The generations that hold them stay in the store's history.

    Raises errors.NotUnregistered.
    """
    with writing(connection):
        rows = connection.execute(
            "SELECT entity FROM unregistered WHERE domain = ?", (domain,)
        )
        carried = {row["entity"] for row in rows}
        for entity in wanted:
            if entity not in carried:
                raise errors.NotUnregistered(entity=entity, domain=domain)
        gone = sorted(wanted or carried)
        if not gone:
            raise errors.NotUnregistered(entity="Nothing", domain=domain)
        marks.mark(connection, [domain])
        connection.executemany(
            "DELETE FROM unregistered WHERE domain = ? AND entity = ?",
            [(domain, entity) for entity in gone],
        )
    return len(gone)


def choose(connection: sqlite3.Connection, domain: str, choice: str) -> None:
    """choice: one of marks.ON, OFF, AUTO."""
    with writing(connection):
        marks.choose(connection, domain, choice)


def accept(connection: sqlite3.Connection, domain: str) -> None:
    """Raises errors.DomainUnknown."""
    with writing(connection):
        marks.accept(connection, domain)


def force(connection: sqlite3.Connection, domain: str) -> None:
    """domain: "" for all. Raises errors.DomainUnknown."""
    with writing(connection):
        marks.force(connection, domain or None)
