# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
list: the stores below a directory, read by this process; or the domains that
a host serves, if one is named.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli import everywhere
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.store import Document
from vdsm_ovfstore.cli.text import age, escaped, generation_name
from vdsm_ovfstore.cli.way import Host, chosen


def list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "List the storage domains that have a store, below a directory. "
        "Ends with 1 when something could not be read. With --host: the "
        "domains that the host serves."
    )
    parser.add_argument(
        "directory",
        metavar="PATH",
        nargs="?",
        help=f"where to look ({everywhere.MOUNTS})",
    )


def run_list(args: Any, console: Console) -> int:
    host = chosen(args)
    # Nobody asked for the host of this machine: the storage has more to say.
    if host is not None and host.is_named:
        return _list_host(host, args, console)
    return _list_directory(args.directory or everywhere.MOUNTS, args, console)


def _list_host(host: Host, args: Any, console: Console) -> int:
    from vdsm_ovfstore.cli.serving import served

    if args.directory is not None:
        raise errors.UsageError(
            reason="list: a host lists all that it serves; leave out PATH, "
            "or add --direct"
        )
    domains = served(host, args, console)

    def lines() -> Iterator[str]:
        if not domains:
            yield f"{escaped(host.address)} serves no domain"
            return
        yield from console.table(
            "DOMAIN TYPE LOCK STATE PROBLEM PATH",
            map(_domain_row, domains),
        )

    console.answer({"host": host.address, "domains": domains}, lines)
    return errors.EXIT_OK


def _domain_row(domain: Document) -> tuple[object, ...]:
    return (
        domain["domain"],
        domain["type"].lower(),
        domain["lock"],
        domain["state"],
        domain["problem"] or None,
        domain["path"],
    )


def _list_directory(directory: str, args: Any, console: Console) -> int:
    from vdsm_ovfstore.api import documents
    from vdsm_ovfstore.api.opened import open_store

    problems: list[errors.Error] = []
    domains = everywhere.domains(directory, args, problems)
    found: list[Document] = []
    where: dict[int, str] = {}  # the domains of problems
    for number, domain in enumerate(domains):
        console.progress.part("reading", number, len(domains))
        try:
            with open_store(domain) as reader:
                found.append(documents.summary(reader))
        except errors.VolumeNotFound:
            pass  # a domain without a store
        except errors.Error as e:
            problems.append(e)
            where[id(e)] = domain.path
    result = {
        "directory": directory,
        "stores": found,
        "unreadable": [
            console.error(e, where.get(id(e), directory)) for e in problems
        ],
    }

    def lines() -> Iterator[str]:
        if not found:
            yield f"No store found below {escaped(directory)}"
            return
        yield from console.table(
            "DOMAIN TYPE GENERATION AGE ENTITIES COPIES VERDICT PATH",
            map(_row, found),
            right="GENERATION AGE ENTITIES COPIES",
        )

    console.answer(result, lines)
    for error in problems:
        console.warn(f"error {error.code}: {error}")
    return errors.EXIT_ERROR if problems else errors.EXIT_OK


def _row(store: Document) -> tuple[object, ...]:
    newest, seconds = store["newest"], store["age"]
    return (
        store["domain"],
        store["type"].lower(),
        generation_name(newest) if newest else None,
        None if seconds is None else age(seconds),
        newest["entities"] if newest else None,
        store["copies"],
        store["verdict"],
        store["path"],
    )
