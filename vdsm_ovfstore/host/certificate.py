# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The end of a certificate.

Python's ssl tells it of a peer's certificate, but not of one's own.
"""

from __future__ import annotations

import re
import ssl
from datetime import datetime, timezone
from typing import NamedTuple

_PEM = re.compile(
    r"-----BEGIN CERTIFICATE-----\s.*?\s-----END CERTIFICATE-----", re.DOTALL
)

# Tags of DER, X.690 section 8.
_UTC_TIME = 0x17
_GENERALIZED_TIME = 0x18
_SEQUENCE = 0x30
_VERSION = 0xA0


class _Value(NamedTuple):
    tag: int
    content: bytes
    rest: bytes  # what follows


def not_after(pem: bytes) -> datetime:
    """
    When the first certificate in a PEM file expires.

    Raises ValueError.
    """
    found = _PEM.search(pem.decode("ascii", "replace"))
    if found is None:
        raise ValueError("there is none in PEM")
    try:
        return _time(_validity(ssl.PEM_cert_to_DER_cert(found[0])))
    except (ValueError, IndexError):
        raise ValueError("it is damaged") from None


def _validity(der: bytes) -> _Value:
    """The later end; RFC 5280, section 4.1."""
    field = _value(_value(_value(der, _SEQUENCE).content, _SEQUENCE).content)
    if field.tag == _VERSION:
        field = _value(field.rest)  # the serial number
    algorithm = _value(field.rest, _SEQUENCE)
    issuer = _value(algorithm.rest, _SEQUENCE)
    validity = _value(issuer.rest, _SEQUENCE)
    not_before = _value(validity.content)
    return _value(not_before.rest)


def _value(der: bytes, tag: int = -1) -> _Value:
    length, start = der[1], 2
    if length & 0x80:  # so many bytes have the length
        start += length & 0x7F
        length = int.from_bytes(der[2:start], "big")
    end = start + length
    if end > len(der) or tag not in (-1, der[0]):
        raise ValueError
    return _Value(der[0], der[start:end], der[end:])


def _time(value: _Value) -> datetime:
    text = value.content.decode("ascii")
    if value.tag == _UTC_TIME:
        # Two digits of the year: 1950 to 2049.
        text = ("19" if text >= "5" else "20") + text
    elif value.tag != _GENERALIZED_TIME:
        raise ValueError
    end = datetime.strptime(text, "%Y%m%d%H%M%SZ")
    return end.replace(tzinfo=timezone.utc)
