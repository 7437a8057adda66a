# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Opening a store to look at it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from vdsm_ovfstore import errors
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.reader import Reader


@contextlib.contextmanager
def open_store(domain: FileDomain, shortcut: bool = False) -> Iterator[Reader]:
    """
    The store of a domain; at least one copy of it can be read.

    Arguments:
        shortcut: only generations are asked for; see Reader.

    Raises:
        errors.VolumeNotFound: there is none.
        errors.Error: why no copy can be read.
    """
    try:
        reader = Reader(domain, shortcut)
    except errors.VolumeNotFound:
        # It may be there, behind metadata that cannot be read.
        if domain.problems:
            raise domain.problems[0] from None
        raise
    with reader:
        if not reader.copies:
            raise next(iter(reader.problems.values()))
        yield reader
