# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Joins and leaves in threads, and what is kept of them, without sanlock."""

from __future__ import annotations

import json
import stat
import threading
import time
from pathlib import Path
from typing import Optional

import pytest

from tests.host.harness import wait_until
from vdsm_ovfstore import errors
from vdsm_ovfstore.host import attempts
from vdsm_ovfstore.host.attempts import Attempts
from vdsm_ovfstore.host.ownership import Ownership


class Tries:
    """Work that counts, and may fail."""

    def __init__(self) -> None:
        self.count = 0
        self.error: Optional[Exception] = None

    def __call__(self) -> None:
        self.count += 1
        if self.error is not None:
            raise self.error


def failed(reason: str) -> errors.Error:
    return errors.Error(reason=reason)


def try_again(all: Attempts, work: Tries) -> None:
    """Try it at once, and wait for its end."""
    all.begin("d", work, at_once=True)
    all.wait(time.monotonic() + 10)


def test_failure_is_told_once_and_tried_after_a_pause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ended = threading.Semaphore(0)
    leaves, work = Attempts("LEAVE", ended.release), Tries()
    work.error = failed("a process holds it")
    for count in range(1, 4):
        try_again(leaves, work)
        assert ended.acquire(timeout=10)
        leaves.begin("d", work)
        assert work.count == count, "it is too early"
        assert leaves.error("d") is work.error
    assert caplog.messages == ["LEAVE lockspace=d error=a process holds it"]
    work.error = failed("something else")
    try_again(leaves, work)
    work.error = None
    try_again(leaves, work)
    assert leaves.error("d") is None
    assert len(caplog.messages) == 2


def test_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "FIRST_PAUSE", 0.01)
    joins, work = Attempts("JOIN", lambda: None), Tries()
    work.error = failed("x")

    def again() -> bool:
        joins.begin("d", work)
        return work.count > 3

    wait_until(again, 5)


def test_one_that_hangs_stops_no_other() -> None:
    go_on = threading.Event()
    leaves, work = Attempts("LEAVE", lambda: None), Tries()

    def hang() -> None:
        go_on.wait(20)

    leaves.begin("dead", hang)
    leaves.begin("dead", work, at_once=True)
    assert work.count == 0, "it is under way"
    leaves.begin("d", work)
    wait_until(lambda: work.count, 5)
    leaves.keep([])
    began = time.monotonic()
    leaves.wait(began + 0.1)
    assert time.monotonic() - began < 5
    go_on.set()
    leaves.wait(time.monotonic() + 10)
    try_again(leaves, work)
    assert work.count == 2


def test_unexpected_error(caplog: pytest.LogCaptureFixture) -> None:
    joins, work = Attempts("JOIN", lambda: None), Tries()
    work.error = KeyError("x")
    try_again(joins, work)
    assert isinstance(joins.error("d"), errors.Unexpected)
    assert caplog.records[0].exc_info
    work.error = None
    try_again(joins, work)
    assert joins.error("d") is None


def test_what_is_not_wanted_any_more_is_forgotten() -> None:
    joins, work = Attempts("JOIN", lambda: None), Tries()
    work.error = failed("x")
    try_again(joins, work)
    joins.keep(["d"])
    assert joins.error("d") is work.error
    joins.keep([])
    assert joins.error("d") is None
    joins.begin("d", work)
    wait_until(lambda: work.count == 2, 5)


def no_thread(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_no_thread_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    joins, work = Attempts("JOIN", lambda: None), Tries()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        joins.begin("d", work)
    assert "can't start new thread" in str(joins.error("d"))
    try_again(joins, work)
    assert work.count == 1
    assert joins.error("d") is None


# -- what is kept -------------------------------------------------------------


def test_state_is_for_us_only(tmp_path: Path) -> None:
    path = tmp_path / "state"
    Ownership(str(path)).load()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("generation", "ours"),
    [pytest.param(7, True, id="known"), pytest.param(None, False, id="not")],
)
def test_only_a_known_generation_is_ours_after_a_kill(
    tmp_path: Path, generation: Optional[int], ours: bool
) -> None:
    """Without one, what is joined now may be another's."""
    path = tmp_path / "state"
    entry = {"host_id": 1, "generation": generation}
    path.write_text(json.dumps({"d": entry}))
    owned = Ownership(str(path))
    owned.load()
    assert owned.has("d") is ours
    assert json.loads(path.read_text()) == ({"d": entry} if ours else {})


def test_state_that_makes_no_sense(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "state"
    for text in ("", "[]", '{"d": 1}', '{"d": {"host_id": 1}}', "\xff"):
        path.write_text(text)
        owned = Ownership(str(path))
        owned.load()
        assert len(owned) == 0
    assert len(caplog.records) == 5
