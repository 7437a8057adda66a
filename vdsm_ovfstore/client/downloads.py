# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Getting an archive, or one OVF, from a host.

A connection that breaks is made again and the rest asked for. If the host
has given up the transfer meanwhile, a new one of the same generation goes on
where the first stopped: what counts is the digest of the whole.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.client import digests, failure
from vdsm_ovfstore.client.message import Response, request
from vdsm_ovfstore.client.transfer import Progress, Ticket, check_ended
from vdsm_ovfstore.client.transport import Connection

if TYPE_CHECKING:
    from vdsm_ovfstore.client import documents

log = logging.getLogger("ovfstore.client")

# How often a download is taken up again, and the seconds before that: in all
# 12 s, the time of a host that is started again.
_PAUSES = (0.05, 0.2, 0.5, 1.0, 2.0, 3.0, 5.0)

# Asks for a transfer; of the named generation.
Ask = Callable[[Optional[str]], Ticket]


class DownloadResult(NamedTuple):
    """
    What was downloaded.

    size is in bytes, sha256 in hexadecimal. entity is None for a whole
    archive. path is the file that was written, data the content; each is
    None where the target was another.
    """

    size: int
    sha256: str
    generation: documents.Generation
    entity: Optional[documents.Entity]
    path: Optional[str]
    data: Optional[bytes]


class Download:
    """
    What a host sends: iterate over it, once.

    The digest is known only at the end: then errors.Damaged is raised if it
    is not that of what was asked for, so nothing of it may be believed
    before. Raises the host's error and errors.HostUnreachable as well.

    size is in bytes; sha256 is in hexadecimal; generation and entity are
    documents, entity is None for a whole archive.
    """

    def __init__(self, ticket: Ticket, ask: Ask, progress: Progress) -> None:
        self.size: int = ticket.field("size", int)
        self.sha256: str = ticket.field("sha256", str)
        self.generation: documents.Generation = ticket.field(
            "generation", dict
        )
        self.entity: Optional[documents.Entity] = ticket.document.get("entity")
        self._ticket = ticket
        self._ask = ask
        self._progress = progress
        self._done = 0
        self._closed = False
        self._chunks: Any = self._verified()

    def __iter__(self) -> Iterator[bytes]:
        chunks: Iterator[bytes] = self._chunks
        return chunks

    def __enter__(self) -> Download:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; the host may forget what was not fetched."""
        self._chunks.close()
        if self._done < self.size and not self._closed:
            self._ticket.abort()
        self._closed = True

    def _verified(self) -> Iterator[bytes]:
        digest = hashlib.sha256()
        for data in self._resumed():
            digest.update(data)
            self._done += len(data)
            self._progress("receiving", self._done, self.size)
            yield data
        if digest.hexdigest() != self.sha256:
            raise _damaged(
                f"sha256 {self.sha256} was announced, what came has "
                f"{digest.hexdigest()}"
            )

    def _resumed(self) -> Iterator[bytes]:
        pauses = iter(_PAUSES)
        broken: Optional[errors.Error] = None
        while True:
            try:
                yield from self._fetch()
                return
            except errors.HostUnreachable as e:
                kind = failure.kind_of(e)
                # Nobody there: only after somebody was.
                if kind not in (failure.LOST, failure.TIMEOUT) and not (
                    broken and kind == failure.CONNECT
                ):
                    raise
                broken = e
            except (errors.TransferRefused, errors.TransferNotFound) as e:
                if broken is None:
                    raise
                if getattr(e, "gone", True):
                    self._renew()
            except errors.HostBusy as e:
                broken = broken or e
            if self._done == self.size:
                return
            pause = next(pauses, None)
            if pause is None:
                raise broken
            log.info(
                "RESUME transfer=%s done=%d size=%d reason=%s",
                self._ticket.id,
                self._done,
                self.size,
                broken,
            )
            time.sleep(pause)

    def _renew(self) -> None:
        number = self.generation.get("number")
        digest = self.generation.get("sha256")
        ticket = self._ask(f"{number}:{digest}")
        if ticket.document.get("sha256") != self.sha256:
            ticket.abort()
            raise _damaged("the host has other content under its name now")
        self._ticket = ticket

    def _fetch(self) -> Iterator[bytes]:
        """The bytes from self._done on, of one connection."""
        connection = self._ticket.pool.take(fresh=True)
        try:
            response = self._get(connection)
            skip = self._check(response)
            for data in response.chunks():
                part = data[skip:]
                skip -= len(data) - len(part)
                if part:
                    yield part
        except BaseException:
            connection.close()
            raise
        self._ticket.pool.put(connection, response)

    def _get(self, connection: Connection) -> Response:
        headers = {}
        if self._done:
            headers["Range"] = f"bytes={self._done}-"
            headers["If-Range"] = f'"{self.sha256}"'
        head = request(connection, "GET", self._ticket.url, headers)
        connection.send(head, until_answered=True)
        seen = self._ticket.follow(connection, self._progress)
        if seen is not None:
            check_ended(seen)
            raise connection.timed_out()
        return Response.read(connection)

    def _check(self, response: Response) -> int:
        """Returns how many bytes come that are here already."""
        if response.status not in (200, 206):
            raise response.error()
        digest = response.headers.get("repr-digest")
        if digest is not None and digests.sha256(digest) != self.sha256:
            raise _damaged("the host sends other content than it announced")
        begin = self._done if response.status == 206 else 0
        if response.status == 206:
            expected = f"bytes {begin}-{self.size - 1}/{self.size}"
            if response.headers.get("content-range") != expected:
                raise response.bad("another range than was asked for")
        if response.length != self.size - begin:
            raise _damaged(
                f"{self.size - begin} bytes were announced, the host sends "
                f"{response.length}"
            )
        return self._done - begin


def _damaged(reason: str) -> errors.Damaged:
    return errors.Damaged(what="The download", reason=reason)
