# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What diff answers: between two generations, and between a generation and the
disks of its domain.
"""

from __future__ import annotations

from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.documents import entity_fields, generation_fields
from vdsm_ovfstore.store.compare import Change, compare
from vdsm_ovfstore.store.disks import compare_disks
from vdsm_ovfstore.store.entities import entities
from vdsm_ovfstore.store.reader import Generation, Reader

Document = dict[str, Any]


# The lists of a difference, in the order in which they are told.
CHANGES = ("removed", "added", "changed")


def diff(
    reader: Reader, old: Optional[str] = None, new: Optional[str] = None
) -> Document:
    """
    Compare two generations.

    Arguments:
        new: what --generation takes; the newest by default.
        old: the same; the one before `new` by default.

    Raises errors.StoreEmpty, GenerationNotFound, GenerationAmbiguous,
    Damaged.
    """
    second = reader.find(new)
    first = reader.find(old) if old else before(reader.generations(), second)
    found = compare(
        entities(reader.open(first)), entities(reader.open(second))
    )
    return {
        "domain": reader.domain.id,
        "path": reader.domain.path,
        "old": generation_fields(first),
        "new": generation_fields(second),
        "added": [entity_fields(e) for e in found.added],
        "removed": [entity_fields(e) for e in found.removed],
        "changed": [_change(change) for change in found.changed],
        "same": found.same,
    }


def diff_page(
    reader: Reader,
    old: Optional[str] = None,
    new: Optional[str] = None,
    first: int = 0,
    count: Optional[int] = None,
) -> Document:
    """What the verb diff answers: as diff(), with a page of the changes."""
    found = diff(reader, old, new)
    changes = [
        {**_NOTHING_OLD, **one, "change": change}
        for change in CHANGES
        for one in found[change]
    ]
    last = None if count is None else first + count
    return {
        **found,
        **{change: len(found[change]) for change in CHANGES},
        "changes": changes[first:last],
        "first": first,
    }


def from_changes(page: Document, changes: list[Document]) -> Document:
    """What diff() says, from a page and the changes of all of them."""
    found: Document = {change: [] for change in CHANGES}
    for one in changes:
        kept = {k: v for k, v in one.items() if k != "change"}
        if one["change"] != "changed":
            kept = {k: v for k, v in kept.items() if k not in _NOTHING_OLD}
        found[one["change"]].append(kept)
    rest = {k: v for k, v in page.items() if k not in ("changes", "first")}
    return {**rest, **found}


def diff_disks(reader: Reader, generation: Optional[str] = None) -> Document:
    """
    Compare a generation with the disks that are on the domain.

    Raises as diff(), and errors.StorageFailed.
    """
    wanted = reader.find(generation)
    found = compare_disks(
        entities(reader.open(wanted)), reader.domain.images()
    )
    return {
        "domain": reader.domain.id,
        "path": reader.domain.path,
        "generation": generation_fields(wanted),
        "present": found.present,
        "absent": [
            {**entity_fields(entry), "absent": list(disks)}
            for entry, disks in found.absent
        ],
        "unused": [one._asdict() for one in found.unused],
    }


def before(generations: list[Generation], one: Generation) -> Generation:
    """
    The generation that `one` followed; forks are passed over.

    Raises errors.GenerationNotFound.
    """
    for generation in generations:  # newest first
        if generation.number < one.number:
            return generation
    raise errors.GenerationNotFound(generation=f"before {one.number}")


def _change(change: Change) -> Document:
    return {
        **entity_fields(change.new),
        "old_name": change.old.entity,
        "old_length": change.old.length,
        "old_sha256": change.old.sha256,
        "disks_added": change.disks_added,
        "disks_removed": change.disks_removed,
    }


# What only one that changed has more.
_NOTHING_OLD: Document = {
    "old_name": None,
    "old_length": None,
    "old_sha256": None,
    "disks_added": [],
    "disks_removed": [],
}
