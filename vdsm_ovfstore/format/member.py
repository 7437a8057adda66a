# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What an archive may contain.

    info.json       when the archive was made, and for which storage domain
    <uuid>.ovf      one VM or template; a canonical UUID in lower case
    metadata.json   the status of the VMs that were not down
    manifest.json   more about the archive; the engine ignores it

The engine takes every name that ends in `.ovf` for an entity's, so that a
foreign one makes it reject the whole store; hosted-engine's `tar -xO` joins
members of the same name. Both are refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container
from typing import Any, NamedTuple

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import ovf, tarheader

MAX_JSON = 8 * 1024**2  # bytes of info.json, metadata.json, manifest.json

VM = "vm"
TEMPLATE = "template"
INVALID = "invalid"
ENTITIES = (VM, TEMPLATE)

_NAMES = {
    "info.json": "info",
    "metadata.json": "metadata",
    "manifest.json": "manifest",
}
_OVF_NAME = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\.ovf")

Facts = tuple[str, str, tuple[str, ...]]  # kind, entity, disks


class Member(NamedTuple):
    """One member of an archive."""

    name: str
    kind: str  # vm, template, info, metadata, manifest or invalid
    entity: str  # name of the VM or template, "" otherwise
    offset: int  # where its data begins in the archive, in bytes
    length: int  # of its data, in bytes
    sha256: str  # of its data, in hex
    disks: tuple[str, ...]  # image ids of the entity

    @property
    def end(self) -> int:
        """Where its padding ends and the next header begins, in bytes."""
        return tarheader.padded(self.offset + self.length)


def member_kind(name: str) -> str:
    """
    The kind that a member of this name has.

    Returns:
        VM for an OVF (only its text tells a template), info, metadata or
        manifest; INVALID for all other names.
    """
    if _OVF_NAME.fullmatch(name):
        return VM
    return _NAMES.get(name, INVALID)


def size_limit(kind: str) -> int:
    """Bytes that the data of a member of this kind may have; 0: none."""
    if kind in ENTITIES:
        return ovf.MAX_OVF
    return 0 if kind == INVALID else MAX_JSON


def problem(header: tarheader.Header, names: Container[str]) -> str:
    """
    What is wrong with a member, by its header.

    Arguments:
        header: The member's header.
        names: The names of the members before it.

    Returns:
        The reason in words, or "" if nothing is wrong.

    Raises:
        errors.MemberRefused: Even where its data ends is unclear.
    """
    name, type_, size = header
    if type_ not in tarheader.REGULAR:
        what = tarheader.DATALESS.get(type_, f"of type {type_!r}")
        if type_ in tarheader.LONG_NAME:
            what = "a GNU long name"
        elif type_ == tarheader.SPARSE:
            what = "a sparse file"
        reason = f"it is {what}, not a plain file"
        unclear = type_ in tarheader.DATALESS and size != 0
        if unclear or type_ == tarheader.SPARSE:
            # Readers do not agree where the next header is.
            raise errors.MemberRefused(name=name, reason=reason)
        return reason
    if "/" in name:
        return "its name is a path"
    kind = member_kind(name)
    if kind == INVALID:
        if name.lower().endswith(".ovf"):
            return "its name is not <uuid>.ovf in lower case"
        return "unknown name"
    if name in names:
        return "duplicate name"
    limit = size_limit(kind)
    if size > limit:
        return f"it takes {size} bytes, the limit is {limit}"
    return ""


def check_json(name: str, data: bytes) -> None:
    """
    Check info.json, metadata.json or manifest.json.

    Raises:
        errors.MemberRefused: Not a JSON object in UTF-8.
    """
    try:
        # Numbers are not converted: Python needs hours for one of 8 MiB.
        found = json.loads(
            data.decode("utf-8"),
            parse_int=len,
            parse_float=len,
            parse_constant=_no_constant,
        )
    except (ValueError, RecursionError) as e:
        raise errors.MemberRefused(
            name=name, reason=f"not JSON in UTF-8: {e}"
        ) from None
    if not isinstance(found, dict):
        raise errors.MemberRefused(name=name, reason="not a JSON object")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
