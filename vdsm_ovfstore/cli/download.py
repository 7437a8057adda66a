# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""download: a whole archive, verified."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console, is_terminal
from vdsm_ovfstore.cli.options import domain_argument, generation_argument
from vdsm_ovfstore.cli.store import open_store
from vdsm_ovfstore.cli.text import count, generation_name, size
from vdsm_ovfstore.client.targets import file_behind

_STDOUT = "-"


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
    with open_store(args, console) as store:
        found, data = store.download(args.generation)
        chunks = _shown(data, found["generation"]["length"], console)
        if to_stdout:
            for piece in chunks:
                console.data(piece)
            console.flush()
            return errors.EXIT_OK
        with file_behind(args.output) as write:
            for piece in chunks:
                write(piece)
    generation = found["generation"]
    result = {
        "domain": found["domain"],
        "path": found["path"],
        "file": os.path.abspath(args.output),
        "generation": generation,
    }
    console.answer(
        result,
        lambda: [
            f"Wrote generation {generation_name(generation)} to "
            f"{args.output}: {count(generation['entities'], 'entity')}, "
            f"{size(generation['length'])}, sha256 {generation['sha256']}"
        ],
    )
    return errors.EXIT_OK


def _shown(
    chunks: Iterator[bytes], length: int, console: Console
) -> Iterator[bytes]:
    """The same, with how far it is."""
    done = 0
    for data in chunks:
        done += len(data)
        console.progress.data("reading", done, length)
        yield data
    console.progress.clear()
