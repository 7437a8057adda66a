# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A crash at every single change of storage: the old or the new generation,
whole, and the next writer goes on.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Callable, Optional

import pytest

from tests.simfs import SimFS, SimSystem
from tests.store import simhost

pytestmark = pytest.mark.slow

OLD = simhost.archive("alpha", "beta")
NEW = simhost.archive("alpha", "beta", "gamma")
LATER = simhost.archive("delta", "alpha")


@functools.cache
def _sealed(copies: int) -> SimFS:
    return simhost.sealed(copies, OLD)


def sealed(copies: int) -> SimFS:
    """A storage with two generations, the newest one OLD."""
    return _sealed(copies).clone()


def unsealed(copies: int) -> SimFS:
    """A storage that only stock hosts have written: OLD on each copy."""
    fs = simhost.new_fs(copies)
    for number in range(copies):
        simhost.stock_write(fs, number, OLD)
    return fs


def foreign(copies: int) -> SimFS:
    """Two generations, then a stock host wrote OLD over the first copy."""
    fs = simhost.new_fs(copies)
    simhost.work(SimSystem(fs), simhost.archive("alpha"))
    simhost.work(SimSystem(fs), simhost.archive("beta"))
    simhost.stock_write(fs, 0, OLD)
    return fs


def torn(copies: int, number: int = 0) -> SimFS:
    """As sealed, then a stock host died in mid-write on one copy."""
    fs = sealed(copies)
    simhost.stock_write(fs, number, LATER, stamp=False, torn=1024)
    return fs


def stock_first(copies: int) -> SimFS:
    """As sealed, and the engine is about to upload to the first copy."""
    fs = sealed(copies)
    simhost.engine_describes(fs, 0, OLD, updated=False)
    return fs


def stock_second(copies: int) -> SimFS:
    """NEW is on the first copy, and about to be uploaded to the second."""
    fs = stock_first(copies)
    simhost.work(SimSystem(fs), NEW, stock=0)
    simhost.engine_describes(fs, 0, NEW, updated=True)
    simhost.engine_describes(fs, 1, OLD, updated=False)
    fs.sync()
    return fs


def stock_beside_torn(copies: int) -> SimFS:
    """As stock_first, and a stock host died over the second copy."""
    fs = torn(copies, 1)
    simhost.engine_describes(fs, 0, OLD, updated=False)
    return fs


def states(
    start: SimFS, data: Optional[bytes], stock: Optional[int] = None
) -> Iterator[tuple[str, bool, SimFS]]:
    """
    All that a crash of one tenure can leave.

    Yields what happened, whether the upload was acknowledged, and the state.
    """
    at = 1
    while True:
        fs = start.clone()
        host = SimSystem(fs)
        crashed = simhost.crashes(host, at, data, stock)
        what = f"crash before change {at} ({host.log[-1]})"
        yield f"{what}, killed", not crashed, fs.clone()
        known = {fs.state()}
        for how, left in fs.power_losses():
            if left.state() not in known:
                known.add(left.state())
                yield f"{what}, power lost, {how}", not crashed, left
        if not crashed:
            return
        at += 1


def assert_recovers(
    what: str, acknowledged: bool, fs: SimFS, seen: int
) -> None:
    """
    The reader gets the old or the new archive; heal keeps what was shown;
    the next upload works and both are in the history.
    """
    number, data = simhost.read(fs)
    assert data == NEW or (data == OLD and not acknowledged), what
    assert number >= seen, what

    simhost.work(SimSystem(fs))
    healed, after = simhost.read(fs)
    assert after in (OLD, NEW), what
    assert healed >= number, what
    if data == NEW:
        assert after == NEW, what
    simhost.assert_sound(fs, after)

    # What is healed needs no second healing: only the claims are written.
    second = SimSystem(fs)
    simhost.work(second)
    assert not [c for c in second.log if "rename" in c], what

    outcome = simhost.work(SimSystem(fs), LATER)
    assert outcome is not None and outcome.generation == healed + 1, what
    simhost.assert_sound(fs, LATER)
    kept = simhost.history(fs)
    assert (healed, after) in kept, what
    assert (healed + 1, LATER) in kept, what


CASES = [
    pytest.param(sealed, 1, 2, id="sealed-one-copy"),
    pytest.param(sealed, 2, 2, id="sealed-two-copies"),
    pytest.param(unsealed, 1, 0, id="unsealed-one-copy"),
    pytest.param(unsealed, 2, 0, id="unsealed-two-copies"),
    pytest.param(torn, 2, 2, id="torn-stock-write"),
]


@pytest.mark.parametrize("start,copies,seen", CASES)
def test_crash_during_upload(
    start: Callable[[int], SimFS], copies: int, seen: int
) -> None:
    count = 0
    for what, acknowledged, fs in states(start(copies), NEW):
        assert_recovers(what, acknowledged, fs, seen)
        count += 1
    assert count > 50


@pytest.mark.parametrize(
    "start,stock",
    [(stock_first, 0), (stock_second, 1), (stock_beside_torn, 0)],
    ids=["first-copy", "second-copy", "beside-a-torn-copy"],
)
def test_crash_during_an_upload_of_the_engine(
    start: Callable[[int], SimFS], stock: int
) -> None:
    count = 0
    for what, acknowledged, fs in states(start(2), NEW, stock):
        assert_recovers(what, acknowledged, fs, 2)
        count += 1
    assert count > 40
