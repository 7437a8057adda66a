# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Whom we trust, and who we are. Imported where TLS is spoken only: ssl takes
more time to import than all else of the client.
"""

from __future__ import annotations

import ssl
from typing import Optional

from vdsm_ovfstore import errors


class FileRefused(errors.SourceUnreadable):
    """A file of a certificate, a key or CAs that cannot be used."""

    hint = "Give another file with {self.option}"


def context(
    ca: Optional[str], cert: Optional[str], key: Optional[str]
) -> ssl.SSLContext:
    """
    Return the context of a client.

    Arguments are those of Client. Raises FileRefused.
    """
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is None:
        made.load_default_certs(ssl.Purpose.SERVER_AUTH)
    else:
        _load_authorities(made, ca, "--cacert")
    if cert is not None:
        # As if it were a CA, to tell a bad certificate from a bad key:
        # OpenSSL says the same of both.
        scratch = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        _load_authorities(scratch, cert, "--cert")
        _load_own(made, cert, cert if key is None else key)
    return made


def _load_authorities(to: ssl.SSLContext, path: str, option: str) -> None:
    _open(path, option)
    try:
        to.load_verify_locations(path)
    except ssl.SSLError:
        raise _refused(
            path, "it holds no certificate in PEM", option
        ) from None


def _load_own(to: ssl.SSLContext, cert: str, key: str) -> None:
    _open(key, "--key")

    def password() -> str:
        # Else OpenSSL would ask for it on the terminal.
        raise _refused(key, "the key is encrypted", "--key")

    try:
        to.load_cert_chain(cert, key, password)
    except ssl.SSLError as e:
        reason = "it holds no key in PEM"
        if e.reason == "KEY_VALUES_MISMATCH":
            reason = f"this is not the key of {cert}"
        raise _refused(key, reason, "--key") from None


def _open(path: str, option: str) -> None:
    """OpenSSL does not say which file it could not open."""
    try:
        with open(path, "rb"):
            pass
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise _refused(path, reason, option) from None


def _refused(path: str, reason: str, option: str) -> FileRefused:
    return FileRefused(path=path, reason=reason, option=option)
