# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The store against the disks that are really on the domain.

A VM without its disk is one that somebody has deleted, moved, or that has
disks on other domains; a disk without a VM is one whose configuration was
lost, or a disk that no VM uses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from vdsm_ovfstore.format.segment import IndexEntry
from vdsm_ovfstore.format.volmeta import LEAF, OVFS
from vdsm_ovfstore.storage.images import Images, Volume

_MAX_ALIAS = 255  # characters, as the engine has them


class Absent(NamedTuple):
    """A VM or template of which these disks are not on the domain."""

    entry: IndexEntry
    disks: tuple[str, ...]


class Unused(NamedTuple):
    """
    An image that no VM and no template names.

    alias is what the engine calls it, or ""; type is DISKTYPE, "" if no
    metadata can be read; capacity is in bytes; volumes are how many there
    are, 0 for what a deletion has left.
    """

    image: str
    alias: str
    type: str
    capacity: int
    volumes: int


class Disks(NamedTuple):
    """present counts the disks that are named and there."""

    absent: list[Absent]
    unused: list[Unused]
    present: int


def compare_disks(entries: Iterable[IndexEntry], images: Images) -> Disks:
    """
    Compare the entities of a generation with the images of its domain.

    Raises errors.StorageFailed: the images cannot be listed.
    """
    there = frozenset(images.names())
    named: set[str] = set()
    absent = []
    for entry in entries:
        named.update(entry.disks)
        missing = tuple(d for d in entry.disks if d not in there)
        if missing:
            absent.append(Absent(entry, missing))
    absent.sort(key=lambda a: (a.entry.entity, a.entry.name))
    return Disks(absent, unused(there - named, images), len(there & named))


def unused(candidates: Iterable[str], images: Images) -> list[Unused]:
    """Of these images, those that are no OVF_STOREs, by alias."""
    found = []
    for image in candidates:
        one = _described(image, images.read(image))
        if one.type != OVFS:
            found.append(one)
    return sorted(found, key=lambda u: (u.alias, u.image))


def _described(image: str, volumes: list[Volume]) -> Unused:
    known = [v.metadata for v in volumes if v.metadata is not None]
    # The engine writes the description to one of them, mostly the leaf.
    known.sort(key=lambda m: m.voltype != LEAF)
    alias = next(filter(None, (_alias(m.description) for m in known)), "")
    return Unused(
        image,
        alias,
        known[0].disktype if known else "",
        known[0].capacity if known else 0,
        len(volumes),
    )


def _alias(description: str) -> str:
    """{"DiskAlias":"web_Disk1","DiskDescription":""}"""
    try:
        found = json.loads(description)
    except (ValueError, RecursionError):
        return ""
    alias = found.get("DiskAlias") if isinstance(found, dict) else None
    return alias[:_MAX_ALIAS] if isinstance(alias, str) else ""
