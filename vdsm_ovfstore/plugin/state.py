# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What became of the plugin at the last start of vdsmd.

A file, so that `ovfstore status` can tell it also where vdsmd runs without
the plugin, or not at all.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Sequence
from typing import Any

from vdsm_ovfstore import __version__
from vdsm_ovfstore.format.record import isotime
from vdsm_ovfstore.plugin.contract import Failure, vdsm_version

log = logging.getLogger("ovfstore.plugin")

# Made by tmpfiles.d, for user vdsm.
DIRECTORY = "/run/vdsm-ovfstore"
FILE = "state.json"


def write(
    directory: str = DIRECTORY,
    enabled: bool = False,
    reason: str = "",
    failed: Sequence[Failure] = (),
    **more: Any,
) -> None:
    """
    Replace the file; without the directory it is told to the log only.

    Arguments:
        reason: in words, why the plugin is not enabled.
        failed: what is not as the contract says.
        more: stock_uploads, stock_downloads, socket.
    """
    document = {
        "version": __version__,
        "vdsm": vdsm_version(),
        "pid": os.getpid(),
        "time": isotime(int(time.time())),
        "enabled": enabled,
        "reason": reason,
        "failed": [failure._asdict() for failure in failed],
        "stock_uploads": False,
        "stock_downloads": False,
        "socket": "",
        **more,
    }
    path = os.path.join(directory, FILE)
    temporary = f"{path}.{os.getpid()}"
    try:
        with open(temporary, "w", encoding="ascii") as f:
            json.dump(document, f, indent=2)
            f.write("\n")
        # Also for who is not in VDSM's group.
        os.chmod(temporary, 0o644)
        os.rename(temporary, path)
    except OSError as e:
        log.warning("STATE path=%s error=%s", path, e.strerror)


def remove(directory: str = DIRECTORY) -> None:
    """vdsmd ends."""
    with contextlib.suppress(OSError):
        os.unlink(os.path.join(directory, FILE))
