# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What lies in a store, read back: who wrote it, and what the source lacks.

Nothing that a store holds is lost by our next update. What the source does
not know is carried forward as unregistered; of what the source knows but
cannot give now, since it is locked or bad, the store's OVF is taken.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.client import Client
from vdsm_ovfstore.engine import entities, marks
from vdsm_ovfstore.engine.directory import statuses
from vdsm_ovfstore.engine.facts import EXTERNAL, Facts, read_facts
from vdsm_ovfstore.engine.state import writing
from vdsm_ovfstore.format import member, ovf, tarheader

log = logging.getLogger("ovfstore.updater")


class Entry(NamedTuple):
    """An OVF that a store holds and we lack; packed, there may be many."""

    id: str
    packed: bytes
    sha256: str
    length: int
    facts: Facts


class Archive(NamedTuple):
    """
    A generation of a store, as it was read back.

    Attributes:
        updater: Who made it, by its manifest; None without one.
        entries: OVFs that we lack; those that are no good are left out.
        statuses: By metadata.json.
        registered: What its manifest says was registered.
    """

    updater: Optional[str]
    entries: list[Entry]
    statuses: dict[str, int]
    registered: frozenset[str]


def fetch(
    client: Client,
    domain: str,
    generation: Mapping[str, Any],
    have: Iterable[str],
) -> Archive:
    """
    Read a generation of a store.

    have: entities whose OVFs are not wanted.

    Raises the host's errors; errors.Damaged.
    """
    name = f"{generation['number']}:{generation['sha256']}"
    known = frozenset(have)
    entries: list[Entry] = []
    extra: dict[str, Any] = {}
    # What it yields may be believed only after its end.
    with client.open_download(domain, name) as download:
        for title, data in _members(download, known):
            if title.endswith(".ovf"):
                _add(entries, title, data)
            else:
                extra[title] = _json(data)
    manifest = extra.get("manifest.json")
    updater, registered = _manifest(manifest)
    try:
        running = statuses(extra.get("metadata.json"))
    except ValueError:
        running = {}
    return Archive(updater, entries, running, registered)


def absorb(
    connection: sqlite3.Connection, domain: str, archive: Archive, ours: bool
) -> int:
    """
    Keep what we lack; returns how many entities are carried from now on.

    ours: We made it: what was registered then, and is no more, was removed.
    """
    carried = 0
    with writing(connection):
        gone = {
            row["entity"]
            for row in connection.execute(
                "SELECT entity FROM stored WHERE domain = ?", (domain,)
            )
        }
        for entry in archive.entries:
            row = entities.one(connection, entry.id)
            if row is not None:
                _lend(connection, entry, row)
                continue
            if entry.id in gone or (ours and entry.id in archive.registered):
                continue
            status = archive.statuses.get(entry.id, 0)
            carried += _carry(connection, domain, entry, status)
    if carried:
        log.warning("CARRY domain=%s entities=%d", domain, carried)
    return carried


def _lend(
    connection: sqlite3.Connection, entry: Entry, row: sqlite3.Row
) -> None:
    """The source knows it, but has given no good OVF of it yet."""
    if row["ovf"] is not None or row["kind"] == EXTERNAL:
        return
    data = entities.unpack(entry.packed)
    entities.take(connection, entry.id, data, entry.facts)
    if row["problem"]:
        entities.spoilt(connection, entry.id, row["problem"])


def _carry(
    connection: sqlite3.Connection, domain: str, entry: Entry, status: int
) -> int:
    marks.mark(connection, [domain])
    done = connection.execute(
        "INSERT OR IGNORE INTO unregistered (domain, entity, kind, name, "
        "generation, sha256, length, ovf, status, since) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            domain,
            entry.id,
            entry.facts.kind,
            entry.facts.name,
            entry.facts.generation,
            entry.sha256,
            entry.length,
            entry.packed,
            status,
            time.time(),
        ),
    )
    return done.rowcount


def _add(entries: list[Entry], title: str, data: bytes) -> None:
    entity = title[: -len(".ovf")]
    try:
        facts = read_facts(data, entity)
    except errors.OvfRefused as e:
        # An upload with it would be refused. It stays in the history.
        log.error("LEAVE entity=%s reason=%r", entity, str(e))
        return
    if facts.kind != EXTERNAL:
        digest = hashlib.sha256(data).hexdigest()
        packed = entities.pack(data)
        entries.append(Entry(entity, packed, digest, len(data), facts))


def _members(
    pieces: Iterable[bytes], known: frozenset[str]
) -> Iterator[tuple[str, bytes]]:
    """Name and data of the members that are wanted, until the end marker."""
    stream = _Stream(pieces)
    seen: set[str] = set()
    while any(block := stream.take(tarheader.BLOCK)):
        try:
            header = tarheader.parse(block)
        except ValueError as e:
            raise _damaged(str(e)) from None
        kind = member.member_kind(header.name)
        if header.type in tarheader.DATALESS:
            continue
        length = tarheader.padded(header.size)
        wanted = (
            header.type in tarheader.REGULAR
            and header.name not in seen
            and kind != member.INVALID
            and header.name[: -len(".ovf")] not in known
            and header.size
            <= (ovf.MAX_OVF if kind == member.VM else member.MAX_JSON)
        )
        if not wanted:
            stream.skip(length)
            continue
        seen.add(header.name)
        yield header.name, stream.take(length)[: header.size]
    stream.drain()


class _Stream:
    """The pieces of a download, in the lengths that are asked for."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._buffer = bytearray()

    def take(self, length: int) -> bytes:
        while len(self._buffer) < length:
            self._more()
        data = bytes(self._buffer[:length])
        del self._buffer[:length]
        return data

    def skip(self, length: int) -> None:
        while length > len(self._buffer):
            length -= len(self._buffer)
            self._buffer.clear()
            self._more()
        del self._buffer[:length]

    def drain(self) -> None:
        """To the end, where the digest of the whole is compared."""
        self._buffer.clear()
        for _ in self._pieces:
            pass

    def _more(self) -> None:
        try:
            self._buffer += next(self._pieces)
        except StopIteration:
            raise _damaged("it ends early") from None


def _json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None


def _manifest(found: Any) -> tuple[Optional[str], frozenset[str]]:
    if not isinstance(found, dict) or not isinstance(
        found.get("updater"), str
    ):
        return None, frozenset()
    listed = found.get("entities")
    if not isinstance(listed, dict):
        return found["updater"], frozenset()
    registered = frozenset(
        entity
        for entity, entry in listed.items()
        if isinstance(entry, dict) and entry.get("registered") is True
    )
    return found["updater"], registered


def _damaged(reason: str) -> errors.Damaged:
    return errors.Damaged(what="The archive in the store", reason=reason)
