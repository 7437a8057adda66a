# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What an OVF says of what its entity needs: volumes, domains, a template.

    <References>
      <File ovf:href="<disk>/<volume>" .../>         each volume of a chain
    <Content>
      <ExportDate>2026/02/17 14:05:40</ExportDate>   when it was written
      <Generation>31</Generation>                    counts the changes
      <TemplateId>, <TemplateName>                   of a thin VM; else Blank
      <Item> <rasd:HostResource>disk/volume  <rasd:StorageId>domain

Found by their tags, without parsing: 10,000 of them are asked for at once.
Only OVFs that were checked when they were stored may be asked so (ovf.py).
"""

from __future__ import annotations

import html
import re
from typing import NamedTuple, Optional

from vdsm_ovfstore.format.ids import UUID

BLANK_TEMPLATE = "00000000-0000-0000-0000-000000000000"

_ID = UUID.encode()
_FILE = re.compile(
    rb'<File\s[^<>]*?\bovf:href="(%s)/(%s)"' % (_ID, _ID), re.IGNORECASE
)
_RESOURCE = re.compile(rb"<rasd:HostResource>(%s)/" % _ID, re.IGNORECASE)
_STORAGE = re.compile(rb"<rasd:StorageId>(%s)</" % _ID, re.IGNORECASE)
_MAX_VALUE = 1024  # bytes between two tags


class Parts(NamedTuple):
    """
    volumes are (disk, volume); template is an id, or "" for none.

    exported is as the engine writes it, in a time zone that it does not
    tell. generation is the engine's, not the store's; None if not told.
    """

    volumes: list[tuple[str, str]]
    template: str
    template_name: str
    exported: str
    generation: Optional[int]


def parts(data: bytes) -> Parts:
    """What an OVF that was checked says of these."""
    template = _value(data, b"TemplateId").lower()
    if template == BLANK_TEMPLATE:
        template = ""
    generation = _value(data, b"Generation")
    return Parts(
        [(d.decode().lower(), v.decode().lower()) for d, v in _files(data)],
        template,
        _value(data, b"TemplateName") if template else "",
        _value(data, b"ExportDate"),
        int(generation) if generation.isdecimal() else None,
    )


def storages(data: bytes) -> dict[str, str]:
    """The storage domain of each disk, by its id, as far as it is told."""
    found = {}
    for item in data.split(b"</Item>"):
        disk, domain = _RESOURCE.search(item), _STORAGE.search(item)
        if disk and domain:
            found[disk[1].decode().lower()] = domain[1].decode().lower()
    return found


def _files(data: bytes) -> list[tuple[bytes, bytes]]:
    end = data.find(b"</References>")
    return _FILE.findall(data, 0, end if end >= 0 else len(data))


def _value(data: bytes, tag: bytes) -> str:
    """The text of the first element that is called so, or ""."""
    start = data.find(b"<%s>" % tag)
    if start < 0:
        return ""
    start += len(tag) + 2
    end = data.find(b"</%s>" % tag, start, start + _MAX_VALUE)
    if end < 0:
        return ""
    return html.unescape(data[start:end].decode("utf-8", "replace"))
