# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The configuration of `ovfstored`: what can be set, and to what.

A class is a section of the files, a field a key; packaging/ovfstored.conf
tells what each of them does. Sizes are in bytes and times in seconds here;
files say `64 MiB` and `2 min`, see `values`. How the files are found and read
is in `drop_ins`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, fields
from typing import Any

from vdsm_ovfstore.api.settings import Settings
from vdsm_ovfstore.host.keeping import Guard, History
from vdsm_ovfstore.host.limits import Limits as ServerLimits
from vdsm_ovfstore.host.values import (
    ADDRESS,
    NAME,
    PATH,
    PATHS,
    YES_NO,
    choice,
    duration,
    option,
    size,
    whole,
)

_DEFAULT = Settings()
_SERVER = ServerLimits()


@dataclass(frozen=True)
class Host:
    address: str = option(ADDRESS, "127.0.0.1")

    # Beside none of VDSM's and imageio's (54321 to 54324), no number that
    # IANA gives to anybody (none above 49151), and none that Linux takes for
    # outgoing connections (32768 to 60999), which would be in our way at a
    # start.
    port: int = option(whole(0, 65535), 61325)


@dataclass(frozen=True)
class Tls:
    enable: bool = option(YES_NO, True)
    pki: str = option(PATH, "/etc/pki/vdsm")


@dataclass(frozen=True)
class Storage:
    domains: tuple[str, ...] = option(PATHS, ("/rhev/data-center/mnt",))
    scan_interval: float = option(duration("1 s", "1 d"), 60.0)
    allow_buffered_io: bool = option(YES_NO, False)


@dataclass(frozen=True)
class Sanlock:
    join: bool = option(YES_NO, False)

    # sanlock's DEFAULT_MAX_HOSTS; 0 is none.
    host_id: int = option(whole(0, 2000), 0)

    # 0 is sanlock's own. Far above a minute nobody would wait for a join.
    io_timeout: int = option(whole(0, 60), 0)


@dataclass(frozen=True)
class Limits:
    transfers: int = option(whole(1, 1000), _DEFAULT.transfers)
    connections: int = option(whole(1, 1000), _SERVER.connections)
    transfer_expires: float = option(
        duration("1 s", "1 d"), _DEFAULT.transfer_expires
    )
    idle: float = option(duration("1 s", "1 h"), _SERVER.idle)
    body_rate: int = option(size("1 KiB", "1 GiB"), _SERVER.body_rate)
    spool: str = option(PATH, "/var/cache/ovfstored")
    spool_bytes: int = option(size("1 MiB", "64 TiB"), _DEFAULT.spool_bytes)
    readers: int = option(whole(1, 100), _DEFAULT.readers)
    read_timeout: float = option(duration("1 s", "1 h"), _DEFAULT.read_timeout)
    scan_timeout: float = option(duration("1 s", "1 d"), _DEFAULT.scan_timeout)
    jobs: int = option(whole(1, 1000), _DEFAULT.jobs)
    remember: float = option(duration("1 s", "7 d"), _DEFAULT.remember)
    deadline: float = option(duration("1 s", "1 d"), _DEFAULT.deadline)

    # With what comes after it, below the unit's TimeoutStopSec=.
    stop: float = option(duration("1 s", "10 min"), 60.0)


@dataclass(frozen=True)
class Local:
    socket: str = option(PATH, "/run/ovfstored/socket")
    group: str = option(NAME, "")


@dataclass(frozen=True)
class Log:
    level: str = option(choice("debug", "info", "warning", "error"), "info")


@dataclass(frozen=True)
class Config:
    """All of it. See `drop_ins.load`."""

    host: Host = field(default_factory=Host)
    tls: Tls = field(default_factory=Tls)
    storage: Storage = field(default_factory=Storage)
    sanlock: Sanlock = field(default_factory=Sanlock)
    limits: Limits = field(default_factory=Limits)
    history: History = field(default_factory=History)
    guard: Guard = field(default_factory=Guard)
    local: Local = field(default_factory=Local)
    log: Log = field(default_factory=Log)

    def settings(self) -> Settings:
        """What the service may take."""
        return Settings(
            buffered=self.storage.allow_buffered_io,
            log_level=self.log_level,
            history=self.history.settings(),
            guard_drop=self.guard.drop,
            **_common(self.limits, Settings),
        )

    def server_limits(self) -> ServerLimits:
        """What peers may ask of a server."""
        return ServerLimits(**_common(self.limits, ServerLimits))

    @property
    def log_level(self) -> int:
        return int(getattr(logging, self.log.level.upper()))


def _common(section: Limits, wanted: type) -> dict[str, Any]:
    """The values of the keys that the other class has, too."""
    return {
        f.name: getattr(section, f.name)
        for f in fields(wanted)
        if hasattr(section, f.name)
    }
