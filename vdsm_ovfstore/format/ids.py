# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Ids: oVirt names everything by a UUID, and writes it in lower case."""

from __future__ import annotations

import re

UUID = "[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}"

_UUID = re.compile(UUID)


def is_uuid(text: str) -> bool:
    """Whether it is an id, and so no path, nor anything else."""
    return _UUID.fullmatch(text) is not None
