# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
upload: an archive becomes the newest generation.

It is received and checked, and must fit, before the worker starts: nothing
is locked, and nothing written, for what will be refused.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any, NamedTuple

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli import job
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.opened import entries, open_domain, open_store
from vdsm_ovfstore.cli.options import domain_argument, timeout_argument
from vdsm_ovfstore.cli.source import Source, open_source
from vdsm_ovfstore.cli.text import count, size
from vdsm_ovfstore.format.member import ENTITIES, Facts
from vdsm_ovfstore.format.seal import RING_SIZE
from vdsm_ovfstore.store import launch, space
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.prepare import Prepared, Preparer
from vdsm_ovfstore.store.reader import Reader

_MIB = 1024**2


class _Terms(NamedTuple):
    """
    What the store can take.

    limit and room are bytes: of the archive, and of its segment. newest is
    the digest of the newest generation, known are the members of it.
    """

    limit: int
    room: int
    newest: str
    known: dict[str, Facts]
    copies: int


def upload_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write an archive as the newest generation of a store, on all its "
        "copies. The generations before it stay as long as there is room. "
        "What a former write or another host left half done is mended first."
    )
    domain_argument(parser)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a plain tar as the engine makes it, - for stdin, or a "
        "directory of *.ovf and *.xml files",
    )
    timeout_argument(parser)


def run_upload(args: Any, console: Console) -> int:
    domain = open_domain(args)
    domain.writable()
    with open_store(domain) as reader:
        terms = _terms(reader)
    source = open_source(args.source, domain.id)
    prepared = _prepare(source, terms, console)
    try:
        _check_room(prepared, terms)
        answer = launch.upload(
            domain.path, prepared, job.options(args, console)
        )
    finally:
        prepared.close()
    result = {"domain": domain.id, "path": domain.path, **answer}
    console.answer(result, lambda: _uploaded(answer, console))
    job.warn_degraded(answer, console)
    return errors.EXIT_OK


def _uploaded(answer: dict[str, Any], console: Console) -> Iterator[str]:
    yield from job.healed_lines(answer)
    already = " was the newest already" if answer["unchanged"] else ""
    yield (
        f"Generation {answer['generation']}{already}: "
        f"{count(answer['entities'], 'entity')}, {size(answer['length'])}, "
        f"on {count(len(answer['copies']), 'copy')}, "
        f"sha256 {answer['sha256']}"
    )
    yield console.next_line("ovfstore status DOMAIN")


# -- before the worker starts -------------------------------------------------


def _terms(reader: Reader) -> _Terms:
    copies = [c for c in reader.copies if reader.is_member(c.id)]
    newest, known = "", {}
    try:
        generation = reader.newest()
        newest = generation.sha256
        known = {
            e.sha256: (e.kind, e.entity, e.disks)
            for e in entries(reader.open(generation))
            if e.kind in ENTITIES
        }
    except (errors.StoreEmpty, errors.Damaged, errors.StorageFailed):
        pass  # then all of them are checked
    return _Terms(
        limit=max((c.volume.capacity for c in copies), default=0),
        room=max((_room(c) for c in copies), default=0),
        newest=newest,
        known=known,
        copies=len(copies),
    )


def _room(copy: Copy) -> int:
    """Bytes of the largest segment that the log of a copy can take."""
    if copy.ring is not None and copy.ring.offset >= 0:
        room = copy.segment_room()
    else:
        room = (0, copy.volume.capacity - RING_SIZE)
    return space.largest_segment(copy.entries(), room)


def _prepare(source: Source, terms: _Terms, console: Console) -> Prepared:
    way_out = _larger(terms, terms.limit)
    done = 0
    with Preparer(terms.limit, way_out, known=terms.known) as preparer:
        for data in source.chunks:
            preparer.feed(data)
            if done == 0 and (source.length or 0) > terms.limit:
                # Not before its first bytes: what is no archive at all
                # shall be told so, whatever its size.
                raise errors.ArchiveTooLarge(
                    what="this store",
                    size=source.length,
                    limit=terms.limit,
                    way_out=way_out,
                )
            done += len(data)
            console.progress.data("checking", done, source.about)
        return preparer.finish()


def _check_room(prepared: Prepared, terms: _Terms) -> None:
    if prepared.sha256 == terms.newest:
        return
    if prepared.segment_size > terms.room:
        raise errors.ArchiveTooLarge(
            what="the logs of this store, compressed and beside the two "
            "newest generations",
            size=prepared.segment_size,
            limit=terms.room,
            way_out=_larger(terms, prepared.segment_size * 4),
        )


def _larger(terms: _Terms, wanted: int) -> str:
    mib = max(2 * terms.limit, wanted) // _MIB + 1
    mib = 1 << (mib - 1).bit_length()
    return (
        "Leave entities out, or add larger copies: ovfstore create DOMAIN "
        f"--copies {terms.copies + 2} --size {mib}"
    )
