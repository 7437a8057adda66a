# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What would come back if a generation were imported now, and what would not.

Every OVF is read and verified, and each volume that it names is looked for:
on its domain, and on the others that are given. Reads only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.ovfparts import Parts, parts, storages
from vdsm_ovfstore.format.segment import IndexEntry
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.entities import entity_id
from vdsm_ovfstore.store.reader import GenerationReader

# Where a disk is.
HERE = "here"
ELSEWHERE = "elsewhere"  # on another domain, or said to be
INCOMPLETE = "incomplete"  # here, but a volume of it is not
MISSING = "missing"

# What becomes of a VM or template.
READY = "ready"
WAITING = "waiting"  # for another domain, or for a template
BROKEN = "broken"  # a disk is gone; the engine imports the rest if told so
LOST = "lost"  # no copy has its OVF sound

_UNREADABLE = (errors.Damaged, errors.StorageFailed)


class Disk(NamedTuple):
    """
    domain is where it is, or is said to be ("" if nobody says); seen tells
    that it was found there. volumes are those that are not there.
    """

    id: str
    state: str
    domain: str
    seen: bool
    volumes: tuple[str, ...] = ()


class Prospect(NamedTuple):
    """
    What becomes of one entity, and why.

    parts and data are None if its OVF cannot be read; then error says why.
    """

    entry: IndexEntry
    verdict: str
    reasons: list[str]
    disks: list[Disk]
    parts: Optional[Parts] = None
    data: Optional[bytes] = None
    error: Optional[errors.Error] = None


def prospects(
    opened: GenerationReader,
    wanted: Sequence[IndexEntry],
    domain: FileDomain,
    others: Sequence[FileDomain] = (),
) -> Iterator[Prospect]:
    """
    One for each VM and template of a generation, in its archive's order.

    Arguments:
        wanted: its VMs and templates.
        others: domains on which disks are looked for, too.

    Raises errors.StorageFailed: the images cannot be listed.
    """
    disks = _Disks(domain, others)
    there = {entity_id(entry) for entry in wanted}
    for entry in wanted:
        try:
            data = opened.read(entry)
        except _UNREADABLE as e:
            yield Prospect(
                entry, LOST, [f"its OVF cannot be read: {e}"], [], error=e
            )
            continue
        found = parts(data)
        yield _prospect(entry, data, found, disks.find(data, found), there)


def _prospect(
    entry: IndexEntry,
    data: bytes,
    found: Parts,
    disks: list[Disk],
    there: set[str],
) -> Prospect:
    reasons = [reason for disk in disks for reason in _reasons(disk)]
    states = {disk.state for disk in disks}
    verdict = READY
    if found.template and found.template not in there:
        verdict = WAITING
        name = found.template_name or found.template
        reasons.append(f"needs template {name}, which is not in this store")
    if ELSEWHERE in states:
        verdict = WAITING
    if states & {MISSING, INCOMPLETE}:
        verdict = BROKEN
    return Prospect(entry, verdict, reasons, disks, found, data)


def _reasons(disk: Disk) -> Iterator[str]:
    if disk.state == ELSEWHERE:
        how = "is" if disk.seen else "should be"
        yield f"disk {disk.id} {how} on domain {disk.domain}"
    elif disk.state == INCOMPLETE:
        volumes = ", ".join(disk.volumes)
        yield f"disk {disk.id} lacks volume {volumes}"
    elif disk.state == MISSING:
        said = f", nor on domain {disk.domain}" if disk.domain else ""
        yield f"disk {disk.id} is not on this domain{said}"


class _Disks:
    """Where all disks are; the storage is asked once."""

    def __init__(
        self, domain: FileDomain, others: Sequence[FileDomain]
    ) -> None:
        self._domain = domain.id
        self._here = domain.images().volumes()
        self._others = {
            other.id: frozenset(other.images().names())
            for other in others
            if other.id != domain.id
        }

    def find(self, data: bytes, found: Parts) -> list[Disk]:
        volumes: dict[str, list[str]] = {}
        for disk, volume in found.volumes:
            volumes.setdefault(disk, []).append(volume)
        said: Optional[dict[str, str]] = None
        disks = []
        for disk, wanted in volumes.items():
            if disk in self._here:
                disks.append(self._on_this(disk, wanted))
                continue
            if said is None:
                said = storages(data)
            disks.append(self._not_here(disk, said.get(disk, "")))
        return disks

    def _on_this(self, disk: str, wanted: list[str]) -> Disk:
        there = self._here[disk]
        missing = tuple(v for v in wanted if v not in there)
        state = INCOMPLETE if missing else HERE
        return Disk(disk, state, self._domain, True, missing)

    def _not_here(self, disk: str, said: str) -> Disk:
        for other, images in self._others.items():
            if disk in images:
                return Disk(disk, ELSEWHERE, other, True)
        if said in ("", self._domain):
            return Disk(disk, MISSING, "", False)
        # Another one; if it was looked at, the disk is not there either.
        state = MISSING if said in self._others else ELSEWHERE
        return Disk(disk, state, said, False)
