# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What recover answers: what an import of a domain would bring back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Callable, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.documents import entity_fields, generation_fields
from vdsm_ovfstore.format.member import ENTITIES, INVALID
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store import recovery
from vdsm_ovfstore.store.disks import Unused, unused
from vdsm_ovfstore.store.entities import entity_id, members
from vdsm_ovfstore.store.reader import Generation, Reader
from vdsm_ovfstore.store.recovery import Prospect, prospects

Document = dict[str, Any]

# Is given each prospect, and may add fields to what is told of it.
Take = Callable[[Prospect], Document]

# Disks without a VM of which older generations are asked.
_MAX_ASKED = 1000

VERDICTS = (
    recovery.READY,
    recovery.WAITING,
    recovery.BROKEN,
    recovery.LOST,
)

_UNREADABLE = (errors.Damaged, errors.StorageFailed)


def recover(
    reader: Reader,
    generation: Optional[str] = None,
    others: Sequence[FileDomain] = (),
    take: Take = lambda prospect: {},
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Document:
    """
    Tell of each VM and template whether it comes back, and of each disk
    without one whose it was.

    Arguments:
        generation: what --generation takes; the newest by default.
        others: domains on which disks are looked for, too.
        take: see Take.
        progress: is told how many entities are done, of how many.

    Raises errors.StoreEmpty, GenerationNotFound, GenerationAmbiguous,
    Damaged, StorageFailed; and what take raises.
    """
    wanted = reader.find(generation)
    opened = reader.open(wanted)
    listed = members(opened)
    counts = dict.fromkeys(VERDICTS, 0)
    entities: list[Document] = []
    named: set[str] = set()
    looked = [m for m in listed if m.kind in ENTITIES]
    found = prospects(opened, looked, reader.domain, others)
    for number, one in enumerate(found):
        progress(number, len(looked))
        counts[one.verdict] += 1
        named.update(one.entry.disks)
        entities.append({**_prospect(one), **take(one)})
    entities.sort(key=lambda e: (e["name"], e["id"]))
    images = reader.domain.images()
    left = unused(set(images.names()) - named, images)
    return {
        "domain": reader.domain.id,
        "path": reader.domain.path,
        "generation": generation_fields(wanted),
        "others": [other.id for other in others],
        "entities": entities,
        **counts,
        "invalid": [m.name for m in listed if m.kind == INVALID],
        "unused": _owned(reader, wanted, left),
    }


def _prospect(one: Prospect) -> Document:
    parts = one.parts
    return {
        **entity_fields(one.entry),
        "verdict": one.verdict,
        "reasons": one.reasons,
        "disks": [
            {**disk._asdict(), "volumes": list(disk.volumes)}
            for disk in one.disks
        ],
        "template": parts.template if parts and parts.template else None,
        "exported": parts.exported if parts and parts.exported else None,
        "revision": parts.generation if parts else None,
    }


def _owned(
    reader: Reader, wanted: Generation, left: list[Unused]
) -> list[Document]:
    """The disks without a VM, with the last one that had each."""
    owners: dict[str, Document] = {}
    for generation in reader.generations():
        asked = [d.image for d in left[:_MAX_ASKED] if d.image not in owners]
        if not asked:
            break
        if generation.identity == wanted.identity:
            continue
        try:
            index = reader.open(generation).index()
            for image in asked:
                for entry in index.find_disk(image):
                    owners[image] = {
                        "id": entity_id(entry),
                        "name": entry.entity,
                        "generation": generation.number,
                        "sha256": generation.sha256,
                    }
        except _UNREADABLE:
            continue
    return [{**d._asdict(), "last_of": owners.get(d.image)} for d in left]
