# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Room in a log."""

from __future__ import annotations

from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsm_ovfstore.format import seal
from vdsm_ovfstore.format.seal import Entry
from vdsm_ovfstore.store import retention, space

K = 4096


def entry(
    number: int,
    offset: int = 0,
    stored: int = 1,
    pinned: str = "",
    kind: str = seal.GENERATION,
) -> Entry:
    """Offset and stored in blocks."""
    sha256 = f"{number:064x}"
    return Entry(
        number, kind, offset * K, stored * K, 9, sha256, number, 1, pinned
    )


def planned(*args: Any, **more: Any) -> Any:
    """A plan, to be compared with tuples and sets."""
    return space.plan(*args, **more)


def room(start: int, end: int) -> tuple[int, int]:
    return start * K, end * K


@pytest.mark.parametrize(
    "taken, size, top, expected",
    [
        ([], 3, False, 0),
        ([], 3, True, 7),
        ([], 10, False, 0),
        ([], 10, True, 0),
        ([], 11, True, None),
        ([(0, 4)], 3, False, 4),
        ([(0, 4)], 3, True, 7),
        ([(4, 2)], 4, False, 0),
        ([(4, 2)], 4, True, 6),
        ([(4, 2)], 5, True, None),
        ([(2, 2), (6, 2)], 2, False, 0),
        ([(6, 2), (2, 2)], 2, True, 8),
        ([(1, 9)], 1, True, 0),
        ([(0, 9)], 1, False, 9),
        ([(0, 10)], 1, False, None),
        # What lies outside the room, or over another, is hostile or a head
        # that grew; it must not be given away.
        ([(0, 4), (2, 4)], 4, False, 6),
        ([(8, 40)], 8, True, 0),
        ([(30, 5)], 10, True, 0),
        ([(0, 100)], 1, True, None),
    ],
)
def test_allocate(
    taken: list[tuple[int, int]],
    size: int,
    top: bool,
    expected: Optional[int],
) -> None:
    entries = [entry(n, o, s) for n, (o, s) in enumerate(taken)]
    found = space.allocate(entries, room(0, 10), size * K, top)
    assert found == (None if expected is None else expected * K)


def test_allocate_above_the_head() -> None:
    assert space.allocate([], room(3, 10), K, False) == 3 * K
    assert space.allocate([entry(1, 0, 2)], room(3, 10), 7 * K, True) == 3 * K
    assert space.allocate([entry(1, 0, 5)], room(3, 10), 5 * K, True) == 5 * K
    assert space.allocate([], room(10, 3), K, False) is None


PLACES = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 12)), max_size=8
)


@given(PLACES, st.integers(1, 20), st.booleans())
def test_allocated_is_free(
    taken: list[tuple[int, int]], size: int, top: bool
) -> None:
    entries = [entry(n, o, s) for n, (o, s) in enumerate(taken)]
    used = {b for o, s in taken for b in range(o, o + s)}
    fits = [
        start
        for start in range(40 - size + 1)
        if not used & set(range(start, start + size))
    ]
    found = space.allocate(entries, room(0, 40), size * K, top)
    if not fits:
        assert found is None
    else:
        assert found == (fits[-1] if top else fits[0]) * K


def test_plan_evicts_nothing_while_there_is_room() -> None:
    entries = [entry(1, 0, 3), entry(2, 3, 3)]
    plan = planned(entries, room(0, 10), 4 * K, top=False)
    assert plan == (6 * K, frozenset())


def test_plan_evicts_the_oldest_first_and_no_more_than_needed() -> None:
    entries = [entry(n, (n - 1) * 2, 2) for n in range(1, 6)]
    plan = planned(entries, room(0, 10), 2 * K, top=True)
    assert plan == (0, {entries[0]})
    plan = planned(entries, room(0, 10), 5 * K, top=True)
    assert plan == (1 * K, set(entries[:3]))


def test_plan_never_evicts_the_newest_two_nor_user_pins() -> None:
    entries = [
        entry(1, 0, 2, pinned=retention.USER),
        entry(2, 2, 2),
        entry(3, 4, 2),
        entry(4, 6, 2),
    ]
    plan = planned(entries, room(0, 8), 2 * K, top=False)
    assert plan == (2 * K, {entries[1]})
    assert planned(entries, room(0, 8), 3 * K, top=False) is None


