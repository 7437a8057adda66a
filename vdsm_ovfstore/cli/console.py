# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What goes to stdout and stderr.

Answers go to stdout, as text or, with --json, as one JSON document:

    {"version": 1, "verb": ..., ...}                    schema/cli.json
    {"version": 1, "error": {"type", "code", "message", "next_step", ...}}

All else goes to stderr: errors and warnings (one line each, then the next
step), progress, and the log.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, Callable, NoReturn, Optional, TextIO

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.faults import error_document
from vdsm_ovfstore.cli.progress import Progress
from vdsm_ovfstore.cli.table import table
from vdsm_ovfstore.cli.text import escaped

VERSION = 1  # of the JSON documents

_GREEN, _YELLOW, _RED = "32", "33", "31"
_COLOURS = {
    "ok": _GREEN,
    "damaged": _RED,
    "unreadable": _RED,
    "lost": _RED,
    "behind": _YELLOW,
    "interrupted": _YELLOW,
    "foreign": _YELLOW,
    "unproven": _YELLOW,
}


class Console:
    """
    Where a verb says what it found.

    domain is the path that was given, for the commands that are proposed;
    options are what they need beside it, as a shell takes it.
    """

    def __init__(
        self,
        as_json: bool = False,
        verb: Optional[str] = None,
        domain: Optional[str] = None,
        progress: bool = False,
    ) -> None:
        self.as_json = as_json
        self.verb = verb
        self.domain = domain
        self.options = ""
        shown = progress and _is_terminal(sys.stderr)
        self.progress = Progress(sys.stderr, shown)
        self._coloured = (
            not os.environ.get("NO_COLOR")
            and os.environ.get("TERM", "dumb") != "dumb"
            and _is_terminal(sys.stdout)
        )

    def answer(
        self, result: dict[str, Any], lines: Callable[[], Iterable[str]]
    ) -> None:
        """The answer of a verb: as JSON, or the lines for people."""
        self.progress.clear()
        if self.as_json:
            self._document({"verb": self.verb, **result})
            return
        for line in lines():
            self._write(line + "\n")
        self.flush()

    def data(self, data: bytes) -> None:
        """Bytes for stdout, as they are."""
        try:
            sys.stdout.buffer.write(data)
        except BrokenPipeError:
            raise
        except OSError as e:
            _refuse(e)

    def flush(self) -> None:
        """Raises errors.TargetRefused when stdout cannot be written."""
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            raise
        except OSError as e:
            _refuse(e)

    def table(
        self, titles: str, rows: Iterable[tuple[object, ...]], right: str = ""
    ) -> list[str]:
        """The lines of a table; titles are words."""
        return table(titles.split(), rows, right, self._paint)

    def next_step(self, text: str, domain: Optional[str] = None) -> str:
        """
        The text with what was given in place of DOMAIN (the path) and HOST
        (the options that name it).
        """
        text = text.replace(" HOST", self.options)
        domain = domain or self.domain
        if "DOMAIN" not in text or domain is None:
            return text
        import shlex

        return text.replace("DOMAIN", shlex.quote(domain) + self.options)

    def next_line(self, text: str) -> str:
        """The line that proposes a command."""
        return f"Next: {escaped(self.next_step(text))}"

    def warn(self, text: str) -> None:
        self._tell(f"ovfstore: warning: {text}")

    def fail(self, error: errors.Error) -> None:
        """Tell an error: on stderr, and as JSON where that is wanted."""
        if isinstance(error, errors.UsageError):
            self._tell(f"ovfstore: {error}")
        else:
            self._tell(f"ovfstore: error {error.code}: {error}")
        if step := self.next_step(error.next_step):
            self._tell(f"ovfstore: {step}")
        if self.as_json:
            self._document({"error": self.error(error)})

    def error(
        self, error: errors.Error, domain: Optional[str] = None
    ) -> dict[str, Any]:
        """An error for machines; of another domain than the one given."""
        document = error_document(error)
        step = self.next_step(document["next_step"], domain)
        return {**document, "next_step": step}

    def _document(self, content: dict[str, Any]) -> None:
        import json

        text = json.dumps({"version": VERSION, **content}, indent=2)
        self._write(text + "\n")
        self.flush()

    def _write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
        except BrokenPipeError:
            raise
        except OSError as e:
            _refuse(e)

    def _tell(self, line: str) -> None:
        self.progress.clear()
        try:
            sys.stderr.write(escaped(line) + "\n")
            sys.stderr.flush()
        except OSError:
            pass  # nobody listens

    def _paint(self, cell: str, padded: str) -> str:
        colour = _COLOURS.get(cell)
        if not self._coloured or colour is None:
            return padded
        return padded.replace(cell, f"\x1b[{colour}m{cell}\x1b[0m")


def set_up_streams() -> None:
    """Names that the terminal's encoding does not have are escaped."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def is_terminal(fd: int) -> bool:
    try:
        return os.isatty(fd)
    except OSError:
        return False


def drop_stdout() -> None:
    """What is still buffered goes nowhere: its reader has gone."""
    try:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
    except (OSError, ValueError):
        pass


def _is_terminal(stream: Optional[TextIO]) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:
        return False  # closed


def _refuse(e: OSError) -> NoReturn:
    drop_stdout()
    raise errors.TargetRefused(
        path="standard output", reason=e.strerror or str(e)
    ) from None
