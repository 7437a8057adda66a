# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The VMs and templates of a generation, as its index names them."""

from __future__ import annotations

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.member import ENTITIES
from vdsm_ovfstore.format.segment import IndexEntry, SegmentInvalid
from vdsm_ovfstore.store.reader import GenerationReader


def members(generation: GenerationReader) -> list[IndexEntry]:
    """All members of the archive, in its order. Raises errors.Damaged."""
    try:
        return list(generation.index())
    except SegmentInvalid as e:
        number = generation.generation.number
        raise errors.Damaged(
            what=f"The index of generation {number}", reason=str(e)
        ) from None


def entities(generation: GenerationReader) -> list[IndexEntry]:
    """The VMs and templates only. Raises errors.Damaged."""
    return [e for e in members(generation) if e.kind in ENTITIES]


def entity_id(entry: IndexEntry) -> str:
    return entry.name[: -len(".ovf")]