def test_plan_gives_up_our_own_pins_last() -> None:
    entries = [
        entry(1, 0, 2, pinned=retention.SHRINK),
        entry(2, 2, 2),
        entry(3, 4, 2),
        entry(4, 6, 2),
    ]
    plan = planned(entries, room(0, 8), 2 * K, top=False)
    assert plan is not None and plan.evict == {entries[1]}
    plan = planned(entries, room(0, 8), 4 * K, top=False)
    assert plan is not None and plan.evict == set(entries[:2])


def test_plan_drops_what_has_expired_even_if_there_is_room() -> None:
    entries = [entry(n, n - 1) for n in range(1, 5)]
    plan = planned(entries, room(0, 50), K, False, expired=entries[:1])
    assert plan == (0, {entries[0]})


def test_plan_leaves_room_in_the_seal() -> None:
    entries = [entry(n, n) for n in range(1, seal.MAX_SEGMENTS + 1)]
    plan = planned(entries, room(0, 1000), K, top=True)
    assert plan == (999 * K, {entries[0]})
    plan = planned(entries[1:], room(0, 1000), K, top=True)
    assert plan == (999 * K, frozenset())


@given(PLACES, st.integers(1, 30), st.booleans())
def test_planned_is_free_after_the_eviction(
    taken: list[tuple[int, int]], size: int, top: bool
) -> None:
    entries = [entry(n, o, s) for n, (o, s) in enumerate(taken, 1)]
    plan = planned(entries, room(0, 40), size * K, top)
    newest = set(entries[-2:])
    if plan is None:
        assert space.allocate(newest, room(0, 40), size * K, top) is None
        return
    assert not plan.evict & newest
    place = range(plan.offset, plan.offset + size * K)
    for left in set(entries) - plan.evict:
        assert left.end <= place.start or place.stop <= left.offset


def test_largest_segment() -> None:
    entries = [entry(1, 0, 2), entry(2, 2, 2), entry(3, 4, 2)]
    assert space.largest_segment([], room(0, 10)) == 10 * K
    assert space.largest_segment(entries, room(0, 10)) == 6 * K
    pinned = [entry(1, 0, 2, pinned=retention.USER), *entries[1:]]
    assert space.largest_segment(pinned, room(0, 10)) == 4 * K
    assert space.largest_segment(pinned, room(0, 4)) == 0


def test_best_move_joins_the_free_pieces() -> None:
    # ..XX....XX  -> ......XXXX
    entries = [entry(1, 2, 2), entry(2, 8, 2)]
    assert space.best_move(entries, room(0, 10)) == (entries[0], 6 * K)


def test_best_move_does_not_write_over_the_segment_itself() -> None:
    # .XXX.. : moving by one would overlap; there is no room for a copy.
    assert space.best_move([entry(1, 1, 3)], room(0, 5)) is None
    assert space.best_move([entry(1, 1, 2)], room(0, 5)) == (
        entry(1, 1, 2),
        3 * K,
    )


def test_best_move_that_does_not_help() -> None:
    assert space.best_move([], room(0, 10)) is None
    assert space.best_move([entry(1, 0, 2)], room(0, 10)) is None
    assert space.best_move([entry(1, 0, 10)], room(0, 10)) is None


@given(PLACES)
def test_moves_come_to_an_end(taken: list[tuple[int, int]]) -> None:
    entries = []
    end = 0
    for number, (gap, size) in enumerate(taken):
        entries.append(entry(number, end + gap % 9, size))
        end += gap % 9 + size
    whole = room(0, end + 3)
    for _ in range(60):
        move = space.best_move(entries, whole)
        if move is None:
            break
        moved, offset = move
        others = [e for e in entries if e != moved]
        place = moved._replace(offset=offset)
        for other in entries:
            assert other.end <= place.offset or place.end <= other.offset
        assert place.offset >= 0 and place.end <= whole[1]
        entries = [*others, place]
    else:
        raise AssertionError("it never ends")
