# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""How names, sizes and times are shown to people."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

_UNITS = ("KiB", "MiB", "GiB", "TiB", "PiB")


def escaped(text: str) -> str:
    """
    Text that cannot steer a terminal.

    Names come from the storage: control characters, those that turn the
    direction of writing, and line breaks are written as escapes.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def size(count: int) -> str:
    """Bytes, in binary units."""
    if count < 1024:
        return f"{count} B"
    power = 1
    while count >= 1000 * 1024**power and power < len(_UNITS):
        power += 1
    return f"{count / 1024**power:.1f} {_UNITS[power - 1]}"


def age(seconds: float) -> str:
    """A span of time by its largest unit: "3 h"."""
    left = max(0, int(seconds))  # the clocks of two hosts may differ
    if left < 60:
        return f"{left} s"
    if left < 3600:
        return f"{left // 60} min"
    if left < 48 * 3600:
        return f"{left // 3600} h"
    return f"{left // 86400} d"


def seconds_since(when: str) -> int:
    """Of a time as documents have it: ISO 8601 in UTC."""
    from vdsm_ovfstore.format import record

    return int(time.time()) - record.timestamp({"time": when}, "time")


def count(number: int, what: str) -> str:
    """A number with its noun: "1 copy", "2 copies"."""
    if number != 1:
        what = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number} {what}"


def generation_name(generation: dict[str, Any]) -> str:
    """How people call it: its number, or that it has none."""
    if generation["kind"] == "unsealed":
        return "unsealed"
    return str(generation["number"])


def generation_key(generation: dict[str, Any]) -> str:
    """What --generation takes for it: no other one has that."""
    return f"{generation['number']}:{generation['sha256']}"


def remark_lines(found: dict[str, Any]) -> Iterator[str]:
    """What is wrong, then what is only worth knowing."""
    if found["problems"] or found["notes"]:
        yield ""
    for problem in found["problems"]:
        yield f"Problem: {escaped(problem)}"
    for note in found["notes"]:
        yield f"Note: {escaped(note)}"
