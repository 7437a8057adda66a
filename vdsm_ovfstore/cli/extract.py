# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""extract: OVFs as files."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.opened import (
    entity_fields,
    entity_id,
    entries,
    generation_fields,
    generation_name,
    open_domain,
    open_store,
)
from vdsm_ovfstore.cli.options import domain_argument, generation_argument
from vdsm_ovfstore.cli.text import count
from vdsm_ovfstore.format.member import ENTITIES, VM, member_kind
from vdsm_ovfstore.format.segment import IndexEntry
from vdsm_ovfstore.store.reader import GenerationReader

# OVFs may hold initial passwords of the guests.
_MODE = 0o600
_DIRECTORY_MODE = 0o700


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
    with open_store(open_domain(args)) as reader:
        generation = reader.find(args.generation)
        opened = reader.open(generation)
        wanted = _wanted(opened, args.vms)
        fd = _open_directory(args.output)
        try:
            done, failed = _extract(opened, wanted, fd, args, console)
        finally:
            os.close(fd)
    result = {
        "domain": reader.domain.id,
        "path": reader.domain.path,
        "generation": generation_fields(generation),
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
    for entry, why in failed:
        console.warn(
            f"{entity_id(entry)} ({entry.entity}) was not written: "
            f"error {why.code}: {why}"
        )
    # The worst first: what is damaged may be gone for good.
    return max((why.exit_status for _, why in failed), default=errors.EXIT_OK)


def _fields(entry: IndexEntry) -> dict[str, Any]:
    return {**entity_fields(entry), "file": entry.name}


def _wanted(opened: GenerationReader, names: list[str]) -> list[IndexEntry]:
    """Raises errors.EntityNotFound, EntityAmbiguous, Damaged."""
    if not names:
        found = [e for e in entries(opened) if e.kind in ENTITIES]
    else:
        found = [opened.find(name) for name in names]
    unique = {e.name: e for e in found}
    for name in unique:
        # The index comes from the storage; a name must not be a path.
        if member_kind(name) != VM:
            raise errors.MemberRefused(name=name, reason="not <uuid>.ovf")
    return list(unique.values())


def _extract(
    opened: GenerationReader,
    wanted: list[IndexEntry],
    fd: int,
    args: Any,
    console: Console,
) -> tuple[list[IndexEntry], list[tuple[IndexEntry, errors.Error]]]:
    done: list[IndexEntry] = []
    failed: list[tuple[IndexEntry, errors.Error]] = []
    for number, entry in enumerate(wanted):
        console.progress.part("extracting", number, len(wanted))
        try:
            data = opened.read(entry)
            _write(entry.name, data, fd, args.output, args.force)
            done.append(entry)
        except (errors.Damaged, errors.StorageFailed, _Exists) as e:
            failed.append((entry, e))
    return done, failed


class _Exists(errors.TargetRefused):
    hint = "Give another directory, or replace what is there with --force"


def _open_directory(path: str) -> int:
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, _DIRECTORY_MODE)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as e:
        raise errors.TargetRefused(
            path=path, reason=e.strerror or str(e)
        ) from None


def _write(name: str, data: bytes, fd: int, where: str, force: bool) -> None:
    """Write a file; nothing is left when that fails."""
    # To replace, a file of another name first, which is renamed when it is
    # complete.
    first = f".{name}.{os.urandom(8).hex()}" if force else name
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        file = os.open(first, flags, _MODE, dir_fd=fd)
        try:
            with open(file, "wb") as stream:
                stream.write(data)
            if force:
                os.rename(first, name, src_dir_fd=fd, dst_dir_fd=fd)
        except BaseException:
            os.unlink(first, dir_fd=fd)
            raise
    except FileExistsError:
        path = os.path.join(where, name)
        raise _Exists(path=path, reason="it exists") from None
    except OSError as e:
        raise errors.TargetRefused(
            path=os.path.join(where, name), reason=e.strerror or str(e)
        ) from None
