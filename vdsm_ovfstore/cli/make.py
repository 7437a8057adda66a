# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""init and create: making domains and the copies of a store."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.options import domain_argument, timeout_argument
from vdsm_ovfstore.cli.outcome import healed_lines, warn_degraded
from vdsm_ovfstore.cli.store import Document, Store, open_store
from vdsm_ovfstore.cli.text import count

_MIB = 1024**2

# The smallest copy: its log has 1 MiB of seals beside the segments.
_MIN_SIZE = 4  # MiB
_MAX_SIZE = 1024**2  # MiB
_MAX_COPIES = 16  # what a seal can name


def init_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make a storage domain as VDSM would, for development and for hosts "
        "without VDSM. Prints its path. A localfs domain is for one host and "
        "is locked with flock; the others have sanlock leases, and sanlock "
        "must be running."
    )
    parser.add_argument(
        "directory", metavar="DIR", help="where the domain's directory is made"
    )
    parser.add_argument(
        "--type",
        choices=("posixfs", "localfs", "nfs"),
        default="posixfs",
        help="kind of storage (posixfs)",
    )
    parser.add_argument(
        "--version",
        type=int,
        choices=(4, 5),
        default=5,
        dest="domain_version",
        help="format of the domain (5)",
    )
    parser.add_argument(
        "--block-size",
        type=int,
        choices=(512, 4096),
        default=512,
        help="sector size in bytes (512)",
    )
    parser.add_argument(
        "--alignment",
        metavar="MIB",
        type=int,
        choices=(1, 2, 4, 8),
        default=1,
        help="size of a sanlock lease: 1, 2, 4 or 8 (1)",
    )


def run_init(args: Any, console: Console) -> int:
    from vdsm_ovfstore.lease.format import format_lease, format_lockspace
    from vdsm_ovfstore.storage.filedomain import create_domain

    if not os.path.isdir(args.directory):
        raise errors.TargetRefused(
            path=args.directory, reason="no such directory"
        )
    try:
        domain = create_domain(
            args.directory,
            args.type.upper(),
            args.domain_version,
            args.block_size,
            args.alignment * _MIB,
            format_lockspace=format_lockspace,
            format_lease=format_lease,
            buffered=args.allow_buffered_io,
        )
    except ValueError as e:
        # The choices are sound; some of their combinations are not.
        raise errors.UsageError(reason=f"init: {e}") from None
    console.answer(
        {
            "domain": domain.id,
            "path": domain.path,
            "type": domain.type,
            "domain_version": domain.version,
            "lock": domain.lock_kind,
            "block_size": domain.block_size,
            "alignment": domain.alignment,
        },
        lambda: [domain.path],
    )
    return errors.EXIT_OK


def create_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Make OVF_STORE volumes until the store has the copies wanted. Those "
        "that are there stay as they are."
    )
    domain_argument(parser)
    parser.add_argument(
        "--copies",
        metavar="N",
        type=_between(1, _MAX_COPIES),
        default=2,
        help="how many copies the store shall have (2)",
    )
    parser.add_argument(
        "--size",
        metavar="MIB",
        type=_between(_MIN_SIZE, _MAX_SIZE),
        default=128,
        help="size of a new copy (128)",
    )
    timeout_argument(parser)


def run_create(args: Any, console: Console) -> int:
    with open_store(args, console) as store:
        answer = store.create(args.copies, args.size * _MIB, args.timeout)
        console.answer(answer, lambda: _created(answer, store, console))
    warn_degraded(answer, console)
    return errors.EXIT_OK


def _created(
    answer: Document, store: Store, console: Console
) -> Iterator[str]:
    empty = not store.history()["generations"]
    there = count(len(answer["copies"]), "copy")
    yield f"The store has {there}, {len(answer['created'])} of them new"
    for volume in answer["copies"]:
        what = " (joined)" if volume in answer["joined"] else ""
        what = " (new)" if volume in answer["created"] else what
        yield f"  {volume}{what}"
    yield from healed_lines(answer)
    yield console.next_line(
        "ovfstore upload DOMAIN SOURCE" if empty else "ovfstore status DOMAIN"
    )


def _between(low: int, high: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(
                f"{value} is not between {low} and {high}"
            )
        return value

    return number
