# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The command `ovfstored`: a host of its own, for machines without vdsmd and
beside it.

    SIGTERM, SIGINT   stop: no new work, writers may end, lockspaces are left
    SIGHUP            read the TLS certificates again, look for domains
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Optional

from vdsm_ovfstore import __version__, errors
from vdsm_ovfstore.host import drop_ins, machine
from vdsm_ovfstore.host.notify import Heartbeat, notify
from vdsm_ovfstore.store import journal

if TYPE_CHECKING:
    from vdsm_ovfstore.host.config import Config

log = logging.getLogger("ovfstore.host")

_DESCRIPTION = (
    "Serves the OVF stores of this machine's storage domains: verbs and "
    "streams over HTTP. Made to be started by systemd."
)

_STOPS = (signal.SIGTERM, signal.SIGINT)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        reason = f"{message}; see: ovfstored --help"
        raise errors.UsageError(reason=reason)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the daemon until it is told to stop; returns the exit status."""
    try:
        args: Any = make_parser().parse_args(argv)
        loaded = drop_ins.load(args.conf_dirs)
        if args.show_config:
            print(json.dumps(loaded.document(), indent=2))
            return errors.EXIT_OK
        return _run(loaded.config)
    except errors.Error as e:
        return _failed(e)
    except Exception as e:
        log.debug("FAILED", exc_info=True)
        kind, reason = type(e).__name__, str(e) or "no details"
        return _failed(errors.Unexpected(kind=kind, reason=reason))


def make_parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="ovfstored", description=_DESCRIPTION, allow_abbrev=False
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--conf-dir",
        dest="conf_dirs",
        action="append",
        default=[],
        metavar="DIR",
        help="read the *.conf files of this directory, and of further ones "
        "given so, instead of " + ", ".join(drop_ins.DIRECTORIES),
    )
    parser.add_argument(
        "--show-config",
        action="store_true",
        help="print the configuration and where each value comes from, as "
        "JSON; ends with 2 if something in it is wrong",
    )
    return parser


def _failed(e: errors.Error) -> int:
    for line in filter(None, (f"error {e.code}: {e}", e.next_step)):
        print(f"ovfstored: {line}", file=sys.stderr)
    return e.exit_status


def _run(config: Config) -> int:
    signals = _signals()
    journal.set_up(config.log_level)
    if importlib.util.find_spec("jsonschema") is None:
        raise errors.PackageMissing(
            python=sys.executable,
            module="jsonschema",
            package="python3-jsonschema",
        )
    # The socket and the state are for our group, and for nobody else.
    os.umask(0o007)
    # What it needs is imported only where it can be.
    from vdsm_ovfstore.host.running import Running

    with contextlib.ExitStack() as stack:
        machine.prepare(config, stack)
        log.info("STARTING version=%s pid=%d", __version__, os.getpid())
        running = Running(config)
        stack.enter_context(Heartbeat(running.status)).start()
        stack.callback(_stop, running, config.limits.stop)
        running.start()
        addresses = " ".join(running.addresses)
        log.info("READY addresses=%r", addresses)
        notify(READY=1, STATUS=f"Listening on {addresses}")
        while True:
            received = signals.recv(1)[0]
            log.info("SIGNAL %s", signal.Signals(received).name)
            if received in _STOPS:
                return errors.EXIT_OK
            running.reload()


def _signals() -> socket.socket:
    """Where the numbers of the signals we know can be read, one a byte."""
    # Python's handlers run in the main thread, when it runs; the kernel may
    # give a signal to any other, and leave the main one waiting.
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    signal.set_wakeup_fd(writer.detach())
    for number in (*_STOPS, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)
    return reader


def _stop(running: Any, grace: float) -> None:
    # For writers, then for their end, then for connections and lockspaces.
    most = int((2 * grace + 60) * 1e6)
    notify(STOPPING=1, STATUS="Stopping", EXTEND_TIMEOUT_USEC=most)
    running.stop(grace)
    log.info("STOPPED")


if __name__ == "__main__":
    sys.exit(main())
