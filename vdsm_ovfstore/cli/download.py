# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""download: a whole archive, verified."""

from __future__ import annotations

import argparse
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console, is_terminal
from vdsm_ovfstore.cli.opened import (
    generation_fields,
    generation_name,
    open_domain,
    open_store,
)
from vdsm_ovfstore.cli.options import domain_argument, generation_argument
from vdsm_ovfstore.cli.text import count, size
from vdsm_ovfstore.store.reader import Generation, Reader

_STDOUT = "-"

# OVFs may hold initial passwords of the guests.
_MODE = 0o600


def download_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Read the whole archive of a generation, verified, from whichever "
        "copy has it sound."
    )
    domain_argument(parser)
    generation_argument(parser)
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        default=_STDOUT,
        help="the tar to write, replaced when it exists; - for stdout (-)",
    )


def run_download(args: Any, console: Console) -> int:
    to_stdout = args.output == _STDOUT
    if to_stdout and console.as_json:
        raise errors.UsageError(reason="download: --json needs -o FILE")
    if to_stdout and is_terminal(sys.stdout.fileno()):
        raise errors.UsageError(
            reason="download: will not write a tar to the terminal; "
            "give -o FILE"
        )
    with open_store(open_domain(args)) as reader:
        generation = reader.find(args.generation)
        chunks = _verified(reader, generation, console)
        if to_stdout:
            for data in chunks:
                console.data(data)
            console.flush()
            return errors.EXIT_OK
        _write_file(args.output, chunks)
    result = {
        "domain": reader.domain.id,
        "path": reader.domain.path,
        "file": os.path.abspath(args.output),
        "generation": generation_fields(generation),
    }
    console.answer(
        result,
        lambda: [
            f"Wrote generation {generation_name(generation)} to "
            f"{args.output}: {count(generation.entities, 'entity')}, "
            f"{size(generation.length)}, sha256 {generation.sha256}"
        ],
    )
    return errors.EXIT_OK


def _verified(
    reader: Reader, generation: Generation, console: Console
) -> Iterator[bytes]:
    """The archive; raises errors.Damaged at its end if it is not right."""
    digest, done = hashlib.sha256(), 0
    for data in reader.open(generation).tar():
        digest.update(data)
        done += len(data)
        console.progress.data("reading", done, generation.length)
        yield data
    console.progress.clear()
    if done != generation.length or digest.hexdigest() != generation.sha256:
        raise errors.Damaged(
            what=f"Generation {generation_name(generation)}",
            reason="the archive does not match its digest",
        )


def _write_file(path: str, chunks: Iterator[bytes]) -> None:
    """Write a file that appears when it is complete, or not at all."""
    target = os.path.realpath(path)
    try:
        if not stat.S_ISREG(os.stat(target).st_mode):
            raise errors.TargetRefused(
                path=path, reason="it exists, and is not a file"
            )
    except FileNotFoundError:
        pass
    except OSError as e:
        raise _refused(path, e) from None
    temporary = f"{target}.{os.urandom(8).hex()}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        fd = os.open(temporary, flags, _MODE)
    except OSError as e:
        raise _refused(path, e) from None
    try:
        with open(fd, "wb", buffering=0) as file:
            for data in chunks:
                _write(file, data, path)
            _finish(fd, temporary, target, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _write(file: Any, data: bytes, path: str) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[file.write(view) :]
    except OSError as e:
        raise _refused(path, e) from None


def _finish(fd: int, temporary: str, target: str, path: str) -> None:
    try:
        os.fsync(fd)
        os.rename(temporary, target)
    except OSError as e:
        raise _refused(path, e) from None


def _refused(path: str, e: OSError) -> errors.TargetRefused:
    return errors.TargetRefused(path=path, reason=e.strerror or str(e))
