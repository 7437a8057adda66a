# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What a client sees of an error: a status, and a document in JSON."""

from __future__ import annotations

import json
import logging
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.faults import error_document
from vdsm_ovfstore.host.exchange import Exchange, PeerGone

log = logging.getLogger("ovfstore.host")

JSON = {"Content-Type": "application/json"}

# Of errors that do not say when to come back: waiting for a lease takes
# seconds if its owner works, and minutes if its host died.
_RETRY_AFTER = 10

# The status of an error; that of its base class if it is not here itself,
# and 500 for the rest.
_STATUS: dict[type[errors.Error], int] = {
    errors.RequestInvalid: 400,
    errors.ParametersInvalid: 400,
    errors.PoolMismatch: 400,
    errors.TransferIncomplete: 400,  # or 408, see status_of
    errors.DomainNotServed: 404,
    errors.DomainNotFound: 404,
    errors.VolumeNotFound: 404,
    errors.StoreEmpty: 404,
    errors.GenerationNotFound: 404,
    errors.EntityNotFound: 404,
    errors.TransferNotFound: 404,
    errors.JobNotFound: 404,
    errors.GenerationAmbiguous: 409,
    errors.EntityAmbiguous: 409,
    errors.DomainVersionUnsupported: 409,
    errors.BlockDomainUnsupported: 409,
    errors.TransferRefused: 409,  # or 410, see status_of
    errors.AbortRefused: 409,
    errors.Aborted: 410,
    errors.ArchiveTooLarge: 413,
    errors.NotAnArchive: 422,
    errors.MemberRefused: 422,
    errors.ArchiveTruncated: 422,
    errors.OvfRefused: 422,
    errors.ArchiveMismatch: 422,
    errors.UploadDoubtful: 409,
    errors.HostBusy: 503,
    errors.LeaseBusy: 503,
    errors.Fenced: 503,
    errors.StorageFull: 507,
    errors.NoRoom: 507,
    errors.SpoolFull: 507,
}


class Refused(Exception):
    """A request that HTTP itself has a status for."""

    def __init__(
        self,
        status: int,
        reason: str,
        headers: Optional[dict[str, str]] = None,
    ) -> None:
        super().__init__(reason)
        self.status = status
        self.error: errors.Error = errors.RequestInvalid(reason=reason)
        self.headers = headers or {}


def status_of(error: errors.Error) -> int:
    """The HTTP status of an error."""
    if isinstance(error, errors.TransferIncomplete) and error.stalled:
        return 408
    if isinstance(error, errors.TransferRefused) and error.gone:
        return 410
    for kind in type(error).__mro__:
        if kind in _STATUS:
            return _STATUS[kind]
    return 500


def refused(error: Exception) -> Refused:
    """
    What may be shown of anything that was raised.

    What nobody expected is logged here, and nothing of it leaves the host
    but its kind.
    """
    if isinstance(error, Refused):
        return error
    if not isinstance(error, errors.Error):
        log.error("Unexpected error", exc_info=error)
        error = errors.Unexpected(
            kind=type(error).__name__, reason="the host's log tells more"
        )
    shown = Refused(status_of(error), "")
    shown.error = error
    if shown.status == 503:
        after = getattr(error, "retry_after", _RETRY_AFTER)
        shown.headers = {"Retry-After": str(max(1, int(after)))}
    return shown


def document(error: errors.Error) -> dict[str, Any]:
    """The document of an error, without anything that steers a terminal."""
    shown: dict[str, Any] = _clean(error_document(error))
    return shown


def encode(value: Any) -> bytes:
    """
    A document as JSON; a line, for who looks at it in a terminal.

    Raises ValueError, TypeError, RecursionError for what is no JSON.
    """
    return json.dumps(value, allow_nan=False).encode("ascii") + b"\n"


def send_error(exchange: Exchange, error: Exception) -> None:
    """
    Answer with an error.

    Raises PeerGone, also if it is too late for that: the connection must
    end, since nothing else can tell the peer.
    """
    shown = refused(error)
    if exchange.status:
        exchange.keep = False
        if isinstance(error, errors.Aborted):
            raise PeerGone("aborted")
        log.error(
            "BROKEN path=%s client=%s sent=%d error=%s",
            exchange.place,
            exchange.client,
            exchange.sent,
            clean(str(shown.error)),
        )
        raise PeerGone("it broke")
    exchange.problem = clean(str(shown.error))
    body = encode({"error": document(shown.error)})
    exchange.answer(shown.status, body, {**JSON, **shown.headers})


def clean(text: str) -> str:
    """A text in which nothing steers a terminal or forges a line."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else _escape(c) for c in text)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(k)): _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value]
    return value
