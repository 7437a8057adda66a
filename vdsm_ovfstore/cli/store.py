# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The store that a command is about, however it is reached.

A verb of the command asks a Store for a document and shows it. Whether this
process reads the storage itself (direct.py) or a host does (remote.py), the
documents are the same, and so are the errors.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional, Protocol

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.way import chosen

if TYPE_CHECKING:
    from vdsm_ovfstore.cli.direct import Direct

log = logging.getLogger("ovfstore.cli")

Document = dict[str, Any]

# Verdicts on a store that ask for nothing.
SOUND = ("ok", "empty")


class Store(Protocol):
    """
    One store. Use as context manager.

    A generation is what --generation says; None is the newest. Timeouts are
    in seconds, sizes in bytes. Everything raises errors.Error.
    """

    def __enter__(self) -> Store: ...

    def __exit__(self, *exc: object) -> None: ...

    def info(self) -> Document: ...

    def history(self) -> Document: ...

    def vms(self, generation: Optional[str]) -> Document: ...

    def vm(self, wanted: str, generation: Optional[str]) -> Document: ...

    def prepare(self, count: int, generation: str) -> None:
        """So many are going to be read, of that generation."""
        ...

    def read(self, wanted: str, generation: Optional[str]) -> bytes:
        """The OVF of one VM or template, verified."""
        ...

    def download(
        self, generation: Optional[str]
    ) -> tuple[Document, Iterator[bytes]]:
        """
        The document has domain, path and generation. The bytes are right
        only if the iterator ends without an error.
        """
        ...

    def diff(self, old: Optional[str], new: Optional[str]) -> Document:
        """Of two generations; old is the one before new by default."""
        ...

    def verify(self, quick: bool) -> Document: ...

    def upload(self, source: str, timeout: float, force: bool) -> Document:
        """
        source is what source.open_source takes; force: whatever speaks
        against it.
        """
        ...

    def create(
        self, copies: int, capacity: int, timeout: float
    ) -> Document: ...

    def repair(self, timeout: float, collect: bool) -> Document: ...

    def restore(self, generation: str, timeout: float) -> Document: ...

    def pin(self, generation: str, keep: bool, timeout: float) -> Document:
        """Keep it, or let it go in its time."""
        ...


class _NeverWritten(errors.StoreEmpty):
    """Nothing was lost: nothing was there ever."""

    exit_status = errors.EXIT_ERROR
    hint = "Run: ovfstore upload DOMAIN SOURCE"


@contextlib.contextmanager
def open_store(args: Any, console: Console) -> Iterator[Store]:
    """
    The store that the arguments name; a host's, where one serves it.

    Raises errors.DomainNotFound and the like.
    """
    with _find(args, console) as store, _explained(store):
        yield store


@contextlib.contextmanager
def open_direct(args: Any, console: Console) -> Iterator[Direct]:
    """The same, read by this process, for what no host does."""
    from vdsm_ovfstore.cli.direct import Direct

    with Direct(args, console.progress) as store, _explained(store):
        yield store


@contextlib.contextmanager
def _explained(store: Store) -> Iterator[None]:
    try:
        yield
    except errors.StoreEmpty as e:
        if store.info()["verdict"] != "empty":
            raise
        raise _NeverWritten(**e.fields()) from None


def _find(args: Any, console: Console) -> Store:
    host = chosen(args)
    if host is not None:
        # Imported here: needs a client, and no store of our own.
        from vdsm_ovfstore.cli.serving import find

        remote = find(host, args, console)
        if remote is not None:
            return remote
    from vdsm_ovfstore.cli.direct import Direct

    log.info("STORE through=nobody path=%r", args.domain)
    return Direct(args, console.progress)
