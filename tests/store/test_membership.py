# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Who belongs to the store."""

from __future__ import annotations

from typing import Optional

from hypothesis import given
from hypothesis import strategies as st

from vdsm_ovfstore.format import seal
from vdsm_ovfstore.format.seal import Head, Member, Seal
from vdsm_ovfstore.store import membership

A, B, C = "volume-a", "volume-b", "volume-c"
IMAGES = {A: "image-a", B: "image-b", C: "image-c"}


def sealed(
    members: dict[str, str],
    sequence: tuple[int, int] = (1, 1),
    generation: Optional[int] = 1,
    volume: str = A,
) -> Seal:
    """A seal whose members are excluded for these reasons, or ""."""
    head = None if generation is None else Head(generation, 9, "ab" * 32)
    return Seal(
        sequence, "domain", IMAGES[volume], volume,
        tuple(Member(v, IMAGES[v], why) for v, why in members.items()),
        seal.CURRENT, None, head, None, "", (), "host", "tool", 0,
    )  # fmt: skip


def reasons(found: membership.Membership) -> dict[str, str]:
    return {v: m.excluded for v, m in found.members.items()}


def test_first_time_every_volume_is_a_member() -> None:
    found = membership.settle(None, {A: "image-a", B: "image-b"}, {A, B})
    assert found.listed() == (Member(A, "image-a"), Member(B, "image-b"))
    assert found.back == frozenset()


def test_first_time_with_one_unreadable() -> None:
    found = membership.settle(
        None, {A: "image-a", B: "image-b"}, {A}, reasons={B: "error 3530"}
    )
    assert reasons(found) == {A: "", B: "error 3530"}


def test_volumes_that_are_no_members_stay_out() -> None:
    found = membership.settle(sealed({A: "", B: ""}), IMAGES, {A, B, C})
    assert reasons(found) == {A: "", B: ""}
    assert found.back == frozenset()


def test_lost_is_excluded() -> None:
    newest = sealed({A: "", B: ""})
    found = membership.settle(newest, {A: "image-a"}, {A})
    assert reasons(found) == {A: "", B: "not found"}
    # Its image is known from the seal though the volume is gone.
    assert found.members[B].image == "image-b"
    found = membership.settle(newest, IMAGES, {A}, reasons={B: "error 5"})
    assert reasons(found) == {A: "", B: "error 5"}


def test_excluded_keeps_its_first_reason() -> None:
    newest = sealed({A: "", B: "not found"})
    found = membership.settle(newest, IMAGES, {A}, reasons={B: "error 5"})
    assert reasons(found) == {A: "", B: "not found"}


def test_back_again() -> None:
    newest = sealed({A: "", B: "not found"})
    found = membership.settle(newest, IMAGES, {A, B})
    assert reasons(found) == {A: "", B: ""}
    assert found.back == {B}


def test_not_back_while_another_is_lost() -> None:
    """Two copies that take turns must not exclude each other."""
    newest = sealed({A: "", B: "not found"})
    found = membership.settle(newest, IMAGES, {B})
    assert reasons(found) == {A: "not found", B: "not found"}
    assert found.back == {B}


def test_joining() -> None:
    newest = sealed({A: "", B: ""})
    found = membership.settle(newest, IMAGES, {A, B, C}, join=[C])
    assert reasons(found) == {A: "", B: "", C: ""}
    assert found.back == {C}
    found = membership.settle(newest, IMAGES, {A, B}, join=[C])
    assert reasons(found) == {A: "", B: ""}


def test_joining_of_a_member_changes_nothing() -> None:
    found = membership.settle(sealed({A: "", B: ""}), IMAGES, {A, B}, [B])
    assert reasons(found) == {A: "", B: ""}
    assert found.back == frozenset()


def test_exclude() -> None:
    found = membership.settle(sealed({A: "", B: ""}), IMAGES, {A, B})
    without = found.exclude({B: "error 3530", C: "no member"})
    assert reasons(without) == {A: "", B: "error 3530"}
    assert reasons(without.exclude({B: "later"})) == reasons(without)
    assert reasons(found) == {A: "", B: ""}


@given(
    st.dictionaries(st.sampled_from([A, B, C]), st.sampled_from(["", "gone"])),
    st.sets(st.sampled_from([A, B, C])),
)
def test_working_members_can_be_written(
    members: dict[str, str], up: set[str]
) -> None:
    found = membership.settle(sealed(members), IMAGES, up)
    assert set(found.members) == set(members)
    working = {v for v, why in reasons(found).items() if not why}
    assert working <= up
    assert found.back <= up


# -- the seal that knows most


def test_newest_seal_of_none() -> None:
    assert membership.newest_seal([]) is None


def test_highest_generation_counts_more_than_the_sequence() -> None:
    """A copy that was away and is claimed again knows no more for it."""
    knows = sealed({}, (5, 1), generation=9)
    later = sealed({}, (7, 4), generation=8, volume=B)
    assert membership.newest_seal([later, knows]) is knows
    assert membership.newest_seal([knows, later]) is knows


def test_then_the_later_one() -> None:
    old = sealed({}, (5, 9), generation=9)
    new = sealed({}, (6, 1), generation=9, volume=B)
    assert membership.newest_seal([new, old]) is new


def test_seal_without_head_knows_least() -> None:
    empty = sealed({}, (9, 9), generation=None)
    assert membership.newest_seal([empty, sealed({})]) == sealed({})
    assert membership.newest_seal([empty]) is empty
