# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Parts of a download, and when they are asked for: RFC 9110, 13 and 14."""

from __future__ import annotations

import re
from typing import NoReturn, Optional

from vdsm_ovfstore.host import answers

_SPAN = re.compile(r"\s*(\d{0,18})-(\d{0,18})\s*", re.ASCII)


def parse(value: str, size: int) -> Optional[tuple[int, int]]:
    """
    The first byte of a Range and the one behind its last.

    None for a unit that is not ours, as if it had not been asked for. What
    is malformed, or more than one range, is refused: who asked for a part
    should not have to notice that he got all of it.

    Raises answers.Refused.
    """
    unit, _, spans = value.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    if "," in spans:
        _refuse("one range only", size)
    match = _SPAN.fullmatch(spans)
    if match is None or not (match[1] or match[2]):
        _refuse("the range is malformed", size)
    if not match[1]:
        first, end = max(0, size - int(match[2])), size
    else:
        first = int(match[1])
        end = min(int(match[2]) + 1, size) if match[2] else size
    if first >= end:
        _refuse(f"the range is not within 0-{size - 1}", size)
    return first, end


def _refuse(reason: str, size: int) -> NoReturn:
    raise answers.Refused(416, reason, {"Content-Range": f"bytes */{size}"})


def matches(value: Optional[str], etag: str) -> bool:
    """Whether an If-None-Match names the entity tag."""
    if value is None:
        return False
    tags = [tag.strip() for tag in value.split(",")]
    return "*" in tags or etag in tags or f"W/{etag}" in tags
