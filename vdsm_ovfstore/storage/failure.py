# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Errors of the operating system as errors with a meaning."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from vdsm_ovfstore import errors

FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
DENIED = frozenset((errno.EROFS, errno.EACCES, errno.EPERM))

# What a storage operation is called in messages, and whether a denial means
# that the file system cannot be written.
READING = frozenset(("open", "read", "list", "stat"))


def failure(error: OSError, operation: str, path: str) -> errors.StorageFailed:
    """
    The error that says what `error` means for a store.

    Arguments:
        operation (str): what was done, a word for the message; those in
            `READING` change nothing.
        path (str): what it was done to, for the message.

    Returns:
        StorageFull, StorageReadOnly, StorageDenied or StorageFailed, each
        with operation, path, reason and errno.
    """
    cls: type[errors.StorageFailed] = errors.StorageFailed
    if error.errno in FULL:
        cls = errors.StorageFull
    elif error.errno in DENIED:
        reading = operation in READING
        cls = errors.StorageDenied if reading else errors.StorageReadOnly
    reason = "unknown error"
    if error.errno == errno.ELOOP:
        reason = "a symbolic link is not followed here"
    elif error.errno is not None:
        reason = os.strerror(error.errno)
    return cls(
        operation=operation, path=path, reason=reason, errno=error.errno
    )


@contextmanager
def translated(operation: str, path: str) -> Iterator[None]:
    """Turn an OSError of the block into its `failure`."""
    try:
        yield
    except OSError as e:
        raise failure(e, operation, path) from e
