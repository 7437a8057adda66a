# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Looks at the source, as often as asked; what goes wrong is written down.

A source that fails stops no update of what is known already.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Sequence

from vdsm_ovfstore import errors
from vdsm_ovfstore.engine import marks
from vdsm_ovfstore.engine.source import DataDomain, Source
from vdsm_ovfstore.engine.state import State, meta, set_meta, writing
from vdsm_ovfstore.engine.survey import Limits, Survey

log = logging.getLogger("ovfstore.updater")

# Where the state has the last error of the source.
PROBLEM, CODE, STEP = "source_problem", "source_code", "source_step"


class Look:
    """
    source is used by one thread at a time.

    Attributes:
        hosts: Addresses that the source gave last; empty: it gives none.
        names_domains: Whether it tells which data domains there are; None
            before the first answer.
        retry_after: Seconds until the next look, if the last one has failed
            and the source has said so; else 0.
    """

    def __init__(
        self,
        state: State,
        source: Source,
        limits: Limits,
        accept_removals: bool = False,
    ) -> None:
        self._state = state
        self._source = source
        self._limits = limits
        self._accept = accept_removals
        self.hosts: Sequence[str] = ()
        self.names_domains = False
        self.retry_after = 0.0

    def run(self) -> None:
        """One look. Raises errors.StateUnusable only."""
        begin = time.monotonic()
        with self._state.connect() as connection:
            try:
                self._run(connection)
            except errors.StateUnusable:
                raise
            except errors.Error as e:
                self._failed(connection, e)
            except sqlite3.Error:
                raise
            except Exception as e:
                log.exception("LOOK failed")
                kind, reason = type(e).__name__, str(e) or "no details"
                unexpected = errors.Unexpected(kind=kind, reason=reason)
                self._failed(connection, unexpected)
        log.debug("LOOKED seconds=%.2f", time.monotonic() - begin)

    def _run(self, connection: sqlite3.Connection) -> None:
        self.retry_after = 0.0
        if meta(connection, "source") != self._source.name:
            with writing(connection):
                set_meta(connection, "source", self._source.name)
        found = self._source.domains()
        if found is not None:
            with writing(connection):
                marks.known_domains(connection, found)
        self.names_domains = found is not None
        self.hosts = self._source.hosts()
        survey = Survey(connection, self._source, self._limits, self._accept)
        outcome = survey.run()
        log.info(
            "LOOK entities=%d changed=%d removed=%d waiting=%d bad=%d",
            *outcome,
        )
        self._note(connection, "", 0, "")

    def _failed(
        self, connection: sqlite3.Connection, error: errors.Error
    ) -> None:
        log.error("SOURCE error=%d reason=%r", error.code, str(error))
        self.retry_after = float(error.fields().get("retry_after") or 0)
        self._note(connection, str(error), error.code, error.next_step)

    def _note(
        self,
        connection: sqlite3.Connection,
        problem: str,
        code: int,
        step: str,
    ) -> None:
        with writing(connection):
            set_meta(connection, PROBLEM, problem)
            set_meta(connection, CODE, str(code))
            set_meta(connection, STEP, step)
            if not problem:
                set_meta(connection, "looked", repr(time.time()))


def hosts_told(
    connection: sqlite3.Connection, domains: Sequence[str], complete: bool
) -> None:
    """Where the source leaves it to the hosts, these are the data domains."""
    with writing(connection):
        found = [DataDomain(domain, "") for domain in domains]
        marks.known_domains(connection, found, complete)
