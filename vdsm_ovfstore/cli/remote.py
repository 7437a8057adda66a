# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""A store that a host serves."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional, cast

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.store import Document
from vdsm_ovfstore.client import Client
from vdsm_ovfstore.format.ids import is_uuid

if TYPE_CHECKING:
    from vdsm_ovfstore.cli.members import Members
    from vdsm_ovfstore.cli.sending import Archive
    from vdsm_ovfstore.client import Ticket

log = logging.getLogger("ovfstore.cli")

# What the verbs take; a longer one names nothing.
_NAME_MAX = 255

# OVFs that are asked for one by one. For each the host starts a process, and
# two for a whole archive.
_SINGLY = 2


class Remote:
    """
    Store (store.py). What is interrupted here is ended there.

    domain: what the host's verb list says of it.
    """

    def __init__(
        self, client: Client, domain: Document, console: Console
    ) -> None:
        self._client = client
        self._id: str = domain["domain"]
        self._path: str = domain["path"]
        self._console = console
        self._progress = console.progress
        self._opened = contextlib.ExitStack()
        self._opened.enter_context(client)
        self._members: dict[Optional[str], Members] = {}

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    # -- reading --------------------------------------------------------------

    def info(self) -> Document:
        return cast(Document, self._client.get_info(self._id))

    def history(self) -> Document:
        return cast(Document, self._client.get_history(self._id))

    def vms(self, generation: Optional[str]) -> Document:
        return cast(Document, self._client.all_vms(self._id, generation))

    def vm(self, wanted: str, generation: Optional[str]) -> Document:
        by = self._entity(wanted, generation)
        return cast(Document, self._client.get_vm(self._id, **by))

    def prepare(self, count: int, generation: str) -> None:
        if count <= _SINGLY:
            return
        from vdsm_ovfstore.cli.members import Members

        try:
            _, chunks = self.download(generation)
            members = Members(chunks)
        except errors.Damaged:
            return  # single ones may be sound
        except (
            errors.ArchiveTooLarge,
            errors.SpoolFull,
            errors.TargetRefused,
        ) as e:
            self._console.warn(
                f"error {e.code}: {e}; so each OVF is asked for by itself, "
                "which takes longer"
            )
            return
        self._opened.callback(members.close)
        self._members[generation] = members

    def read(self, wanted: str, generation: Optional[str]) -> bytes:
        if generation in self._members and is_uuid(wanted):
            found = self._members[generation].read(f"{wanted}.ovf")
            if found is not None:
                return found
        text = self.vm(wanted, generation)["ovf"]
        if text is not None:
            return cast(str, text).encode()
        by = self._entity(wanted, generation)
        data = self._client.download(self._id, **by).data
        assert data is not None
        return data

    def download(
        self, generation: Optional[str]
    ) -> tuple[Document, Iterator[bytes]]:
        download = self._opened.enter_context(
            self._client.open_download(
                self._id, generation, progress=self._step
            )
        )
        document = self._document({"generation": download.generation})
        return document, iter(download)

    def diff(self, old: Optional[str], new: Optional[str]) -> Document:
        from vdsm_ovfstore.api import comparison

        page = self._client.whole_diff(self._id, old, new)
        changes = cast("list[Document]", page["changes"])
        return comparison.from_changes(cast(Document, page), changes)

    def verify(self, quick: bool) -> Document:
        return self._wait(self._client.verify(self._id, quick))

    def _entity(
        self, wanted: str, generation: Optional[str]
    ) -> dict[str, Any]:
        """The arguments that name one VM or template."""
        if is_uuid(wanted):
            return {"vm": wanted, "generation": generation}
        if not 1 <= len(wanted) <= _NAME_MAX:
            page = self._client.list_vms(self._id, generation, count=1)
            number = page["generation"]["number"]
            raise errors.EntityNotFound(generation=number, name=wanted)
        return {"name": wanted, "generation": generation}

    # -- writing --------------------------------------------------------------

    def upload(self, source: str, timeout: float, force: bool) -> Document:
        from vdsm_ovfstore.cli.sending import sized

        with sized(source, self._id, self._limit, self._progress) as archive:
            ticket = self._announce(archive, timeout, force)
            with self._aborted(ticket):
                answer = self._client.send(
                    ticket,
                    archive.chunks,
                    archive.length,
                    archive.sha256,
                    self._data,
                )
        return cast(Document, answer)

    def _announce(
        self, archive: Archive, timeout: float, force: bool
    ) -> Ticket:
        try:
            return self._client.begin_upload(
                self._id, archive.length, archive.sha256, timeout, force=force
            )
        except errors.ArchiveTooLarge as e:
            if not archive.is_cut:
                raise
            size = f"more than {archive.length - 1}"
            raise errors.ArchiveTooLarge(
                **{**e.fields(), "size": size}
            ) from None

    def _limit(self) -> int:
        """Bytes of the largest archive that the store can take."""
        copies = self.info()["copies"]
        return max((c["capacity"] for c in copies if c["member"]), default=0)

    def create(self, copies: int, capacity: int, timeout: float) -> Document:
        job = self._client.create(self._id, copies, capacity, timeout)
        return self._wait(job)

    def repair(self, timeout: float, collect: bool) -> Document:
        job = self._client.repair(self._id, timeout, collect=collect)
        return self._wait(job)

    def restore(self, generation: str, timeout: float) -> Document:
        return self._wait(self._client.restore(self._id, generation, timeout))

    def pin(self, generation: str, keep: bool, timeout: float) -> Document:
        verb = self._client.pin if keep else self._client.unpin
        return self._wait(verb(self._id, generation, timeout))

    # -- jobs and transfers ---------------------------------------------------

    def _wait(self, job: str) -> Document:
        """The result of a job."""
        try:
            return self._client.wait_job(job, progress=self._part)
        except Exception:
            raise
        except BaseException:
            log.info("ABORT job=%s", job)
            with contextlib.suppress(errors.Error):
                self._client.abort_job(job)
            raise

    @contextlib.contextmanager
    def _aborted(self, ticket: Ticket) -> Iterator[None]:
        """An upload that is interrupted here is ended there."""
        try:
            yield
        except Exception:
            raise  # that the host knows of, or ends by itself
        except BaseException:
            log.info("ABORT transfer=%s", ticket.id)
            ticket.abort()
            raise

    def _document(self, fields: Document) -> Document:
        return {"domain": self._id, "path": self._path, **fields}

    # -- progress -------------------------------------------------------------

    def _part(self, what: str, done: int, total: int) -> None:
        """Of a job, in per cent; most have steps only."""
        if done:
            self._progress.part(what, done, total)
        else:
            self._progress.step(what)

    def _data(self, what: str, done: int, total: int) -> None:
        """Of an upload: bytes, then the steps of the host."""
        if total:
            self._progress.data(what, done, total)
        else:
            self._progress.step(what)

    def _step(self, what: str, done: int, total: int) -> None:
        """Of a download: its bytes are shown by who writes them."""
        if not total:
            self._progress.step(what)
