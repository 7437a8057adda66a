# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The directory that OVFs are written to."""

from __future__ import annotations

import os

from vdsm_ovfstore import errors

# OVFs may hold initial passwords of the guests.
_MODE = 0o700


def make_directory(path: str) -> None:
    """
    Make it, when it is missing; the one above it must be there.

    Raises errors.TargetRefused.
    """
    try:
        os.mkdir(path, _MODE)
    except FileExistsError:
        if not os.path.isdir(path):
            raise errors.TargetRefused(
                path=path, reason="it exists, and is no directory"
            ) from None
    except OSError as e:
        raise errors.TargetRefused(
            path=path, reason=e.strerror or str(e)
        ) from None
