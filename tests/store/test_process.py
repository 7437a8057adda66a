# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Processes that do one thing: what becomes of those that do not."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vdsm_ovfstore import errors
from vdsm_ovfstore.store import process
from vdsm_ovfstore.store.process import Process

# A module with a main() for each way to behave. Its request names one.
MODULE = """
import os, sys, time
from vdsm_ovfstore import errors
from vdsm_ovfstore.store import child

def run(request, watcher):
    if request["do"] == "answer":
        child.progress("thinking")
        return {"length": len(request["text"])}
    if request["do"] == "refuse":
        raise errors.StoreEmpty(domain="d")
    if request["do"] == "stumble":
        raise KeyError("k")
    if request["do"] == "read":
        return {"read": os.read(request["fds"][0], 100).decode()}
    if request["do"] == "flood":
        return {"text": "x" * request["length"]}
    if request["do"] == "exit":
        os._exit(7)
    time.sleep(60)

def main():
    return child.serve(run)
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "ovfstore_test_child.py").write_text(MODULE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(process, "_GRACE", 0.5)
    yield


def start(do: str, deadline: float = 20, **request: Any) -> Process:
    fds = (request["fd"],) if "fd" in request else ()
    whole = {"do": do, "deadline": deadline, "log_level": 60, **request}
    return Process("ovfstore_test_child").give(whole, fds)


def test_answer_and_progress() -> None:
    steps: list[str] = []
    # Longer than a pipe takes at once.
    answer = start("answer", text="x" * 200_000).wait(steps.append)
    assert (answer, steps) == ({"length": 200_000}, ["thinking"])


def test_an_error_keeps_its_class() -> None:
    with pytest.raises(errors.StoreEmpty) as e:
        start("refuse").wait()
    assert e.value.fields() == {"domain": "d"}


@pytest.mark.parametrize(
    ("do", "reason"),
    [
        pytest.param("stumble", "KeyError: 'k'", id="exception"),
        pytest.param("exit", "exit status 7", id="exit"),
    ],
)
def test_an_unexpected_end(do: str, reason: str) -> None:
    with pytest.raises(errors.WorkerFailed, match=reason):
        start(do).wait()


def test_inherited_descriptors() -> None:
    read, write = os.pipe()
    os.write(write, b"hello")
    assert start("read", fd=read).wait() == {"read": "hello"}
    os.close(read)
    os.close(write)


def test_cancel_from_another_thread() -> None:
    child = start("sleep")
    threading.Timer(0.2, child.cancel).start()
    with pytest.raises(errors.Aborted):
        child.wait()
    assert_gone(child.pid)


@pytest.mark.parametrize("text", ["", "x" * 300_000], ids=["short", "long"])
@pytest.mark.parametrize("with_fd", [False, True])
def test_stop_before_it_has_read_what_to_do(text: str, with_fd: bool) -> None:
    """The two may come to it as one piece."""
    request = {"fd": 0} if with_fd else {}
    child = start("sleep", deadline=60, text=text, **request)
    child.stop()
    began = time.monotonic()
    with pytest.raises(errors.Aborted):
        child.wait()
    assert time.monotonic() - began < 30


def test_discard() -> None:
    child = start("sleep")
    child.discard()
    assert_gone(child.pid)


def test_deadline_of_the_child() -> None:
    with pytest.raises(errors.WorkerFailed, match="took too long"):
        start("sleep", deadline=0.3).wait()


def test_one_that_does_not_listen_is_killed() -> None:
    """As one that hangs in a call to the storage, which can be killed."""
    child = start("sleep", deadline=0.3)
    os.kill(child.pid, signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(errors.WorkerFailed, match="SIGKILL"):
        child.wait()
    assert time.monotonic() - began < 10
    assert_gone(child.pid)


def test_one_that_cannot_be_killed_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """kill() without effect stands for a process in state D."""
    child = start("sleep", deadline=0.2)
    os.kill(child.pid, signal.SIGSTOP)
    with monkeypatch.context() as patch:
        patch.setattr(child._child, "kill", lambda: None)
        with pytest.raises(errors.WorkerFailed, match="it hangs"):
            child.wait()
    os.kill(child.pid, signal.SIGKILL)
    child._child.wait()


def test_an_answer_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "MAX_LINE", 100_000)
    with pytest.raises(errors.WorkerFailed, match="longer than 100000"):
        start("flood", length=1_000_000).wait()


def test_one_that_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(errors.WorkerFailed, match="cannot be started"):
        start("answer", text="")


def assert_gone(pid: int) -> None:
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
