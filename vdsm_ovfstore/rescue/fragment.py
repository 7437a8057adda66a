# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What is left of an OVF: the whole of it, or its beginning.

An OVF is text in UTF-8 without NULs, and well-formed XML. So where something
else begins, mostly one of these ends. What is cut off there is cut at a tar
block, since others write whole ones. That it ends there proves nothing of
what comes before.
"""

from __future__ import annotations

import html
import re
from typing import NamedTuple, Optional
from xml.parsers import expat

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import ovf, tarheader
from vdsm_ovfstore.format.ids import UUID
from vdsm_ovfstore.format.member import INVALID, TEMPLATE, VM

_BEGINNINGS = (b"<?xml", b"<ovf:Envelope")
_END = b"</ovf:Envelope>"
_NAME = re.compile(rb"<Name>([^<]{1,1024})</Name>")
_DISK = re.compile(
    rb"<File\s[^<>]{0,1024}?\bovf:href=\"(%s)/" % UUID.encode(), re.I
)


class Text(NamedTuple):
    """An OVF: kind is vm, template or invalid; entity_id may be empty."""

    name: str
    kind: str
    disks: tuple[str, ...]
    entity_id: str


NOTHING = Text("", INVALID, (), "")


def whole(data: bytes, entity: str = "") -> Optional[Text]:
    """
    What a complete OVF says; None unless it is one, of that entity.

    Arguments:
        entity: id that it must not contradict; "" for any.
    """
    if not data.startswith(_BEGINNINGS):
        return None
    try:
        facts = ovf.check_ovf(data, entity)
    except errors.OvfRefused:
        return None
    if entity and facts.entity_id not in ("", entity):
        return None
    return Text(facts.name, facts.kind, facts.disks, facts.entity_id)


def proven(data: bytes) -> Text:
    """
    What an OVF says that a digest proves: it was looked at when it was
    stored, and to parse 100 MiB once more takes two seconds.
    """
    if not data.startswith(_BEGINNINGS):
        return NOTHING
    kind = TEMPLATE if b"<TemplateType>" in data else VM
    return Text(_name(data), kind, _disks(data), ovf.entity_id(data))


def beginning(data: bytes, entity: str) -> tuple[bytes, Text]:
    """
    As much of data, from its begin, as may be the OVF of that entity.

    No bytes when that is nothing.
    """
    if not data.startswith(_BEGINNINGS):
        return b"", NOTHING
    end = _error(data)
    if end < len(data):
        data = data[: end - end % tarheader.BLOCK]
    found = ovf.entity_id(data)
    if found not in ("", entity) or not data:
        return b"", NOTHING
    return data, Text(_name(data), INVALID, _disks(data), found)


def loose(data: bytes) -> bytes:
    """
    The OVF that data begins with, when nobody says how long it is.

    It ends with its last tag, or with white space between that and the
    zeros with which a tar block is filled. Nothing when it does not end.
    """
    end = data.find(_END)
    if end < 0:
        return b""
    end += len(_END)
    rest = data[end : end + tarheader.BLOCK].partition(b"\0")
    if rest[1] and not rest[0].strip():
        end += len(rest[0])
    return data[:end]


def _name(data: bytes) -> str:
    """As the engine finds it: the first that is called so."""
    found = _NAME.search(data)
    return html.unescape(found[1].decode("utf-8", "replace")) if found else ""


def _disks(data: bytes) -> tuple[str, ...]:
    found = dict.fromkeys(m.decode().lower() for m in _DISK.findall(data))
    return tuple(found)[: ovf.MAX_DISKS]


def _error(data: bytes) -> int:
    """Where it ceases to be an OVF; its length if it does not."""
    end = data.find(b"\0")
    end = len(data) if end < 0 else end
    try:
        data[:end].decode("utf-8")
    except UnicodeDecodeError as e:
        # A character may be cut at the end.
        if e.end < end or e.reason != "unexpected end of data":
            end = e.start
    parser = expat.ParserCreate("UTF-8")
    parser.StartDoctypeDeclHandler = _no_doctype
    try:
        parser.Parse(data[:end], False)
    except (expat.ExpatError, _Doctype):
        end = min(end, max(0, parser.ErrorByteIndex))
    return end


class _Doctype(Exception):
    """A document type declaration: entities could make it any length."""


def _no_doctype(*args: object) -> None:
    raise _Doctype
