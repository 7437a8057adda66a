# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""upload: an archive becomes the newest generation."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.console import Console
from vdsm_ovfstore.cli.options import domain_argument, timeout_argument
from vdsm_ovfstore.cli.outcome import healed_lines, warn_degraded
from vdsm_ovfstore.cli.store import Document, open_store
from vdsm_ovfstore.cli.text import count, size


def upload_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Write an archive as the newest generation of a store, on all its "
        "copies. The generations before it stay as long as there is room. "
        "What a former write or another host left half done is mended first."
    )
    domain_argument(parser)
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="a plain tar as the engine makes it, - for stdin, or a "
        "directory of *.ovf and *.xml files",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="take it, though it lacks many VMs, is older than the newest "
        "generation, or of another domain",
    )
    timeout_argument(parser)


def run_upload(args: Any, console: Console) -> int:
    with open_store(args, console) as store:
        answer = store.upload(args.source, args.timeout, args.force)
    console.answer(answer, lambda: _uploaded(answer, console))
    warn_degraded(answer, console)
    return errors.EXIT_OK


def _uploaded(answer: Document, console: Console) -> Iterator[str]:
    yield from healed_lines(answer)
    already = " was the newest already" if answer["unchanged"] else ""
    yield (
        f"Generation {answer['generation']}{already}: "
        f"{count(answer['entities'], 'entity')}, {size(answer['length'])}, "
        f"on {count(len(answer['copies']), 'copy')}, "
        f"sha256 {answer['sha256']}"
    )
    yield console.next_line("ovfstore status DOMAIN")
