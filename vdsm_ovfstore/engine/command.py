# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The command `ovfstore-updater`.

    run       until it is told to stop (SIGTERM, SIGINT); SIGHUP: look now
    status    what each store shows, and what is wrong
    drop      stop carrying what the source does not know
    enable, disable, auto, accept    the user's decisions about one domain
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Optional

from vdsm_ovfstore import __version__, errors
from vdsm_ovfstore.engine import config, decisions, marks, report
from vdsm_ovfstore.engine.config import Config
from vdsm_ovfstore.engine.state import State
from vdsm_ovfstore.format.ids import is_uuid

log = logging.getLogger("ovfstore.updater")

_DESCRIPTION = (
    "Keeps the OVF stores of a data center current: finds the VMs that have "
    "changed, and sends each storage domain the archive of what lies there."
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        reason = f"{message}; see: ovfstore-updater --help"
        raise errors.UsageError(reason=reason)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns the exit status."""
    try:
        args: Any = make_parser().parse_args(argv)
        loaded = config.load(args.conf_dirs)
        if args.show_config:
            print(json.dumps(loaded.document(), indent=2))
            return errors.EXIT_OK
        return int(args.function(args, loaded.config))
    except errors.Error as e:
        return _failed(e)
    except BrokenPipeError:
        sys.stderr.close()
        return errors.EXIT_ERROR
    except Exception as e:
        log.debug("FAILED", exc_info=True)
        kind, reason = type(e).__name__, str(e) or "no details"
        return _failed(errors.Unexpected(kind=kind, reason=reason))


def _failed(e: errors.Error) -> int:
    step = e.next_step
    if isinstance(e, errors.Unexpected):
        step = "Set [log] level = debug, and report what it shows"
    for line in filter(None, (f"error {e.code}: {e}", step)):
        print(f"ovfstore-updater: {line}", file=sys.stderr)
    return e.exit_status


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ovfstore-updater", description=_DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--conf-dir",
        dest="conf_dirs",
        action="append",
        default=[],
        metavar="DIR",
        help="read the *.conf files of this directory, and of further ones "
        "given so, instead of " + ", ".join(config.DIRECTORIES),
    )
    parser.add_argument(
        "--show-config",
        action="store_true",
        help="print the configuration and where each value comes from, as "
        "JSON, and end",
    )
    verbs = parser.add_subparsers(
        title="verbs", metavar="VERB", parser_class=_Parser
    )
    parser.set_defaults(function=_no_verb)
    _add_run(verbs)
    status = _verb(verbs, "status", _status, "show the state of all stores")
    status.add_argument(
        "--json", action="store_true", help="as one JSON document"
    )
    status.add_argument(
        "--unregistered",
        action="store_true",
        help="list what stores hold and the source does not know",
    )
    drop = _verb(
        verbs, "drop", _drop, "stop carrying what the source does not know"
    )
    drop.add_argument("domain", metavar="DOMAIN", type=_uuid)
    drop.add_argument(
        "entities", metavar="ENTITY", nargs="*", type=_uuid, help="its id"
    )
    drop.add_argument("--all", action="store_true", help="all of the domain")
    for name, choice, words in (
        ("enable", marks.ON, "keep a store on a domain"),
        (
            "disable",
            marks.OFF,
            "keep no store on a domain; leave what is there",
        ),
        ("auto", marks.AUTO, "leave a domain to [domains] stores"),
    ):
        _domain_verb(verbs, name, words).set_defaults(
            function=_choose, choice=choice
        )
    words = "take over a store that somebody else has written, once"
    _domain_verb(verbs, "accept", words).set_defaults(function=_accept)
    return parser


def _add_run(verbs: Any) -> None:
    run = _verb(verbs, "run", _run, "keep the stores current, until stopped")
    run.add_argument(
        "--once",
        action="store_true",
        help="one look at the source, one try for each store, then the end; "
        "the exit status is that of status",
    )
    run.add_argument(
        "--force",
        nargs="?",
        const="",
        metavar="DOMAIN",
        type=lambda text: _uuid(text) if text else "",
        help="send the archive of a domain, or of all, even if it has not "
        "changed; where an updater runs already, it does that",
    )
    run.add_argument(
        "--accept-removals",
        action="store_true",
        help="what the source has no more is removed, however much it is",
    )


def _verb(verbs: Any, name: str, function: Any, words: str) -> Any:
    parser = verbs.add_parser(
        name, help=words, description=words.capitalize() + ".",
        allow_abbrev=False,
    )  # fmt: skip
    parser.set_defaults(function=function)
    return parser


def _domain_verb(verbs: Any, name: str, words: str) -> Any:
    parser = _verb(verbs, name, None, words)
    parser.add_argument("domain", metavar="DOMAIN", type=_uuid)
    return parser


def _uuid(text: str) -> str:
    if not is_uuid(text.lower()):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no id of a domain or VM"
        )
    return text.lower()


def _no_verb(args: Any, conf: Config) -> int:
    reason = "which verb? See: ovfstore-updater --help"
    raise errors.UsageError(reason=reason)


def _run(args: Any, conf: Config) -> int:
    from vdsm_ovfstore.engine import running

    return running.run(
        conf,
        once=args.once,
        force=args.force,
        accept_removals=args.accept_removals,
    )


def _status(args: Any, conf: Config) -> int:
    with State(conf.state.path).connect() as connection:
        found = report.document(
            connection, conf.domains.stores, args.unregistered
        )
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        print("\n".join(report.lines(found)))
    return report.exit_status(found)


def _drop(args: Any, conf: Config) -> int:
    if bool(args.entities) == args.all:
        raise errors.UsageError(reason="Give ids of entities, or --all")
    with State(conf.state.path).connect() as connection:
        count = decisions.drop(connection, args.domain, args.entities)
    noun = "entity is" if count == 1 else "entities are"
    print(f"{count} {noun} no longer carried; the next update leaves them out")
    return errors.EXIT_OK


def _choose(args: Any, conf: Config) -> int:
    with State(conf.state.path).connect() as connection:
        decisions.choose(connection, args.domain, args.choice)
    return errors.EXIT_OK


def _accept(args: Any, conf: Config) -> int:
    with State(conf.state.path).connect() as connection:
        decisions.accept(connection, args.domain)
    return errors.EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
