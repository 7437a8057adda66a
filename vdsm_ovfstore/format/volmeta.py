# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The metadata of a volume: `<volume>.meta` on a file domain.

Sorted KEY=VALUE lines in UTF-8, at most 512 bytes, padded with NULs on block:

    CAP=134217728           capacity in bytes; before version 5 instead:
                            SIZE=262144, in blocks of 512, and MTIME=0
    CTIME=1559565760        when the volume was created, never changed
    DESCRIPTION={"Updated":true,...}
    DISKTYPE=OVFS
    DOMAIN=<storage domain id>
    FORMAT=RAW
    GEN=0                   0 to 999, round and round
    IMAGE=<image id>
    LEGALITY=LEGAL
    PUUID=00000000-0000-0000-0000-000000000000
    SEQ=1                   not before version 5
    TYPE=SPARSE
    VOLTYPE=LEAF
    EOF

VDSM escapes nothing and drops keys that it does not know
(lib/vdsm/storage/volumemetadata.py); so do we.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import description as descriptions

METADATA_SIZE = 512  # bytes, of a slot on block and of the text anywhere
MAX_GENERATION = 999
BLANK_UUID = "00000000-0000-0000-0000-000000000000"

OVFS = "OVFS"  # DISKTYPE of an OVF_STORE
RAW = "RAW"  # FORMAT
LEAF = "LEAF"  # VOLTYPE
LEGAL = "LEGAL"  # LEGALITY
SPARSE = "SPARSE"  # TYPE

_BLOCK = 512  # the unit of SIZE
_MAX_TEXT = 4096  # a .meta file may be padded to the block size of storage

_KEYS = {
    "domain": "DOMAIN",
    "image": "IMAGE",
    "puuid": "PUUID",
    "capacity": "CAP",
    "format": "FORMAT",
    "type": "TYPE",
    "voltype": "VOLTYPE",
    "disktype": "DISKTYPE",
    "description": "DESCRIPTION",
    "legality": "LEGALITY",
    "ctime": "CTIME",
    "generation": "GEN",
    "sequence": "SEQ",
}
_NUMBERS = ("capacity", "ctime", "generation", "sequence")
_OPTIONAL = {"GEN": "0", "SEQ": "0"}
_DIGITS = re.compile(r"[0-9]{1,19}")


class VolumeMetadata(NamedTuple):
    """The metadata of one volume."""

    domain: str
    image: str
    capacity: int  # bytes
    ctime: int  # seconds since the epoch
    description: str = ""
    disktype: str = OVFS
    format: str = RAW
    type: str = SPARSE
    voltype: str = LEAF
    puuid: str = BLANK_UUID
    legality: str = LEGAL
    generation: int = 0
    sequence: int = 0

    @classmethod
    def parse(cls, data: bytes, volume: str, path: str) -> VolumeMetadata:
        """
        Read metadata as VDSM does.

        Arguments:
            data: The text, perhaps followed by NULs.
            volume: The volume's id, for errors.
            path: Where the text was, for errors.

        Raises:
            errors.VolumeMetadataUnreadable: A key is missing or senseless,
                or the volume was removed.
        """
        try:
            return cls(**_fields(_lines(data)))
        except ValueError as e:
            raise errors.VolumeMetadataUnreadable(
                volume=volume, path=path, reason=str(e)
            ) from None

    def text(self, domain_version: int) -> bytes:
        """
        Write metadata as VDSM does.

        Arguments:
            domain_version: Version of the storage domain; 5 brought CAP and
                SEQ. An older text loses the sequence number.

        Raises:
            errors.DescriptionInvalid: A line feed in the description would
                add keys.
            errors.MetadataOverflow: More than 512 bytes.
        """
        values = {_KEYS[name]: v for name, v in self._asdict().items()}
        if domain_version < 5:
            del values["SEQ"]
            values["SIZE"] = values.pop("CAP") // _BLOCK
            values["MTIME"] = 0
        lines = [f"{key}={values[key]}\n" for key in sorted(values)]
        data = ("".join(lines) + "EOF\n").encode("utf-8")
        if len(data.splitlines()) != len(lines) + 1:
            raise errors.DescriptionInvalid(
                reason="a line break in volume metadata would add keys"
            )
        if len(data) > METADATA_SIZE:
            raise errors.MetadataOverflow(size=len(data), limit=METADATA_SIZE)
        return data

    def updated(self, description: str) -> VolumeMetadata:
        """
        A copy with another description and the next generation.

        Raises:
            errors.DescriptionInvalid: VDSM would store it damaged.
        """
        descriptions.check(description)
        generation = self.generation + 1
        if generation > MAX_GENERATION:
            generation = 0
        return self._replace(description=description, generation=generation)

    def is_store(self) -> bool:
        """Whether this is an OVF_STORE volume."""
        return self.disktype == OVFS

    def enforce(self, volume: str, domain: str, image: str) -> None:
        """
        Refuse a volume that must not be written as an OVF_STORE.

        Arguments:
            volume, domain, image: The ids by which the volume was addressed.

        Raises:
            errors.VolumeRefused: With the first key that is wrong.
        """
        for name, expected in (
            ("disktype", OVFS),
            ("format", RAW),
            ("voltype", LEAF),
            ("puuid", BLANK_UUID),
            ("domain", domain),
            ("image", image),
        ):
            found = getattr(self, name)
            if found != expected:
                raise errors.VolumeRefused(
                    volume=volume,
                    key=_KEYS[name],
                    found=found,
                    expected=expected,
                )


def _lines(data: bytes) -> dict[str, str]:
    """The keys and values of a text, the last one winning."""
    data = data.rstrip(b"\0")
    if len(data) > _MAX_TEXT:
        raise ValueError(f"it takes {len(data)} bytes")
    found = {}
    for line in data.splitlines():
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{line[:32]!r}... is not UTF-8") from None
        if text.startswith("EOF"):
            break
        key, equals, value = text.partition("=")
        if equals:
            found[key.strip()] = value.strip()
    return found


def _fields(found: dict[str, str]) -> dict[str, Any]:
    """The fields of VolumeMetadata in a text's keys and values."""
    if "NONE" in found:
        # How VDSM marked removed volumes until 4.20.34.
        raise ValueError("it was cleared; the volume is being removed")
    if "CAP" not in found and "SIZE" in found:
        blocks = _number("SIZE", found["SIZE"])
        found = {**found, "CAP": str(blocks * _BLOCK)}
    found = {**_OPTIONAL, **found}
    fields: dict[str, Any] = {}
    for name, key in _KEYS.items():
        if key not in found:
            raise ValueError(f"it has no {key}")
        value = found[key]
        fields[name] = _number(key, value) if name in _NUMBERS else value
    return fields


def _number(key: str, value: str) -> int:
    if _DIGITS.fullmatch(value) is None:
        raise ValueError(f"{key} is {value[:32]!r}, not a number")
    return int(value)
