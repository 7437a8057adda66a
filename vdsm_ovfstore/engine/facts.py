# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What an OVF says about where it belongs.

    <References>
      <File ovf:href="<disk>/<volume>" ovf:disk_storage_type="IMAGE|LUN|..."/>
    <Section xsi:type="ovf:DiskSection_Type">
      <Disk ovf:fileRef="<disk>/<volume>" ovf:shareable="true|false"/>
    <Content>
      <Generation>31</Generation> <Origin>3</Origin>
      <Section xsi:type="ovf:VirtualHardwareSection_Type">
        <Item> <rasd:HostResource><disk>/<volume></rasd:HostResource>
               <rasd:StorageId><domain></rasd:StorageId> </Item>
      <Section xsi:type="ovf:SnapshotsSection_Type">
        <Snapshot> <Memory>domain,pool,disk,volume,disk,volume</Memory>

An OVF goes to each data domain on which one of its images lies. What has no
image of its own (no disks, LUNs only, shareable disks only) goes to every
data domain: nobody could say where to look for it.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Optional
from xml.parsers import expat

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import ovf
from vdsm_ovfstore.format.ids import UUID

EVERYWHERE = "*"

# VMs that something else than the engine runs; nobody registers them.
EXTERNAL = "external"
_EXTERNAL_ORIGIN = "4"

_ID = re.compile(UUID, re.IGNORECASE)
_NONE = "00000000-0000-0000-0000-000000000000"
_NUMBER = re.compile(r"[0-9]{1,18}")

# Texts that are looked at, by the name of their element without its prefix,
# each with the characters that may be kept of one.
_TEXTS = {
    "Generation": 32,
    "Origin": 32,
    "Memory": 1024,
    "HostResource": 256,
    "StorageId": 64,
}


class Facts(NamedTuple):
    """
    What an OVF says of its entity.

    Attributes:
        kind: "vm", "template" or EXTERNAL.
        name: As the user sees it.
        generation: The engine's count of its changes; 0 if it has none.
        disks: Image ids.
        memory: Images that hold the memory of snapshots. They are no reason
            to keep the OVF on their domain.
        domains: Where the OVF belongs: ids of domains, or EVERYWHERE.
            Nowhere, for EXTERNAL ones.
    """

    kind: str
    name: str
    generation: int
    disks: tuple[str, ...]
    memory: tuple[str, ...]
    domains: tuple[str, ...]


def read_facts(data: bytes, entity: str) -> Facts:
    """
    Check an OVF, and return what it says of its entity.

    Arguments:
        data: The document.
        entity: The id that it should have.

    Raises:
        errors.OvfRefused: What an archive must not have, see ovf.check_ovf;
            or the OVF of another entity.
    """
    label = f"{entity}.ovf"
    # First, since it bounds what the parser below may meet.
    known = ovf.check_ovf(data, label)
    if known.entity_id not in ("", entity):
        reason = f"it is the OVF of {known.entity_id}"
        raise errors.OvfRefused(name=label, reason=reason)
    found = _Reader(label).read(data)
    external = found.origin == _EXTERNAL_ORIGIN
    return Facts(
        kind=EXTERNAL if external else known.kind,
        name=known.name,
        generation=found.generation,
        disks=known.disks,
        memory=tuple(found.memory),
        domains=() if external else found.domains(),
    )


class _Reader:
    """One run of expat over one document."""

    def __init__(self, label: str) -> None:
        self.generation = 0
        self.origin = ""
        self.memory: dict[str, None] = {}
        self._label = label
        self._other: set[str] = set()  # files that are no images
        self._shareable: set[str] = set()
        self._items: list[tuple[str, str]] = []  # file, domain
        self._seen: set[str] = set()  # of what counts once
        self._file, self._domain = "", ""
        self._text: Optional[list[str]] = None
        self._left = 0

    def read(self, data: bytes) -> _Reader:
        parser = expat.ParserCreate("UTF-8")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.Parse(data, True)
        return self

    def domains(self) -> tuple[str, ...]:
        where = {
            domain: None
            for file, domain in self._items
            if file not in self._other and file not in self._shareable
        }
        return tuple(where) or (EVERYWHERE,)

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._text = None
        name = name.rpartition(":")[2]
        if name in _TEXTS:
            self._text, self._left = [], _TEXTS[name]
        elif name == "File":
            kind = attributes.get("ovf:disk_storage_type", "IMAGE")
            if kind != "IMAGE":
                self._other.add(attributes.get("ovf:href", ""))
        elif name == "Disk":
            if attributes.get("ovf:shareable", "").lower() == "true":
                self._shareable.add(attributes.get("ovf:fileRef", ""))
        elif name == "Item":
            self._file, self._domain = "", ""

    def _characters(self, text: str) -> None:
        if self._text is not None and self._left > 0:
            self._text.append(text[: self._left])
            self._left -= len(text)

    def _end(self, name: str) -> None:
        name = name.rpartition(":")[2]
        if self._text is not None and name in _TEXTS:
            self._take(name, "".join(self._text).strip())
        elif name == "Item" and self._file and self._domain:
            self._items.append((self._file, self._domain))
            if len(self._items) > ovf.MAX_DISKS * 16:
                raise self._refused("it has too many disks")
        self._text = None

    def _take(self, name: str, text: str) -> None:
        if name == "HostResource":
            self._file = text
        elif name == "StorageId":
            if _ID.fullmatch(text) and text != _NONE:
                self._domain = text.lower()
        elif name == "Memory":
            # domain, pool, and twice image and volume.
            parts = [part.strip().lower() for part in text.split(",")]
            for image in parts[2:6:2]:
                if _ID.fullmatch(image):
                    self.memory[image] = None
        elif name not in self._seen:
            self._seen.add(name)
            if name == "Origin":
                self.origin = text
            elif _NUMBER.fullmatch(text):
                self.generation = int(text)

    def _refused(self, reason: str) -> errors.OvfRefused:
        return errors.OvfRefused(name=self._label, reason=reason)
