# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The check of one OVF: is it safe to store, and what does it describe?

What the engine, hosted-engine and this module look at:

    <ovf:Envelope>
      <References>
        <File ovf:href="<disk uuid>/<volume uuid>" .../>      disks
      </References>
      <Content>                        (older or foreign: <VirtualSystem>)
        <Name>vm-1</Name>                                     name
        <TemplateType>...</TemplateType>                      a template
        <Section ovf:id="<uuid>"
                 xsi:type="ovf:OperatingSystemSection_Type">  entity id
      </Content>
    </ovf:Envelope>

The engine does not parse for the name: it takes the text between the first
`<Name>` and `</Name>`, and rejects the *whole store* when there is none
(OvfUtils.getEntityName). So one OVF without a name would hide all others, and
is refused here. A template is what contains the text `<TemplateType>`.

An archive of 100 MiB is normal, so expat runs without calls into Python
wherever possible: the handlers are taken off once the name is known and no
`<File` follows.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Optional, Union
from xml.parsers import expat

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.ids import UUID

MAX_OVF = 16 * 1024**2  # bytes; the largest seen in the field are ~1 MiB
MAX_DEPTH = 128  # nested elements; the engine writes 6, lxml reads 256
MAX_NAME = 255  # characters; the engine's column is varchar(255)
MAX_DISKS = 4096  # distinct disks of one entity

_DISK = re.compile(UUID + r"(?![^/])", re.IGNORECASE)
_ENTITY_ID = re.compile(
    rb"<Section\s[^<]*?\bovf:id=([\"'])(" + UUID.encode() + rb")\1", re.I
)
_COMMENT = re.compile(rb"<!--.*?-->", re.DOTALL)
_ENTITIES = ("Content", "VirtualSystem")

# How much text is searched at once for tags when bounding the depth.
_STRIDE = 4096


class OvfFacts(NamedTuple):
    """What an OVF says about its entity."""

    name: str  # as the user sees it in the engine
    kind: str  # "vm" or "template"
    disks: tuple[str, ...]  # image ids, lower case, in document order
    entity_id: str  # ovf:id of the OperatingSystemSection, or ""


def check_ovf(data: Union[bytes, memoryview], label: str) -> OvfFacts:
    """
    Check one OVF and return what it describes.

    Arguments:
        data: The whole document.
        label: How errors call it; its name in the archive.

    Raises:
        errors.OvfRefused: Too large, not well-formed, not UTF-8, with a DTD,
            nested too deeply, or without a name.
    """
    if len(data) > MAX_OVF:
        reason = f"it takes {len(data)} bytes, the limit is {MAX_OVF}"
        raise errors.OvfRefused(name=label, reason=reason)
    data = bytes(data)
    return _Reader(data, label).read()


