# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""How names, sizes and times are shown to people."""

from __future__ import annotations

from typing import Optional

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


def isotime(when: Optional[int]) -> Optional[str]:
    """ISO 8601 in UTC; None for a time that is not known."""
    if not when:
        return None
    from vdsm_ovfstore.format import record

    return record.isotime(when)


def count(number: int, what: str) -> str:
    """A number with its noun: "1 copy", "2 copies"."""
    if number != 1:
        what = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{number} {what}"
