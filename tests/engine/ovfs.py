# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""OVFs with what says where they belong, as the engine writes it."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import NamedTuple

_NAMESPACE = uuid.UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")


def ident(name: str) -> str:
    """The id that a thing of this name always gets."""
    return str(uuid.uuid5(_NAMESPACE, name))


class Disk(NamedTuple):
    """kind: IMAGE, LUN, CINDER or MANAGED_BLOCK_STORAGE."""

    domain: str
    shareable: bool = False
    kind: str = "IMAGE"


def make_ovf(
    name: str,
    disks: Sequence[Disk] = (),
    generation: int = 1,
    template: bool = False,
    origin: int = 3,
    memory: str = "",
    notes: str = "",
) -> bytes:
    """The OVF of the VM ident(name)."""
    files, sections, items = [], [], []
    for number, disk in enumerate(disks):
        image, volume = ident(f"{name} {number}"), ident(f"{name} v{number}")
        href = f"{image}/{volume}"
        if disk.kind == "LUN":
            href = image
        share = "true" if disk.shareable else "false"
        files.append(
            f'<File ovf:href="{href}" ovf:id="{volume}" '
            f'ovf:disk_storage_type="{disk.kind}"></File>'
        )
        sections.append(
            f'<Disk ovf:diskId="{volume}" ovf:fileRef="{href}" '
            f'ovf:shareable="{share}"></Disk>'
        )
        where = f"<rasd:StorageId>{disk.domain}</rasd:StorageId>"
        items.append(
            "<Item><rasd:ResourceType>17</rasd:ResourceType>"
            f"<rasd:HostResource>{href}</rasd:HostResource>"
            f"{where if disk.domain else ''}</Item>"
        )
    base = "<TemplateType>TEMPLATE</TemplateType>" if template else ""
    snapshots = ""
    if memory:
        snapshots = (
            '<Section xsi:type="ovf:SnapshotsSection_Type"><Snapshot>'
            f"<Memory>{memory}</Memory></Snapshot></Section>"
        )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ovf:Envelope '
        'xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1/" '
        'xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/'
        'CIM_ResourceAllocationSettingData" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f"<References>{''.join(files)}</References>"
        f'<Section xsi:type="ovf:DiskSection_Type">{"".join(sections)}'
        '</Section><Content ovf:id="out" xsi:type="ovf:VirtualSystem_Type">'
        f"<Name>{name}</Name><Description>{notes}</Description>{base}"
        f"<Origin>{origin}</Origin><Generation>{generation}</Generation>"
        f'<Section ovf:id="{ident(name)}" ovf:required="false" '
        'xsi:type="ovf:OperatingSystemSection_Type"></Section>'
        '<Section xsi:type="ovf:VirtualHardwareSection_Type">'
        f"{''.join(items)}</Section>{snapshots}</Content></ovf:Envelope>"
    ).encode()
