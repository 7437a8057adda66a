# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Reading the configuration from its files.

    [section]
    key = value

The *.conf files of all directories are read in the order of their names, and
a later one wins, key by key. A file of the same name in a later directory
takes the place of the earlier one as a whole, as with systemd and imageio.
"""

from __future__ import annotations

import configparser
import dataclasses
import os
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.host.config import Config
from vdsm_ovfstore.host.listener import is_loopback

# The vendor's, the administrator's, and what must not outlive a reboot.
DIRECTORIES = (
    "/usr/lib/ovfstored/conf.d",
    "/etc/ovfstored/conf.d",
    "/run/ovfstored/conf.d",
)

DEFAULT = "default"

# sun_path of unix(7) has 108 bytes with its end.
MAX_SOCKET = 107

Key = tuple[str, str]


class Loaded(NamedTuple):
    """A configuration, and the file that each value came from."""

    config: Config
    sources: dict[Key, str]

    def document(self) -> dict[str, Any]:
        """As --show-config prints it: value and file, section by section."""
        return {
            section: {
                key: {
                    "value": value,
                    "from": self.sources.get((section, key), DEFAULT),
                }
                for key, value in values.items()
            }
            for section, values in dataclasses.asdict(self.config).items()
        }


def load(directories: Sequence[str] = ()) -> Loaded:
    """
    Read the files of these directories, or of DIRECTORIES.

    A directory that is not there is passed over, unless it was asked for.

    Raises:
        errors.ConfigInvalid: what is wrong, in the first file that is.
    """
    values: dict[str, dict[str, Any]] = {}
    sources: dict[Key, str] = {}
    for path in _files(directories or DIRECTORIES, needed=bool(directories)):
        for section, key, text in _read(path):
            values.setdefault(section, {})[key] = _value(
                path, section, key, text
            )
            sources[section, key] = path
    sections = {
        f.name: f.default_factory(**values.get(f.name, {}))
        for f in dataclasses.fields(Config)
        if callable(f.default_factory)
    }
    loaded = Loaded(Config(**sections), sources)
    _check_together(loaded)
    return loaded


def _files(directories: Sequence[str], needed: bool) -> list[str]:
    found: dict[str, str] = {}
    for directory in directories:
        try:
            names = os.listdir(directory)
        except FileNotFoundError as e:
            if needed:
                raise _unreadable(directory, e) from None
            continue
        except OSError as e:
            raise _unreadable(directory, e) from None
        for name in names:
            if name.endswith(".conf") and not name.startswith("."):
                found[name] = os.path.join(directory, name)
    return [found[name] for name in sorted(found)]


def _read(path: str) -> list[tuple[str, str, str]]:
    """Section, key and text of each line of a file."""
    parser = configparser.ConfigParser(
        # No section may be special, and no value be rewritten.
        default_section="",
        interpolation=None,
        delimiters=("=",),
        comment_prefixes=("#", ";"),
    )
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    try:
        with open(path, encoding="utf-8") as f:
            parser.read_file(f)
    except OSError as e:
        raise _unreadable(path, e) from None
    except (configparser.Error, UnicodeDecodeError) as e:
        # configparser's words have lines, and name the file once more.
        words = " ".join(str(e).split())
        raise errors.ConfigInvalid(path=path, reason=words) from None
    return [
        (section, key, text.strip())
        for section in parser.sections()
        for key, text in parser.items(section)
    ]


def _value(path: str, section: str, key: str, text: str) -> Any:
    sections = {f.name: f for f in dataclasses.fields(Config)}
    if section not in sections:
        known = ", ".join(sections)
        raise errors.ConfigInvalid(
            path=path,
            section=section,
            reason=f"there is no section [{section}]; there are {known}",
        )
    keys = {f.name: f for f in dataclasses.fields(_section(section))}
    if key not in keys:
        known = ", ".join(keys)
        raise errors.ConfigInvalid(
            path=path,
            section=section,
            key=key,
            reason=f"[{section}] has no key {key}; it has {known}",
        )
    kind = keys[key].metadata["kind"]
    try:
        return kind.read(text)
    except (ValueError, KeyError, OverflowError):
        raise _refused(path, section, key, text, kind.expected) from None


def _section(name: str) -> Any:
    return type(getattr(Config(), name))


def _check_together(loaded: Loaded) -> None:
    """What is right by itself may be wrong beside another value."""
    config = loaded.config

    def refuse(
        section: str, key: str, expected: str, other: Optional[Key] = None
    ) -> errors.ConfigInvalid:
        # A default is in no file; that it will not do is due to another one.
        path = loaded.sources.get((section, key), "")
        if not path and other is not None:
            path = loaded.sources.get(other, "")
        value = str(getattr(getattr(config, section), key))
        return _refused(path, section, key, value, expected)

    if config.sanlock.join and not config.sanlock.host_id:
        raise refuse(
            *("sanlock", "host_id", "1 to 2000 with join = yes"),
            ("sanlock", "join"),
        )
    if len(os.fsencode(config.local.socket)) > MAX_SOCKET:
        raise refuse("local", "socket", f"at most {MAX_SOCKET} bytes")
    address = config.host.address
    if address and not config.tls.enable and not is_loopback(address):
        expected = "a loopback address with [tls] enable = no"
        raise refuse("host", "address", expected)


def _refused(
    path: str, section: str, key: str, given: str, expected: str
) -> errors.ConfigInvalid:
    return errors.ConfigInvalid(
        path=path,
        section=section,
        key=key,
        given=given,
        expected=expected,
        reason=f"[{section}] {key} is {given!r}, expected is {expected}",
    )


def _unreadable(path: str, e: OSError) -> errors.ConfigInvalid:
    return errors.ConfigInvalid(path=path, reason=e.strerror or str(e))
