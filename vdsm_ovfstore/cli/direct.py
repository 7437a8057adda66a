# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A store that this process reads itself.

Reading needs no lock. To write, a worker is started: an archive is received
and checked, and must fit, before that, so that nothing is locked, and nothing
written, for what will be refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Callable, Optional

from vdsm_ovfstore.api import documents
from vdsm_ovfstore.api.opened import open_store
from vdsm_ovfstore.cli.options import log_level
from vdsm_ovfstore.cli.progress import Progress
from vdsm_ovfstore.cli.store import Document
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.reader import GenerationReader, Reader

if TYPE_CHECKING:
    from vdsm_ovfstore.cli.source import Source
    from vdsm_ovfstore.store.launch import Options
    from vdsm_ovfstore.store.prepare import Prepared
    from vdsm_ovfstore.store.recovery import Prospect
    from vdsm_ovfstore.store.retention import Settings
    from vdsm_ovfstore.store.terms import Terms


class Direct:
    """Store (store.py)."""

    def __init__(self, args: Any, progress: Progress) -> None:
        self._args = args
        self._progress = progress
        self._domain = FileDomain.open(
            args.domain, buffered=args.allow_buffered_io
        )
        self.path = self._domain.path
        self._opened = contextlib.ExitStack()
        self._readers: dict[bool, Reader] = {}
        self._generations: dict[Optional[str], GenerationReader] = {}

    def __enter__(self) -> Direct:
        return self

    def __exit__(self, *exc: object) -> None:
        self._opened.close()

    # -- reading --------------------------------------------------------------

    def info(self) -> Document:
        return documents.info(self._read(shortcut=False))

    def history(self) -> Document:
        return documents.history(self._read())

    def vms(self, generation: Optional[str]) -> Document:
        return documents.vms(self._read(), self._generation(generation))

    def vm(self, wanted: str, generation: Optional[str]) -> Document:
        opened = self._generation(generation)
        return documents.vm(self._read(), wanted, opened)

    def prepare(self, count: int, generation: str) -> None:
        pass  # each is as near as all

    def read(self, wanted: str, generation: Optional[str]) -> bytes:
        opened = self._generation(generation)
        return opened.read(opened.find(wanted))

    def download(
        self, generation: Optional[str]
    ) -> tuple[Document, Iterator[bytes]]:
        return documents.archive(self._read(), self._generation(generation))

    def preview(self, settings: Settings) -> Document:
        """What the next upload will let go."""
        return documents.preview(self._read(shortcut=False), settings)

    def diff(self, old: Optional[str], new: Optional[str]) -> Document:
        from vdsm_ovfstore.api import comparison

        return comparison.diff(self._read(), old, new)

    def diff_disks(self, generation: Optional[str]) -> Document:
        from vdsm_ovfstore.api import comparison

        return comparison.diff_disks(self._read(), generation)

    def recover(
        self,
        generation: Optional[str],
        others: Sequence[FileDomain],
        take: Callable[[Prospect], Document],
    ) -> Document:
        from vdsm_ovfstore.api.prospects import recover

        return recover(
            self._read(),
            generation,
            others,
            take,
            lambda done, total: self._progress.part("reading", done, total),
        )

    def verify(self, quick: bool) -> Document:
        return documents.check(
            self._read(shortcut=False),
            quick,
            lambda what, done, total: self._progress.part(
                "verifying", done, total
            ),
        )

    def _read(self, shortcut: bool = True) -> Reader:
        """Without the shortcut every volume is found, a new one too."""
        if shortcut not in self._readers:
            opened = open_store(self._domain, shortcut)
            self._readers[shortcut] = self._opened.enter_context(opened)
        return self._readers[shortcut]

    def _generation(self, wanted: Optional[str]) -> GenerationReader:
        """Kept: it has the index, and the newest stays the same one."""
        if wanted not in self._generations:
            reader = self._read()
            self._generations[wanted] = reader.open(reader.find(wanted))
        return self._generations[wanted]

    # -- writing --------------------------------------------------------------

    def upload(self, source: str, timeout: float, force: bool) -> Document:
        from vdsm_ovfstore.cli.source import open_source
        from vdsm_ovfstore.store import guard, launch
        from vdsm_ovfstore.store.terms import check_room, terms

        self._domain.writable()
        with open_store(self._domain) as reader:
            allowed = terms(reader)
        opened = open_source(source, self._domain.id)
        prepared = self._prepare(opened, allowed)
        try:
            check_room(prepared.segment_size, prepared.sha256, allowed)
            answer = launch.upload(
                self._domain.path,
                prepared,
                self._options(timeout),
                None if force else guard.DROP,
            )
        finally:
            prepared.close()
        return self._document(answer)

    def create(self, copies: int, capacity: int, timeout: float) -> Document:
        from vdsm_ovfstore.store import launch

        self._domain.writable()
        answer = launch.create(
            self._domain.path, copies, capacity, self._options(timeout)
        )
        return self._document(answer)

    def repair(self, timeout: float, collect: bool) -> Document:
        from vdsm_ovfstore.store import launch

        self._domain.writable()
        options = self._options(timeout)
        answer = launch.repair(self._domain.path, options, collect)
        return self._document(answer)

    def restore(self, generation: str, timeout: float) -> Document:
        from vdsm_ovfstore.store import launch

        self._domain.writable()
        self._read().find(generation)
        options = self._options(timeout)
        answer = launch.restore(self._domain.path, generation, options)
        return self._document(answer)

    def pin(self, generation: str, keep: bool, timeout: float) -> Document:
        from vdsm_ovfstore.store import launch

        self._domain.writable()
        self._read().find(generation)
        options = self._options(timeout)
        answer = launch.pin(self._domain.path, generation, keep, options)
        return self._document(answer)

    def _prepare(self, source: Source, allowed: Terms) -> Prepared:
        from vdsm_ovfstore.store.prepare import Preparer
        from vdsm_ovfstore.store.terms import check_size, way_out

        done = 0
        larger = way_out(allowed, allowed.limit)
        with Preparer(allowed.limit, larger, known=allowed.known) as preparer:
            for data in source.chunks:
                preparer.feed(data)
                if done == 0:
                    # Not before its first bytes: what is no archive at all
                    # shall be told so, whatever its size.
                    check_size(source.length or 0, allowed)
                done += len(data)
                self._progress.data("checking", done, source.about)
            return preparer.finish()

    def _options(self, timeout: float) -> Options:
        """How a worker is to be run."""
        from vdsm_ovfstore.store import launch

        return launch.Options(
            timeout=timeout,
            buffered=self._args.allow_buffered_io,
            progress=self._progress.step,
            log_level=log_level(self._args),
        )

    def _document(self, answer: Document) -> Document:
        return {
            "domain": self._domain.id,
            "path": self._domain.path,
            **answer,
        }
