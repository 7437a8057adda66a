# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The log of a process, on stderr: for the journal, or for people."""

from __future__ import annotations

import logging
import os
import sys

# sd-daemon(3): a line that begins with <N> has that priority.
_PRIORITIES = (
    (logging.ERROR, "<3>"),
    (logging.WARNING, "<4>"),
    (logging.INFO, "<6>"),
)
_DEBUG = "<7>"


class _Journal(logging.Formatter):
    """The journal has the time, and wants the priority, of each line."""

    def format(self, record: logging.LogRecord) -> str:
        priority = next(
            (p for level, p in _PRIORITIES if record.levelno >= level), _DEBUG
        )
        lines = super().format(record).splitlines()
        return "\n".join(priority + line for line in lines)


def set_up(level: int) -> None:
    """Log to stderr from now on."""
    handler = logging.StreamHandler(sys.stderr)
    if _is_journal(sys.stderr.fileno()):
        handler.setFormatter(_Journal("%(name)s: %(message)s"))
    else:
        text = "%(asctime)s %(levelname)s %(name)s: %(message)s"
        handler.setFormatter(logging.Formatter(text))
    logging.basicConfig(level=level, handlers=[handler])


def _is_journal(fd: int) -> bool:
    # systemd.exec(5): device and inode. A shell in a session that systemd
    # started has the variable as well, and another stderr.
    found = os.fstat(fd)
    stream = f"{found.st_dev}:{found.st_ino}"
    return os.environ.get("JOURNAL_STREAM") == stream
