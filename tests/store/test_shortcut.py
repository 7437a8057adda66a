# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The copies by their logs: the same generations, or no shortcut at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.store import builders
from vdsm_ovfstore.format.seal import RING_SIZE
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.reader import Generation, Reader
from vdsm_ovfstore.store.shortcut import sealed_volumes


@pytest.fixture
def domain(tmp_path: Path) -> FileDomain:
    domain = builders.make_domain(tmp_path, copies=3)
    builders.upload_names(domain, ["web", "db"])
    builders.upload_names(domain, ["web"])
    return domain


def seen(domain: FileDomain, shortcut: bool) -> list[Generation]:
    with Reader(FileDomain.open(domain.path), shortcut) as reader:
        return reader.generations()


def test_the_same(domain: FileDomain) -> None:
    volumes = sealed_volumes(domain)
    assert volumes is not None
    ids = [(v.image, v.id, v.capacity) for v in volumes]
    assert ids == [(v.image, v.id, v.capacity) for v in domain.volumes()]
    assert seen(domain, True) == seen(domain, False)


def test_looks_at_no_other_image(
    domain: FileDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def volumes(self: FileDomain) -> None:
        raise AssertionError

    expected = seen(domain, False)
    monkeypatch.setattr(FileDomain, "volumes", volumes)
    assert seen(domain, True) == expected


def test_a_volume_of_others(domain: FileDomain) -> None:
    """Made by an engine; it has no log, and so no generation."""
    domain.create_volume(builders.CAPACITY)
    found = sealed_volumes(domain)
    assert found is not None and len(found) == 3
    assert seen(domain, True) == seen(domain, False)


@pytest.mark.parametrize(
    "what", ["gone", "no store", "no metadata", "empty log", "no seal", "cut"]
)
def test_anything_unusual(domain: FileDomain, what: str) -> None:
    """Then all images are looked at, and the result is that of it."""
    volume = domain.volumes()[1]
    meta, log = Path(volume.metadata_path), Path(volume.log_path)
    if what == "gone":
        shutil.rmtree(meta.parent)
    elif what == "no store":
        meta.write_text(meta.read_text().replace("OVFS", "DATA"))
    elif what == "no metadata":
        meta.write_text("")
    elif what == "empty log":
        os.truncate(log, 0)
    elif what == "no seal":
        size = log.stat().st_size
        builders.patch(str(log), size - RING_SIZE, bytes(RING_SIZE))
    elif what == "cut":
        os.truncate(log, log.stat().st_size // 2)
    assert sealed_volumes(domain) is None
    assert seen(domain, True) == seen(domain, False) != []


def test_another_domains_log(domain: FileDomain, tmp_path: Path) -> None:
    """A seal that says another identity is nobody's here."""
    (tmp_path / "other").mkdir()
    other = builders.make_domain(tmp_path / "other", copies=1)
    builders.upload_names(other, ["foreign"])
    theirs, ours = other.volumes()[0], domain.volumes()[0]
    shutil.copy(theirs.log_path, ours.log_path)
    assert sealed_volumes(domain) is None
    assert seen(domain, True) == seen(domain, False)


def test_never_sealed(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path)
    assert sealed_volumes(domain) is None
    for volume in domain.volumes():
        builders.stock_write(volume, builders.archive(domain, ["web"]))
    assert seen(domain, True) == seen(domain, False) != []


def test_after_a_refresh(domain: FileDomain) -> None:
    with Reader(FileDomain.open(domain.path), True) as reader:
        builders.upload_names(domain, ["new"])
        reader.refresh()
        assert reader.newest().number == 3
