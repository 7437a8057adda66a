# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Watching VDSM: who is healed, and who has to end."""

from __future__ import annotations

import os
import shutil
import time
from typing import Optional

import pytest

from tests.plugin.bed import Bed, wait_for
from tests.store import builders
from tests.store.builders import archive, archives, head
from vdsm_ovfstore.api import service
from vdsm_ovfstore.api.task import Task
from vdsm_ovfstore.lease.flock import FlockLock
from vdsm_ovfstore.plugin.watch import Watch


class Watching:
    """Attributes: healed: the domains, in order; tasks: those under way."""

    def __init__(self, bed: Bed, pause: float, interval: float) -> None:
        self.healed: list[str] = []
        self.tasks: list[Task] = []
        self.watch = Watch(
            bed.plugin.vdsm,
            bed.plugin.writers,
            lambda: self.tasks,
            self.healed.append,
            pause,
            interval,
        )

    def look(self, times: int = 2) -> int:
        """How often it healed."""
        before = len(self.healed)
        for _ in range(times):
            self.watch.look()
        return len(self.healed) - before


def status(bed: Bed, **more: bool) -> None:
    from vdsm.storage import monitor

    bed.monitor.found[bed.domain.id] = monitor.Status(**more)


NEVER = 1e9  # seconds


def test_once(bed: Bed) -> None:
    assert Watching(bed, 0, NEVER).look() == 1


@pytest.mark.parametrize(
    "bad",
    [{"actual": False}, {"valid": False}, {"host_id": False}],
    ids=["not looked at", "not valid", "no host id"],
)
def test_what_is_not_well_waits(bed: Bed, bad: dict[str, bool]) -> None:
    watching = Watching(bed, 0, NEVER)
    status(bed, **bad)
    assert watching.look() == 0
    status(bed)
    assert watching.look() == 1
    status(bed, **bad)
    assert watching.look() == 0
    # It came back: another host may have written meanwhile.
    status(bed)
    assert watching.look() == 1


def test_only_the_spm_heals(bed: Bed) -> None:
    watching = Watching(bed, 0, NEVER)
    role = bed.pool.spmRole
    bed.pool.spmRole = "Free"
    assert watching.look() == 0
    bed.pool.spmRole = role
    assert watching.look() == 1
    bed.pool.spmRole = "Free"
    assert watching.look() == 0
    bed.pool.spmRole = role
    assert watching.look() == 1


def test_without_a_pool(bed: Bed) -> None:
    from vdsm.storage import sp

    bed.hsm._pool = sp.DisconnectedPool()
    assert Watching(bed, 0, 0).look() == 0


def test_a_domain_that_comes_and_goes(bed: Bed) -> None:
    watching = Watching(bed, NEVER, NEVER)
    assert watching.look() == 1
    found = dict(bed.monitor.found)
    bed.monitor.found.clear()
    assert watching.look() == 0
    bed.monitor.found.update(found)
    assert watching.look() == 0


def test_again_and_again(bed: Bed) -> None:
    assert Watching(bed, 0, 0).look(3) == 3


def test_what_failed_is_tried_again(bed: Bed) -> None:
    watching = Watching(bed, 0, NEVER)
    assert watching.look() == 1
    watching.watch.again(bed.domain.id)
    assert watching.look() == 1


@pytest.mark.parametrize(
    "domain, changes, spm, ends",
    [
        pytest.param(None, True, True, False, id="a writer on the SPM"),
        pytest.param(None, True, False, True, id="a writer elsewhere"),
        pytest.param(None, False, False, False, id="a reader elsewhere"),
        pytest.param("other", False, True, True, id="its domain is gone"),
    ],
)
def test_tasks(
    bed: Bed, domain: Optional[str], changes: bool, spm: bool, ends: bool
) -> None:
    watching = Watching(bed, NEVER, NEVER)
    task = Task("read it")
    task.domain = builders.vm_id(domain) if domain else bed.domain.id
    task.changes = changes
    watching.tasks.append(task)
    if not spm:
        bed.pool.spmRole = "Free"
    watching.look()
    assert task.aborted == ends


def test_the_plugin_heals(bed: Bed) -> None:
    """What a stock host wrote over is there again, and was kept."""
    tar = archive(bed.domain, ["web"])
    assert bed.put(bed.volumes[0], tar).status == 200
    builders.flip(bed.volumes[0].path, 700)
    bed.plugin._begin_to_heal(bed.domain.id)
    wait_for(lambda: head(bed.volumes[0], len(tar)) == tar)
    assert archives(bed.domain) == {1: tar}


def test_a_domain_without_a_store(bed: Bed) -> None:
    """Most of them: no job, and no complaint."""
    for volume in bed.volumes:
        shutil.rmtree(os.path.dirname(volume.path))
    bed.plugin._heal(bed.domain.id)
    assert bed.plugin.service.call("getJobs", {})["jobs"] == []
    assert not bed.plugin._watch._failed


def test_healing_fails(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has the lease, and keeps it: it is tried again."""
    assert bed.put(bed.volumes[0], archive(bed.domain, ["web"])).status == 200
    monkeypatch.setattr(service, "_HEALING", 0.1)
    lock = FlockLock(bed.domain.id, f"{bed.domain.path}/ovf_store")
    lock.acquire(time.monotonic() + 30)
    try:
        bed.plugin._heal(bed.domain.id)
    finally:
        lock.release()
    assert bed.plugin._watch._failed == {bed.domain.id}
