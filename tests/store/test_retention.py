# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What stays and what goes first."""

from __future__ import annotations

import calendar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsm_ovfstore.format import seal
from vdsm_ovfstore.format.seal import Entry
from vdsm_ovfstore.store import retention
from vdsm_ovfstore.store.retention import Settings

NOW = calendar.timegm((2026, 3, 15, 12, 30, 0))
HOUR, DAY = 3600, 86400
NONE = Settings(newest=0, hourly=0, daily=0, monthly=0)


def entry(
    number: int,
    when: int = 0,
    pinned: str = "",
    kind: str = seal.GENERATION,
    entities: int = 10,
    sha256: str = "",
) -> Entry:
    sha256 = sha256 or f"{number:064x}"
    return Entry(
        number, kind, number * 4096, 4096, 9, sha256, when, entities, pinned
    )


def kept(entries: list[Entry], settings: Settings) -> list[int]:
    left = set(entries) - retention.expired(entries, settings)
    return sorted(e.generation for e in left)


def test_by_age() -> None:
    fork = entry(2, when=5, sha256="ff" * 32)
    suspect = entry(0, when=99, kind=seal.SUSPECT)
    entries = [entry(1, 9), fork, entry(3, 1), entry(2, 4), suspect]
    assert retention.by_age(entries) == [
        entry(3, 1),
        fork,
        entry(2, 4),
        entry(1, 9),
    ]


def test_protected_are_the_newest_two_and_what_users_pinned() -> None:
    entries = [
        entry(1, pinned=retention.USER),
        entry(2, pinned=retention.SHRINK),
        entry(3),
        entry(4),
        entry(0, kind=seal.SUSPECT),
    ]
    assert retention.protected(entries) == {
        entries[0],
        entries[2],
        entries[3],
    }


def test_newest_are_kept_in_full() -> None:
    entries = [entry(n, NOW + n) for n in range(1, 11)]
    assert kept(entries, NONE._replace(newest=4)) == [7, 8, 9, 10]


@pytest.mark.parametrize("newest", [0, 1, 2])
def test_at_least_two_are_kept(newest: int) -> None:
    entries = [entry(n, NOW + n) for n in range(1, 6)]
    assert kept(entries, NONE._replace(newest=newest)) == [4, 5]


@pytest.mark.parametrize(
    "settings, apart, expected",
    [
        (NONE._replace(hourly=3), HOUR // 2, [6, 8, 9, 10]),
        (NONE._replace(daily=3), DAY // 2, [6, 8, 9, 10]),
        (NONE._replace(monthly=2), 10 * DAY, [8, 9, 10]),
    ],
    ids=["hourly", "daily", "monthly"],
)
def test_then_the_newest_of_each_period(
    settings: Settings, apart: int, expected: list[int]
) -> None:
    """Two or three in each; the newest two stay in any case."""
    entries = [entry(n, NOW - (10 - n) * apart) for n in range(1, 11)]
    assert kept(entries, settings) == expected


def test_default_settings_fit_into_a_seal() -> None:
    """Years of updates, one an hour, and forks and suspects."""
    entries = [entry(n, NOW + n * HOUR) for n in range(20_000)]
    left = len(entries) - len(retention.expired(entries, Settings()))
    assert 60 < left < seal.MAX_SEGMENTS - 20
    assert sum(Settings()) < seal.MAX_SEGMENTS


def test_pins_that_outlive_the_settings() -> None:
    entries = [
        entry(1, pinned=retention.USER),
        entry(2, pinned=retention.RETURNED),
        entry(3, pinned=retention.FORK),
        entry(4),
        *(entry(n) for n in range(5, 8)),
    ]
    assert kept(entries, NONE) == [1, 2, 3, 6, 7]


def test_of_our_own_pins_the_newest_and_the_fullest_are_kept() -> None:
    entries = [
        entry(1, pinned=retention.SHRINK, entities=50),
        entry(2, pinned=retention.ADOPTED, entities=90),
        entry(3, pinned=retention.SHRINK, entities=70),
        entry(4, pinned=retention.ADOPTED, entities=20),
        entry(5, entities=1000),
        entry(6),
        entry(7),
    ]
    assert kept(entries, NONE) == [2, 4, 6, 7]


def test_latest_two_suspects_are_kept() -> None:
    suspects = [
        entry(0, when, kind=seal.SUSPECT, sha256=f"{when:064x}")
        for when in (4, 1, 3, 2)
    ]
    gone = retention.expired([*suspects, entry(1), entry(2)], NONE)
    assert {e.time for e in gone} == {1, 2}


def test_victims_are_ordered_by_what_is_least_missed() -> None:
    entries = [
        entry(1, pinned=retention.USER),
        entry(2, pinned=retention.SHRINK),
        entry(3),
        entry(4),
        entry(0, kind=seal.SUSPECT),
        entry(5),
        entry(6),
    ]
    assert [e.generation for e in retention.victims(entries)] == [3, 4, 0, 2]


ENTRIES = st.lists(
    st.builds(
        entry,
        number=st.integers(0, 30),
        when=st.integers(0, 2**31),
        pinned=st.sampled_from(["", "user", "shrink", "adopted", "fork"]),
        kind=st.sampled_from([seal.GENERATION, seal.UNPROVEN, seal.SUSPECT]),
        entities=st.integers(0, 99),
    ),
    max_size=20,
    unique_by=lambda e: (e.generation, e.kind),
)
SETTINGS = st.builds(Settings, *[st.integers(0, 5)] * 4)


@given(ENTRIES, SETTINGS)
def test_protected_never_goes(
    entries: list[Entry], settings: Settings
) -> None:
    protected = retention.protected(entries)
    assert not protected & retention.expired(entries, settings)
    victims = retention.victims(entries)
    assert not protected & set(victims)
    assert set(victims) | protected == set(entries)


@given(ENTRIES, SETTINGS)
def test_what_is_kept_is_kept_again(
    entries: list[Entry], settings: Settings
) -> None:
    """Else each tenure would drop something more."""
    left = set(entries) - retention.expired(entries, settings)
    assert retention.expired(left, settings) == set()


@pytest.mark.parametrize(
    "before, dropped, many",
    [(10, 2, True), (10, 1, False), (10, 0, False), (1, 1, True),
     (0, 0, False), (5, 1, True), (6, 1, False), (1000, 200, True),
     (1000, 199, False), (1000, 1000, True)],
)  # fmt: skip
def test_dropped_many(before: int, dropped: int, many: bool) -> None:
    assert retention.dropped_many(before, dropped) is many
