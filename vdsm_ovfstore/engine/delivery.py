# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
One domain, on one host: the store is made, looked at, and brought up to date.

Before a store is written, its newest generation must be one that we know. If
it is not, somebody else writes it: the engine, another updater, a person.
That is noticed by what they leave behind:

* an archive without manifest.json is no updater's, so an engine's (or an
  `ovfstore upload`), whether it came through a host of ours or was adopted
  from the head of a volume
* one with the manifest of another updater

The first contact with a store is no reason to stop: it may be that of an
engine that is gone. But where the source is an engine that runs, and where we
have written before, whoever wrote it will do so again: two that know
different VMs would take them from one another at each turn.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from typing import Any, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.client import Client
from vdsm_ovfstore.engine import contact, ledger, refusal
from vdsm_ovfstore.engine.content import Content
from vdsm_ovfstore.engine.state import State, meta, reading, writing

log = logging.getLogger("ovfstore.updater")

# What became of it.
SENT, UNCHANGED = "sent", "unchanged"

# OVFs that the host may refuse, one after the other, in one update.
_REFUSALS = 16

# Foreign generations between two of ours that are looked at.
_BETWEEN = 4


class Policy(NamedTuple):
    """
    copies, size: of a new store, size in bytes; lease_timeout: seconds.
    live_engine: The source is an engine; engine_updates: it may update the
    stores as well.
    """

    copies: int
    size: int
    lease_timeout: float
    live_engine: bool
    engine_updates: bool


class Result(NamedTuple):
    """what: SENT or UNCHANGED; length: bytes that were sent."""

    what: str
    generation: Optional[int]
    length: int


