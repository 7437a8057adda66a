# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What runs at the same time, and what waits for what; no host is there."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Callable, Optional

import pytest

from tests.engine.bed import Bed
from tests.engine.ovfs import ident
from tests.host.harness import wait_until
from vdsm_ovfstore import errors
from vdsm_ovfstore.engine import hosts, ledger, marks
from vdsm_ovfstore.engine.content import Content
from vdsm_ovfstore.engine.delivery import Delivery
from vdsm_ovfstore.engine.state import reading

FAST, SLOW = "/fast", "/slow"


class World:
    """
    Hosts that are not there, and what they are asked to do.

    serves: by address; work: done by each update; most: of each host's
    updates at the same time.
    """

    def __init__(self, bed: Bed) -> None:
        self.bed = bed
        self.serves: dict[str, set[str]] = {FAST: set(bed.ids)}
        self.work: Callable[[str, str], None] = lambda host, domain: None
        self.now: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self.done: list[tuple[str, str]] = []
        self._lock = threading.Lock()

    def ask(self, host: hosts.Host) -> None:
        host.serves = frozenset(self.serves[host.address])

    def deliver(self, delivery: Delivery) -> None:
        host, domain = delivery._address, delivery._domain
        with self._lock:
            self.now[host] += 1
            self.most[host] = max(self.most[host], self.now[host])
        try:
            self.work(host, domain)
        finally:
            with self._lock:
                self.now[host] -= 1
        connection = delivery._connection
        with self.bed.state.connect() as reader, reading(reader):
            content = Content(reader, domain)
        answer = {"generation": 1, "sha256": "x", "length": 1, "degraded": []}
        ledger.note_stored(connection, domain, content, answer, host)
        self.done.append((host, domain))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    ids = [ident(str(number)) for number in range(8)]
    bed = Bed(tmp_path, [FAST], [], ids, updates={"interval": 3600.0})
    for number, domain in enumerate(ids):
        bed.vm(f"vm{number}", domain)
    made = World(bed)
    monkeypatch.setattr(hosts.Host, "ask", lambda self: made.ask(self))
    monkeypatch.setattr(Delivery, "run", lambda self: made.deliver(self))
    return made


def test_a_host_gets_so_many_at_a_time(world: World) -> None:
    world.work = lambda host, domain: time.sleep(0.05)
    world.bed.once()
    assert sorted(d for _, d in world.done) == sorted(world.bed.ids)
    assert world.most[FAST] == 2


def test_one_that_hangs_delays_nobody_else(world: World) -> None:
    bed = world.bed
    bed.set(hosts={"addresses": (SLOW, FAST)})
    world.serves = {SLOW: set(bed.ids[:4]), FAST: set(bed.ids[4:])}
    go_on = threading.Event()

    def work(host: str, domain: str) -> None:
        if host == SLOW:
            assert go_on.wait(30)

    world.work = work
    with bed.running():
        wait_until(lambda: len(world.done) == 4)
        assert {host for host, _ in world.done} == {FAST}
        assert world.most[SLOW] == 2
        go_on.set()
        wait_until(lambda: len(world.done) == 8)
    assert world.most[SLOW] == 2


@pytest.mark.parametrize("code", [654, 99])
def test_the_next_host_is_asked(world: World, code: int) -> None:
    bed = world.bed
    bed.set(hosts={"addresses": (SLOW, FAST)})
    world.serves[SLOW] = set(bed.ids)

    class NotNow(errors.Error):
        msg = "Not the SPM"

    NotNow.code = code

    def work(host: str, domain: str) -> None:
        if host == SLOW:
            raise NotNow

    world.work = work
    bed.once()
    assert Counter(host for host, _ in world.done) == {FAST: 8}
    assert {d["state"] for d in bed.report()["domains"]} == {"current"}


def test_an_error_of_the_store_stays_there(world: World) -> None:
    bed = world.bed
    bed.set(hosts={"addresses": (SLOW, FAST)})
    world.serves[SLOW] = set(bed.ids)
    asked: list[str] = []

    def work(host: str, domain: str) -> None:
        if domain == bed.a:
            asked.append(host)
            raise errors.StorageFull(operation="x", path="y", reason="z")

    world.work = work
    row = bed.row(bed.a, bed.once())
    assert (row["state"], row["code"]) == ("failed", 3532)
    assert len(asked) == 1


