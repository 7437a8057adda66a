# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The configuration of `ovfstore-updater`: what can be set, and to what.

A class is a section of the files, a field a key;
packaging/ovfstore-updater.conf tells what each of them does. Sizes are in
bytes and times in seconds here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

from vdsm_ovfstore.host import drop_ins
from vdsm_ovfstore.host.values import (
    PATH,
    YES_NO,
    Kind,
    choice,
    duration,
    option,
    size,
    whole,
)

DIRECTORIES = (
    "/usr/lib/ovfstore-updater/conf.d",
    "/etc/ovfstore-updater/conf.d",
    "/run/ovfstore-updater/conf.d",
)

DIRECTORY, ENGINE = "directory", "engine"

# Of ovfstored, with its defaults.
SOCKET = "/run/ovfstored/socket"


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _url(text: str) -> str:
    if text and not text.startswith("https://"):
        raise ValueError(text)
    return text


_LINES = Kind("addresses, each on a line of its own", _lines)
_URL = Kind("a URL that begins with https://, or nothing", _url)
_TEXT = Kind("a text", str)
_OPTIONAL_PATH = Kind(
    "an absolute path, or nothing", lambda t: PATH.read(t) if t else ""
)


@dataclass(frozen=True)
class Source:
    kind: str = option(choice(DIRECTORY, ENGINE), DIRECTORY)
    directory: str = option(PATH, "/var/lib/ovfstore-updater/ovfs")
    url: str = option(_URL, "")
    user: str = option(_TEXT, "")
    password_file: str = option(_OPTIONAL_PATH, "")
    token_file: str = option(_OPTIONAL_PATH, "")
    ca: str = option(_OPTIONAL_PATH, "/etc/pki/ovirt-engine/ca.pem")
    page: int = option(whole(1, 10000), 100)
    timeout: float = option(duration("1 s", "1 h"), 120.0)
    engine_updates: bool = option(YES_NO, True)


@dataclass(frozen=True)
class Hosts:
    # None: the local socket, or the hosts that the engine names.
    addresses: tuple[str, ...] = option(_LINES, ())

    # Of those.
    port: int = option(whole(1, 65535), 54321)
    ca: str = option(_OPTIONAL_PATH, "")
    cert: str = option(_OPTIONAL_PATH, "")
    key: str = option(_OPTIONAL_PATH, "")
    updates: int = option(whole(1, 100), 2)
    timeout: float = option(duration("1 s", "1 h"), 30.0)
    lease_timeout: float = option(duration("0 s", "1 d"), 60.0)


@dataclass(frozen=True)
class Domains:
    stores: bool = option(YES_NO, True)
    copies: int = option(whole(1, 16), 2)
    size: int = option(size("4 MiB", "1 TiB"), 128 * 2**20)


@dataclass(frozen=True)
class Updates:
    interval: float = option(duration("100 ms", "7 d"), 300.0)
    batch: int = option(whole(1, 100000), 100)
    check_interval: float = option(duration("100 ms", "7 d"), 3600.0)
    locked_wait: float = option(duration("0 s", "365 d"), 86400.0)
    removals: int = option(whole(0, 100), 50)
    retry_min: float = option(duration("10 ms", "1 d"), 15.0)
    retry_max: float = option(duration("10 ms", "7 d"), 900.0)
    stop: float = option(duration("0 s", "10 min"), 60.0)


@dataclass(frozen=True)
class State:
    path: str = option(PATH, "/var/lib/ovfstore-updater/state.db")


@dataclass(frozen=True)
class Log:
    level: str = option(choice("debug", "info", "warning", "error"), "info")


@dataclass(frozen=True)
class Config:
    """All of it. See load()."""

    source: Source = field(default_factory=Source)
    hosts: Hosts = field(default_factory=Hosts)
    domains: Domains = field(default_factory=Domains)
    updates: Updates = field(default_factory=Updates)
    state: State = field(default_factory=State)
    log: Log = field(default_factory=Log)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Of hosts; none where the source has to tell."""
        if self.hosts.addresses or self.source.kind == ENGINE:
            return self.hosts.addresses
        return (SOCKET,)

    @property
    def log_level(self) -> int:
        return int(getattr(logging, self.log.level.upper()))


def load(directories: Sequence[str] = ()) -> drop_ins.Loaded:
    """
    Read the files of these directories, or of DIRECTORIES.

    Raises errors.ConfigInvalid.
    """
    return drop_ins.load(directories, _UPDATER)


def _check_together(loaded: drop_ins.Loaded) -> None:
    """What is right by itself may be wrong beside another value."""
    config: Config = loaded.config
    source, updates = config.source, config.updates
    kind = ("source", "kind")
    if source.kind == ENGINE:
        secrets = [source.token_file, source.password_file]
        if not source.url:
            expected = "the URL of the engine's API with kind = engine"
            raise drop_ins.refused(loaded, "source", "url", expected, kind)
        if len(list(filter(None, secrets))) != 1:
            expected = "set, or password_file is, and not both"
            raise drop_ins.refused(
                loaded, "source", "token_file", expected, kind
            )
        if source.password_file and not source.user:
            expected = "the user of password_file, as admin@internal"
            raise drop_ins.refused(loaded, "source", "user", expected, kind)
    if updates.retry_max < updates.retry_min:
        expected = "at least retry_min"
        raise drop_ins.refused(loaded, "updates", "retry_max", expected)


_UPDATER = drop_ins.Program(
    Config, DIRECTORIES, _check_together, "ovfstore-updater.conf"
)
