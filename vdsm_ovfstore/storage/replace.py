# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Replacing a file of a volume so that a crash leaves the old or the new one.

    ovf_store/<volume>.<kind>.<16 hex digits>   O_EXCL, written, flushed
        -> images/<image>/<name>                rename, flush both names

The new file is made in ovf_store, not beside the old one: an unknown file in
the image directory, left there by a crash, would break VDSM's Image.delete;
and VDSM's own temporary name for metadata, .meta.new, would be shared with a
VDSM that writes at the same time.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from vdsm_ovfstore import errors
from vdsm_ovfstore.storage.failure import translated
from vdsm_ovfstore.storage.stream import StreamWriter
from vdsm_ovfstore.storage.tree import FILE_MODE, METADATA_MODE, STORE, Tree

log = logging.getLogger("ovfstore.storage")

_TEMPORARY = re.compile(r"\.(head|meta)\.[0-9a-f]{16}")


class Place(NamedTuple):
    """What is replaced."""

    volume: str
    """The volume's id, with which temporary names begin."""

    name: str
    """Name of the file in the image directory."""

    image_fd: int
    store_fd: int
    path: str
    """Path of the file, for messages."""


def replace_stream(
    tree: Tree, place: Place, kind: str, chunks: Iterable[bytes], length: int
) -> None:
    """
    Replace a file by `length` bytes, padded with zeros to 4 KiB.

    Arguments:
        kind (str): `head` or `meta`, a part of the temporary name.
        chunks: the content in pieces of any length.

    Raises:
        ValueError: the pieces are not `length` bytes; nothing changed.
        errors.StorageFailed: or one of its kinds. The file is the old one,
            unless flushing the names failed: then it is either.
    """
    name, path = _temporary(tree, place, kind)
    log.info("Creating file path=%s length=%s", path, length)
    file = tree.open(name, place.store_fd, path, create=True)
    try:
        tree.own(file.fd, FILE_MODE, path)
        writer = StreamWriter(file)
        for chunk in chunks:
            writer.write(chunk)
            if writer.length > length:
                break
        if writer.length != length:
            raise ValueError(f"{writer.length} bytes, expected {length}")
        writer.finish()
        file.flush()
    except BaseException:
        tree.discard(name, place.store_fd)
        raise
    finally:
        file.close()
    _put(tree, place, name)


def replace_small(tree: Tree, place: Place, kind: str, data: bytes) -> None:
    """
    Replace a file by `data`, as long as it is.

    Raises:
        errors.StorageFailed: as `replace_stream`.
    """
    name, path = _temporary(tree, place, kind)
    tree.create_file(name, place.store_fd, path, METADATA_MODE, data)
    _put(tree, place, name)


def remove_stale(tree: Tree, volume: str, store_fd: int) -> None:
    """
    Remove what crashes left of replacing the files of `volume`.

    Raises:
        errors.StorageFailed: or one of its kinds.
    """
    for name in tree.names(store_fd, tree.where(STORE)):
        suffix = name[len(volume) :]
        if name.startswith(volume) and _TEMPORARY.fullmatch(suffix):
            path = tree.where(STORE, name)
            log.info("Removing stale file path=%s", path)
            with translated("remove", path):
                tree.system.unlink(name, store_fd)


def _temporary(tree: Tree, place: Place, kind: str) -> tuple[str, str]:
    name = f"{place.volume}.{kind}.{os.urandom(8).hex()}"
    return name, tree.where(STORE, name)


def _put(tree: Tree, place: Place, name: str) -> None:
    log.info("Renaming path=%s over=%s", name, place.path)
    try:
        with translated("replace", place.path):
            tree.system.rename(
                name, place.name, place.store_fd, place.image_fd
            )
    except errors.StorageFailed:
        tree.discard(name, place.store_fd)
        raise
    # The new name first: were only the loss of the old one durable, a crash
    # would lose the file on a file system that does not join the two.
    tree.sync(place.image_fd, place.path)
    tree.sync(place.store_fd, tree.where(STORE))
