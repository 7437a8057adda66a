# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The worker as a process: killed at any step, orphaned, late, locked out."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.store import builders
from vdsm_ovfstore import errors
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store import child, launch
from vdsm_ovfstore.store.prepare import Prepared
from vdsm_ovfstore.store.reader import Reader
from vdsm_ovfstore.store.retention import Settings
from vdsm_ovfstore.store.verify import OK, verify

# What the worker logs before each change of storage; it is killed there.
CHANGES = (
    "ACQUIRE",
    "SEAL",
    "SEGMENT",
    "HEAD",
    "DESCRIPTION",
    "Writing",
    "Creating",
    "Renaming",
    "RELEASE",
)


@pytest.fixture
def domain(tmp_path: Path) -> FileDomain:
    domain = builders.make_domain(tmp_path)
    builders.upload_names(domain, ["alpha"], builders.EPOCH)
    builders.upload_names(domain, ["alpha", "beta"], builders.EPOCH + 1)
    return domain


@contextlib.contextmanager
def running(
    domain: FileDomain, content: Prepared, **changes: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that was given its job; ended by its pid at the latest."""
    request = {
        "verb": "upload",
        "facts": content.facts(),
        "path": domain.path,
        "timeout": 10,
        "deadline": 30,
        "buffered": False,
        "settings": Settings()._asdict(),
        "log_level": 20,
        **changes,
    }
    control, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "vdsm_ovfstore.store.worker"],
        stdin=theirs.fileno(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    theirs.close()
    process.stdin = control.makefile("wb")
    try:
        data = json.dumps(request).encode() + b"\n"
        socket.send_fds(control, [data], content.fds())
        # What is left open is the file alone, as a pipe would be.
        control.close()
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


def read(domain: FileDomain) -> tuple[int, bytes]:
    with Reader(FileDomain.open(domain.path)) as reader:
        newest = reader.newest()
        return newest.number, b"".join(reader.open(newest).tar())


def assert_sound(domain: FileDomain, tar: bytes) -> None:
    with Reader(FileDomain.open(domain.path)) as reader:
        report = verify(reader)
        assert report.verdict == OK, report.problems
        assert b"".join(reader.open(reader.newest()).tar()) == tar


@pytest.mark.slow
def test_killed_at_every_change(domain: FileDomain) -> None:
    """kill -9 before the n-th change, for every n; then somebody goes on."""
    at = 0
    _, expected = read(domain)
    while True:
        at += 1
        tar = builders.archive(
            domain, ["alpha", "beta", f"vm{at}"], builders.EPOCH + 10 + at
        )
        content = builders.prepared(tar)
        with running(domain, content) as process:
            killed = _kill_at(process, at)
        content.close()
        number, data = read(domain)
        assert data in (expected, tar), f"a mixture after change {at}"
        if not killed:
            assert data == tar
            break
        # The next writer finishes or drops it, and has its own say.
        expected = builders.upload_names(
            domain, ["alpha", "beta", "next"], builders.EPOCH + 1000 + at
        )
        assert read(domain)[1] == expected
        assert read(domain)[0] > number
        assert_sound(domain, expected)
    assert at > 25


def _kill_at(process: subprocess.Popen[bytes], at: int) -> bool:
    """Kill it at the at-th change it announces; False if it ends before."""
    assert process.stderr is not None
    seen = 0
    for line in process.stderr:
        if any(f": {change} " in line.decode() for change in CHANGES):
            seen += 1
            if seen == at:
                process.kill()
                process.wait()
                return True
    process.wait()
    return False


def test_ends_when_the_parent_is_gone(domain: FileDomain) -> None:
    content = builders.prepared(builders.archive(domain, ["x"]))
    with _locked(domain), running(domain, content) as process:
        assert process.stdin is not None
        _wait_for_progress(process, "waiting for the lease")
        process.stdin.close()
        assert process.wait(5) == child.STATUS_ORPHANED
    content.close()
    assert read(domain)[0] == 2


def test_ends_at_its_deadline(domain: FileDomain) -> None:
    content = builders.prepared(builders.archive(domain, ["x"]))
    with _locked(domain):
        with running(domain, content, deadline=0.5) as process:
            assert process.wait(5) == child.STATUS_TIMED_OUT
    content.close()
    assert read(domain)[0] == 2


def test_terminated(domain: FileDomain) -> None:
    """What sanlock sends first when the storage of a lease is lost."""
    content = builders.prepared(builders.archive(domain, ["x"]))
    with _locked(domain), running(domain, content) as process:
        _wait_for_progress(process, "waiting for the lease")
        process.terminate()
        assert process.wait(5) == -signal.SIGTERM
    content.close()


def test_busy_names_the_owner_and_the_wait(domain: FileDomain) -> None:
    content = builders.prepared(builders.archive(domain, ["x"]))
    start = time.monotonic()
    with _locked(domain), pytest.raises(errors.LeaseBusy) as caught:
        launch.upload(domain.path, content, launch.Options(timeout=0.5))
    content.close()
    assert 0.4 < time.monotonic() - start < 10
    assert f"process {os.getpid()} " in str(caught.value)
    assert caught.value.exit_status == errors.EXIT_BUSY
    assert read(domain)[0] == 2


def test_waits_for_the_lock(domain: FileDomain) -> None:
    tar = builders.archive(domain, ["alpha", "beta", "waited"])
    content = builders.prepared(tar)
    told: list[str] = []
    with contextlib.ExitStack() as stack:
        stack.enter_context(_locked(domain))

        def progress(step: str) -> None:
            told.append(step)
            if step == "waiting for the lease":
                stack.close()

        options = launch.Options(timeout=10, progress=progress)
        answer = launch.upload(domain.path, content, options)
    content.close()
    assert answer["generation"] == 3
    assert told[0] == "waiting for the lease"
    assert read(domain) == (3, tar)


def test_answer(domain: FileDomain) -> None:
    tar = builders.archive(domain, ["alpha", "beta", "gamma"])
    content = builders.prepared(tar)
    answer = launch.upload(domain.path, content, launch.Options())
    again = launch.upload(domain.path, content, launch.Options())
    content.close()
    volumes = [v.id for v in domain.volumes()]
    assert answer["generation"] == 3
    assert answer["unchanged"] is False
    assert answer["copies"] == volumes
    assert answer["length"] == len(tar)
    assert answer["entities"] == 3
    assert answer["degraded"] == answer["healed"] == []
    assert 0 < answer["lease_seconds"] < 10
    assert again["generation"] == 3
    assert again["unchanged"] is True


def test_error_comes_back_typed(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path, copies=0)
    content = builders.prepared(builders.archive(domain, ["x"]))
    with pytest.raises(errors.VolumeNotFound) as caught:
        launch.upload(domain.path, content, launch.Options())
    content.close()
    assert "ovfstore create" in caught.value.next_step


def test_a_store_grows_by_create(domain: FileDomain) -> None:
    _, tar = read(domain)
    answer = launch.create(domain.path, 3, builders.CAPACITY, launch.Options())
    assert len(answer["created"]) == 1
    assert len(answer["copies"]) == 3
    with Reader(FileDomain.open(domain.path)) as reader:
        report = verify(reader)
        assert report.verdict == OK, report.problems
        assert [c.generation for c in report.copies] == [2, 2, 2]
        assert all(c.member for c in report.copies)


@contextlib.contextmanager
def _locked(domain: FileDomain) -> Iterator[None]:
    """The store lock of a LocalFS domain, held by this process."""
    fd = domain.store_directory(create=True)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _wait_for_progress(process: subprocess.Popen[bytes], step: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("progress") == step:
            return
    raise AssertionError(f"the worker never said {step!r}")
