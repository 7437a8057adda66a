# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What the preview of retention says, and what an upload then does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store import builders
from tests.store.builders import EPOCH, MIB, archive, archives
from vdsm_ovfstore.api import documents
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.job import Job
from vdsm_ovfstore.store.reader import Reader
from vdsm_ovfstore.store.retention import Settings


def preview(domain: FileDomain, settings: Settings) -> dict[int, str]:
    with Reader(FileDomain.open(domain.path)) as reader:
        found = documents.preview(reader, settings)["generations"]
    return {g["number"]: g["next"] for g in found}


def check(domain: FileDomain, settings: Settings, tar: bytes) -> set[int]:
    """The forecast, against what becomes of it; what went."""
    told = preview(domain, settings)
    before = set(archives(domain))
    assert set(told) == before
    builders.upload(domain, tar, settings=settings)
    gone = before - set(archives(domain))
    assert gone == {n for n, what in told.items() if what != "stays"}
    return gone


def test_by_the_settings(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path)
    for number in range(6):
        builders.upload_names(domain, "a", EPOCH + number)
    Job(domain.path).pin("1", keep=True)
    few = Settings(newest=2, hourly=0, daily=0, monthly=0)
    assert preview(domain, few) == {
        6: "stays",
        5: "stays",
        4: "expired",
        3: "expired",
        2: "expired",
        1: "stays",
    }
    assert check(domain, few, archive(domain, "a", EPOCH + 9)) == {2, 3, 4}
    assert set(preview(domain, Settings()).values()) == {"stays"}


@pytest.mark.parametrize("fit", [3.3, 4.3, 5.3])
def test_by_the_room(tmp_path: Path, fit: float) -> None:
    domain = builders.make_domain(tmp_path)
    room = domain.volumes()[0].capacity - MIB
    # Such a text takes 60 % of its length in the log.
    size = int(room / fit / 0.6)
    went = set()
    for seed in range(7):
        tar = archive(domain, {"a": builders.incompressible(size, seed)})
        went |= check(domain, Settings(), tar)
    assert went
    assert "crowded" in preview(domain, Settings()).values()


def test_nothing_there(tmp_path: Path) -> None:
    assert preview(builders.make_domain(tmp_path), Settings()) == {}
