# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Directories that look like storage domains."""

from __future__ import annotations

import logging
import os

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.ids import is_uuid
from vdsm_ovfstore.storage.failure import translated
from vdsm_ovfstore.storage.tree import DOM_MD

log = logging.getLogger("ovfstore.storage")

# VDSM's mount root has one directory for each connection. A search that
# meets more than this was sent somewhere else, such as to /.
MAX_DIRECTORIES = 10_000


def domains_in(path: str) -> list[str]:
    """
    The domains one level below `path`.

    Raises:
        errors.StorageFailed: it cannot be listed.
    """
    return [
        p
        for p in _directories_in(path)
        if is_uuid(os.path.basename(p)) and _looks_like_domain(p)
    ]


def domains_below(
    path: str, depth: int, problems: list[errors.Error]
) -> list[str]:
    """
    The domains at most `depth` levels below `path`, each once, sorted.

    Symbolic links are followed: VDSM's entry for a LocalFS domain is one.

    Arguments:
        problems: takes the errors of what cannot be searched.
    """
    found: set[str] = set()
    seen: set[str] = set()
    level = [os.path.realpath(path)]
    for deeper in range(depth, -1, -1):
        below: list[str] = []
        for directory in level:
            if directory in seen:
                continue
            if len(seen) == MAX_DIRECTORIES:
                problems.append(_too_many(path))
                return sorted(found)
            seen.add(directory)
            if _looks_like_domain(directory):
                found.add(directory)
            elif deeper:
                try:
                    below += _directories_in(directory)
                except errors.StorageFailed as e:
                    problems.append(e)
        level = below
    return sorted(found)


def _looks_like_domain(path: str) -> bool:
    # A broken link is one too: a block domain that is not active.
    return os.path.lexists(os.path.join(path, DOM_MD, "metadata"))


def _directories_in(path: str) -> list[str]:
    with translated("list", path):
        names = sorted(os.listdir(path))
    paths = (os.path.realpath(os.path.join(path, n)) for n in names)
    return [p for p in paths if os.path.isdir(p)]


def _too_many(path: str) -> errors.Error:
    return errors.DomainNotFound(
        path=path,
        reason=f"stopped after {MAX_DIRECTORIES} directories",
    )
