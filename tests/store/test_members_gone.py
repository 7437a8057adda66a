# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Members that vanish, return, are replaced, or turn up at a bad moment."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.store import builders
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.storage.filevolume import FileVolume
from vdsm_ovfstore.store.job import Job
from vdsm_ovfstore.store.reader import Reader
from vdsm_ovfstore.store.verify import OK, Report, verify


@pytest.fixture
def domain(tmp_path: Path) -> FileDomain:
    domain = builders.make_domain(tmp_path)
    builders.upload_names(domain, ["a", "b"])
    return domain


def image(volume: FileVolume) -> Path:
    return Path(volume.path).parent


def report(domain: FileDomain) -> Report:
    with Reader(FileDomain.open(domain.path)) as reader:
        return verify(reader)


def create(domain: FileDomain, copies: int) -> dict[str, Any]:
    return Job(domain.path).create(copies, builders.CAPACITY)


def test_answer_names_a_copy_that_is_gone(domain: FileDomain) -> None:
    gone = domain.volumes()[0]
    shutil.rmtree(image(gone))
    for names in (["a", "b", "c"], ["a", "b", "d"]):
        answer = builders.upload(domain, builders.archive(domain, names))
        degraded = [d["volume"] for d in answer["degraded"]]
        assert degraded == [gone.id], "every answer, not only the first"
        assert len(answer["copies"]) == 1


@pytest.mark.parametrize("before", ["create", "upload"])
def test_create_replaces_a_copy_that_is_gone(
    domain: FileDomain, before: str
) -> None:
    shutil.rmtree(image(domain.volumes()[0]))
    if before == "upload":
        builders.upload_names(domain, ["a", "b", "c"])
    answer = create(domain, 2)
    assert len(answer["created"]) == 1
    assert answer["degraded"] == []
    found = report(domain)
    assert found.verdict == OK, found.problems
    assert [c.excluded for c in found.copies] == ["", ""]


def test_create_forgets_a_copy_that_is_not_replaced(
    domain: FileDomain,
) -> None:
    shutil.rmtree(image(domain.volumes()[0]))
    builders.upload_names(domain, ["a", "b", "c"])
    assert report(domain).verdict != OK
    answer = create(domain, 1)
    assert answer["created"] == answer["joined"] == []
    found = report(domain)
    assert found.verdict == OK, found.problems
    assert len(found.notes) == 1 and "log" in found.notes[0]


def test_forgotten_copy_that_returns_is_joined_by_create(
    domain: FileDomain, tmp_path: Path
) -> None:
    away = domain.volumes()[0]
    aside = tmp_path / "aside"
    shutil.move(image(away), aside)
    create(domain, 1)
    builders.upload_names(domain, ["a", "b", "c"])
    shutil.move(aside, image(away))
    problems = report(domain).problems
    assert any("not a member" in problem for problem in problems)
    assert create(domain, 2)["joined"] == [away.id]
    found = report(domain)
    assert found.verdict == OK, found.problems
    assert builders.contents(domain) == ["a", "b", "c"]


def test_member_that_turns_up_after_the_leases_were_asked_for(
    domain: FileDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is written before its lease is held, too."""
    job = Job(domain.path)
    calls: list[list[str]] = []
    volumes = job._volumes

    def late() -> list[FileVolume]:
        found = volumes() if calls else volumes()[:1]
        calls.append([v.id for v in found])
        return found

    monkeypatch.setattr(job, "_volumes", late)
    content = builders.prepared(builders.archive(domain, ["a", "b", "c"]))
    answer = job.upload(content)
    content.close()
    assert len(answer["copies"]) == 2
    assert answer["degraded"] == []
    assert len(calls) == 4, "discovered again after each lease"
