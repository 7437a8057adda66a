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
from typing import Any, Callable, NamedTuple, Optional

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

    config: Any  # an instance of Program.config
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


class Program(NamedTuple):
    """
    Whose configuration it is.

    config is a dataclass of sections, each a dataclass of options; check is
    given what was loaded, and refuses what does not go together, see
    refused(). example is the file in packaging/ that has every key.
    """

    config: Any
    directories: Sequence[str]
    check: Callable[[Loaded], None]
    example: str


def load(
    directories: Sequence[str] = (), program: Optional[Program] = None
) -> Loaded:
    """
    Read the files of these directories, or of the program's own.

    A directory that is not there is passed over, unless it was asked for.
    The program is ovfstored by default.

    Raises:
        errors.ConfigInvalid: what is wrong, in the first file that is.
    """
    program = program or OVFSTORED
    try:
        return _load(directories, program)
    except errors.ConfigInvalid as e:
        if program.example != e.example:
            e.example = program.example
        raise


def _load(directories: Sequence[str], program: Program) -> Loaded:
    values: dict[str, dict[str, Any]] = {}
    sources: dict[Key, str] = {}
    known = program.config()
    wanted = directories or program.directories
    for path in _files(wanted, needed=bool(directories)):
        for section, key, text in _read(path):
            values.setdefault(section, {})[key] = _value(
                known, path, section, key, text
            )
            sources[section, key] = path
    sections = {
        f.name: f.default_factory(**values.get(f.name, {}))
        for f in dataclasses.fields(known)
        if callable(f.default_factory)
    }
    loaded = Loaded(program.config(**sections), sources)
    program.check(loaded)
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


def _value(
    config: Any, path: str, section: str, key: str, text: str
) -> Any:
    sections = {f.name: f for f in dataclasses.fields(config)}
    if section not in sections:
        known = ", ".join(sections)
        raise errors.ConfigInvalid(
            path=path,
            section=section,
            reason=f"there is no section [{section}]; there are {known}",
        )
    keys = {f.name: f for f in dataclasses.fields(getattr(config, section))}
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


def refused(
    loaded: Loaded,
    section: str,
    key: str,
    expected: str,
    other: Optional[Key] = None,
) -> errors.ConfigInvalid:
    """
    The error for a value that is right by itself, and wrong beside another.

    other: section and key of that one.
    """
    # A default is in no file; that it will not do is due to another one.
    path = loaded.sources.get((section, key), "")
    if not path and other is not None:
        path = loaded.sources.get(other, "")
    value = str(getattr(getattr(loaded.config, section), key))
    return _refused(path, section, key, value, expected)


def _check_together(loaded: Loaded) -> None:
    config = loaded.config
    if config.sanlock.join and not config.sanlock.host_id:
        expected = "1 to 2000 with join = yes"
        other = ("sanlock", "join")
        raise refused(loaded, "sanlock", "host_id", expected, other)
    if len(os.fsencode(config.local.socket)) > MAX_SOCKET:
        expected = f"at most {MAX_SOCKET} bytes"
        raise refused(loaded, "local", "socket", expected)
    address = config.host.address
    if address and not config.tls.enable and not is_loopback(address):
        expected = "a loopback address with [tls] enable = no"
        raise refused(loaded, "host", "address", expected)


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


OVFSTORED = Program(Config, DIRECTORIES, _check_together, "ovfstored.conf")
