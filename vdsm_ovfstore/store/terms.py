# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What a store can take: known before an archive is received.

Whatever will not fit is refused before the worker starts: nothing is locked,
and nothing written, for it. The worker looks again, under its leases.
"""

from __future__ import annotations

from typing import NamedTuple

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.member import Facts
from vdsm_ovfstore.format.seal import RING_SIZE
from vdsm_ovfstore.store import space
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.entities import entities
from vdsm_ovfstore.store.reader import Reader

_MIB = 1024**2

# The largest copy that create makes, in MiB.
_LARGEST = 1024**2


class Terms(NamedTuple):
    """
    What the store can take.

    limit and room are bytes: of the archive, and of its segment. newest is
    the digest of the newest generation, or ""; known are the members of it,
    by their digests. copies counts the members of the store.
    """

    limit: int
    room: int
    newest: str
    known: dict[str, Facts]
    copies: int


def terms(reader: Reader, members: bool = True) -> Terms:
    """
    The terms of a store as it is now; damage makes them no worse.

    members: find out what is known, which takes longer than all the rest.
    """
    copies = [c for c in reader.copies if reader.is_member(c.id)]
    newest, known = "", {}
    try:
        generation = reader.newest()
        newest = generation.sha256
        if members:
            known = {
                e.sha256: (e.kind, e.entity, e.disks)
                for e in entities(reader.open(generation))
            }
    except (errors.StoreEmpty, errors.Damaged, errors.StorageFailed):
        pass  # then all of them are checked
    return Terms(
        limit=max((c.volume.capacity for c in copies), default=0),
        room=max((_room(c) for c in copies), default=0),
        newest=newest,
        known=known,
        copies=len(copies),
    )


def check_size(size: int, terms: Terms) -> None:
    """
    Check an archive by the bytes that are announced.

    Raises errors.ArchiveTooLarge.
    """
    if size > terms.limit:
        raise errors.ArchiveTooLarge(
            what="this store",
            size=size,
            limit=terms.limit,
            way_out=way_out(terms, size),
        )


def check_room(segment_size: int, sha256: str, terms: Terms) -> None:
    """
    Check a prepared archive: does its segment fit into a log?

    Arguments:
        segment_size: bytes that it takes there.
        sha256: of the archive; the newest generation needs no room.

    Raises errors.ArchiveTooLarge.
    """
    if sha256 == terms.newest or segment_size <= terms.room:
        return
    raise errors.ArchiveTooLarge(
        what="the logs of this store, compressed and beside the two "
        "newest generations",
        size=segment_size,
        limit=terms.room,
        # Those two, this one, and the next upload's.
        way_out=way_out(terms, segment_size * 4),
    )


def way_out(terms: Terms, wanted: int) -> str:
    """
    What to tell who sends too much: wanted bytes of capacity are enough.
    """
    mib = max(2 * terms.limit, wanted) // _MIB + 1
    mib = 1 << (mib - 1).bit_length()
    if mib > _LARGEST:
        return "Leave entities out; no copy can be so large"
    return (
        "Leave entities out, or add larger copies: ovfstore create DOMAIN "
        f"--copies {terms.copies + 2} --size {mib}"
    )


def _room(copy: Copy) -> int:
    """Bytes of the largest segment that the log of a copy can take."""
    if copy.ring is not None and copy.ring.offset >= 0:
        room = copy.segment_room()
    else:
        room = (0, copy.volume.capacity - RING_SIZE)
    return space.largest_segment(copy.entries(), room)