class Delivery:
    """
    To be used by one thread; connection is that thread's.

    address: of the host, as the state and people call it.
    """

    def __init__(
        self,
        state: State,
        connection: sqlite3.Connection,
        client: Client,
        address: str,
        domain: str,
        policy: Policy,
    ) -> None:
        self._state = state
        self._connection = connection
        self._client = client
        self._address = address
        self._domain = domain
        self._policy = policy

    def run(self) -> Result:
        """Raises errors.Error; what has been achieved before is noted."""
        info = self._look()
        newest = info["newest"]
        if newest is not None:
            self._know(newest, ledger.stored(self._connection, self._domain))
        for _ in range(_REFUSALS):
            try:
                return self._update(info)
            except (errors.OvfRefused, errors.MemberRefused) as e:
                if not refusal.set_aside(
                    self._connection, self._client, self._domain, e
                ):
                    raise
        return self._update(info)

    # -- the store ------------------------------------------------------------

    def _look(self) -> Any:
        """What getInfo tells of a store that has its copies."""
        try:
            info = self._client.get_info(self._domain)
        except errors.VolumeNotFound:
            return self._create()
        if len(info["copies"]) < self._policy.copies:
            return self._create()
        if any(copy["head"] == "foreign" for copy in info["copies"]):
            # What a stock host wrote becomes a generation, to be seen.
            log.info("ADOPT domain=%s", self._domain)
            job = self._client.repair(self._domain, self._policy.lease_timeout)
            self._client.wait_job(job)
            return self._client.get_info(self._domain)
        return info

    def _create(self) -> Any:
        copies, size = self._policy.copies, self._policy.size
        log.info("CREATE domain=%s copies=%d", self._domain, copies)
        job = self._client.create(
            self._domain, copies, size, self._policy.lease_timeout
        )
        self._client.wait_job(job)
        return self._client.get_info(self._domain)

    # -- who else -------------------------------------------------------------

    def _know(self, newest: Any, stored: ledger.Stored) -> None:
        """
        Look at a generation that may not be ours.

        Raises errors.StoreContested.
        """
        sha256 = newest["sha256"]
        if sha256 in (stored.sha256, stored.accepted):
            return
        if self._sent(sha256) is not None:
            return
        log.info(
            "CONTACT domain=%s generation=%d sha256=%s",
            *(self._domain, newest["number"], sha256),
        )
        try:
            found = self._fetch(newest)
        except errors.Damaged:
            # What cannot be read cannot be carried. Somebody has to say so.
            if stored.accepted != "*":
                raise
            return
        mine = meta(self._connection, "updater")
        if found.updater != mine:
            self._check_writer(found.updater, stored, newest)
        contact.absorb(
            self._connection, self._domain, found, found.updater == mine
        )
        with writing(self._connection):
            self._connection.execute(
                "UPDATE domains SET accepted = ? WHERE id = ?",
                (sha256, self._domain),
            )

    def _fetch(self, generation: Any) -> contact.Archive:
        have = {
            row["id"]
            for row in self._connection.execute(
                "SELECT id FROM entities WHERE ovf IS NOT NULL UNION SELECT "
                "entity FROM unregistered WHERE domain = ?",
                (self._domain,),
            )
        }
        return contact.fetch(self._client, self._domain, generation, have)

    def _check_writer(
        self, updater: Optional[str], stored: ledger.Stored, seen: Any
    ) -> None:
        if stored.accepted == "*":
            return
        before = stored.generation is not None
        accept = f"run: ovfstore-updater accept {self._domain}"
        when = f"generation {seen['number']}, {seen['time'] or 'undated'}"
        if updater is not None:
            if before:
                raise errors.StoreContested(
                    domain=self._domain,
                    who=f"another updater, {updater} ({when})",
                    way_out=f"Stop that one, then {accept}",
                )
            return
        policy = self._policy
        if policy.engine_updates and (before or policy.live_engine):
            raise errors.StoreContested(
                domain=self._domain,
                who=f"an engine, or with ovfstore upload ({when})",
                way_out="Switch the engine's own updates off, then set "
                f"[source] engine_updates = no; if it was done once, {accept}",
            )

    # -- the archive ----------------------------------------------------------

    def _update(self, info: Any) -> Result:
        # One that reads one state to the end cannot write beside it.
        with self._state.connect() as reader, reading(reader):
            content = Content(reader, self._domain)
            stored = ledger.stored(reader, self._domain)
            newest = info["newest"]
            shown = "" if newest is None else newest["sha256"]
            generation = stored.generation
            same = shown == stored.sha256 and content.digest == stored.content
            if not same and content.digest == self._sent(shown):
                generation, same = self._found(content, newest), True
            if not same or stored.forced:
                return self._send(content, newest)
        ledger.note_unchanged(
            self._connection,
            self._domain,
            content.mark,
            self._address,
            info["problems"],
        )
        log.info("UNCHANGED domain=%s", self._domain)
        return Result(UNCHANGED, generation, 0)

    def _found(self, content: Content, newest: Any) -> int:
        """What we have sent is there, though nobody could tell us then."""
        number = int(newest["number"])
        answer = {**newest, "generation": number, "degraded": []}
        ledger.note_stored(
            self._connection, self._domain, content, answer, self._address
        )
        log.info(
            "FOUND domain=%s generation=%d sha256=%s",
            *(self._domain, number, newest["sha256"]),
        )
        return number

    def _sent(self, sha256: str) -> Optional[str]:
        return ledger.sent(self._connection, self._domain, sha256)

    def _send(self, content: Content, newest: Any) -> Result:
        when = int(time.time())
        size, sha256 = content.measure(when)
        ledger.note_sending(
            self._connection, self._domain, sha256, content.digest
        )
        log.info(
            "SEND domain=%s host=%s entities=%d size=%d sha256=%s",
            *(self._domain, self._address, content.entities, size, sha256),
        )
        answer = self._client.upload(
            self._domain,
            content.archive(when),
            size,
            sha256,
            self._policy.lease_timeout,
            # What may be dropped is known here, and was decided.
            force=True,
        )
        ledger.note_stored(
            self._connection, self._domain, content, answer, self._address
        )
        log.info(
            "STORED domain=%s generation=%d sha256=%s",
            *(self._domain, answer["generation"], sha256),
        )
        if newest is not None:
            self._check_between(newest, answer["generation"])
        return Result(SENT, answer["generation"], size)

    def _check_between(self, newest: Any, after: int) -> None:
        """
        Whether somebody wrote between our look and our update.

        A host adopts that, and puts ours on top of it.
        """
        before = newest["number"]
        if after <= before + 1:
            return
        history = self._client.get_history(self._domain)["generations"]
        between = [
            g
            for g in history
            if before < g["number"] < after
            # What lay in heads only has got a number by being adopted.
            and g["sha256"] != newest["sha256"]
            and self._sent(g["sha256"]) is None
        ]
        stored = ledger.stored(self._connection, self._domain)
        for generation in between[:_BETWEEN]:
            found = self._fetch(generation)
            contact.absorb(self._connection, self._domain, found, False)
            self._check_writer(found.updater, stored, generation)
