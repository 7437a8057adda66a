# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What is different between two generations, VM by VM."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from vdsm_ovfstore.format.segment import IndexEntry


class Change(NamedTuple):
    """One VM or template whose OVF is another one."""

    old: IndexEntry
    new: IndexEntry

    @property
    def disks_added(self) -> list[str]:
        return [d for d in self.new.disks if d not in self.old.disks]

    @property
    def disks_removed(self) -> list[str]:
        return [d for d in self.old.disks if d not in self.new.disks]


class Difference(NamedTuple):
    """
    added are in the new one only, removed in the old one only; each list is
    sorted by name. same counts those that are byte for byte alike.
    """

    added: list[IndexEntry]
    removed: list[IndexEntry]
    changed: list[Change]
    same: int


def compare(
    old: Iterable[IndexEntry], new: Iterable[IndexEntry]
) -> Difference:
    """Compare the entities of two generations (entities.entities())."""
    before = {entry.name: entry for entry in old}
    after = {entry.name: entry for entry in new}
    both = before.keys() & after.keys()
    changed = [
        Change(before[name], after[name])
        for name in both
        if before[name].sha256 != after[name].sha256
    ]
    return Difference(
        added=_sorted(after[name] for name in after.keys() - both),
        removed=_sorted(before[name] for name in before.keys() - both),
        changed=sorted(changed, key=lambda c: (c.new.entity, c.new.name)),
        same=len(both) - len(changed),
    )


def _sorted(entries: Iterable[IndexEntry]) -> list[IndexEntry]:
    return sorted(entries, key=lambda e: (e.entity, e.name))
