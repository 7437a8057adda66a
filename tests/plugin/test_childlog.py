# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What workers log arrives in the log of vdsmd."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.held import held, wait_until_released
from tests.plugin.bed import wait_for
from vdsm_ovfstore.plugin.childlog import ChildLog

NAME = "ovfstore.child"


@pytest.fixture
def child_log(caplog: pytest.LogCaptureFixture) -> Iterator[ChildLog]:
    before = held()
    caplog.set_level(logging.DEBUG, NAME)
    with contextlib.closing(ChildLog()) as log:
        yield log
    wait_until_released(before)


def told(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    return [
        (r.levelname, r.getMessage()) for r in caplog.records if r.name == NAME
    ]


@pytest.mark.parametrize(
    "line, level, message",
    [
        (
            "2026-01-02 03:04:05,678 INFO ovfstore.store SEAL domain=x",
            "INFO",
            "ovfstore.store SEAL domain=x",
        ),
        (
            "2026-01-02 03:04:05,678 ERROR ovfstore.store it failed",
            "ERROR",
            "ovfstore.store it failed",
        ),
        (
            "Traceback (most recent call last):",
            "WARNING",
            "Traceback (most recent call last):",
        ),
        ("a b NONSENSE d e", "WARNING", "a b NONSENSE d e"),
        ("100 % of %s", "WARNING", "100 % of %s"),
        ("x" * 9000, "WARNING", "x" * 9000),
    ],
    ids=["info", "error", "traceback", "no level", "percent", "long"],
)
def test_lines(
    child_log: ChildLog,
    caplog: pytest.LogCaptureFixture,
    line: str,
    level: str,
    message: str,
) -> None:
    os.write(child_log.fd, f"{line}\n\nlast\n".encode())
    wait_for(lambda: len(told(caplog)) >= 2)
    assert "".join(m for _, m in told(caplog)[:-1]) == message
    assert told(caplog)[0][0] == level
    assert told(caplog)[-1] == ("WARNING", "last")


def test_bytes_that_are_no_text(
    child_log: ChildLog, caplog: pytest.LogCaptureFixture
) -> None:
    os.write(child_log.fd, b"\xff\x00\n")
    wait_for(lambda: told(caplog))
    assert told(caplog) == [("WARNING", "\ufffd\x00")]


def test_from_a_child(
    child_log: ChildLog, caplog: pytest.LogCaptureFixture
) -> None:
    """More than a pipe holds: it is read all the time."""
    program = f"import os; os.write({child_log.fd}, b'line\\n' * 100000)"
    subprocess.run(
        [sys.executable, "-c", program],
        pass_fds=(child_log.fd,),
        check=True,
        timeout=60,
    )
    wait_for(lambda: len(told(caplog)) == 100_000)
