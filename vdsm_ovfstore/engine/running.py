# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A running updater: its parts put together, its signals, its end.

One runs on each state: the lock file beside it says who.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Optional

from vdsm_ovfstore import __version__, errors
from vdsm_ovfstore.engine import decisions, report
from vdsm_ovfstore.engine.config import ENGINE, Config
from vdsm_ovfstore.engine.delivery import Policy
from vdsm_ovfstore.engine.directory import Directory
from vdsm_ovfstore.engine.hosts import Access, Hosts
from vdsm_ovfstore.engine.look import Look
from vdsm_ovfstore.engine.loop import Loop, Times
from vdsm_ovfstore.engine.source import Source
from vdsm_ovfstore.engine.state import State, open_private
from vdsm_ovfstore.engine.survey import Limits
from vdsm_ovfstore.host.notify import Heartbeat, notify
from vdsm_ovfstore.store import journal

log = logging.getLogger("ovfstore.updater")


def run(
    conf: Config,
    once: bool = False,
    force: Optional[str] = None,
    accept_removals: bool = False,
) -> int:
    """
    Run until told to stop, or once; returns the exit status.

    force: a domain, or "" for all; None for none.

    Raises errors.Error: what keeps it from running at all.
    """
    journal.set_up(conf.log_level)
    state = State(conf.state.path)
    try:
        with _Signals() as signals, _locked(conf.state.path):
            _force(state, force)
            once = once or accept_removals
            return _run(conf, state, signals, once, accept_removals)
    except errors.UpdaterRunning as e:
        if force is None:
            raise
        _force(state, force)
        print(f"The running updater, with PID {e.pid}, does that now")
        return errors.EXIT_OK


def _force(state: State, domain: Optional[str]) -> None:
    if domain is not None:
        with state.connect() as connection:
            decisions.force(connection, domain)


def _run(
    conf: Config,
    state: State,
    signals: _Signals,
    once: bool,
    accept_removals: bool,
) -> int:
    source = _source(conf)
    log.info("START version=%s source=%r", __version__, source.name)
    with updating(conf, state, source, accept_removals) as loop:
        with signals.told_to(loop):
            if once:
                loop.once()
            else:
                with Heartbeat(loop.check) as heartbeat:
                    heartbeat.start()
                    notify(READY=1, STATUS=f"Reads {source.name}")
                    loop.run()
                    notify(STOPPING=1)
        if not loop.is_looking:
            # One that hangs would let us hang with it.
            source.close()
    log.info("STOPPED")
    with state.connect() as connection:
        found = report.document(connection, conf.domains.stores)
    if not once:
        return errors.EXIT_OK
    print("\n".join(report.lines(found)))
    return report.exit_status(found)


@contextlib.contextmanager
def updating(
    conf: Config, state: State, source: Source, accept_removals: bool = False
) -> Iterator[Loop]:
    """All parts of an updater, but for the signals."""
    updates = conf.updates
    limits = Limits(updates.batch, updates.locked_wait, updates.removals)
    look = Look(state, source, limits, accept_removals)
    with contextlib.closing(Hosts(_access(conf))) as hosts:
        yield Loop(
            *(state, look, hosts, conf.addresses),
            _policy(conf, source),
            _times(conf),
            conf.domains.stores,
        )


def _source(conf: Config) -> Source:
    if conf.source.kind == ENGINE:
        # The SDK is there only where an engine is the source.
        from vdsm_ovfstore.engine.rest import Engine

        port = None if conf.hosts.addresses else conf.hosts.port
        return Engine(conf.source, port)
    return Directory(conf.source.directory)


def _access(conf: Config) -> Access:
    hosts = conf.hosts
    return Access(hosts.ca, hosts.cert, hosts.key, hosts.timeout)


def _policy(conf: Config, source: Source) -> Policy:
    return Policy(
        copies=conf.domains.copies,
        size=conf.domains.size,
        lease_timeout=conf.hosts.lease_timeout,
        live_engine=source.is_engine,
        engine_updates=conf.source.engine_updates,
    )


def _times(conf: Config) -> Times:
    updates = conf.updates
    return Times(
        interval=updates.interval,
        check_interval=updates.check_interval,
        retry=(updates.retry_min, updates.retry_max),
        updates=conf.hosts.updates,
        stop=updates.stop,
    )


@contextlib.contextmanager
def _locked(path: str) -> Iterator[None]:
    """Raises errors.UpdaterRunning, StateUnusable."""
    lock = f"{path}.lock"
    try:
        fd = open_private(lock)
    except OSError as e:
        raise errors.StateUnusable(
            path=lock,
            reason=e.strerror or str(e),
            way_out="Run it as the user to whom the state belongs",
        ) from None
    with open(fd, "r+") as file:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = file.read(16).strip()
            raise errors.UpdaterRunning(path=path, pid=pid or "?") from None
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


class _Signals:
    """
    Signals are read by a thread: Python's main one may wait for long.

    Those that come before there is a loop wait for it, and end nobody.
    """

    _NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

    def __enter__(self) -> _Signals:
        self._reader, self._writer = socket.socketpair()
        self._writer.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._writer.fileno())
        self._before = {
            n: signal.signal(n, lambda n, frame: None) for n in self._NUMBERS
        }
        return self

    def __exit__(self, *exc: object) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._writer.close()
        self._reader.close()

    @contextlib.contextmanager
    def told_to(self, loop: Loop) -> Iterator[None]:
        """From now on, and until the end of the with statement."""

        def listen() -> None:
            while received := self._reader.recv(1):
                log.info("SIGNAL %s", signal.Signals(received[0]).name)
                if received[0] == signal.SIGHUP:
                    loop.wake()
                else:
                    loop.stop()

        thread = threading.Thread(target=listen, name="signals", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._reader.shutdown(socket.SHUT_RD)
            thread.join()
