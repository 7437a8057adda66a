# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
An error of storage at the n-th change, for every n until none is left: a
typed error or a degraded success, nothing lost, and the next writer heals.
"""

from __future__ import annotations

import errno

import pytest

from tests.simfs import SimFS, SimSystem
from tests.store import simhost
from vdsm_ovfstore import errors

pytestmark = pytest.mark.slow

OLD = simhost.archive("alpha", "beta")
NEW = simhost.archive("alpha", "beta", "gamma")
LATER = simhost.archive("delta", "alpha")


def sealed(copies: int) -> SimFS:
    return simhost.sealed(copies, OLD)


@pytest.mark.parametrize("copies", [1, 2], ids="{}-copies".format)
@pytest.mark.parametrize(
    "code,then",
    [
        pytest.param(errno.EIO, "goes on", id="eio"),
        pytest.param(errno.EIO, "loses power", id="eio-then-power-loss"),
        pytest.param(errno.ENOSPC, "goes on", id="enospc"),
        pytest.param(errno.EROFS, "goes on", id="erofs"),
        pytest.param(errno.ESTALE, "goes on", id="estale"),
    ],
)
def test_error_at_every_change(copies: int, code: int, then: str) -> None:
    start = sealed(copies)
    at = 0
    while True:
        at += 1
        fs = start.clone()
        host = SimSystem(fs)
        host.fail_at, host.fail_errno = at, code
        outcome, error = None, None
        try:
            outcome = simhost.work(host, NEW)
        except errors.Error as e:
            error = e
        what = f"{host.log[min(at, len(host.log)) - 1]}: {error}"
        if host.changes < at:
            assert outcome is not None
            break
        if then == "loses power":
            # What the failed flush was to save is gone.
            fs = list(fs.power_losses())[0][1]
        assert_recovers(fs, outcome is not None, what)
    assert at > 20, "the upload changed storage less often than it must"


def assert_recovers(fs: SimFS, acknowledged: bool, what: str) -> None:
    number, data = simhost.read(fs)
    assert data == NEW or (data == OLD and not acknowledged), what
    simhost.work(SimSystem(fs))
    healed, after = simhost.read(fs)
    assert healed >= number and after in (OLD, NEW), what
    assert after == NEW or not acknowledged, what
    # A copy that failed is readmitted now.
    outcome = simhost.work(SimSystem(fs), LATER)
    assert outcome is not None and outcome.generation > healed, what
    simhost.assert_sound(fs, LATER)
    assert (healed, after) in simhost.history(fs), what


def test_failed_flush_is_not_retried() -> None:
    fs = sealed(1)
    probe = SimSystem(fs.clone())
    simhost.work(probe, NEW)
    first = next(
        n
        for n, change in enumerate(probe.log, 1)
        if change.startswith("write")
    )
    flush = next(
        n
        for n, change in enumerate(probe.log, 1)
        if n > first and change.startswith("fsync")
    )
    host = SimSystem(fs)
    host.fail_at = flush
    with pytest.raises(errors.StorageFailed):
        simhost.work(host, NEW)
    assert host.log[flush:] == [], "storage was changed after a failed flush"


def test_all_copies_fail_differently() -> None:
    fs = sealed(2)
    fs.broken = {v.id for v in simhost.open_domain(SimSystem(fs)).volumes()}
    with pytest.raises(errors.Error):
        simhost.work(SimSystem(fs), NEW)
    fs.broken = set()
    assert simhost.read(fs)[1] == OLD


def test_degraded_copy_is_excluded_then_readmitted() -> None:
    fs = sealed(2)
    first, second = simhost.open_domain(SimSystem(fs)).volumes()
    fs.broken = {second.id}
    outcome = simhost.work(SimSystem(fs), NEW)
    assert outcome is not None and outcome.copies == [first.id]
    fs.broken = set()
    excluded = {c.volume: c.excluded for c in simhost.check(fs).copies}
    assert excluded == {first.id: "", second.id: "not found"}
    # Also alone, it is not taken for the newest.
    assert simhost.read(fs)[1] == NEW
    outcome = simhost.work(SimSystem(fs), LATER)
    assert outcome is not None and len(outcome.copies) == 2
    simhost.assert_sound(fs, LATER)


def test_copies_never_up_together_make_a_fork() -> None:
    fs = sealed(2)
    first, second = simhost.open_domain(SimSystem(fs)).volumes()
    fs.broken = {second.id}
    simhost.work(SimSystem(fs), NEW)
    fs.broken = {first.id}
    simhost.work(SimSystem(fs), LATER)
    fs.broken = set()
    simhost.work(SimSystem(fs))
    kept = simhost.history(fs)
    assert [number for number, _ in kept[:2]] == [3, 3]
    assert {data for _, data in kept[:2]} == {NEW, LATER}
    assert simhost.read(fs)[1] == LATER, "the later one stays current"
    simhost.assert_sound(fs, LATER)
    newest = simhost.archive("newest")
    outcome = simhost.work(SimSystem(fs), newest)
    assert outcome is not None and outcome.generation == 4
    pinned = {g.sha256: g.pinned for g in simhost.check(fs).generations}
    assert "fork" in pinned.values()
