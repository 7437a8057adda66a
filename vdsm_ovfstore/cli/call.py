# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
One call of the command, from its arguments to its exit status.

Whatever goes wrong is told in one line and the next step to take; only
--debug shows where it came from.
"""

from __future__ import annotations

import logging
import signal
import sys
from collections.abc import Sequence
from typing import Any, NoReturn, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli import console as streams
from vdsm_ovfstore.cli import options
from vdsm_ovfstore.cli.console import Console


class _Signalled(BaseException):
    """Not an Exception: only what must be undone may stop on its way."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run the command; returns the exit status."""
    argv = sys.argv[1:] if argv is None else argv
    streams.set_up_streams()
    debug = "--debug" in argv
    console = Console(as_json="--json" in argv)
    try:
        try:
            _hear_signals()
            args = options.parse(argv)
            if args.run is None:
                return errors.EXIT_OK
            console = _console(args)
            _set_up_log(args)
            status: int = args.run(args, console)
            console.flush()
            return status
        except errors.Error as e:
            return _failed(console, e, debug)
        except (KeyboardInterrupt, _Signalled) as e:
            return _failed(console, _interrupted(e), debug)
        except BrokenPipeError:
            raise
        except Exception as e:
            reason = str(e) or "no details"
            error = errors.Unexpected(kind=type(e).__name__, reason=reason)
            return _failed(console, error, debug)
    except BrokenPipeError:
        # Who reads our output has seen enough.
        console.progress.clear()
        streams.drop_stdout()
        return 128 + signal.SIGPIPE


def _hear_signals() -> None:
    for number, handler in _HANDLERS:
        # Who started us with nohup wants to be left alone.
        if signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, handler)


def _console(args: Any) -> Console:
    return Console(
        as_json=args.json,
        verb=args.verb,
        domain=getattr(args, "domain", None),
        progress=not (args.no_progress or args.verbose or args.debug),
    )


def _set_up_log(args: Any) -> None:
    """What concerns the user is told as an answer or an error."""
    log = logging.getLogger("ovfstore")
    level = options.log_level(args)
    if level >= logging.CRITICAL:
        log.addHandler(logging.NullHandler())
        log.propagate = False
        return
    logging.basicConfig(
        stream=sys.stderr,
        level=level,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
    )


def _failed(console: Console, error: errors.Error, debug: bool) -> int:
    if debug:
        import traceback

        traceback.print_exc()
    try:
        console.fail(error)
    except errors.TargetRefused as e:
        if not isinstance(error, errors.TargetRefused):
            console.as_json = False
            console.fail(e)
    return error.exit_status


def _interrupted(e: BaseException) -> errors.Interrupted:
    number = e.number if isinstance(e, _Signalled) else signal.SIGINT
    return errors.Interrupted(
        signal=signal.Signals(number).name, exit_status=128 + number
    )


def _signalled(number: int, frame: object) -> NoReturn:
    raise _Signalled(number)


_HANDLERS = (
    (signal.SIGTERM, _signalled),
    (signal.SIGHUP, _signalled),
    (signal.SIGINT, signal.default_int_handler),
)
