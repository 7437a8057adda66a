# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What the updater remembers, in one SQLite file.

    entities      what the source has: the OVF as it was last seen good
    placements    where each belongs: a domain, "*" for all, or "*POOL"
    domains       what each store has to show (mark), and shows (done)
    sent          archives that were sent to a store and may have arrived
    stored        what each store holds of the source, by entity
    unregistered  what a store held that the source does not know

A change of an entity and the marks of the domains that it concerns are one
transaction, in which the marks come first. A mark is a number that only goes
up: an update remembers the one that it began with, so that what is marked
meanwhile stays marked.

Several threads use it, and several processes: each thread has a connection of
its own, see State.connect. Readers see one state from their begin() to their
end, and keep nobody from writing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import uuid
from collections.abc import Iterator
from typing import Optional

from vdsm_ovfstore import errors

# Of the tables below; a file of another one is refused.
VERSION = 1

_BUSY = 30.0  # seconds that one writer waits for another one

_TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE entities (
    id TEXT PRIMARY KEY,
    version TEXT NOT NULL DEFAULT '',
    kind TEXT NOT NULL DEFAULT '',
    name TEXT NOT NULL DEFAULT '',
    generation INTEGER NOT NULL DEFAULT 0,
    sha256 TEXT NOT NULL DEFAULT '',
    length INTEGER NOT NULL DEFAULT 0,
    ovf BLOB,
    disks TEXT NOT NULL DEFAULT '[]',
    memory TEXT NOT NULL DEFAULT '[]',
    status INTEGER NOT NULL DEFAULT 0,
    waiting TEXT NOT NULL DEFAULT '',
    waiting_since REAL NOT NULL DEFAULT 0,
    problem TEXT NOT NULL DEFAULT '',
    problem_since REAL NOT NULL DEFAULT 0,
    refused TEXT NOT NULL DEFAULT ''
);
CREATE TABLE placements (
    domain TEXT NOT NULL,
    entity TEXT NOT NULL,
    PRIMARY KEY (domain, entity)
) WITHOUT ROWID;
CREATE INDEX placements_of ON placements (entity);
CREATE TABLE domains (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL DEFAULT '',
    pool TEXT NOT NULL DEFAULT '',
    known INTEGER NOT NULL DEFAULT 0,
    choice TEXT NOT NULL DEFAULT '',
    mark INTEGER NOT NULL DEFAULT 1,
    done INTEGER NOT NULL DEFAULT 0,
    forced INTEGER NOT NULL DEFAULT 0,
    generation INTEGER,
    sha256 TEXT NOT NULL DEFAULT '',
    content TEXT NOT NULL DEFAULT '',
    entities INTEGER NOT NULL DEFAULT 0,
    length INTEGER NOT NULL DEFAULT 0,
    accepted TEXT NOT NULL DEFAULT '',
    host TEXT NOT NULL DEFAULT '',
    updated REAL NOT NULL DEFAULT 0,
    current REAL NOT NULL DEFAULT 0,
    failures INTEGER NOT NULL DEFAULT 0,
    retry REAL NOT NULL DEFAULT 0,
    code INTEGER NOT NULL DEFAULT 0,
    problem TEXT NOT NULL DEFAULT '',
    step TEXT NOT NULL DEFAULT '',
    degraded TEXT NOT NULL DEFAULT ''
);
CREATE TABLE sent (
    domain TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    content TEXT NOT NULL,
    time REAL NOT NULL,
    PRIMARY KEY (domain, sha256)
) WITHOUT ROWID;
CREATE TABLE stored (
    domain TEXT NOT NULL,
    entity TEXT NOT NULL,
    generation INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (domain, entity)
) WITHOUT ROWID;
CREATE TABLE unregistered (
    domain TEXT NOT NULL,
    entity TEXT NOT NULL,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    generation INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    length INTEGER NOT NULL,
    ovf BLOB NOT NULL,
    status INTEGER NOT NULL DEFAULT 0,
    since REAL NOT NULL,
    PRIMARY KEY (domain, entity)
);
"""


class State:
    """
    The file. See connect().

    Raises errors.StateUnusable.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._prepare()

    @contextlib.contextmanager
    def connect(self) -> Iterator[sqlite3.Connection]:
        """
        A connection for this thread; transactions are begun by hand.

        Raises errors.StateUnusable, for all that goes wrong with the file.
        """
        with self._refusing():
            connection = self._open()
            try:
                yield connection
            finally:
                connection.close()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path, timeout=_BUSY, isolation_level=None
        )
        connection.row_factory = sqlite3.Row
        # FULL: a mark is on the disk before what it is about is sent.
        connection.execute("PRAGMA synchronous = FULL")
        # KiB, of each thread's.
        connection.execute("PRAGMA cache_size = -1024")
        return connection

    def _prepare(self) -> None:
        directory = os.path.dirname(self.path)
        if not os.path.isdir(directory):
            raise self._unusable(f"there is no directory {directory}")
        with self._refusing():
            # OVFs may hold initial passwords of the guests.
            os.close(open_private(self.path))
            connection = self._open()
            try:
                self._make(connection)
            finally:
                connection.close()

    def _make(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA journal_mode = WAL")
        with writing(connection):
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found == 0:
                for statement in _TABLES.split(";"):
                    connection.execute(statement)
                set_meta(connection, "updater", str(uuid.uuid4()))
                connection.execute(f"PRAGMA user_version = {VERSION}")
            elif found != VERSION:
                raise self._unusable(
                    f"it is of version {found}, this program knows {VERSION}"
                )

    @contextlib.contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as e:
            raise self._unusable(str(e)) from None
        except OSError as e:
            if e.filename != self.path:
                raise
            raise self._unusable(e.strerror or str(e)) from None

    def _unusable(self, reason: str) -> errors.StateUnusable:
        return errors.StateUnusable(
            path=self.path,
            reason=reason,
            way_out="Mend it, or move it away: a new one is made, and what "
            "the source does not know stays in the stores",
        )


def open_private(path: str) -> int:
    """
    A descriptor of a file that only its owner may use, made if need be.

    What root makes belongs to whom the directory belongs: it must not be in
    the way of the service.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    fd = os.open(path, flags, 0o600)
    if os.geteuid() == 0:
        owner = os.stat(os.path.dirname(path))
        os.fchown(fd, owner.st_uid, owner.st_gid)
    return fd


@contextlib.contextmanager
def writing(connection: sqlite3.Connection) -> Iterator[None]:
    """A transaction that writes; undone when the block raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


@contextlib.contextmanager
def reading(connection: sqlite3.Connection) -> Iterator[None]:
    """All that is read in the block is of one state."""
    connection.execute("BEGIN")
    try:
        # The state is that of the first read, not of the BEGIN.
        connection.execute("SELECT 1 FROM meta").fetchone()
        yield
    finally:
        connection.execute("ROLLBACK")


def meta(connection: sqlite3.Connection, key: str) -> Optional[str]:
    row = connection.execute(
        "SELECT value FROM meta WHERE key = ?", (key,)
    ).fetchone()
    return None if row is None else str(row[0])


def set_meta(connection: sqlite3.Connection, key: str, value: str) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (key, value)
    )
