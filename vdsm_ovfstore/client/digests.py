# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""SHA-256 as HTTP has it in a field: Repr-Digest (RFC 9530)."""

from __future__ import annotations

import binascii
from typing import Optional

_ALGORITHM = "sha-256"


def header(sha256: str) -> str:
    """The value of the field; sha256 is in hexadecimal."""
    text = binascii.b2a_base64(bytes.fromhex(sha256), newline=False)
    return f"{_ALGORITHM}=:{text.decode('ascii')}:"


def sha256(value: str) -> Optional[str]:
    """
    The SHA-256 in the value of a field, in hexadecimal.

    None if there is none; other algorithms may stand beside it.
    """
    for member in value.split(","):
        name, _, item = member.strip().partition("=")
        if name == _ALGORITHM and item[:1] == item[-1:] == ":":
            try:
                return binascii.a2b_base64(item[1:-1]).hex()
            except ValueError:
                return None
    return None
