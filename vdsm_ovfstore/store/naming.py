# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What people call a generation: "12", or "12:3f9a", digits of its SHA-256."""

from __future__ import annotations

from collections.abc import Iterable

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.seal import Identity


def choose(wanted: str, identities: Iterable[Identity]) -> Identity:
    """
    The one generation that is meant.

    Raises errors.GenerationNotFound, GenerationAmbiguous.
    """
    number, _, digest = wanted.partition(":")
    found = [
        (n, sha256)
        for n, sha256 in dict.fromkeys(identities)
        if str(n) == number and sha256.startswith(digest)
    ]
    if not found:
        raise errors.GenerationNotFound(generation=wanted)
    if len(found) > 1:
        digests = ", ".join(f"{n}:{sha256[:12]}" for n, sha256 in found)
        raise errors.GenerationAmbiguous(generation=wanted, digests=digests)
    return found[0]
