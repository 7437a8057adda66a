# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What the process of the tests holds: threads and descriptors.

Each as itself, and not how many: what an earlier test has left to the garbage
collector may go at any time, and would hide what is left behind, or look like
it.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time

# Seconds until what has been told to end must have ended.
_PATIENCE = 30.0


def held() -> set[object]:
    """The threads, and the descriptors with what they are of."""
    found: set[object] = set(threading.enumerate())
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # of this listing
            found.add((number, os.readlink(f"/proc/self/fd/{number}")))
    return found


def wait_until_released(before: set[object]) -> None:
    """Until nothing is held that was not held before."""
    deadline = time.monotonic() + _PATIENCE
    while held() - before:
        assert time.monotonic() < deadline, f"left: {held() - before}"
        time.sleep(0.02)
