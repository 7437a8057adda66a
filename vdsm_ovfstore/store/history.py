# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What a deep repair does for the generations that are not the newest.

A copy that lost its log gets the newest generation by every write; what came
before it would then hang on the other copy alone. And where the newest seals
are damaged, the log may hold generations that no seal names.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Callable

from vdsm_ovfstore.format import seal as fmt
from vdsm_ovfstore.format.seal import Entry, Identity
from vdsm_ovfstore.store import retention, space
from vdsm_ovfstore.store.carve import newer
from vdsm_ovfstore.store.commit import Committer
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.salvage import Holder
from vdsm_ovfstore.store.sources import Sources


def wanted(
    copies: Iterable[Copy],
    asides: Iterable[Holder],
    settings: retention.Settings,
) -> list[Entry]:
    """
    The generations of all these, newest first, without what has expired.

    Of logs set aside only what is older than the newest generation: what they
    have beyond it, nobody knows to have been committed. And no number that
    stands for something else by now.
    """
    known: dict[Identity, Entry] = {}
    for copy in copies:
        for entry in copy.entries():
            if entry.shown:
                known.setdefault(entry.identity, entry)
    numbers = {number for number, _ in known}
    digests = {sha256 for _, sha256 in known}
    for aside in asides:
        for entry in aside.entries():
            if entry.generation in numbers or entry.sha256 in digests:
                continue
            if entry.generation < max(numbers, default=0):
                known.setdefault(entry.identity, entry)
    found = set(known.values())
    return retention.by_age(found - retention.expired(found, settings))


def complete(
    copy: Copy,
    known: Iterable[Entry],
    sources: Sources,
    committer: Committer,
    tell: Callable[[str], None],
) -> None:
    """
    Let a copy have these, as far as there is room: nothing goes for them.

    Raises errors.Error; the copy is then left alone.
    """
    for entry in known:
        if copy.find(entry.identity) is not None:
            continue
        entries, room = copy.entries(), copy.segment_room()
        if space.plan(entries, room, entry.stored, True, victims=()) is None:
            continue
        source = sources.find(entry.identity)
        if source is None:
            continue
        kind = sources.kind_of(entry.identity)
        committer.log(
            copy, source, entry.identity, entry.time, kind, entry.pinned
        )
        tell(f"copied generation {entry.generation} to {copy.id}")
    if copy.seal is not None and copy.seal.introduces is not None:
        # What a seal introduces is not shown before the next one.
        committer.seal(copy, kind=fmt.CLAIM)


def name_again(
    copy: Copy, committer: Committer, tell: Callable[[str], None]
) -> None:
    """
    Let the seal name what only damaged seals can have named.

    Older segments that nobody names were evicted. Of newer ones some may
    never have been committed: they are whole all the same, and `unproven`.
    Raises errors.Error; the copy is then left alone.
    """
    if copy.seal is None:
        return
    found = newer(copy.volume, copy.volume.domain, copy.entries())
    if not found:
        return
    committer.seal(
        copy,
        kind=fmt.CLAIM,
        introduces=copy.seal.introduces,
        entries=[*copy.entries(), *found],
    )
    for entry in found:
        tell(f"found generation {entry.generation} again on {copy.id}")
