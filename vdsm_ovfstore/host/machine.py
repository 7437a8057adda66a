# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What a daemon checks and takes of its machine before it serves anybody."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import resource
import tempfile

from vdsm_ovfstore import errors
from vdsm_ovfstore.host import listener, scan
from vdsm_ovfstore.host.config import Config

log = logging.getLogger("ovfstore.host")

# Descriptors: a connection has its socket; a transfer two spool files and a
# pipe; a process a socket and a pipe, and for a moment their other ends. The
# rest is for Python, the log, what listens.
_PER_CONNECTION = 1
_PER_TRANSFER = 4
_PER_PROCESS = 4
_REST = 128

# As api/runner.py has them: kinds of errands, with slots of their own, and
# processes that are ready before they are needed.
_KINDS = 3
_SPARES = 4


def prepare(config: Config, stack: contextlib.ExitStack) -> None:
    """
    Raises errors.ConfigInvalid: a directory cannot be used, or no socket be
    made; AddressUnavailable: another daemon has it. What is taken is given
    back by `stack`.
    """
    _raise_limit(config)
    _check_spool(config.limits.spool)
    _lock(config.local.socket, stack)


def _raise_limit(config: Config) -> None:
    limits = config.limits
    # A transfer and a job have a worker.
    processes = (
        limits.transfers
        + limits.jobs
        + _KINDS * limits.readers
        + scan.PARALLEL
        + _SPARES
    )
    needed = (
        # By TCP, and by the local socket.
        2 * limits.connections * _PER_CONNECTION
        + limits.transfers * _PER_TRANSFER
        + processes * _PER_PROCESS
        + _REST
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= needed:
        return
    most = needed if hard == resource.RLIM_INFINITY else min(needed, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most < needed:
        log.warning("LIMIT nofile=%d needed=%d", most, needed)


def _check_spool(directory: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as e:
        reason = f"[limits] spool: {directory}: {e.strerror}"
        raise errors.ConfigInvalid(path="", reason=reason) from None


def _lock(socket: str, stack: contextlib.ExitStack) -> None:
    """Only who has the lock may remove a socket that was left behind."""
    # Else the lock of a mistaken path would lie about for ever.
    listener.is_socket(socket)
    path = socket + ".lock"
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        fd = os.open(path, flags, 0o600)
        stack.callback(os.close, fd)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(fd, 20).decode("ascii", "replace").strip()
        raise errors.AddressUnavailable(
            address=socket,
            reason=f"another ovfstored serves it, with PID {pid}",
            key="[local] socket",
        ) from None
    except OSError as e:
        reason = f"[local] socket: {path}: {e.strerror}"
        raise errors.ConfigInvalid(path="", reason=reason) from None
    os.truncate(fd, 0)
    os.write(fd, f"{os.getpid()}\n".encode("ascii"))
