# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The end to calls that take too long."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from vdsm_ovfstore.lease.cutoff import Cutoff

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_ends_a_blocked_call(pair: Pair) -> None:
    ours, theirs = pair
    ours.settimeout(10)
    began = time.monotonic()
    cutoff = Cutoff(ours.fileno(), 0.2)
    assert ours.recv(1) == b""
    assert 0.2 <= time.monotonic() - began < 5
    assert not cutoff.disarm()
    theirs.settimeout(10)
    assert theirs.recv(1) == b"", "the other side must see it too"


def test_disarmed(pair: Pair) -> None:
    ours, theirs = pair
    cutoff = Cutoff(ours.fileno(), 0.1)
    assert cutoff.disarm()
    assert cutoff.disarm()
    time.sleep(0.2)
    theirs.send(b"x")
    assert ours.recv(1) == b"x"


def test_late_shot_after_disarm(pair: Pair) -> None:
    ours, theirs = pair
    cutoff = Cutoff(ours.fileno(), 60)
    assert cutoff.disarm()
    cutoff._fire()
    assert cutoff.disarm()
    theirs.send(b"x")
    assert ours.recv(1) == b"x"


def test_no_time_left(pair: Pair) -> None:
    ours, _ = pair
    ours.settimeout(10)
    cutoff = Cutoff(ours.fileno(), -1)
    assert ours.recv(1) == b""
    assert not cutoff.disarm()
