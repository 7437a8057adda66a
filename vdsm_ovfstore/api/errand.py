# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The errand: a short-lived process that reads storage, or checks an archive.

Storage may hang in the kernel, and what guests and other hosts wrote is
parsed here: neither is for the process that serves everybody. It takes no
lock and changes nothing but the spool files it is given.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator
from typing import Any, Callable

from vdsm_ovfstore import errors
from vdsm_ovfstore.api import comparison, documents, stock_errand
from vdsm_ovfstore.api.faults import error_document
from vdsm_ovfstore.api.opened import open_store
from vdsm_ovfstore.storage.filedomain import FileDomain, find_domains
from vdsm_ovfstore.store import child
from vdsm_ovfstore.store.compress import ZLIB_QUICK
from vdsm_ovfstore.store.prepare import Preparer, write_spool
from vdsm_ovfstore.store.reader import Reader
from vdsm_ovfstore.store.terms import (
    check_room,
    check_size,
    terms,
    way_out,
)

Request = dict[str, Any]
Answer = dict[str, Any]

_CHUNK = 1024**2


# -- reading verbs ------------------------------------------------------------


def _info(reader: Reader, request: Request) -> Answer:
    return documents.info(reader)


def _history(reader: Reader, request: Request) -> Answer:
    return documents.history(reader)


def _vms(reader: Reader, request: Request) -> Answer:
    return documents.vms(
        reader, request["generation"], request["first"], request["count"]
    )


def _vm(reader: Reader, request: Request) -> Answer:
    return documents.vm(reader, request["wanted"], request["generation"])


def _diff(reader: Reader, request: Request) -> Answer:
    asked = ("old", "new", "first", "count")
    return comparison.diff_page(reader, *(request[name] for name in asked))


def _check(reader: Reader, request: Request) -> Answer:
    def progress(what: str, done: int, total: int) -> None:
        child.progress(f"{100 * done // max(total, 1)} {what}")

    return documents.check(reader, request["quick"], progress)


# -- downloads ----------------------------------------------------------------


def _locate(reader: Reader, request: Request) -> Answer:
    """What a download will deliver: generation, entity, size, sha256."""
    generation = reader.find(request["generation"])
    answer: Answer = {
        "generation": documents.generation_fields(generation),
        "entity": None,
        "size": generation.length,
        "sha256": generation.sha256,
    }
    if request["wanted"] is not None:
        entry = reader.open(generation).find(request["wanted"])
        entity = documents.entity_fields(entry)
        answer.update(entity=entity, size=entry.length, sha256=entry.sha256)
    return answer


def _fetch(reader: Reader, request: Request) -> Answer:
    """
    Write what _locate promised to a spool file, every byte verified.

    Raises errors.Damaged when no copy has it any more.
    """
    if request["wanted"] is None:
        _, data = documents.archive(reader, request["generation"])
    else:
        opened = reader.open(reader.find(request["generation"]))
        data = iter([opened.read(opened.find(request["wanted"]))])
    digest, length = hashlib.sha256(), 0
    for piece in data:
        digest.update(piece)
        length += len(piece)
        write_spool(request["fds"][0], piece)
    if (length, digest.hexdigest()) != (request["size"], request["sha256"]):
        raise errors.Damaged(
            what="What was to be sent",
            reason="it is not what it was when the transfer was asked for",
        )
    return {}


# -- uploads ------------------------------------------------------------------


def _terms(reader: Reader, request: Request) -> Answer:
    """What an upload may send; raises errors.ArchiveTooLarge."""
    found = terms(reader, members=False)
    check_size(request["size"], found)
    return {"limit": found.limit}


def _prepare(reader: Reader, request: Request) -> Answer:
    """
    Check and compress an archive that is being received.

    Raises the errors of archive.py, ArchiveTooLarge, ArchiveMismatch.
    """
    found = terms(reader)
    tar, body, notice = request["fds"]
    how: dict[str, Any] = {"received": (tar, body), "known": found.known}
    if request.get("stock"):
        # Of the engine's own everything is taken that is an archive.
        how.update(strict=False, level=ZLIB_QUICK)
    else:
        larger = way_out(found, found.limit)
        how.update(limit=found.limit, way_out=larger)
    with Preparer(**how) as preparer:
        for data in _received(tar, notice, request["size"]):
            preparer.feed(data)
        prepared = preparer.finish()
    wanted = request["sha256"]
    if wanted is not None and prepared.sha256 != wanted:
        raise errors.ArchiveMismatch(
            reason=f"its sha256 is {prepared.sha256}, announced was {wanted}"
        )
    check_room(prepared.segment_size, prepared.sha256, found)
    return prepared.facts()


def _received(tar: int, notice: int, size: int) -> Iterator[bytes]:
    """
    The archive, while it grows in the spool file.

    The parent tells through a pipe how long the file is, in numbers of 8
    bytes, and closes the pipe when all is there.
    """
    done = 0
    while done < size:
        # Numbers are written as a whole, and so many of them fit.
        told = os.read(notice, 4096)
        there = int.from_bytes(told[-8:], "little") if told else size
        while done < there:
            data = os.pread(tar, min(_CHUNK, there - done), done)
            if not data:
                raise errors.SourceUnreadable(
                    path="the spool file", reason=f"it ends at byte {done}"
                )
            done += len(data)
            yield data


# -- finding domains ----------------------------------------------------------


def _discover(request: Request) -> Answer:
    problems: list[errors.Error] = []
    found: dict[str, FileDomain] = {}
    for path in request["paths"]:
        for domain in find_domains(
            path, buffered=request["buffered"], problems=problems
        ):
            found.setdefault(domain.path, domain)
    return {
        "domains": [
            {
                "domain": domain.id,
                "path": domain.path,
                "type": domain.type,
                "domain_version": domain.version,
                "lock": domain.lock_kind,
                "pool": domain.metadata.pool,
                "block_size": domain.block_size,
                "alignment": domain.alignment,
            }
            for domain in found.values()
        ],
        "problems": [error_document(e) for e in problems],
    }


# -- the process --------------------------------------------------------------

_VERBS: dict[str, Callable[[Reader, Request], Answer]] = {
    "info": _info,
    "history": _history,
    "vms": _vms,
    "vm": _vm,
    "diff": _diff,
    "check": _check,
    "locate": _locate,
    "fetch": _fetch,
    "terms": _terms,
    "prepare": _prepare,
    "stock read": stock_errand.read,
    "stock room": stock_errand.room,
}

# What is not found by the shortcut (store/shortcut.py) is nothing to these.
_GENERATIONS_ONLY = ("history", "vms", "vm", "diff", "locate", "fetch")


def _run(request: Request, watcher: child.Watcher) -> Answer:
    if request["verb"] == "discover":
        return _discover(request)
    if request["verb"] == "stock volume":
        return stock_errand.volume(request)
    domain = FileDomain.open(request["path"], buffered=request["buffered"])
    if request["verb"] in ("terms", "prepare"):
        domain.writable()
    if request["verb"] == "volumes":
        return stock_errand.volumes(domain)
    shortcut = request["verb"] in _GENERATIONS_ONLY
    with open_store(domain, shortcut) as reader:
        return _VERBS[request["verb"]](reader, request)


def main() -> int:
    return child.serve(_run)


if __name__ == "__main__":
    sys.exit(main())
