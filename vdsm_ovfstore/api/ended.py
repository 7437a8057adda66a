# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What has ended is remembered for a while, for those who ask late."""

from __future__ import annotations

import time
from typing import Generic, Optional, Protocol, TypeVar

from vdsm_ovfstore import errors

# Seconds after which a busy host may have room for one more.
RETRY_AFTER = 10


class _Ended(Protocol):
    @property
    def ended_at(self) -> Optional[float]: ...


E = TypeVar("E", bound=_Ended)


class Kept(Generic[E]):
    """
    What is under way, and for a while what has ended, by id.

    ended_at is in time.monotonic(), None before the end. Not locked: each
    method is to be called under the lock of whoever owns it.

    Arguments:
        limit: how many may be under way.
        remember: seconds after their end.
        remembered: how many that have ended, at most.
    """

    def __init__(self, limit: int, remember: float, remembered: int) -> None:
        self.limit = limit
        self._remember = remember
        self._remembered = remembered
        self._all: dict[str, E] = {}

    def check_room(self, what: str) -> None:
        """Raises errors.HostBusy."""
        if len(self.running()) >= self.limit:
            raise errors.HostBusy(
                reason=f"{self.limit} {what}", retry_after=RETRY_AFTER
            )

    def add(self, key: str, one: E) -> None:
        self._all[key] = one

    def get(self, key: str) -> Optional[E]:
        return self._all.get(key)

    def all(self) -> list[E]:
        """In the order in which they came."""
        return list(self._all.values())

    def running(self) -> list[E]:
        return [one for one in self.all() if one.ended_at is None]

    def forget(self) -> None:
        """Drop those that ended too long ago, and the oldest of too many."""
        now = time.monotonic()
        ended = [
            (one.ended_at, key)
            for key, one in self._all.items()
            if one.ended_at is not None
        ]
        ended.sort(reverse=True)
        for place, (when, key) in enumerate(ended):
            if place >= self._remembered or now - when > self._remember:
                del self._all[key]
