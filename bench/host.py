# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Measure a host; prints tables in Markdown.

    python -m bench.host [DIRECTORY] [--sizes 1 16 100] [--repeat 5]

A real daemon serves LocalFS domains of two copies over TLS, to the client of
this package in a process that is up, as an engine is. Beside each whole stand
its parts, measured in turn with it: those of bench.run, and the same bytes
over TLS to and from a bare peer in a process of its own. Medians count. The
directory must be on the disk that is to be measured.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator
from functools import partial

from bench import (
    host_download,
    host_memory,
    host_ping,
    host_table,
    host_update,
    hosting,
    make_ovfs,
)
from bench.run import Subject, say, subjects, work
from bench.table import MIB

# Of what is sent many times, to see whether memory grows.
_SMALL = Subject("10 VMs", partial(make_ovfs.some_ovfs, 10))
_FEW = 4  # at a time


@contextlib.contextmanager
def _place(args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Where to work, and certificates there."""
    with work(args.directory) as directory:
        yield directory, hosting.make_pki(directory)


def _updates(args: argparse.Namespace) -> Iterator[str]:
    found = []
    for subject in subjects(args.sizes, args.vms):
        with _place(args) as place:
            found.append(host_update.measure(subject, *place, args.repeat))
    yield host_table.updates(found)
    yield from host_table.missed_updates(found)


def _pings(args: argparse.Namespace) -> Iterator[str]:
    (subject,) = subjects([args.load], 0)
    with _place(args) as place:
        found = host_ping.measure(subject, *place, args.uploads, args.pings)
    yield host_table.pings(found)


def _memory(args: argparse.Namespace) -> Iterator[str]:
    found = []
    ends = sorted({min(args.sizes), max(args.sizes)})
    for subject in subjects(ends, 0):
        for uploads in (1, args.uploads):
            with _place(args) as place:
                found.append(host_memory.at_once(subject, *place, uploads))
    for count in (args.small // 10, args.small):
        with _place(args) as place:
            found.append(host_memory.in_turn(_SMALL, *place, count, _FEW))
    with _place(args) as place:
        idle = host_memory.idle(*place)
    yield host_table.memory(found, idle)
    yield from host_table.missed_memory(found)


def _slow(args: argparse.Namespace) -> Iterator[str]:
    (subject,) = subjects([args.load], 0)
    with _place(args) as place:
        found = host_update.slow(subject, *place, args.rate * MIB, args.repeat)
    yield host_table.slow(found)
    yield from host_table.missed_slow(found)


def _downloads(args: argparse.Namespace) -> Iterator[str]:
    found = []
    for subject in subjects(args.sizes, 0):
        with _place(args) as place:
            found.append(host_download.measure(subject, *place, args.repeat))
    yield host_table.downloads(found)


_WHAT = {
    "update": _updates,
    "ping": _pings,
    "memory": _memory,
    "slow": _slow,
    "download": _downloads,
}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench.host", description="Measure a host."
    )
    parser.add_argument(
        "directory", nargs="?", help="where to work (default: /var/tmp)"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=_WHAT,
        default=list(_WHAT),
        help="not all of it",
    )
    _number(
        parser, "--sizes", [1, 16, 100], "of the archives, in MiB", nargs="+"
    )
    _number(parser, "--vms", 10_000, "of a store of many small VMs; 0: none")
    _number(parser, "--repeat", 5, "how often")
    _number(parser, "--uploads", 10, "at the same time")
    _number(parser, "--load", 16, "of each of these, in MiB")
    _number(parser, "--pings", 1000, "of an idle host")
    _number(parser, "--small", 200, "uploads of 10 VMs, for the memory")
    _number(parser, "--rate", 1, "of the slow client, in MiB a second")
    args = parser.parse_args()
    say(f"load before: {os.getloadavg()[0]:.2f}")
    for what in args.only:
        print(f"### {what}\n")
        for text in _WHAT[what](args):
            print(text, end="\n\n", flush=True)
    return 0


def _number(
    parser: argparse.ArgumentParser,
    name: str,
    default: object,
    text: str,
    **how: str,
) -> None:
    parser.add_argument(
        name,
        type=int,
        default=default,
        help=f"{text} (default: %(default)s)",
        **how,  # type: ignore[arg-type]
    )


if __name__ == "__main__":
    sys.exit(main())
