# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The newest generation, whose archive the engine has sent once more.

It sends one archive to each volume. From the second on nothing has to be
checked or compressed again, and nothing to be expanded: the frames are in the
log of the first volume, the tar is in the spool. Content (content.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from vdsm_ovfstore.store.content import Content, Part
from vdsm_ovfstore.store.prepare import spooled


class Sent:
    """
    Arguments:
        stored: the generation in a log.
        tar: descriptor of a spool file with an archive of that digest.
    """

    def __init__(self, stored: Content, tar: int) -> None:
        self._stored = stored
        self._tar = tar
        self.length = stored.length
        self.sha256 = stored.sha256
        self.entities = stored.entities
        self.parts: list[Part] = stored.parts
        self.index_length = stored.index_length

    def tar(self) -> Iterator[bytes]:
        return spooled(self._tar, self.length)

    def payload(self, number: int) -> bytes:
        return self._stored.payload(number)

    def index_data(self) -> bytes:
        return self._stored.index_data()
