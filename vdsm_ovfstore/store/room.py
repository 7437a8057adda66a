# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Making room for a segment in the log of one copy.

What must go is evicted under a seal of its own, durable before the space is
used; what must stay but is in the way is moved, and sealed there.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Callable

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import seal as fmt
from vdsm_ovfstore.format.seal import Entry
from vdsm_ovfstore.store import retention, space
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.sources import Sources
from vdsm_ovfstore.store.stored import Verbatim

log = logging.getLogger("ovfstore.store")


class Room:
    """
    Arguments:
        seal: writes the next seal of a copy (Committer.seal).
        sources: is told which segments are sound.
        settings: what retention keeps.
        top: segments go to the top of the log, not to the bottom.
    """

    def __init__(
        self,
        seal: Callable[..., None],
        sources: Sources,
        settings: retention.Settings,
        top: bool,
    ) -> None:
        self._seal = seal
        self._sources = sources
        self._settings = settings
        self._top = top

    def find(self, copy: Copy, size: int, new: Entry, newest: int) -> int:
        """
        The offset for a segment of `size` bytes, which is to be `new`.

        newest: how many generations stay in any case. Nothing is evicted
        before it is known that it suffices. Raises errors.NoRoom.
        """
        room, top = copy.segment_room(), self._top
        entries = copy.entries()
        same = {e for e in entries if is_same(e, new)}
        gone = retention.expired(entries, self._settings) - same
        # What is damaged is better than nothing until the new one is sealed.
        plan = space.plan(entries, room, size, top, gone, victims=())
        if plan is not None:
            self._evict(copy, plan.evict)
            return plan.offset
        gone |= same
        for kept in range(2, newest - 1, -1):
            victims = [
                e
                for e in retention.victims(
                    [e for e in entries if e not in gone], kept
                )
                if new.shown or not retention.pin_of(e)
            ]
            plan = space.plan(entries, room, size, top, gone, victims)
            if plan is not None:
                self._evict(copy, plan.evict)
                return plan.offset
            all_gone = gone.union(victims)
            left = [e for e in entries if e not in all_gone]
            moves = space.compact(left, room, size)
            if moves is not None:
                self._evict(copy, all_gone)
                for move in moves:
                    self._move(copy, *move)
                plan = space.plan(copy.entries(), room, size, top, (), ())
                assert plan is not None, "moved to no avail"
                return plan.offset
        raise errors.NoRoom(volume=copy.id, size=size)

    def _evict(self, copy: Copy, entries: Iterable[Entry]) -> None:
        gone = set(entries) & set(copy.entries())
        if not gone:
            return
        assert copy.seal is not None
        for entry in sorted(gone):
            log.info(
                "EVICT volume=%s generation=%d sha256=%s",
                copy.id,
                *entry.identity,
            )
        self._seal(
            copy,
            kind=fmt.EVICT,
            introduces=copy.seal.introduces,
            entries=[e for e in copy.seal.entries if e not in gone],
        )

    def _move(self, copy: Copy, entry: Entry, offset: int) -> None:
        """What must stay but is in the way goes elsewhere, then is sealed."""
        assert copy.seal is not None
        sound = self._sources.is_sound(copy, entry)
        # Byte by byte: what is damaged must not be in the way for ever.
        copy.write_segment(Verbatim(copy.volume, entry), offset)
        moved = entry._replace(offset=offset)
        if sound:
            self._sources.add_sound(copy, moved)
        self._seal(
            copy,
            kind=fmt.EVICT,
            introduces=copy.seal.introduces,
            entries=[moved if e == entry else e for e in copy.seal.entries],
        )


def is_same(entry: Entry, new: Entry) -> bool:
    """True when both are segments of one generation, or one suspect."""
    return entry.identity == new.identity and entry.shown == new.shown
