# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Finding room for a segment in a log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Optional

from vdsm_ovfstore.format.seal import MAX_SEGMENTS, Entry
from vdsm_ovfstore.store import retention


class Plan(NamedTuple):
    """Where a segment goes, and what must be evicted first."""

    offset: int
    evict: frozenset[Entry]


# A segment, as it lies, and where it goes.
Move = tuple[Entry, int]


def allocate(
    entries: Iterable[Entry], room: tuple[int, int], size: int, top: bool
) -> Optional[int]:
    """
    Return the offset of a free piece of the log, or None.

    Odd epochs take the highest place, even ones the lowest, so that a late
    write of a fenced worker lands far from where its successor writes.
    """
    start, end = room
    taken = sorted((e.offset, e.end) for e in entries)
    gaps = []
    for offset, stop in [*taken, (end, end)]:
        if offset - start >= size:
            gaps.append((start, min(offset, end)))
        start = max(start, stop)
    gaps = [g for g in gaps if g[1] - g[0] >= size]
    if not gaps:
        return None
    return gaps[-1][1] - size if top else gaps[0][0]


def plan(
    entries: Iterable[Entry],
    room: tuple[int, int],
    size: int,
    top: bool,
    expired: Iterable[Entry] = (),
    victims: Optional[Sequence[Entry]] = None,
) -> Optional[Plan]:
    """
    Plan the place of a segment of `size` bytes.

    What has expired goes in any case, more only as room is short; None when
    even that is not enough.

    victims: what may go, the least missed first; by default all that
    retention does not protect.
    """
    entries = list(entries)
    gone = set(expired)
    left = [e for e in entries if e not in gone]
    evict = set(entries) - set(left)
    if victims is None:
        victims = retention.victims(left)
    candidates = [e for e in victims if e not in gone]
    while True:
        if len(left) < MAX_SEGMENTS:
            offset = allocate(left, room, size, top)
            if offset is not None:
                return Plan(offset, frozenset(evict))
        if not candidates:
            return None
        victim = candidates.pop(0)
        left.remove(victim)
        evict.add(victim)


def compact(
    entries: Iterable[Entry], room: tuple[int, int], size: int
) -> Optional[list[Move]]:
    """
    The moves, one after the other, that join enough room for `size` bytes.

    Planned to the end before anything is changed: what would be of no use is
    not begun. None when nothing helps.
    """
    left = list(entries)
    moves: list[Move] = []
    while len(left) < MAX_SEGMENTS:
        if _largest_gap(left, room) >= size:
            return moves
        move = best_move(left, room)
        if move is None:
            break
        moves.append(move)
        entry, offset = move
        left[left.index(entry)] = entry._replace(offset=offset)
    return None


def is_apart(
    entry: Entry, entries: Iterable[Entry], room: tuple[int, int]
) -> bool:
    """True when a segment lies within the room, and over no other."""
    if entry.offset < room[0] or entry.end > room[1]:
        return False
    return not any(
        e.offset < entry.end and entry.offset < e.end
        for e in entries
        if e != entry
    )


def largest_segment(entries: Iterable[Entry], room: tuple[int, int]) -> int:
    """The size of the largest segment for which room can be made."""
    kept = retention.protected(entries)
    return max(0, room[1] - room[0] - sum(e.stored for e in kept))


def best_move(
    entries: Iterable[Entry], room: tuple[int, int]
) -> Optional[Move]:
    """
    The move of one segment that most enlarges the largest free piece.

    Segments that must stay may lie in the middle of the room. None when no
    move helps.
    """
    entries = list(entries)
    best = None
    largest = _largest_gap(entries, room)
    for entry in entries:
        others = [e for e in entries if e != entry]
        for top in (True, False):
            # Not over itself: the old place must stay readable until the
            # seal that names the new one is durable.
            offset = allocate(entries, room, entry.stored, top)
            if offset is None:
                continue
            moved = entry._replace(offset=offset)
            gap = _largest_gap([*others, moved], room)
            if gap > largest:
                best, largest = (entry, offset), gap
    return best


def _largest_gap(entries: Iterable[Entry], room: tuple[int, int]) -> int:
    start, end = room
    largest = 0
    for offset, stop in sorted((e.offset, e.end) for e in entries):
        largest = max(largest, offset - start)
        start = max(start, stop)
    return max(largest, end - start)
