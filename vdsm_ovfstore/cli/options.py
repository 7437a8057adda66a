# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The command line.

A verb is known here by name, help and module only; its module is imported
when it is called, and then says which arguments it takes: for a small upload
the start of the interpreter takes most of the time.
"""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import re
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Optional

from vdsm_ovfstore import __version__, errors

# name, module, help
VERBS = (
    ("init", "make", "make a storage domain, without VDSM"),
    ("create", "make", "make the copies of a store"),
    ("upload", "upload", "write an archive as the newest generation"),
    ("download", "download", "read a whole archive"),
    ("status", "look", "show the state of a store and its copies"),
    ("list", "listing", "list the stores below a directory"),
    ("history", "history", "list the generations of a store"),
    ("vms", "entities", "list the VMs and templates of a generation"),
    ("show", "entities", "print the OVF of one VM or template"),
    ("extract", "extract", "write OVFs to files"),
    ("diff", "diff", "compare generations, or one with the disks there"),
    ("recover", "recover", "tell what an import would bring back, and why"),
    ("verify", "check", "check every byte of a store"),
    ("repair", "repair", "mend a store, without a new generation"),
    ("restore", "past", "make an older generation the newest again"),
    ("pin", "past", "keep a generation, whatever the settings"),
    ("unpin", "past", "let a generation go in its time"),
    ("wait", "wait", "wait for a generation"),
    ("maintain", "maintain", "check and repair the stores of this machine"),
    ("metrics", "metrics", "write metrics for Prometheus"),
    ("salvage", "salvage", "rescue OVFs from damaged storage or an image"),
    ("explain", "explain", "explain an error code"),
)

# What this process does itself, always.
LOCAL = ("init", "recover", "salvage", "explain")

# 16 digits: what a JSON reader can tell apart.
_GENERATION = re.compile(r"([0-9]{1,16})(?::([0-9a-fA-F]{0,64}))?")

_DESCRIPTION = (
    "Keeps the OVFs of virtual machines on the storage domain that their "
    "disks lie on."
)
_EPILOG = (
    "exit status: 0 ok, 1 error, 2 usage, 3 damaged but recoverable, "
    "4 nothing recoverable, 5 in use by another host or process. "
    "'ovfstore VERB --help' tells more."
)


class _Help(argparse.HelpFormatter):
    """
    As wide as the terminal.

    argparse makes one for each argument, to check it, and would import
    shutil to ask for the width.
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=_columns())


class Parser(argparse.ArgumentParser):
    """Raises errors.UsageError where argparse would end the process."""

    verb: Optional[str] = None
    module = ""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=_Help, **options)

    def error(self, message: str) -> NoReturn:
        program = self.prog.partition(" ")[0]
        verb = f"{self.verb}: " if self.verb else ""
        asked = f"{program} {self.verb}" if self.verb else program
        raise errors.UsageError(reason=f"{verb}{message}; see: {asked} --help")

    def complete(self) -> None:
        """Let the module of a verb say which arguments it takes."""
        if not self.module:
            return
        module = importlib.import_module(self.module)
        self.module = ""
        add_global_options(self, argparse.SUPPRESS)
        getattr(module, f"{self.verb}_arguments")(self)
        self.set_defaults(run=getattr(module, f"run_{self.verb}"))

    def parse_known_args(  # type: ignore[no-untyped-def]
        self, args=None, namespace=None
    ):
        # argparse comes here for the verb that was called, only.
        self.complete()
        found, unknown = super().parse_known_args(args, namespace)
        if hasattr(found, "vms"):
            # argparse fills a list of any length before the first option,
            # and takes nothing for it behind.
            found.vms = [
                *found.vms,
                *(a for a in unknown if not a.startswith("-")),
            ]
            unknown = [a for a in unknown if a.startswith("-")]
        return found, unknown


def add_global_options(
    parser: argparse.ArgumentParser, default: Any = False
) -> None:
    """Those of every verb; they may stand before it and after it."""
    group = parser.add_argument_group("global options")
    for names, text in (
        (("--json",), "answer with a JSON document"),
        (("-v", "--verbose"), "show the log"),
        (("--debug",), "show the whole log, and where errors come from"),
        (("--no-progress",), "show no progress"),
        (("--direct",), "go through no host"),
        (
            ("--allow-buffered-io",),
            "for development: use file systems without direct I/O",
        ),
    ):
        group.add_argument(
            *names, action="store_true", default=default, help=text
        )
    for name, metavar, text in (
        ("--host", "ADDRESS", "the host to go through: a socket or a URL"),
        ("--cacert", "FILE", "CAs that may vouch for the host"),
        ("--cert", "FILE", "certificate to show to the host"),
        ("--key", "FILE", "its key, if it is not in the same file"),
    ):
        group.add_argument(
            name, metavar=metavar, default=default or None, help=text
        )


def make_parser() -> Parser:
    parser = Parser(prog="ovfstore", description=_DESCRIPTION, epilog=_EPILOG)
    parser.add_argument("--version", action="version", version=__version__)
    add_global_options(parser)
    verbs = parser.add_subparsers(
        dest="verb", metavar="VERB", title="verbs", parser_class=Parser
    )
    for name, module, text in VERBS:
        verb = verbs.add_parser(name, help=text, description=_sentence(text))
        verb.verb = name
        verb.module = f"vdsm_ovfstore.cli.{module}"
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """
    Raises errors.UsageError; SystemExit after --help or --version.

    run is None when there is no verb: then the help was printed.
    """
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.verb is None:
        parser.print_help()
        args.run = None
        return args
    _check_host(args)
    return args


def _check_host(args: Any) -> None:
    """Raises errors.UsageError."""
    if args.host == "":
        problem = "--host is empty; for no host: --direct"
    elif args.host and args.verb in LOCAL:
        problem = "no host does that; leave out --host"
    elif args.key and not args.cert:
        problem = "--key needs --cert"
    else:
        return
    raise errors.UsageError(reason=f"{args.verb}: {problem}")


def log_level(args: Any) -> int:
    """The level of our log and of a worker's."""
    if args.debug:
        return logging.DEBUG
    return logging.INFO if args.verbose else logging.CRITICAL


def domain_argument(
    parser: argparse.ArgumentParser, needed: bool = True
) -> None:
    parser.add_argument(
        "domain",
        metavar="DOMAIN",
        nargs=None if needed else "?",
        help="directory of the storage domain, or one with a single domain "
        "in it",
    )


def generation_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-g",
        "--generation",
        metavar="G",
        type=generation,
        help="number of the generation, or NUMBER:DIGEST (the newest one)",
    )


def timeout_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=60.0,
        help="how long to wait while the store is in use (60)",
    )


def generation(text: str) -> str:
    """NUMBER or NUMBER:DIGEST, as the verbs take it."""
    match = _GENERATION.fullmatch(text)
    if match is None:
        raise argparse.ArgumentTypeError(
            f"expected NUMBER or NUMBER:DIGEST, not {text!r}"
        )
    number, digest = match.groups()
    return f"{int(number)}:{digest.lower()}" if digest else str(int(number))


def seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 86400:
        raise ValueError(text)
    return value


def _columns() -> int:
    try:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError, AttributeError):
        columns = 80
    return max(40, min(100, columns)) - 2


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
