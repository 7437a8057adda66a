# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Sections of every host's configuration: what stores keep, and doubt."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from vdsm_ovfstore.host.values import option, whole
from vdsm_ovfstore.store import guard, retention

_DEFAULT = retention.Settings()


@dataclass(frozen=True)
class History:
    """
    Generations that are kept, as far as there is room.

    All of them at their most are 119; a seal holds 128, pins and suspects
    among them.
    """

    newest: int = option(whole(2, 40), _DEFAULT.newest)
    hourly: int = option(whole(0, 30), _DEFAULT.hourly)
    daily: int = option(whole(0, 31), _DEFAULT.daily)
    monthly: int = option(whole(0, 18), _DEFAULT.monthly)

    def settings(self) -> retention.Settings:
        return retention.Settings(**asdict(self))


@dataclass(frozen=True)
class Guard:
    # Per cent of the VMs and templates that an upload may lack.
    drop: int = option(whole(1, 100), guard.DROP)
