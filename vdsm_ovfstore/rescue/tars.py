# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
OVFs that lie in the open: members of tars, and such as have lost theirs.

What an index wants, and no frame has, is known by its digest wherever it is.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence

from vdsm_ovfstore.format.ovf import MAX_OVF
from vdsm_ovfstore.format.tarheader import BLOCK
from vdsm_ovfstore.rescue import fragment
from vdsm_ovfstore.rescue.findings import FoundMember, Place
from vdsm_ovfstore.rescue.generation import Recovered, Recovery
from vdsm_ovfstore.rescue.runs import Run
from vdsm_ovfstore.rescue.source import Source
from vdsm_ovfstore.rescue.versions import (
    ARCHIVE,
    MEMBER,
    NOWHERE,
    PARTIAL,
    UNVERIFIED,
    VERIFIED,
    Origin,
    Version,
    Versions,
)

# Of an OVF without a header, this much is read at first; most have less.
_FIRST = 64 * 1024


class Tars:
    """
    Puts them into versions.

    named are those of which a header is all that is left: id and domain.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        versions: Versions,
        recovery: Recovery,
    ) -> None:
        self.named: dict[str, str] = {}
        self._sources = sources
        self._versions = versions
        self._recovery = recovery

    def proven_member(self, one: FoundMember, generation: Recovered) -> None:
        """A member of an archive whose digest a record has."""
        data = self._read(_data_of(one), one.size)
        sha256 = hashlib.sha256(data).hexdigest()
        if not self._versions.has(one.entity, sha256):
            text, origin = fragment.proven(data), generation.origin
            self._add(one, text, VERIFIED, origin, len(data), sha256, ARCHIVE)
        self._recovery.solved(sha256)
        generation.note(one.entity, VERIFIED)

    def member(self, one: FoundMember, run: Run) -> None:
        """A member of a tar that nobody vouches for."""
        data = self._read(_data_of(one), one.size)
        origin = Origin(run.domain, None, run.time)
        if len(data) == one.size and self._whole(one, data, origin):
            return
        data, text = fragment.beginning(data, one.entity)
        if data:
            sha256 = hashlib.sha256(data).hexdigest()
            self._add(one, text, PARTIAL, origin, len(data), sha256)
        else:
            self.named.setdefault(one.entity, run.domain)

    def loose(self, place: Place) -> None:
        """An OVF without a tar header; it says itself whose it is."""
        data = b""
        for length in (_FIRST, MAX_OVF):
            data = fragment.loose(self._read(place, length))
            if data:
                break
        text = fragment.whole(data)
        if text is not None and text.entity_id:
            header = Place(place.source, place.offset - BLOCK)
            one = FoundMember(header, 0, text.entity_id, len(data))
            self._whole(one, data, NOWHERE)

    def _whole(self, one: FoundMember, data: bytes, origin: Origin) -> bool:
        """Whether it is an OVF of that entity, as far as can be seen."""
        sha256 = hashlib.sha256(data).hexdigest()
        wanted = self._recovery.wanted(one.entity, sha256)
        if wanted is not None:
            generation, entry = wanted
            text = fragment.Text(entry.entity, entry.kind, entry.disks, "")
            vouched = generation.key.number > 0
            self._add(
                one,
                text,
                VERIFIED if vouched else UNVERIFIED,
                generation.origin,
                len(data),
                sha256,
                MEMBER if vouched else "",
            )
            self._recovery.solved(sha256)
            return True
        if self._versions.has(one.entity, sha256, UNVERIFIED):
            return True
        found = fragment.whole(data, one.entity)
        if found is not None:
            self._add(one, found, UNVERIFIED, origin, len(data), sha256)
        return found is not None

    def _read(self, place: Place, length: int) -> bytes:
        """Shorter where the source ends."""
        return self._sources[place.source].read(place.offset, length)

    def _add(
        self,
        one: FoundMember,
        text: fragment.Text,
        grade: str,
        origin: Origin,
        length: int,
        sha256: str,
        proof: str = "",
    ) -> None:
        place = _data_of(one)
        self._versions.add(
            Version(
                one.entity,
                text,
                grade,
                proof,
                origin,
                sha256,
                length,
                one.size,
                place,
                functools.partial(self._read, place, length),
            )
        )


def _data_of(one: FoundMember) -> Place:
    return Place(one.place.source, one.place.offset + BLOCK)
