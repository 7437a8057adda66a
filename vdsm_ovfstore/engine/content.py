# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The archive of one domain, made on the fly from what the state holds.

    info.json, OVFs, metadata.json, unregistered OVFs    as the engine's
    manifest.json                                        ours

    {"format": 1, "updater": <uuid>, "tool": "ovfstore-updater 0.1.0",
     "domain": <uuid>, "source": "directory /srv/ovfs",
     "entities": {<uuid>: {"generation": 31, "sha256": ..., "kind": "vm",
                           "registered": true}}}

The manifest tells each entity's generation and digest, and by `updater` who
made the archive: an archive without one was made by an engine.

An archive is made twice, from one state: the first time for its digest, which
is written down before anything is sent. Whatever dies afterwards, we know an
archive of ours when we see it in a store.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator
from typing import Any, NamedTuple

from vdsm_ovfstore import __version__
from vdsm_ovfstore.engine import entities
from vdsm_ovfstore.engine.state import meta
from vdsm_ovfstore.format import archive_writer, member

TOOL = f"ovfstore-updater {__version__}"
FORMAT = 1

# Bytes that an entity takes in the manifest, at most.
_ENTRY = 200


class Held(NamedTuple):
    """What an archive holds of one entity."""

    id: str
    generation: int
    sha256: str
    length: int
    kind: str
    status: int


class Content:
    """
    What belongs into the store of a domain, by one state.

    To be used within state.reading().

    Attributes:
        mark: What is done for the domain when this is stored.
        registered, unregistered: What it holds.
        digest: Of all that matters: not of the time when it is written.
    """

    def __init__(self, connection: sqlite3.Connection, domain: str) -> None:
        self._connection = connection
        self._domain = domain
        (self.mark,) = connection.execute(
            "SELECT mark FROM domains WHERE id = ?", (domain,)
        ).fetchone()
        wanted = "id, generation, sha256, length, kind, status"
        where, values = entities.of_domain(domain)
        rows = connection.execute(
            f"SELECT {wanted} FROM {where} ORDER BY id", values
        )
        self.registered = [Held(*row) for row in rows]
        rows = connection.execute(
            f"SELECT {wanted.replace('id', 'entity', 1)} FROM unregistered "
            "WHERE domain = ? ORDER BY entity",
            (domain,),
        )
        mine = {held.id for held in self.registered}
        self.unregistered = [
            Held(*row) for row in rows if row["entity"] not in mine
        ]
        self.digest = self._digest()

    @property
    def entities(self) -> int:
        return len(self.registered) + len(self.unregistered)

    def archive(self, when: int) -> Iterator[bytes]:
        """The archive, in pieces; when: seconds since the epoch."""
        held = self.registered + self.unregistered
        members = archive_writer.engine_members(
            self._domain,
            self._ovfs("entities", "id = ?", (), self.registered),
            when,
            {h.id: h.status for h in held if h.status},
            self._ovfs(
                *("unregistered", "entity = ? AND domain = ?"),
                (self._domain,),
                self.unregistered,
            ),
            self._manifest(),
        )
        return archive_writer.write_archive(members, when)

    def measure(self, when: int) -> tuple[int, str]:
        """Bytes and SHA-256 of the archive."""
        size, digest = 0, hashlib.sha256()
        for piece in self.archive(when):
            size += len(piece)
            digest.update(piece)
        return size, digest.hexdigest()

    def _ovfs(
        self,
        table: str,
        where: str,
        values: tuple[str, ...],
        wanted: list[Held],
    ) -> Iterator[tuple[str, int, tuple[bytes]]]:
        for held in wanted:
            # One at a time: an iterating cursor would hold all of them.
            (blob,) = self._connection.execute(
                f"SELECT ovf FROM {table} WHERE {where}", (held.id, *values)
            ).fetchone()
            yield held.id, held.length, (entities.unpack(blob),)

    def _manifest(self) -> dict[str, Any]:
        def document(held: Held, registered: bool) -> dict[str, Any]:
            return {
                "generation": held.generation,
                "sha256": held.sha256,
                "kind": held.kind,
                "registered": registered,
            }

        if self.entities * _ENTRY > member.MAX_JSON:
            # It would be refused. Who made it, it still tells.
            return {**self._head(), "entities": {}}
        listed = {h.id: document(h, True) for h in self.registered}
        listed.update({h.id: document(h, False) for h in self.unregistered})
        return {**self._head(), "entities": listed}

    def _head(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "updater": meta(self._connection, "updater"),
            "tool": TOOL,
            "domain": self._domain,
            "source": meta(self._connection, "source") or "",
        }

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for listed in (self.registered, self.unregistered):
            for held in listed:
                line = json.dumps([held.id, held.sha256, bool(held.status)])
                digest.update(line.encode())
            digest.update(b"\n")
        return digest.hexdigest()