class _Reader:
    """One run of expat over one document."""

    def __init__(self, data: bytes, label: str) -> None:
        self._data = data
        self._label = label
        self._depth = 0
        self._section = ""
        self._text: list[str] = []
        self._in_name = False
        self._name: Optional[str] = None
        self._disks: dict[str, None] = {}
        self._shallow = _is_shallow(data)
        # The encoding given here wins over the declared one, so that no
        # codec is ever looked up by a name from outside.
        self._parser = expat.ParserCreate("UTF-8")
        self._parser.buffer_text = True
        self._parser.XmlDeclHandler = self._declaration
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.StartElementHandler = self._start
        self._parser.EndElementHandler = self._end

    def read(self) -> OvfFacts:
        data = self._data
        try:
            self._check_bytes()
            self._parser.Parse(data, True)
        except expat.ExpatError as e:
            raise self._refused(
                f"{expat.ErrorString(e.code)} at line {e.lineno}, "
                f"column {e.offset}"
            ) from None
        except UnicodeDecodeError as e:
            raise self._refused(f"not UTF-8: {e.reason}") from None
        finally:
            # The parser holds our methods, we hold the parser and the text:
            # without this, all would wait for the garbage collector.
            del self._parser
        if self._name is None or not self._name.strip():
            raise self._refused("it has no <Name>")
        start = data.find(b"<Name>")
        if start < 0 or data.find(b"</Name>", start) < 0:
            # An element <Name attribute=""> is invisible to the engine.
            raise self._refused("it has no plain <Name>...</Name>")
        if len(self._name) > MAX_NAME:
            raise self._refused(
                f"its name takes {len(self._name)} characters, the limit is "
                f"{MAX_NAME}"
            )
        template = b"<TemplateType>" in data
        return OvfFacts(
            name=self._name,
            kind="template" if template else "vm",
            disks=tuple(self._disks),
            entity_id=entity_id(data),
        )

    def _check_bytes(self) -> None:
        if self._data.startswith(b"\xef\xbb\xbf"):
            # Java takes the mark for text before the XML declaration.
            raise self._refused("it starts with a byte order mark")
        if b"\0" in self._data:
            # Expat takes "<\0" for UTF-16 whatever encoding it is given.
            raise self._refused("it contains NUL bytes")

    def _refused(self, reason: str) -> errors.OvfRefused:
        return errors.OvfRefused(name=self._label, reason=reason)

    def _declaration(
        self, version: str, encoding: Optional[str], standalone: int
    ) -> None:
        if encoding is not None and encoding.lower() != "utf-8":
            raise self._refused(f"it declares the encoding {encoding!r}")

    def _doctype(self, *args: object) -> None:
        raise self._refused("it has a document type declaration")

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._refused(f"it is nested deeper than {MAX_DEPTH}")
        if self._depth == 2:
            self._section = name
        elif self._depth == 3:
            if name == "File" and self._section == "References":
                self._add_disk(attributes.get("ovf:href", ""))
            elif name == "Name" and self._is_entity_name():
                self._in_name = True
                # A bound method of list: no call into Python per text.
                self._parser.CharacterDataHandler = self._text.append

    def _is_entity_name(self) -> bool:
        return self._name is None and self._section in _ENTITIES

    def _end(self, name: str) -> None:
        self._depth -= 1
        if self._in_name and self._depth == 2:
            self._in_name = False
            self._parser.CharacterDataHandler = None
            self._name = "".join(self._text)
            if self._shallow and not self._more_files():
                self._parser.StartElementHandler = None
                self._parser.EndElementHandler = None

    def _more_files(self) -> bool:
        here = self._parser.CurrentByteIndex
        return self._data.find(b"<File", here) >= 0

    def _add_disk(self, href: str) -> None:
        match = _DISK.match(href)
        if match is None:
            return
        self._disks[match.group().lower()] = None
        if len(self._disks) > MAX_DISKS:
            raise self._refused(f"it refers to more than {MAX_DISKS} disks")


def entity_id(data: bytes) -> str:
    """The id in the tag of the OperatingSystemSection, or ""."""
    found = data.find(b"OperatingSystemSection_Type")
    if found < 0:
        return ""
    tag = data[data.rfind(b"<", 0, found) : data.find(b">", found) + 1]
    match = _ENTITY_ID.match(tag)
    return match.group(2).decode("ascii").lower() if match else ""


def _is_shallow(data: bytes) -> bool:
    """
    Whether the depth is surely within MAX_DEPTH, found without parsing.

    Asking expat for the depth costs two calls into Python per element, half
    of the time of the whole check. Instead, stride by stride, the open
    elements are bounded by counting: every "<" opens at most one, every "</"
    closes one. In CDATA and processing instructions "</" closes nothing: a
    document with any of these gives no bound.

    Unclosed tags may make the bound wrong only in documents that are not
    well-formed, and expat stops at the first such place.
    """
    # One rare character is found ten times faster than two.
    if b"!" in data and b"<!" in data:
        # virt-v2v writes a comment. Without CDATA (and DTD), "<!--" begins
        # a comment wherever it stands.
        data = _COMMENT.sub(b"", data)
        if b"<!" in data:
            return False
    body = data.find(b"?>") + 2 if data.startswith(b"<?xml ") else 0
    if data.find(b"?", body) >= 0 and data.find(b"<?", body) >= 0:
        return False
    depth = 0
    for begin in range(0, len(data), _STRIDE):
        end = begin + _STRIDE
        tags = data.count(b"<", begin, end)
        # One byte more: "</" may lie across the border of two strides.
        closing = data.count(b"</", begin, end + 1)
        if depth + tags - closing > MAX_DEPTH:
            return False
        depth += tags - 2 * closing
    return True
