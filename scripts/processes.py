# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Processes that end with us, a sanlock daemon among them; and what we say."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any, NoReturn, Optional

from scripts.lockdaemon import daemon_command, daemon_environment, find_sanlock

# Seconds; all of it takes one or two, on a slow machine ten.
START = 60.0

# Seconds that a sanlock may take to end: up to two, unless a lockspace is
# still joined, since the host was killed. Without watchdog it may be killed.
_SANLOCK_STOP = 3.0

# Seconds until it is said what is waited for.
_PATIENCE = 3.0

# The path of a Unix socket has at most 107 bytes.
_SOCKET = 107


class Failure(Exception):
    """It cannot go on; says why in one line."""


def say(text: str) -> None:
    print(text, flush=True)


def shown(path: str) -> str:
    """`path` as one would type it here."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def interruptible() -> None:
    """Let `kill` end us as Ctrl-C does: in order."""

    def interrupted(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupted)


@contextlib.contextmanager
def locked(work: str) -> Iterator[int]:
    """
    Nobody else works in the directory; gives the descriptor of the lock.

    Processes that have it as well keep the lock as long as they live, if we
    are killed and they are not.

    Raises Failure.
    """
    fd = os.open(os.path.join(work, ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failure(
                f"another make run or make serve uses {shown(work)}, or what "
                "it started has not ended yet; end it, or give another WORK="
            ) from None
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def process(
    name: str,
    command: list[str],
    log: str,
    lock: int,
    env: Optional[dict[str, str]] = None,
    stop: float = START,
) -> Iterator[subprocess.Popen[bytes]]:
    """
    A process that ends with the block, and with us.

    Ctrl-C reaches us only: they end in order.

    Arguments:
        lock: a descriptor that it keeps, see locked().
        stop: seconds until it is killed.
    """
    if setpriv := shutil.which("setpriv"):
        command = [setpriv, "--pdeathsig", "TERM", *command]
    with open(log, "ab") as out:
        started = subprocess.Popen(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            pass_fds=[lock],
        )
    try:
        yield started
    finally:
        _end(name, started, stop)
        say(f"{name} with PID {started.pid} has stopped")


def _end(name: str, started: subprocess.Popen[bytes], stop: float) -> None:
    started.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        started.wait(_PATIENCE)
        return
    say(f"Waiting for {name} with PID {started.pid}")
    with contextlib.suppress(subprocess.TimeoutExpired):
        started.wait(max(0.0, stop - _PATIENCE))
        return
    started.kill()
    started.wait()


def socket_directory(stack: contextlib.ExitStack, work: str, name: str) -> str:
    """WORK/name, or one elsewhere if its path is too long for sockets."""
    directory = os.path.join(work, name)
    os.makedirs(directory, exist_ok=True)
    if len(os.fsencode(os.path.join(directory, "sanlock.sock"))) > _SOCKET:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
    return directory


def sanlock_command() -> Optional[str]:
    """None where sanlock or its Python binding is not installed."""
    if importlib.util.find_spec("sanlock") is None:
        return None
    return find_sanlock()


@contextlib.contextmanager
def sanlock_daemon(
    program: str, work: str, lock: int
) -> Iterator[subprocess.Popen[bytes]]:
    """
    A sanlock daemon of our own, without watchdog.

    What runs in the block, and the processes it starts, talk to this one.
    """
    with contextlib.ExitStack() as stack:
        run_dir = socket_directory(stack, work, "sanlock")
        log = os.path.join(work, "sanlock", "daemon.log")
        os.environ.update(daemon_environment(run_dir))
        own = stack.enter_context(
            process(
                "sanlock",
                daemon_command(program, "ovfstore-run"),
                log,
                lock,
                stop=_SANLOCK_STOP,
            )
        )
        _wait_for_sanlock(own, run_dir, log)
        say(f"A sanlock of our own runs, with PID {own.pid}")
        yield own


def _wait_for_sanlock(
    process: subprocess.Popen[bytes], run_dir: str, log: str
) -> None:
    sanlock: Any = importlib.import_module("sanlock")
    deadline = time.monotonic() + START
    while process.poll() is None and time.monotonic() < deadline:
        # What answers there may be another one, which is about to end.
        if _pid_in(os.path.join(run_dir, "sanlock.pid")) == process.pid:
            with contextlib.suppress(sanlock.SanlockException):
                sanlock.get_lockspaces()
                return
        time.sleep(0.02)
    raise Failure(f"sanlock does not start, see {shown(log)}")


def _pid_in(path: str) -> int:
    try:
        with open(path, encoding="ascii") as f:
            return int(f.read())
    except (OSError, ValueError):
        return 0
