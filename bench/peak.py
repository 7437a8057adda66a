# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The peak memory of a command and of the processes that it starts.

ru_maxrss of a child that was made by vfork counts what its parent held, so
the high-water mark of each process is read while it runs. The kernel keeps
it: only what a process takes in its last milliseconds may be missed.
"""

from __future__ import annotations

import contextlib
import glob
import subprocess
import time
from typing import Optional

_EVERY = 0.002  # seconds


def peaks(command: list[str], env: dict[str, str]) -> list[int]:
    """
    Run a command; return the peaks of it and of its children, in bytes, in
    the order in which they were started.
    """
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL)
    found: dict[int, int] = {}
    while process.poll() is None:
        for pid in [process.pid, *children(process.pid)]:
            peak = high_water(pid)
            if peak is not None:
                # A child that has yet to call exec still has our memory.
                found[pid] = peak
        time.sleep(_EVERY)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return list(found.values())


def children(pid: int) -> list[int]:
    """The processes that one of its threads has started, and that run."""
    found: list[int] = []
    for path in glob.glob(f"/proc/{pid}/task/*/children"):
        with contextlib.suppress(OSError), open(path) as file:
            found += map(int, file.read().split())
    return found


def high_water(pid: int) -> Optional[int]:
    """The peak of a process so far, in bytes; None if it has ended."""
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None
