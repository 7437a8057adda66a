# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What went wrong on the way to a host, in words.

All of it is errors.HostUnreachable; its field `kind` tells machines what it
was, `way_out` tells people what to do:

    connect    nobody listens there, no way to it, no right to use it
    name       the name is not known
    timeout    nothing came for too long
    tls        we do not trust it, or it does not trust us
    lost       the connection was there, and broke
    answer     what came is nothing that a host of OVF stores says
"""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.client.address import Address

CONNECT = "connect"
NAME = "name"
TIMEOUT = "timeout"
TLS = "tls"
LOST = "lost"
ANSWER = "answer"

_RUNS = "Check that ovfstored runs there: systemctl status ovfstored"
_LOG = "Its log may tell more: journalctl -u ovfstored"
_NETWORK = "Check the way there, and that ovfstored runs there"
_MEMBERSHIP = (
    "Ask for membership in the group of the socket ([local] group of "
    "ovfstored), or read the storage yourself with --direct"
)
_CREDENTIALS = "Give a certificate that the host trusts: --cert and --key"


class _Cause(NamedTuple):
    reason: str
    way_out: str


_CONNECT = {
    errno.ENOENT: _Cause("there is no such socket", _RUNS),
    errno.ENOTDIR: _Cause("there is no such socket", _RUNS),
    errno.ECONNREFUSED: _Cause("nobody listens there", _RUNS),
    errno.EACCES: _Cause(
        "this user has no right to use the socket", _MEMBERSHIP
    ),
    # On unix: the backlog is full.
    errno.EAGAIN: _Cause("it takes no more connections", "Try again later"),
}

# What breaks a connection that was there.
_BROKEN = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ENOTCONN)

# Of OpenSSL's X509_V_ERR_*.
_NOT_YET_VALID, _EXPIRED, _WRONG_NAME, _WRONG_IP = 9, 10, 62, 64
_UNKNOWN_CA = (2, 18, 19, 20, 21)


def unreachable(
    address: Address, kind: str, reason: str, way_out: str = _RUNS
) -> errors.HostUnreachable:
    return errors.HostUnreachable(
        address=address.text, kind=kind, reason=reason, way_out=way_out
    )


def kind_of(error: errors.Error) -> str:
    """The kind; empty for an error that a host has told."""
    return str(error.fields().get("kind", ""))


def may_pass(error: errors.Error) -> bool:
    """Is it worth looking again, whether the host is there and has time?"""
    passing = (CONNECT, LOST, TIMEOUT)
    return isinstance(error, errors.HostBusy) or kind_of(error) in passing


def bad_answer(address: Address, reason: str) -> errors.HostUnreachable:
    return unreachable(
        address,
        ANSWER,
        f"it does not answer as an OVF store host: {reason}",
        "Check the address: something else may listen there",
    )


def lost(
    address: Address, reason: str, heard: bool = True
) -> errors.HostUnreachable:
    """heard: did the host say anything before?"""
    way_out = _LOG
    if not heard and address.path is None and not address.tls:
        # One that speaks TLS ends it at once.
        way_out = f"Perhaps it speaks TLS: give https://{address.authority}"
    return unreachable(address, LOST, reason, way_out)


def timed_out(address: Address, reason: str) -> errors.HostUnreachable:
    return unreachable(address, TIMEOUT, reason, _NETWORK)


def unknown_name(address: Address, reason: str) -> errors.HostUnreachable:
    return unreachable(
        address, NAME, reason, "Check the name, and who resolves names here"
    )


def not_connected(address: Address, e: OSError) -> errors.HostUnreachable:
    """The error for a connect() that failed."""
    if isinstance(e, socket.gaierror):
        return unknown_name(
            address, f"the name {address.host} is not known: {e.strerror}"
        )
    if isinstance(e, socket.timeout) or e.errno == errno.ETIMEDOUT:
        return timed_out(address, "it did not take the connection")
    cause = _CONNECT.get(e.errno or 0)
    if cause is None:
        cause = _Cause(e.strerror or str(e), _NETWORK)
    elif e.errno == errno.ENOENT and "/" not in (address.path or "/"):
        # Meant as a name, more likely.
        cause = cause._replace(
            way_out="A host elsewhere is written as https://HOST:PORT"
        )
    return unreachable(address, CONNECT, *cause)


def broken(
    address: Address, e: OSError, cert: Optional[str], heard: bool
) -> errors.HostUnreachable:
    """The error for a connection that failed after connect()."""
    if hasattr(e, "library"):  # ssl.SSLError
        return _tls(address, e, cert)
    reason = e.strerror or str(e)
    if e.errno in _BROKEN:
        reason = "it broke the connection"
    return lost(address, reason, heard)


def no_tls(address: Address, e: Exception) -> errors.HostUnreachable:
    """The error for a TLS that could not even begin."""
    return unreachable(address, TLS, str(e), "Check the address")


def _tls(
    address: Address, e: OSError, cert: Optional[str]
) -> errors.HostUnreachable:
    verify = getattr(e, "verify_code", None)
    if verify is not None:
        message = getattr(e, "verify_message", "")
        return unreachable(address, TLS, *_distrust(address, verify, message))
    reason = getattr(e, "reason", None) or e.strerror or str(e)
    if reason in ("UNEXPECTED_EOF_WHILE_READING", "EOF occurred"):
        return lost(address, "it broke the connection")
    return unreachable(address, TLS, *_alert(reason, cert))


def _distrust(address: Address, verify: int, message: str) -> _Cause:
    """Why we do not trust the host."""
    if verify in _UNKNOWN_CA:
        return _Cause(
            f"its certificate is of a CA that is not trusted ({message})",
            "Give the CA of the host's certificate: --cacert",
        )
    if verify == _EXPIRED:
        return _Cause(
            "its certificate has expired",
            "Renew the host's certificate, then reload ovfstored there",
        )
    if verify == _NOT_YET_VALID:
        return _Cause(
            "its certificate is not valid yet",
            "Compare the clocks of the two machines",
        )
    if verify in (_WRONG_NAME, _WRONG_IP):
        return _Cause(
            f"its certificate is not for {address.host}",
            "Give the host by a name that its certificate has",
        )
    return _Cause(
        f"its certificate is refused: {message}",
        "Give the host another certificate, then reload ovfstored there",
    )


def _alert(reason: str, cert: Optional[str]) -> _Cause:
    """
    reason is one of OpenSSL's, like TLSV1_ALERT_UNKNOWN_CA: an alert is what
    the host said, all else is what we saw.
    """
    ours = f"our certificate {cert}" if cert else "a client without one"
    if "ALERT_UNKNOWN_CA" in reason:
        return _Cause(f"it does not know the CA of {ours}", _CREDENTIALS)
    if "CERTIFICATE_REQUIRED" in reason:
        return _Cause(
            "it wants a client certificate, and none was given", _CREDENTIALS
        )
    if "CERTIFICATE_EXPIRED" in reason:
        return _Cause(
            f"to it, {ours} has expired",
            "Renew that certificate, and compare the clocks",
        )
    if "ALERT" in reason and "CERTIFICATE" in reason:
        return _Cause(f"it refuses {ours}", _CREDENTIALS)
    if "HANDSHAKE_FAILURE" in reason and cert is None:
        return _Cause(
            "TLS failed; perhaps it wants a client certificate", _CREDENTIALS
        )
    if reason in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST"):
        return _Cause(
            "it does not speak TLS on this port",
            "Check the port, and [tls] enable of ovfstored there",
        )
    words = reason.replace("_", " ").lower()
    return _Cause(f"TLS failed: {words}", _LOG)
