# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""extract: OVFs as files."""

from __future__ import annotations

import argparse
import os
from typing import Any, Optional, cast

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.directory import make_directory
from vdsm_ovfstore.cli.options import domain_argument, generation_argument
from vdsm_ovfstore.cli.store import Document, Store, open_store
from vdsm_ovfstore.cli.text import count, generation_key, generation_name
from vdsm_ovfstore.client.targets import TargetExists, new_file
from vdsm_ovfstore.format.ids import is_uuid


def extract_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write OVFs to files named <id>.ovf, each verified. A damaged one is "
        "reported, and the others are written; the exit status is 3 then."
    )
    domain_argument(parser)
    parser.add_argument(
        "vms", metavar="VM", nargs="*", help="ids or names (all)"
    )
    generation_argument(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        required=True,
        help="directory to write to, made when it is missing",
    )
    parser.add_argument(
        "--force", action="store_true", help="replace files that exist"
    )


def run_extract(args: Any, console: Console) -> int:
    with open_store(args, console) as store:
        found, wanted = _wanted(store, args.vms, args.generation)
        make_directory(args.output)
        done, failed = _extract(store, found, wanted, args, console)
    generation = found["generation"]
    result = {
        "domain": found["domain"],
        "path": found["path"],
        "generation": generation,
        "directory": os.path.abspath(args.output),
        "extracted": [_fields(e) for e in done],
        "failed": [
            {**_fields(e), "error": console.error(why)} for e, why in failed
        ],
    }
    console.answer(
        result,
        lambda: [
            f"Wrote {count(len(done), 'OVF')} of generation "
            f"{generation_name(generation)} to {args.output}"
        ],
    )
    for entity, why in failed:
        console.warn(
            f"{entity['id']} ({entity['name']}) was not written: "
            f"error {why.code}: {why}"
        )
    # The worst first: what is damaged may be gone for good.
    return max((why.exit_status for _, why in failed), default=errors.EXIT_OK)


def _fields(entity: Document) -> Document:
    return {**entity, "file": f"{entity['id']}.ovf"}


def _wanted(
    store: Store, names: list[str], generation: Optional[str]
) -> tuple[Document, list[Document]]:
    """
    Returns where they are (domain, path, generation), and the entities.

    Raises errors.EntityNotFound, EntityAmbiguous, Damaged.
    """
    found = store.vms(generation)
    entities = found["entities"]
    if names:
        entities = [_named(name, found) for name in names]
    unique = {entity["id"]: entity for entity in entities}
    for entity in unique:
        # The index comes from the storage; a name must not be a path.
        if not is_uuid(entity):
            raise errors.MemberRefused(
                name=f"{entity}.ovf", reason="not <uuid>.ovf"
            )
    return found, list(unique.values())


def _named(name: str, found: Document) -> Document:
    """The VM or template of that id or name, as the verbs find it."""
    entities = found["entities"]
    same = [e for e in entities if e["id"] == name.lower()]
    same = same or [e for e in entities if e["name"] == name and name]
    if len(same) == 1:
        return cast(Document, same[0])
    if not same:
        number = found["generation"]["number"]
        raise errors.EntityNotFound(generation=number, name=name)
    ids = ", ".join(e["id"] for e in same)
    raise errors.EntityAmbiguous(name=name, ids=ids)


def _extract(
    store: Store,
    found: Document,
    wanted: list[Document],
    args: Any,
    console: Console,
) -> tuple[list[Document], list[tuple[Document, errors.Error]]]:
    done: list[Document] = []
    failed: list[tuple[Document, errors.Error]] = []
    # What is written meanwhile is another generation.
    generation = generation_key(found["generation"])
    store.prepare(len(wanted), generation)
    try:
        for number, entity in enumerate(wanted):
            console.progress.part("extracting", number, len(wanted))
            path = os.path.join(args.output, f"{entity['id']}.ovf")
            try:
                data = store.read(entity["id"], generation)
                with new_file(path, args.force) as write:
                    write(data)
                done.append(entity)
            except (errors.Damaged, errors.StorageFailed, TargetExists) as e:
                failed.append((entity, e))
    except BaseException:
        if done:
            console.warn(
                f"{len(done)} of {len(wanted)} files were written to "
                f"{args.output} before it ended"
            )
        raise
    return done, failed
