# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Who belongs to the store.

Members are written down in every seal. A member that is gone is excluded by
a seal on the survivors before anything new gets a number, as an array drops a
failed disk; a copy that comes back is brought up to date and readmitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Optional

from vdsm_ovfstore.format import seal as fmt
from vdsm_ovfstore.format.seal import Member, Seal


class Membership(NamedTuple):
    """
    members, by volume id; back are the ids of those that were excluded, or
    are new, and can be written again.
    """

    members: dict[str, Member]
    back: frozenset[str]

    def listed(self) -> tuple[Member, ...]:
        return tuple(self.members[v] for v in sorted(self.members))

    def exclude(self, reasons: Mapping[str, str]) -> Membership:
        """The same with these members excluded."""
        members = dict(self.members)
        for volume, reason in reasons.items():
            if volume in members and not members[volume].excluded:
                members[volume] = members[volume]._replace(excluded=reason)
        return Membership(members, self.back)


def settle(
    newest: Optional[Seal],
    images: Mapping[str, str],
    up: Iterable[str],
    join: Iterable[str] = (),
    forget: bool = False,
    reasons: Optional[Mapping[str, str]] = None,
) -> Membership:
    """
    Decide the membership at the beginning of a tenure.

    Arguments:
        newest: the newest seal of the store; None when there is none yet,
            then every volume found is a member.
        images: the image of every OVF_STORE volume of the domain.
        up: the volumes that can be written.
        join: volumes to make members.
        forget: members that are gone are members no more: the operator has
            replaced them.
        reasons: why others cannot be written.
    """
    up = set(up)
    if newest is None:
        members = {v: Member(v, images[v]) for v in images}
    else:
        members = {m.volume: m for m in newest.members}
    if forget:
        members = {v: m for v, m in members.items() if v in images}
    for volume in set(join) & up:
        members.setdefault(volume, Member(volume, images[volume], "joining"))
    back = frozenset(v for v in members if members[v].excluded and v in up)
    lost = {v for v in members if not members[v].excluded} - up
    for volume in lost:
        reason = (reasons or {}).get(volume, "not found")
        members[volume] = members[volume]._replace(excluded=reason)
    # Not in a tenure in which another is lost: else two copies could take
    # turns, each excluding the other, and nobody would ever see both.
    if not lost:
        for volume in back:
            members[volume] = members[volume]._replace(excluded="")
    return Membership(_bounded(members, images), back & set(members))


def _bounded(
    members: dict[str, Member], images: Mapping[str, str]
) -> dict[str, Member]:
    """
    At most as many members as a seal holds: those that are excluded and gone
    are forgotten first, then those that are excluded.
    """

    def weight(volume: str) -> tuple[bool, bool, str]:
        member = members[volume]
        return bool(member.excluded), volume not in images, volume

    kept = sorted(members, key=weight)[: fmt.MAX_MEMBERS]
    return {v: members[v] for v in kept}


def newest_seal(seals: Sequence[Seal]) -> Optional[Seal]:
    """
    The seal that knows most: of the highest generation, then the latest.

    Not simply the latest: a copy that was away and is claimed again gets
    later seals without knowing more.
    """

    def knows(seal: Seal) -> tuple[int, fmt.Sequence, str]:
        generation = seal.head.generation if seal.head else 0
        return generation, seal.sequence, seal.volume

    return max(seals, key=knows, default=None)
