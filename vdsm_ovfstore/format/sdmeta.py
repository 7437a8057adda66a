# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The metadata of a storage domain: `dom_md/metadata` on a file domain.

Sorted KEY=VALUE lines in UTF-8 and a checksum over them:

    ALIGNMENT=1048576       of leases, in bytes; since version 5
    BLOCK_SIZE=512          of the storage, in bytes; since version 5
    CLASS=Data
    DESCRIPTION=data        the domain's name in the engine
    IOOPTIMEOUTSEC=10
    LEASERETRIES=3
    LEASETIMESEC=60
    LOCKPOLICY=
    LOCKRENEWALINTERVALSEC=5
    POOL_UUID=<pool id>     empty while the domain is detached
    REMOTE_PATH=server.example.com:/export/data
    ROLE=Regular
    SDUUID=<storage domain id>
    TYPE=NFS
    VERSION=5
    _SHA_CKSUM=<SHA-1, in hex, of the lines above without their line feeds>

For the checksum VDSM encodes each line in ASCII with XML character references
(lib/vdsm/storage/persistent.py).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.ids import is_uuid

DEFAULT_BLOCK_SIZE = 512
DEFAULT_ALIGNMENT = 1024**2

# VDSM's timings of the long gone safelease; it still writes them.
LEASE_PARAMETERS: Mapping[str, str] = MappingProxyType(
    {
        "IOOPTIMEOUTSEC": "10",
        "LEASERETRIES": "3",
        "LEASETIMESEC": "60",
        "LOCKPOLICY": "",
        "LOCKRENEWALINTERVALSEC": "5",
    }
)

_CHECKSUM = "_SHA_CKSUM"
_MAX_TEXT = 64 * 1024  # bytes; VDSM's has ~400
_DIGITS = re.compile(r"[0-9]{1,9}")


class DomainMetadata(NamedTuple):
    """The metadata of one storage domain."""

    uuid: str
    version: int
    type: str  # NFS, GLUSTERFS, POSIXFS, LOCALFS, ISCSI, FCP
    block_size: int = DEFAULT_BLOCK_SIZE  # of the storage, in bytes
    alignment: int = DEFAULT_ALIGNMENT  # of leases, in bytes
    pool: str = ""  # id of the pool that it is attached to, or ""
    role: str = "Regular"  # Master or Regular
    class_: str = "Data"
    description: str = ""
    other: Mapping[str, str] = LEASE_PARAMETERS  # keys not used here

    @classmethod
    def parse(cls, data: bytes, path: str) -> DomainMetadata:
        """
        Read metadata and check it against its checksum.

        Arguments:
            data: The text, perhaps followed by NULs.
            path: Where it was, for errors.

        Raises:
            errors.DomainMetadataInvalid: The checksum is missing (VDSM trusts
                such a text, but it is one that was cut) or wrong, or a key
                is missing or senseless.
        """
        try:
            return cls._parse(data)
        except ValueError as e:
            raise errors.DomainMetadataInvalid(
                path=path, reason=str(e)
            ) from None

    @classmethod
    def _parse(cls, data: bytes) -> DomainMetadata:
        values = _values(data)
        declared = values.pop(_CHECKSUM, None)
        if declared is None:
            raise ValueError("it has no checksum")
        computed = _checksum(_lines(values))
        if declared != computed:
            raise ValueError(f"its checksum is {computed}, not {declared}")
        for key in ("SDUUID", "VERSION", "TYPE"):
            if key not in values:
                raise ValueError(f"it has no {key}")
        uuid = values.pop("SDUUID")
        if not is_uuid(uuid):
            raise ValueError(f"SDUUID is {uuid[:40]!r}, not a UUID")
        return cls(
            uuid=uuid,
            version=_number("VERSION", values.pop("VERSION")),
            type=values.pop("TYPE"),
            block_size=_number("BLOCK_SIZE", values.pop("BLOCK_SIZE", "512")),
            alignment=_number("ALIGNMENT", values.pop("ALIGNMENT", "1048576")),
            pool=values.pop("POOL_UUID", ""),
            role=values.pop("ROLE", ""),
            class_=values.pop("CLASS", ""),
            description=values.pop("DESCRIPTION", ""),
            other=values,
        )

    def text(self) -> bytes:
        """
        Write metadata as VDSM does.

        Raises:
            errors.DomainMetadataInvalid: A value contains a line break.
        """
        values = {
            **self.other,
            "CLASS": self.class_,
            "DESCRIPTION": self.description,
            "POOL_UUID": self.pool,
            "ROLE": self.role,
            "SDUUID": self.uuid,
            "TYPE": self.type,
            "VERSION": str(self.version),
        }
        if self.version >= 5:
            values["ALIGNMENT"] = str(self.alignment)
            values["BLOCK_SIZE"] = str(self.block_size)
        lines = _lines(values)
        if any(len(line.splitlines()) != 1 for line in lines):
            raise errors.DomainMetadataInvalid(
                path="to be written", reason="a value contains a line break"
            )
        lines.append(f"{_CHECKSUM}={_checksum(lines)}")
        return "".join(f"{line}\n" for line in lines).encode("utf-8")


def _values(data: bytes) -> dict[str, str]:
    data = data.rstrip(b"\0")
    if len(data) > _MAX_TEXT:
        raise ValueError(f"it takes {len(data)} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    if not text:
        raise ValueError("it is empty")
    found = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            found[key.strip()] = value
    return found


def _lines(values: Mapping[str, str]) -> list[str]:
    return [f"{key}={values[key]}" for key in sorted(values)]


def _checksum(lines: list[str]) -> str:
    text = "".join(lines).encode("ascii", "xmlcharrefreplace")
    return hashlib.sha1(text, usedforsecurity=False).hexdigest()


def _number(key: str, value: str) -> int:
    if _DIGITS.fullmatch(value) is None:
        raise ValueError(f"{key} is {value[:32]!r}, not a number")
    return int(value)
