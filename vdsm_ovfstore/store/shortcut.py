# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The copies of a store by what its logs say, without looking at each image.

A domain of 10,000 VMs has as many images and more, and to read the metadata
of each takes seconds, over NFS many. Who only asks for generations need not:
every generation is named by a seal, each seal lies in a log, and says which
image its volume is in and which other copies there are.

What is not found so: volumes that no writer of ours has seen yet. They have
no generation, as long as any log has one.
"""

from __future__ import annotations

import logging
from typing import Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import record, seal
from vdsm_ovfstore.format.seal import RING_SIZE, SLOT_SIZE, Seal
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.storage.filevolume import FileVolume

log = logging.getLogger("ovfstore.store")


def sealed_volumes(domain: FileDomain) -> Optional[list[FileVolume]]:
    """
    The volumes of a sealed store, sorted by id.

    None when anything is not as it should be: no log, one without a seal, a
    copy that is not there, an error. Then all images have to be looked at.
    """
    try:
        return _volumes(domain)
    except (errors.Error, record.UnknownVersion) as e:
        log.info("NO SHORTCUT domain=%s: %s", domain.id, e)
        return None


def _volumes(domain: FileDomain) -> Optional[list[FileVolume]]:
    images: dict[str, str] = {}
    for volume in domain.logs():
        newest = _newest(domain, volume)
        if newest is None:
            return None
        images[volume] = newest.image
        for member in newest.members:
            images.setdefault(member.volume, member.image)
    found = [domain.volume(images[volume], volume) for volume in images]
    if not found or None in found:
        return None
    return sorted(filter(None, found), key=lambda volume: volume.id)


def _newest(domain: FileDomain, volume: str) -> Optional[Seal]:
    ring = domain.log_end(volume, RING_SIZE)
    sketches = [
        found
        for at in range(0, len(ring), SLOT_SIZE)
        if (found := seal.sketch(ring[at : at + SLOT_SIZE])) is not None
        if (found.identity[0], found.identity[2]) == (domain.id, volume)
    ]
    newest = max(sketches, key=lambda found: found.sequence, default=None)
    return newest.seal() if newest else None
