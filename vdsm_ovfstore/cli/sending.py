# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""An archive for a host, which wants to know its size before."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Callable, NamedTuple, Optional

from vdsm_ovfstore.cli.progress import Progress
from vdsm_ovfstore.cli.source import Source, open_source
from vdsm_ovfstore.format.archive import ArchiveChecker

_CHUNK = 1024**2


class Archive(NamedTuple):
    """
    length is in bytes; sha256 is None where nobody has counted yet. is_cut:
    there is more of it, but this is too much already.
    """

    chunks: Iterator[bytes]
    length: int
    sha256: Optional[str]
    is_cut: bool = False


@contextlib.contextmanager
def sized(
    source: str, domain: str, limit: Callable[[], int], progress: Progress
) -> Iterator[Archive]:
    """
    Open a source; one of unknown length is spooled to a local file.

    Arguments:
        source, domain: see open_source.
        limit: asked for the bytes of the largest archive that the store can
            take. Of a larger one no more is spooled than makes it too large.

    Raises errors.SourceUnreadable, OvfRefused, ArchiveTruncated,
    SpoolFull, TargetRefused.
    """
    opened = open_source(source, domain)
    if opened.length is not None:
        _check_begun(opened.length)
        yield Archive(opened.chunks, opened.length, None)
        return
    from vdsm_ovfstore.store.prepare import spool_file, write_spool

    with open(spool_file(), "w+b") as file:
        digest = hashlib.sha256()
        length = 0
        allowed = limit()
        for data in _first(opened, allowed + 1):
            write_spool(file.fileno(), data)
            digest.update(data)
            length += len(data)
            progress.data("reading", length, opened.about)
        _check_begun(length)
        file.seek(0)
        chunks = iter(lambda: file.read(_CHUNK), b"")
        yield Archive(chunks, length, digest.hexdigest(), length > allowed)


def _first(source: Source, limit: int) -> Iterator[bytes]:
    for data in source.chunks:
        yield data[:limit]
        limit -= len(data)
        if limit <= 0:
            break


def _check_begun(length: int) -> None:
    """An empty archive cannot be announced; the error is the usual one."""
    if length == 0:
        ArchiveChecker(True, {}).close()
