# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""A sanlock daemon of one's own: for development, and for tests."""

from __future__ import annotations

import grp
import os
import pwd
import shutil
from collections.abc import Mapping
from typing import Optional


def find_sanlock() -> Optional[str]:
    """The path of the program, also for users whose PATH lacks it."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    return shutil.which("sanlock", path=path)


def daemon_command(program: str, name: str) -> list[str]:
    """
    The daemon in the foreground, without watchdog, for this user.

    name is that of the host, as others see it in a lockspace. Give it the
    environment of daemon_environment().
    """
    user = pwd.getpwuid(os.getuid()).pw_name
    group = grp.getgrgid(os.getgid()).gr_name
    return [
        *(program, "daemon", "-D"),
        *("-w", "0"),  # no watchdog
        *("-l", "0", "-h", "0"),  # no locked memory, no high priority
        *("-U", user, "-G", group),
        *("-e", name),
    ]


def daemon_environment(run_dir: str) -> Mapping[str, str]:
    """What goes beside the rest; who has it talks with that daemon."""
    return {
        "SANLOCK_RUN_DIR": run_dir,
        # Without: it wants to lock its memory, which not every root may.
        "SANLOCK_PRIVILEGED": "0",
    }
