# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""TLS with the certificates that a host of VDSM has."""

from __future__ import annotations

import logging
import os
import ssl
from datetime import datetime, timezone

from vdsm_ovfstore import errors
from vdsm_ovfstore.host.certificate import not_after
from vdsm_ovfstore.host.wire import reason

log = logging.getLogger("ovfstore.host")

_KEY = "keys/vdsmkey.pem"
_CERTIFICATE = "certs/vdsmcert.pem"
_AUTHORITY = "certs/cacert.pem"


def server_context(pki: str) -> ssl.SSLContext:
    """
    TLS 1.2 or newer, for clients with a certificate of the same CA.

    pki is a directory laid out as VDSM's. An expired certificate is used:
    a peer's clock may be the one that is right; but the log says so.

    Raises errors.CertificateInvalid.
    """
    key, certificate, authority = (
        _readable(os.path.join(pki, name))
        for name in (_KEY, _CERTIFICATE, _AUTHORITY)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    # A session that is taken up again would outlive the certificates that
    # it was agreed on with.
    context.options |= ssl.OP_NO_TICKET
    context.num_tickets = 0
    context.set_alpn_protocols(["http/1.1"])
    _load_certificate(context, certificate, key)
    _load_authority(context, authority)
    for path in (certificate, authority):
        _warn_of_end(path)
    return context


def _load_certificate(
    context: ssl.SSLContext, certificate: str, key: str
) -> None:
    def password() -> str:
        # Else OpenSSL would ask for it on the terminal.
        raise _invalid(key, "the key is encrypted")

    # OpenSSL says "PEM lib" of whatever is wrong with either.
    _end(certificate)
    with open(key, "rb") as f:
        if b" PRIVATE KEY-----" not in f.read():
            raise _invalid(key, "it holds no private key")
    try:
        context.load_cert_chain(certificate, key, password)
    except ssl.SSLError as e:
        if e.reason == "KEY_VALUES_MISMATCH":
            problem = f"this is not the key of {certificate}"
        elif e.reason:
            problem = f"no key of the certificate {certificate}: {reason(e)}"
        else:
            problem = f"it, or {certificate}, is damaged"
        raise _invalid(key, problem) from None


def _warn_of_end(path: str) -> None:
    end = _end(path)
    if end <= datetime.now(timezone.utc):
        log.warning("CERTIFICATE path=%s expired=%s", path, end.isoformat())


def _end(path: str) -> datetime:
    """When the certificate in a file expires."""
    try:
        with open(path, "rb") as f:
            return not_after(f.read())
    except ValueError as e:
        raise _invalid(path, f"it holds no certificate: {e}") from None


def _load_authority(context: ssl.SSLContext, authority: str) -> None:
    try:
        context.load_verify_locations(authority)
    except ssl.SSLError as e:
        raise _invalid(authority, f"no certificate: {reason(e)}") from None
    if not context.get_ca_certs():
        raise _invalid(authority, "this is no certificate of a CA")


def _readable(path: str) -> str:
    try:
        with open(path, "rb"):
            return path
    except OSError as e:
        raise _invalid(path, f"cannot be read: {e.strerror}") from None


def _invalid(path: str, problem: str) -> errors.CertificateInvalid:
    return errors.CertificateInvalid(path=path, reason=problem)
