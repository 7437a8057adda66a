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
from vdsm_ovfstore.format.segment import IndexEntry
from vdsm_ovfstore.store.compare import Change, Difference, compare
from vdsm_ovfstore.store.disks import compare_disks
from vdsm_ovfstore.store.entities import entities
from vdsm_ovfstore.store.reader import Generation, Reader

Document = dict[str, Any]


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
    return document(
        {"domain": reader.domain.id, "path": reader.domain.path},
        generation_fields(first),
        generation_fields(second),
        compare(entities(reader.open(first)), entities(reader.open(second))),
    )


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


def document(
    where: Document, old: Document, new: Document, found: Difference
) -> Document:
    """old and new are fields of generations."""
    return {
        **where,
        "old": old,
        "new": new,
        "added": [entity_fields(e) for e in found.added],
        "removed": [entity_fields(e) for e in found.removed],
        "changed": [_change(change) for change in found.changed],
        "same": found.same,
    }


def _change(change: Change) -> Document:
    return {
        **entity_fields(change.new),
        "old_name": change.old.entity,
        "old_length": change.old.length,
        "old_sha256": change.old.sha256,
        "disks_added": change.disks_added,
        "disks_removed": change.disks_removed,
    }


def entry_of(entity: Document) -> IndexEntry:
    """An entity of a document, to be compared; its place is not known."""
    return IndexEntry(
        f"{entity['id']}.ovf",
        entity["kind"],
        entity["name"],
        0,
        entity["length"],
        entity["sha256"],
        tuple(entity["disks"]),
    )
