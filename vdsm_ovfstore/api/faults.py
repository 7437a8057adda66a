# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The document of an error. Apart, since everybody needs it at once."""

from __future__ import annotations

from typing import Any

from vdsm_ovfstore import errors


def unexpected(e: BaseException) -> errors.Unexpected:
    """For what nobody thought of."""
    return errors.Unexpected(
        kind=type(e).__name__, reason=str(e) or "no details"
    )


def error_document(error: errors.Error) -> dict[str, Any]:
    """
    An error as JSON types.

    The next step holds the word DOMAIN where a path is to be put.
    """
    return {
        "type": error.public_name(),
        "code": error.code,
        "message": str(error),
        "next_step": error.next_step,
        "fields": error.fields(),
    }
