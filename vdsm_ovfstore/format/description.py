# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The volume DESCRIPTION of an OVF_STORE: the engine's commit record.

One line of JSON, at most 210 bytes, in the volume's metadata:

    {"Updated":true,"Size":22528,"Last Updated":"Wed Jul 01 11:43:07 UTC 2020",
     "Storage Domains":[{"uuid":"<domain>"}],"Disk Description":"OVF_STORE"}

(without the line break). The engine writes `Updated:false` without `Size`
before it sends the archive, and this after it. It reads exactly `Size` bytes
back, and takes the copy that is updated and whose date is the latest.

`Last Updated` is what Java's Date.toString() writes: in English, to the
second, with the name of the engine's time zone. UTC, GMT and offsets such as
GMT+05:30 are read exactly. Any other name (IST and CST are three zones each)
is taken as UTC, hours wrong at worst: the order of the dates of one engine is
right all the same, but for the hour in which its clocks go back.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any, NamedTuple, Optional

from vdsm_ovfstore import errors

MAX_DESCRIPTION = 210  # bytes; VDSM cuts longer ones silently
DISK_DESCRIPTION = "OVF_STORE"

# A metadata slot takes 512 bytes: nothing longer is a description.
_MAX_PARSED = 4096
_MAX_SIZE = 2**63 - 1
_MAX_TIME = 253402300799  # the end of the year 9999

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun",
    "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
_DATE = re.compile(
    r"(?:[A-Z][a-z]{2} )?(?P<month>[A-Z][a-z]{2}) (?P<day>[0-9]{1,2}) "
    r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2}) "
    r"(?P<zone>[A-Za-z0-9:+-]{1,32}) (?P<year>[0-9]{4})"
)
_OFFSET = re.compile(r"(?:GMT|UTC)?([+-])([0-9]{1,2}):?([0-9]{2})")


class Description(NamedTuple):
    """What the description of an OVF_STORE volume says."""

    updated: bool  # the engine's mark that the content is complete
    size: Optional[int]  # bytes of the archive
    last_updated: Optional[int]  # seconds since the epoch
    raw: str  # as it stands in the metadata


def parse(text: str, domain: str) -> Optional[Description]:
    """
    Read a volume description as the engine does.

    Arguments:
        text: The description, from storage: anything at all.
        domain: The id of the storage domain that it must name.

    Returns:
        What it says, or None if it is not JSON (cut short, for instance), not
        that of an OVF_STORE, or that of another domain. A field that is
        missing or senseless is False or None.
    """
    if len(text) > _MAX_PARSED:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    if found.get("Disk Description") != DISK_DESCRIPTION:
        return None
    if domain not in domain_ids(found.get("Storage Domains")):
        return None
    return Description(
        updated=found.get("Updated") is True,
        size=_size(found.get("Size")),
        last_updated=parse_date(found.get("Last Updated")),
        raw=text,
    )


def build(domain: str, size: int, when: int) -> str:
    """
    Make the description of a complete archive.

    Arguments:
        domain: The id of the storage domain.
        size: Bytes of the archive, the end marker included.
        when: Seconds since the epoch.

    Raises:
        errors.DescriptionInvalid: It would be too long.
    """
    text = json.dumps(
        {
            "Updated": True,
            "Size": size,
            "Last Updated": format_date(when),
            "Storage Domains": [{"uuid": domain}],
            "Disk Description": DISK_DESCRIPTION,
        },
        separators=(",", ":"),
    )
    check(text)
    return text


def created() -> str:
    """The description that the engine gives a new OVF_STORE disk."""
    return (
        '{"DiskAlias":"OVF_STORE","DiskDescription":"' + DISK_DESCRIPTION
        + '"}'
    )  # fmt: skip


def check(text: str) -> None:
    """
    Refuse what VDSM would store damaged.

    VDSM cuts a description at 210 characters without a word, and escapes
    nothing: a line feed in it would add keys to the volume's metadata.

    Raises:
        errors.DescriptionInvalid: Too long, or not printable ASCII.
    """
    if not text.isascii() or not text.isprintable():
        raise errors.DescriptionInvalid(
            reason="only printable ASCII characters are allowed"
        )
    if len(text) > MAX_DESCRIPTION:
        raise errors.DescriptionInvalid(
            reason=f"it takes {len(text)} bytes, the limit is "
            f"{MAX_DESCRIPTION}"
        )


def format_date(when: int) -> str:
    """
    Write a time as Java's Date.toString() does, in English and UTC.

    Not by strftime: its names follow the locale, the engine's do not.

    Arguments:
        when: Seconds since the epoch.
    """
    t = time.gmtime(when)
    return (
        f"{_DAYS[t.tm_wday]} {_MONTHS[t.tm_mon - 1]} {t.tm_mday:02} "
        f"{t.tm_hour:02}:{t.tm_min:02}:{t.tm_sec:02} UTC {t.tm_year:04}"
    )


def parse_date(text: Any) -> Optional[int]:
    """
    Read a time that Date.toString() wrote; see above about its zone.

    Returns:
        Seconds since the epoch, or None if it is no such time.
    """
    match = _DATE.fullmatch(text) if isinstance(text, str) else None
    if match is None or match["month"] not in _MONTHS:
        return None
    month = _MONTHS.index(match["month"]) + 1
    year, day = int(match["year"]), int(match["day"])
    hour, minute = int(match["hour"]), int(match["minute"])
    second = int(match["second"])
    if hour > 23 or minute > 59 or second > 60 or not 1 <= day <= 31:
        return None
    days = _days(year, month, day)
    if _days(year, month + 1, 1) <= days:
        return None  # the 31st of June
    seconds = ((days * 24 + hour) * 60 + minute) * 60 + second
    seconds -= _zone(match["zone"])
    # What records can hold (record.py); no engine ran before or after.
    return seconds if 0 <= seconds <= _MAX_TIME else None


def _days(year: int, month: int, day: int) -> int:
    """Days from the epoch to a day; month 13 is the next January."""
    # Years that begin in March, so that the leap day comes last. (The
    # calendar module would import datetime, which a worker starts without.)
    years, months = divmod(year * 12 + month - 3, 12)
    leap = years // 4 - years // 100 + years // 400
    return years * 365 + leap + (months * 153 + 2) // 5 + day - 719469


def _zone(name: str) -> int:
    """Seconds that a zone is ahead of UTC; 0 for an abbreviation."""
    match = _OFFSET.fullmatch(name)
    if match is None:
        return 0
    sign, hours, minutes = match.groups()
    offset = (int(hours) * 60 + int(minutes)) * 60
    return -offset if sign == "-" else offset


def domain_ids(value: Any) -> list[str]:
    """The ids in [{"uuid": id}, ...]; as the engine names domains."""
    if not isinstance(value, list):
        return []
    return [
        item["uuid"]
        for item in value
        if isinstance(item, dict) and isinstance(item.get("uuid"), str)
    ]


def _size(value: Any) -> Optional[int]:
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _MAX_SIZE else None
