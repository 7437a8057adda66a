# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The engine's own uploads through the store: one volume at a time, each
between two descriptions that are the engine's.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.store import builders
from tests.store.builders import archive, archives, head
from vdsm_ovfstore import errors
from vdsm_ovfstore.format import description
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.storage.filevolume import FileVolume
from vdsm_ovfstore.store.job import Job
from vdsm_ovfstore.store.reader import Reader
from vdsm_ovfstore.store.verify import OK, verify


class Engine:
    """An engine that updates the volumes of a domain."""

    def __init__(self, domain: FileDomain) -> None:
        self.domain = domain
        self.now = builders.EPOCH
        self.last: dict[str, Optional[int]] = {}

    def describe(
        self, volume: FileVolume, updated: bool, size: Optional[int] = None
    ) -> None:
        when = self.now if updated else self.last.get(volume.id)
        text: dict[str, Any] = {
            "Updated": updated,
            "Last Updated": description.format_date(when) if when else None,
            "Storage Domains": [{"uuid": self.domain.id}],
            "Disk Description": "OVF_STORE",
        }
        if size is not None:
            text["Size"] = size
        builders.set_description(
            volume, json.dumps(text, separators=(",", ":"))
        )

    def begin(self, volume: FileVolume) -> None:
        self.now += 60
        self.describe(volume, False)

    def end(self, volume: FileVolume, tar: bytes) -> None:
        self.describe(volume, True, len(tar))
        self.last[volume.id] = self.now

    def update(
        self, volume: FileVolume, tar: bytes, content: bool = True
    ) -> dict[str, Any]:
        self.begin(volume)
        answer = put(self.domain, volume, tar, content)
        self.end(volume, tar)
        return answer


def put(
    domain: FileDomain, volume: FileVolume, tar: bytes, content: bool = True
) -> dict[str, Any]:
    """What a worker does for a PUT; content=False: it should be known."""
    sha256 = hashlib.sha256(tar).hexdigest()
    prepared = builders.prepared(tar, strict=False)
    try:
        return Job(domain.path).stock(
            volume.id,
            prepared if content else None,
            sha256,
            prepared.fds()[0],
        )
    finally:
        prepared.close()


def history(domain: FileDomain) -> list[tuple[int, str, int]]:
    """Number, kind, and on how many copies; newest first."""
    with Reader(FileDomain.open(domain.path)) as reader:
        return [
            (g.number, g.kind, len(g.copies)) for g in reader.generations()
        ]


def verdict(domain: FileDomain) -> str:
    with Reader(FileDomain.open(domain.path)) as reader:
        return verify(reader).verdict


@pytest.fixture
def domain(tmp_path: Path) -> FileDomain:
    return builders.make_domain(tmp_path)


@pytest.fixture
def engine(domain: FileDomain) -> Engine:
    return Engine(domain)


@pytest.fixture
def volumes(domain: FileDomain) -> list[FileVolume]:
    return domain.volumes()


def test_two_volumes_are_one_generation(
    domain: FileDomain, engine: Engine, volumes: list[FileVolume]
) -> None:
    for number, names in enumerate((["web"], ["web", "db"], ["db"]), 1):
        tar = archive(domain, names, engine.now)
        first = engine.update(volumes[0], tar)
        assert (first["generation"], first["unchanged"]) == (number, False)
        assert first["copies"] == [volumes[0].id]
        second = engine.update(volumes[1], tar)
        assert (second["generation"], second["unchanged"]) == (number, True)
        assert archives(domain)[number] == tar
        for volume in volumes:
            assert head(volume, len(tar)) == tar
        assert history(domain)[0] == (number, "generation", 2)
        assert verdict(domain) == OK


def test_the_second_volume_needs_no_content(
    domain: FileDomain, engine: Engine, volumes: list[FileVolume]
) -> None:
    tar = archive(domain, ["web"])
    engine.update(volumes[0], tar)
    answer = engine.update(volumes[1], tar, content=False)
    assert (answer["generation"], answer["sha256"]) == (
        1,
        hashlib.sha256(tar).hexdigest(),
    )
    assert head(volumes[1], len(tar)) == tar
    assert verdict(domain) == OK


def test_content_that_is_not_known(
    domain: FileDomain, engine: Engine, volumes: list[FileVolume]
) -> None:
    engine.update(volumes[0], archive(domain, ["web"]))
    answer = put(domain, volumes[1], archive(domain, ["db"]), content=False)
    assert answer["generation"] is None
    assert history(domain) == [(1, "generation", 1)]


def test_description_and_gen_stay_the_engines(
    domain: FileDomain, engine: Engine, volumes: list[FileVolume]
) -> None:
    builders.upload(domain, archive(domain, ["old"]))
    engine.begin(volumes[0])
    before = volumes[0].read_metadata()
    put(domain, volumes[0], archive(domain, ["web"]))
    assert volumes[0].read_metadata() == before


def test_the_other_volume_keeps_what_it_has(
    domain: FileDomain, engine: Engine, volumes: list[FileVolume]
) -> None:
    """A PUT writes its own volume only."""
    old = archive(domain, ["old"])
    builders.upload(domain, old)
    before = volumes[1].read_metadata()
    engine.update(volumes[0], archive(domain, ["web"]))
    assert head(volumes[1], len(old)) == old
    assert volumes[1].read_metadata() == before
    assert history(domain) == [(2, "generation", 1), (1, "generation", 2)]


