# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The stores of this machine, one after the other, and what was found of them.

maintain writes that to a file, metrics reads it: a check of every byte is not
for each scrape. list looks for domains here, too, and needs none of the file.
"""

from __future__ import annotations

import argparse
import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.store import Document, Store, open_store

if TYPE_CHECKING:
    from vdsm_ovfstore.storage.filedomain import FileDomain

MOUNTS = "/rhev/data-center/mnt"  # where VDSM mounts its domains

# Where the units of this project keep it (StateDirectory=).
STATE = "/var/lib/vdsm-ovfstore/maintain.json"

_VERSION = 1
_STATE_MAX = 16 * 1024**2


def place_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "place",
        metavar="PATH",
        nargs="?",
        default=MOUNTS,
        help=f"a domain, or where domains are ({MOUNTS})",
    )
    parser.add_argument(
        "--state",
        metavar="FILE",
        default=STATE,
        help=f"what maintain found ({STATE})",
    )


def domains(
    place: str, args: Any, problems: list[errors.Error]
) -> list[FileDomain]:
    """
    The domains below a directory.

    Raises errors.DomainNotFound; problems gets what is wrong with some.
    """
    from vdsm_ovfstore.storage.filedomain import find_domains

    if not os.path.isdir(place):
        raise errors.DomainNotFound(path=place, reason="no such directory")
    return find_domains(
        place, buffered=args.allow_buffered_io, problems=problems
    )


@contextlib.contextmanager
def opened(path: str, args: Any, console: Console) -> Iterator[Store]:
    """The store of one of them, through the host that serves it."""
    one = argparse.Namespace(**{**vars(args), "domain": path})
    with open_store(one, console) as store:
        yield store


def load(path: str) -> dict[str, Document]:
    """What maintain found, by domain; nothing if it never ran."""
    import json

    try:
        with open(path, "rb") as file:
            found = json.loads(file.read(_STATE_MAX))
        if found["version"] == _VERSION:
            return {str(d["domain"]): d for d in found["domains"]}
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return {}


def save(path: str, found: dict[str, Document]) -> None:
    """Raises errors.TargetRefused."""
    import json

    from vdsm_ovfstore.client.targets import file_behind

    document = {"version": _VERSION, "domains": list(found.values())}
    with file_behind(path) as write:
        write(json.dumps(document, indent=1).encode() + b"\n")
