# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What has ended is remembered for a while, for those who ask late."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Optional, Protocol, TypeVar


class _Ended(Protocol):
    @property
    def ended_at(self) -> Optional[float]: ...


E = TypeVar("E", bound=_Ended)


def forgotten(known: Mapping[str, E], seconds: float, count: int) -> list[E]:
    """
    Those that ended too long ago, and the oldest of too many.

    ended_at is in time.monotonic(), None before the end.
    """
    now = time.monotonic()
    ended = [(e.ended_at, e) for e in known.values() if e.ended_at is not None]
    ended.sort(key=lambda pair: pair[0], reverse=True)
    return [
        one
        for place, (when, one) in enumerate(ended)
        if place >= count or now - when > seconds
    ]