def test_an_update_that_stops_half_way_is_finished(
    domain: FileDomain, engine: Engine, volumes: list[FileVolume]
) -> None:
    """The engine dies after the first PUT: whoever writes next levels."""
    builders.upload(domain, archive(domain, ["old"]))
    tar = archive(domain, ["web"])
    engine.begin(volumes[0])
    put(domain, volumes[0], tar)
    Job(domain.path).heal()
    assert history(domain)[0] == (2, "generation", 2)
    for volume in volumes:
        assert head(volume, len(tar)) == tar
        described = description.parse(
            volume.read_metadata().description, domain.id
        )
        assert described is not None
        assert (described.updated, described.size) == (True, len(tar))
    assert verdict(domain) == OK


def test_stores_of_the_engine_are_adopted_first(
    domain: FileDomain, engine: Engine, volumes: list[FileVolume]
) -> None:
    """What stock hosts wrote before is history, and not lost."""
    old = archive(domain, ["old", "gone"])
    for volume in volumes:
        builders.stock_write(volume, old)
    tar = archive(domain, ["web"])
    engine.update(volumes[0], tar)
    engine.update(volumes[1], tar)
    assert [n for n, _, _ in history(domain)] == [2, 1]
    assert archives(domain) == {1: old, 2: tar}


def test_a_suspect_is_not_taken_for_the_upload(
    domain: FileDomain, engine: Engine, volumes: list[FileVolume]
) -> None:
    """
    A damaged head is kept aside, and is as long as the archive was. The
    description of a later upload of that length is about the upload.
    """
    tar = archive(domain, {"web": "x" * 5000})
    for volume in volumes:
        engine.update(volume, tar)
    builders.flip(volumes[0].path, 3000)
    Job(domain.path).repair()
    later = archive(domain, {"web": "y" * 5000}, engine.now)
    assert len(later) == len(tar)
    for volume in volumes:
        engine.update(volume, later)
    engine.update(volumes[0], later)
    assert [k for _, k, _ in history(domain)] == ["generation"] * 2
    assert archives(domain) == {1: tar, 2: later}


def test_mixed_with_our_own_uploads(
    domain: FileDomain, engine: Engine, volumes: list[FileVolume]
) -> None:
    first, second = archive(domain, ["a"]), archive(domain, ["b"])
    for volume in volumes:
        engine.update(volume, first)
    builders.upload(domain, second)
    for volume in volumes:
        assert engine.update(volume, first)["generation"] == 3
    assert archives(domain) == {1: first, 2: second, 3: first}
    assert verdict(domain) == OK


def test_hosts_with_and_without_us_take_turns(
    domain: FileDomain, engine: Engine, volumes: list[FileVolume]
) -> None:
    """Mixed clusters: nothing is lost that was still there."""
    ours = archive(domain, ["a"])
    for volume in volumes:
        engine.update(volume, ours)
    engine.now += 60
    theirs = archive(domain, ["a", "b"], engine.now)
    for volume in volumes:
        builders.stock_write(volume, theirs, when=engine.now)
    again = archive(domain, ["c"])
    for volume in volumes:
        engine.update(volume, again)
    assert archives(domain) == {1: ours, 2: theirs, 3: again}
    assert verdict(domain) == OK


def test_a_volume_that_came_later_joins(
    domain: FileDomain, engine: Engine, volumes: list[FileVolume]
) -> None:
    tar = archive(domain, ["web"])
    for volume in volumes:
        engine.update(volume, tar)
    third = domain.create_volume(builders.CAPACITY)
    answer = engine.update(third, tar)
    assert (answer["generation"], answer["degraded"]) == (1, [])
    assert history(domain) == [(1, "generation", 3)]
    assert verdict(domain) == OK


def test_no_such_volume(domain: FileDomain) -> None:
    other = "6ba7b812-9dad-11d1-80b4-00c04fd430c8"
    with pytest.raises(errors.VolumeNotFound, match=other):
        Job(domain.path).stock(other, None, "0" * 64, -1)


def test_a_volume_that_cannot_be_written(
    domain: FileDomain, engine: Engine, volumes: list[FileVolume]
) -> None:
    """The error is of that volume, though the other one is fine."""
    builders.upload(domain, archive(domain, ["web"]))
    metadata = volumes[0].read_metadata()._replace(format="COW")
    text = metadata.text(volumes[0].domain_version)
    Path(volumes[0].metadata_path).write_bytes(text)
    with pytest.raises(errors.VolumeRefused, match="FORMAT"):
        put(domain, volumes[0], archive(domain, ["db"]))
    assert history(domain)[0][0] == 1


def test_more_than_a_volume_holds(
    domain: FileDomain, engine: Engine, volumes: list[FileVolume]
) -> None:
    """Left to VDSM; the head and the history stay until it writes."""
    tar = archive(domain, ["web"])
    for volume in volumes:
        engine.update(volume, tar)
    large = archive(domain, {"big": "x" * (builders.CAPACITY + 1)})
    with pytest.raises((errors.ArchiveTooLarge, errors.NoRoom)):
        put(domain, volumes[0], large)
    # VDSM's own way, as it is then taken; no member is lost over it.
    builders.stock_write(volumes[0], large, when=engine.now + 60)
    Job(domain.path).heal()
    assert archives(domain)[1] == tar
    assert head(volumes[0], len(large)) == large


def test_join(domain: FileDomain) -> None:
    builders.upload(domain, archive(domain, ["web"]))
    third = domain.create_volume(builders.CAPACITY)
    assert Job(domain.path).join()["joined"] == [third.id]
    assert history(domain) == [(1, "generation", 3)]
    assert Job(domain.path).join()["joined"] == []
