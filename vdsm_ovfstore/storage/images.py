# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The images of a file domain: disks of VMs, OVF_STOREs, and whatever else.

    images/<image>/<volume>        one volume of a disk's chain
    images/<image>/<volume>.meta   its metadata
"""

from __future__ import annotations

import logging
from typing import NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.ids import is_uuid
from vdsm_ovfstore.format.volmeta import VolumeMetadata
from vdsm_ovfstore.storage.tree import IMAGES, Tree
from vdsm_ovfstore.storage.volumefiles import META_SUFFIX

log = logging.getLogger("ovfstore.storage")


class Volume(NamedTuple):
    """metadata is None when it cannot be read."""

    id: str
    metadata: Optional[VolumeMetadata]


class Images:
    """Reads only, and asks the storage each time."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def names(self) -> list[str]:
        """
        The ids of all images, sorted.

        Raises:
            errors.StorageFailed: they cannot be listed.
        """
        with self._tree.directory(IMAGES) as fd:
            names = self._tree.names(fd, self._tree.where(IMAGES))
        return [name for name in names if is_uuid(name)]

    def volumes(self) -> dict[str, frozenset[str]]:
        """
        Of each image, the ids of its volumes that have a file and metadata.

        An image that cannot be listed has none.

        Raises:
            errors.StorageFailed: the images cannot be listed.
        """
        where = self._tree.where(IMAGES)
        found = {}
        # One directory stays open: there may be 10,000 below it.
        with self._tree.directory(IMAGES) as images:
            for image in filter(is_uuid, self._tree.names(images, where)):
                found[image] = self._volumes(images, image)
        return found

    def read(self, image: str) -> list[Volume]:
        """The volumes of an image, with their metadata."""
        if not is_uuid(image):
            raise ValueError(f"not an id: {image!r}")
        with self._tree.directory(IMAGES) as images:
            volumes = sorted(self._volumes(images, image))
        return [Volume(v, self._metadata(image, v)) for v in volumes]

    def _volumes(self, images: int, image: str) -> frozenset[str]:
        path = self._tree.where(IMAGES, image)
        try:
            with self._tree.below(image, images, path) as fd:
                names = self._tree.names(fd, path)
        except errors.StorageFailed as e:
            log.warning("Cannot list image=%s: %s", image, e)
            return frozenset()
        known = frozenset(names)
        return frozenset(
            n for n in names if n + META_SUFFIX in known and is_uuid(n)
        )

    def _metadata(self, image: str, volume: str) -> Optional[VolumeMetadata]:
        name = volume + META_SUFFIX
        path = self._tree.where(IMAGES, image, name)
        try:
            with self._tree.directory(IMAGES, image) as fd:
                data = self._tree.read_small(name, fd, path)
            return VolumeMetadata.parse(data, volume, path)
        except errors.Error as e:
            log.warning("Cannot read metadata path=%s: %s", path, e)
            return None
