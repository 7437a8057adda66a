# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Changing an object of VDSM, with a way back."""

from __future__ import annotations

from typing import Any, Callable

_MISSING = object()


def replace(
    undo: Callable[..., Any], owner: Any, name: str, value: Any
) -> None:
    """Set an attribute; undo is given what puts back what was there."""
    before = vars(owner).get(name, _MISSING)
    setattr(owner, name, value)
    if before is _MISSING:
        undo(delattr, owner, name)
    else:
        undo(setattr, owner, name, before)
