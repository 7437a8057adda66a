# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What a path means to a rescue.

    a file, a block device   itself, whatever is in it
    a storage domain         its logs, what a crash left beside them, and its
                             OVF_STORE volumes; nothing of this needs to be
                             whole
    a directory with domains each of them

Of a domain nothing else is read. A guest can write anything to its disk, a
whole store too: what is in a disk of a domain must not be taken for what the
domain says. So a volume counts only when its metadata says that it is an
OVF_STORE, or when a log has its name, since no guest can write either.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.ids import UUID, is_uuid
from vdsm_ovfstore.format.volmeta import VolumeMetadata
from vdsm_ovfstore.rescue.source import Source, open_below, open_path
from vdsm_ovfstore.storage.system import System
from vdsm_ovfstore.storage.tree import DOM_MD, IMAGES, STORE, Tree
from vdsm_ovfstore.storage.volumefiles import LOG_SUFFIX, META_SUFFIX

log = logging.getLogger("ovfstore.rescue")

_OURS = re.compile(
    rf"{UUID}\.(?:log(?:\.[0-9a-f]{{16}})?|head\.[0-9a-f]{{1,32}})"
)


@contextmanager
def open_sources(
    paths: Sequence[str], problems: list[errors.Error]
) -> Iterator[list[Source]]:
    """
    All that the paths mean, open, each file once.

    Arguments:
        problems: takes the errors of what cannot be opened in a domain.

    Raises errors.StorageFailed, errors.DomainNotFound: of what was named.
    """
    with ExitStack() as stack:
        found: dict[tuple[int, int], Source] = {}
        for path in paths:
            for source in _open(path, problems):
                stack.callback(source.close)
                found.setdefault(source.identity(), source)
        yield list(found.values())


def domain_of(path: str) -> str:
    """
    The domain that a file lies in, or the directory itself; "" for none.
    """
    real = os.path.realpath(path)
    if os.path.isdir(real):
        return real
    while os.path.dirname(real) != real:
        real = os.path.dirname(real)
        if _is_domain(real):
            return real
    return ""


def _open(path: str, problems: list[errors.Error]) -> Iterator[Source]:
    if not os.path.isdir(path):
        yield open_path(path)
        return
    real = os.path.realpath(path)
    domains = [real] if _is_domain(real) else _domains_in(real)
    if not domains:
        raise errors.DomainNotFound(
            path=path,
            reason="neither it nor a directory in it has ovf_store, images "
            "or dom_md",
        )
    for domain in domains:
        yield from _domain(Tree(System(), domain), problems)


def _is_domain(path: str) -> bool:
    # Any of them may be what is left.
    return any(
        os.path.isdir(os.path.join(path, name))
        for name in (STORE, IMAGES, DOM_MD)
    )


def _domains_in(path: str) -> list[str]:
    try:
        names = sorted(os.listdir(path))
    except OSError as e:
        raise errors.DomainNotFound(
            path=path, reason=e.strerror or str(e)
        ) from None
    # VDSM's entry for a LocalFS domain is a symbolic link.
    paths = [os.path.realpath(os.path.join(path, n)) for n in names]
    return [p for n, p in zip(names, paths) if is_uuid(n) and _is_domain(p)]


def _domain(tree: Tree, problems: list[errors.Error]) -> Iterator[Source]:
    logs = [n for n in _names(tree, problems, STORE) if _OURS.fullmatch(n)]
    named = {n.partition(".")[0] for n in logs if LOG_SUFFIX in n}
    for name in logs:
        yield from _tried(tree, problems, STORE, name)
    for image in filter(is_uuid, _names(tree, problems, IMAGES)):
        files = _names(tree, problems, IMAGES, image)
        for name in filter(is_uuid, files):
            is_store = name in named
            if not is_store and name + META_SUFFIX in files:
                is_store = _is_store(tree, image, name)
            if is_store:
                yield from _tried(tree, problems, IMAGES, image, name)


def _names(tree: Tree, problems: list[errors.Error], *where: str) -> list[str]:
    try:
        with tree.directory(*where) as fd:
            return tree.names(fd, tree.where(*where))
    except errors.StorageFailed as e:
        problems.append(e)
        return []


def _is_store(tree: Tree, image: str, volume: str) -> bool:
    name = volume + META_SUFFIX
    path = tree.where(IMAGES, image, name)
    try:
        with tree.directory(IMAGES, image) as fd:
            data = _small(tree, fd, name, path)
        return VolumeMetadata.parse(data, volume, path).is_store()
    except errors.Error as e:
        log.warning("UNREADABLE metadata path=%s %s", path, e)
        return False


def _small(tree: Tree, fd: int, name: str, path: str) -> bytes:
    try:
        return tree.read_small(name, fd, path)
    except errors.DirectIOUnsupported:
        buffered = Tree(tree.system, tree.path, buffered=True)
        return buffered.read_small(name, fd, path)


def _tried(
    tree: Tree, problems: list[errors.Error], *where: str
) -> Iterator[Source]:
    try:
        yield open_below(tree, *where)
    except errors.StorageFailed as e:
        problems.append(e)
