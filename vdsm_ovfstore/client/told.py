# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The error that a host tells, as the exception that was raised there.

What comes over the network is data: it chooses among the subclasses of
errors.Error and fills their fields, and can change nothing else of them.
"""

from __future__ import annotations

from typing import Any

from vdsm_ovfstore import errors

# Characters of a text that is taken over.
_TEXT_MAX = 2000


def told(document: Any, retry_after: int = 0) -> errors.Error:
    """
    Return the error of a document {type, code, message, next_step, fields}.

    It has the class that `type` names, if that is one of ours. Where class
    and fields do not make up the message that was sent (the host may be of
    another version), message, next step and code are those that were sent.

    retry_after: seconds, from the header Retry-After; for HostBusy.
    """
    if not isinstance(document, dict):
        document = {}
    kind = _kind(document.get("type"))
    error = kind(**_fields(document.get("fields")))
    if isinstance(error, errors.HostBusy):
        if not _is_seconds(error.__dict__.get("retry_after")):
            error.retry_after = retry_after or 1
        error.__dict__.setdefault("reason", "it said no more")
    code = _code(document.get("code"), kind)
    message = _text(document.get("message"))
    step = _text(document.get("next_step"))
    if error.code == code and _says(error, message, step):
        return error
    sent = {
        "code": code,
        "msg": _literal(message or "the host did not say what went wrong"),
        "hint": _literal(step),
    }
    error.__class__ = type(_name(document.get("type"), kind), (kind,), sent)
    return error


def _kind(name: Any) -> type[errors.Error]:
    found = getattr(errors, name, None) if isinstance(name, str) else None
    if isinstance(found, type) and issubclass(found, errors.Error):
        return found
    return errors.Error


def _fields(fields: Any) -> dict[str, Any]:
    if not isinstance(fields, dict):
        return {}
    return {
        name: value
        for name, value in fields.items()
        if name.isidentifier()
        and not name.startswith("_")
        and not hasattr(errors.Error, name)
        and name != "self"
    }


def _code(code: Any, kind: type[errors.Error]) -> int:
    if isinstance(code, int) and not isinstance(code, bool):
        return code
    return kind.code


def _is_seconds(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 <= value < 1e6


def _says(error: errors.Error, message: str, step: str) -> bool:
    """Does it make up the words that were sent, if any were?"""
    try:
        own, own_step = _text(str(error)), _text(error.next_step)
    except Exception:
        return False  # a field is missing, or of another type
    if not message:
        return True
    return own == message and own_step == step


def _text(value: Any) -> str:
    """One line that can be shown."""
    if not isinstance(value, str):
        return ""
    line = " ".join(value[:_TEXT_MAX].split())
    return "".join(c if c.isprintable() else "?" for c in line)


def _literal(text: str) -> str:
    """For str.format, which msg and hint go through."""
    return text.replace("{", "{{").replace("}", "}}")


def _name(name: Any, kind: type[errors.Error]) -> str:
    if isinstance(name, str) and name.isidentifier() and name.isascii():
        return name[:64]
    return kind.__name__
