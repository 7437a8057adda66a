# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A record: a few facts in one block that proves itself.

    +----------------------------------------------------------+
    | {"magic":"OVFSTORE-...","version":1, ... }   ASCII JSON  |
    | NUL NUL NUL ...                                          |
    +----------------------------------------------------------+
    | SHA-256 of all bytes before it                  32 bytes |
    +----------------------------------------------------------+

JSON so that `dd` and a pager show what it says; a full SHA-256 because a
CRC-32 lets one damaged record in four thousand million through, and a record
that is wrongly believed can cost every VM of a domain.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from datetime import datetime, timezone
from typing import Any, Optional

from vdsm_ovfstore.format.ids import is_uuid

VERSION = 1

# All structures begin at multiples of this: the largest sector size in use,
# and the page size that direct I/O wants.
BLOCK = 4096

_DIGEST = 32

_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_ISO_TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z\Z", re.ASCII
)


class RecordOverflow(Exception):
    """The facts do not fit the block."""


class RecordInvalid(Exception):
    """A field is missing, of the wrong type or out of bounds."""


class UnknownVersion(Exception):
    """A sound record of a format version that this code does not know."""


def align(size: int) -> int:
    """Round size up to whole blocks."""
    return -(-size // BLOCK) * BLOCK


def pack(fields: dict[str, Any], size: int) -> bytes:
    """
    Return the record of `size` bytes that holds fields, in their order.

    Raises RecordOverflow.
    """
    body = json.dumps(fields, separators=(",", ":")).encode("ascii")
    room = size - _DIGEST
    if len(body) > room:
        raise RecordOverflow(f"{len(body)} bytes, room for {room}")
    body = body.ljust(room, b"\0")
    return body + hashlib.sha256(body).digest()


def unpack(data: bytes, magic: str) -> Optional[dict[str, Any]]:
    """
    Return the fields of a record, or None for anything that is not one.

    Raises UnknownVersion for a sound record of another format version: it
    must not be mistaken for free space.
    """
    if not data.startswith(b'{"magic":"%s",' % magic.encode("ascii")):
        return None
    body, digest = data[:-_DIGEST], data[-_DIGEST:]
    if hashlib.sha256(body).digest() != digest:
        return None
    try:
        fields = json.loads(body.partition(b"\0")[0])
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    version = fields.get("version")
    # Not just equal: True is 1 in Python, and 1.0 is.
    if type(version) is not int or version != VERSION:
        raise UnknownVersion(repr(version))
    return fields


# -- fields, checked as they are taken out ------------------------------------


def text(fields: dict[str, Any], key: str, limit: int = 1024) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or len(value) > limit:
        raise RecordInvalid(key)
    return value


def number(
    fields: dict[str, Any], key: str, limit: int = 2**63 - 1, multiple: int = 1
) -> int:
    value = fields.get(key)
    # bool is an int in Python, not in the format.
    if not isinstance(value, int) or isinstance(value, bool):
        raise RecordInvalid(key)
    if not 0 <= value <= limit or value % multiple:
        raise RecordInvalid(key)
    return value


def sha256(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not _SHA256.match(value):
        raise RecordInvalid(key)
    return value


def uuid(fields: dict[str, Any], key: str) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not is_uuid(value):
        raise RecordInvalid(key)
    return value


def items(fields: dict[str, Any], key: str, limit: int) -> list[Any]:
    value = fields.get(key)
    if not isinstance(value, list) or len(value) > limit:
        raise RecordInvalid(key)
    return value


def timestamp(fields: dict[str, Any], key: str) -> int:
    """Unix time in seconds, from ISO 8601 in UTC."""
    # Not strptime: it loads the locale, 8 ms in a process that lives for 50.
    match = _ISO_TIME.match(text(fields, key, 20))
    if not match:
        raise RecordInvalid(key)
    try:
        year, month, day, hour, minute, second = map(int, match.groups())
        when = datetime(
            year, month, day, hour, minute, second, tzinfo=timezone.utc
        )
    except ValueError:
        raise RecordInvalid(key) from None
    seconds = int(when.timestamp())
    if seconds < 0:
        raise RecordInvalid(key)
    return seconds


def isotime(when: float) -> str:
    """ISO 8601 in UTC, as records hold it and people read it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(when))
