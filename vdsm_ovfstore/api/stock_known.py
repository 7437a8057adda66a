# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What is remembered of the volumes that an unchanged engine comes back to.

It saves a look at the storage each time, and is never relied on: the worker
looks for itself.
"""

from __future__ import annotations

import threading
from typing import NamedTuple, Optional

# Volumes that are remembered. A pool has tens of domains, of two each.
_KNOWN = 1000


class StockVolume(NamedTuple):
    """
    An OVF_STORE volume that the engine has named.

    newest and length are those of the newest generation of the store; "" and
    0 if there is none.
    """

    id: str
    image: str
    newest: str
    length: int


class Known:
    """Volumes, and the newest generations, by the paths of their domains."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._volumes: dict[tuple[str, str], str] = {}
        self._newest: dict[str, tuple[str, int]] = {}

    def find(
        self, path: str, image: str, volume: Optional[str]
    ) -> Optional[StockVolume]:
        """volume: id of the volume, if the engine named it."""
        with self._lock:
            known = self._volumes.get((path, image))
            newest = self._newest.get(path, ("", 0))
        if known is None or volume not in (None, known):
            return None
        return StockVolume(known, image, *newest)

    def remember(self, path: str, volume: StockVolume) -> None:
        """That is a volume of ours, and that the newest generation."""
        with self._lock:
            if len(self._volumes) >= _KNOWN:
                self._volumes.clear()
                self._newest.clear()
            self._volumes[path, volume.image] = volume.id
            self._newest[path] = (volume.newest, volume.length)

    def forget(self, path: str, volume: StockVolume) -> None:
        """Look again the next time."""
        with self._lock:
            self._volumes.pop((path, volume.image), None)
            self._newest.pop(path, None)
