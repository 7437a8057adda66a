# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""A generation after which much is gone stays, whatever retention says."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store import builders
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.reader import Reader
from vdsm_ovfstore.store.retention import Settings

FEW = Settings(newest=2, hourly=0, daily=0, monthly=0)


def pins(domain: FileDomain) -> dict[int, str]:
    with Reader(FileDomain.open(domain.path)) as reader:
        return {g.number: g.pinned for g in reader.generations()}


@pytest.mark.parametrize(
    "names,pinned",
    [
        pytest.param(["a", "b", "c"], "", id="unchanged"),
        pytest.param(["a", "b", "c", "d"], "", id="grown"),
        pytest.param(["a", "b"], "shrink", id="a-third-gone"),
        pytest.param([], "shrink", id="all-gone"),
        pytest.param(["d", "e", "f", "g"], "shrink", id="all-others"),
    ],
)
def test_pin_before_a_loss(
    tmp_path: Path, names: list[str], pinned: str
) -> None:
    domain = builders.make_domain(tmp_path)
    builders.upload_names(domain, ["a", "b", "c"], builders.EPOCH)
    builders.upload_names(domain, names, builders.EPOCH + 1)
    assert pins(domain) == {2: "", 1: pinned}


def test_pinned_generation_outlives_retention(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path)
    full = builders.upload_names(domain, ["a", "b", "c"], builders.EPOCH)
    for number in range(1, 6):
        tar = builders.archive(domain, ["a"], builders.EPOCH + number)
        builders.upload(domain, tar, settings=FEW)
    # The newest two were kept beside the one that was written last.
    assert pins(domain) == {6: "", 5: "", 4: "", 1: "shrink"}
    with Reader(FileDomain.open(domain.path)) as reader:
        kept = reader.open(reader.find("1"))
        assert b"".join(kept.tar()) == full


def test_newest_pin_and_the_one_with_most_stay(tmp_path: Path) -> None:
    """A store that is emptied again and again keeps its best."""
    domain = builders.make_domain(tmp_path)
    when = builders.EPOCH
    sent: tuple[list[str], ...]
    sent = (["a", "b", "c", "d"], ["a"], ["a", "b"], [], ["c"], [], [])
    for names in sent:
        when += 1
        tar = builders.archive(domain, names, when)
        builders.upload(domain, tar, settings=FEW)
    kept = pins(domain)
    assert {n for n, pin in kept.items() if pin} == {1, 5}
    assert set(kept) == {1, 5, 6, 7}
