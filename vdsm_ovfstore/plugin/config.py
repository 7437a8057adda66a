# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The configuration of the plugin: what can be set, and to what.

A class is a section of the files, a field a key; packaging/vdsm-ovfstore.conf
tells what each of them does.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from vdsm_ovfstore.api.settings import Settings
from vdsm_ovfstore.host import drop_ins
from vdsm_ovfstore.host.keeping import Guard, History
from vdsm_ovfstore.host.limits import Limits as ServerLimits
from vdsm_ovfstore.host.values import (
    NAME,
    PATH,
    YES_NO,
    choice,
    duration,
    option,
    size,
    whole,
)
from vdsm_ovfstore.plugin import state

DIRECTORIES = (
    "/usr/lib/vdsm-ovfstore/conf.d",
    "/etc/vdsm-ovfstore/conf.d",
    "/run/vdsm-ovfstore/conf.d",
)

_DEFAULT = Settings()


@dataclass(frozen=True)
class Plugin:
    enable: bool = option(YES_NO, True)


@dataclass(frozen=True)
class Stock:
    uploads: bool = option(YES_NO, True)
    downloads: bool = option(YES_NO, True)

    # To wait for the leases of a store. The engine gives an upload 5 min in
    # all (UploadFileMaxTimeInMinutes).
    timeout: float = option(duration("1 s", "10 min"), 120.0)


@dataclass(frozen=True)
class Heal:
    enable: bool = option(YES_NO, True)

    # Between two looks at one domain that comes and goes.
    pause: float = option(duration("1 s", "1 d"), 600.0)

    # What nobody tells of: a head that a stock host wrote, a flipped bit.
    interval: float = option(duration("1 min", "30 d"), 86400.0)


@dataclass(frozen=True)
class Limits:
    transfers: int = option(whole(1, 1000), _DEFAULT.transfers)
    transfer_expires: float = option(
        duration("1 s", "1 d"), _DEFAULT.transfer_expires
    )
    spool: str = option(PATH, "/var/tmp")
    spool_bytes: int = option(size("1 MiB", "64 TiB"), _DEFAULT.spool_bytes)
    readers: int = option(whole(1, 100), _DEFAULT.readers)

    # VDSM has 8 threads for all verbs, and warns of one that takes 60 s.
    read_timeout: float = option(duration("1 s", "1 min"), 10.0)
    scan_timeout: float = option(duration("1 s", "1 d"), _DEFAULT.scan_timeout)
    jobs: int = option(whole(1, 1000), _DEFAULT.jobs)
    remember: float = option(duration("1 s", "7 d"), _DEFAULT.remember)
    deadline: float = option(duration("1 s", "1 d"), _DEFAULT.deadline)

    # Threads of VDSM's 8 that may wait in verbs of ours.
    verbs: int = option(whole(1, 6), 3)

    # systemd gives vdsmd 10 s to end, of which VDSM itself takes up to 5.
    stop: float = option(duration("0 s", "10 s"), 1.0)


@dataclass(frozen=True)
class Local:
    enable: bool = option(YES_NO, True)
    socket: str = option(PATH, f"{state.DIRECTORY}/socket")
    group: str = option(NAME, "")


@dataclass(frozen=True)
class Log:
    level: str = option(choice("debug", "info", "warning", "error"), "info")


@dataclass(frozen=True)
class Config:
    """All of it. See load()."""

    plugin: Plugin = field(default_factory=Plugin)
    stock: Stock = field(default_factory=Stock)
    heal: Heal = field(default_factory=Heal)
    limits: Limits = field(default_factory=Limits)
    history: History = field(default_factory=History)
    guard: Guard = field(default_factory=Guard)
    local: Local = field(default_factory=Local)
    log: Log = field(default_factory=Log)

    def settings(self) -> Settings:
        """What the service may take."""
        wanted = {f.name for f in dataclasses.fields(Settings)}
        values = dataclasses.asdict(self.limits)
        return Settings(
            log_level=self.log_level,
            history=self.history.settings(),
            guard_drop=self.guard.drop,
            # vdsmd has -20; ours compete with VMs for the processor.
            niceness=0,
            **{k: v for k, v in values.items() if k in wanted},
        )

    def server_limits(self) -> ServerLimits:
        """Of the socket in the file system."""
        return ServerLimits()

    @property
    def log_level(self) -> int:
        return int(getattr(logging, self.log.level.upper()))


def load(directories: Sequence[str] = ()) -> drop_ins.Loaded:
    """
    Read the files of these directories, or of DIRECTORIES.

    Raises errors.ConfigInvalid: what is wrong, in the first file that is.
    """
    return drop_ins.load(directories, PROGRAM)


def _check(loaded: drop_ins.Loaded) -> None:
    """Nothing here depends on anything else."""


PROGRAM = drop_ins.Program(Config, DIRECTORIES, _check, "vdsm-ovfstore.conf")