def test_pauses_double(world: World) -> None:
    bed = world.bed
    bed.look()
    error = errors.StorageFull(operation="x", path="y", reason="z")
    pauses = []
    for _ in range(8):
        with bed.state.connect() as connection:
            marks.failed(connection, bed.a, error, "", (10.0, 300.0))
        pauses.append(round(bed.row(bed.a)["retry"] - time.time()))
    assert pauses == [10, 20, 40, 80, 160, 300, 300, 300]


def test_a_forced_update_that_fails_waits_as_well(world: World) -> None:
    bed = world.bed
    bed.look()
    error = errors.StorageFull(operation="x", path="y", reason="z")
    with bed.state.connect() as connection:
        marks.force(connection, bed.a)
        assert bed.a in marks.due(connection, True, 3600.0, 300.0)
        marks.failed(connection, bed.a, error, "", (10.0, 300.0))
        assert bed.a not in marks.due(connection, True, 3600.0, 300.0)
        # Where nothing is waited for, it comes after those that are well.
        due = marks.due(connection, True, 3600.0, None)
        assert due[-1] == bed.a and len(due) == len(bed.ids)


def test_what_is_marked_during_an_update_stays_marked(world: World) -> None:
    bed = world.bed

    def work(host: str, domain: str) -> None:
        pass

    bed.once()
    with bed.state.connect() as reader, reading(reader):
        content = Content(reader, bed.a)
        # It changes while its archive is sent.
        bed.vm("vm0", bed.a, generation=2)
        bed.look()
    answer = {"generation": 2, "sha256": "y", "length": 1, "degraded": []}
    with bed.state.connect() as connection:
        ledger.note_stored(connection, bed.a, content, answer, FAST)
    row = bed.row(bed.a)
    assert (row["state"], row["changes_wait"]) == ("due", True)


def test_nothing_is_sent_before_a_first_whole_look(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A source that breaks in the middle: the rest may be in the stores."""
    bed = world.bed
    bed.set(updates={"batch": 2})
    original = type(bed.source).pages

    def broken(self: object, count: int) -> object:
        yield next(original(self, count))  # type: ignore[arg-type]
        raise errors.SourceFailed(source="it", reason="gone", way_out="")

    with monkeypatch.context() as patch:
        patch.setattr(type(bed.source), "pages", broken)
        bed.once()
    assert world.done == []
    bed.once()
    assert len(world.done) == 8


def test_a_mistake_of_ours_is_one_domains(world: World) -> None:
    bed = world.bed

    def work(host: str, domain: str) -> None:
        if domain == bed.a:
            raise ZeroDivisionError("oops")

    world.work = work
    found = bed.once()
    assert "ZeroDivisionError" in bed.row(bed.a, found)["problem"]
    assert len(world.done) == 7


def test_a_stop_waits_for_updates(world: World) -> None:
    bed = world.bed
    begun, go_on = threading.Event(), threading.Event()

    def work(host: str, domain: str) -> None:
        begun.set()
        go_on.wait(30)

    world.work = work
    timer: Optional[threading.Timer] = None
    with contextlib.ExitStack() as stack:
        stack.enter_context(bed.running())
        assert begun.wait(30)
        timer = threading.Timer(0.2, go_on.set)
        timer.start()
    timer.join()
    # Those that had begun, and no others.
    assert len(world.done) == 2


def test_domains_that_nobody_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ISO and export domains get no store, nor do old data domains."""
    listed = [
        {"domain": ident(name), "domain_version": version, "state": "ready"}
        for name, version in (("iso", 0), ("old", 3), ("data", 5))
    ]
    monkeypatch.setattr(
        "vdsm_ovfstore.client.Client.list_domains", lambda self: listed
    )
    host = hosts.Host("/it", hosts.Access("", "", "", 1.0))
    host.ask()
    assert sorted(host.serves or ()) == [ident("data")]
    every = hosts.Hosts(hosts.Access("", "", "", 1.0))
    every.set_addresses(["/it"])
    every.all()[0].ask()
    assert every.seen() == ([ident("data")], True)
    assert "version 3" in every.why_not(ident("old"))


def test_a_clock_that_was_set_back(world: World) -> None:
    """Nothing waits for a time that will come in a year."""
    bed = world.bed
    bed.once()
    with bed.state.connect() as connection:
        assert marks.due(connection, True, 3600.0, 300.0) == []
        connection.execute("UPDATE domains SET current = current + 3e7")
        assert len(marks.due(connection, True, 3600.0, 300.0)) == len(bed.ids)
        connection.execute(
            "UPDATE domains SET failures = 1, retry = ?", (time.time() + 3e7,)
        )
        assert len(marks.due(connection, True, 3600.0, 300.0)) == len(bed.ids)
