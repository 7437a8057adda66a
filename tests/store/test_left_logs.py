# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Logs that no volume uses: kept, told of, used to mend, and collected."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Callable, Optional

import pytest

from tests.store import builders
from vdsm_ovfstore.format import record
from vdsm_ovfstore.format.seal import RING_SIZE
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store import left
from vdsm_ovfstore.store.entities import entities
from vdsm_ovfstore.store.job import Job
from vdsm_ovfstore.store.reader import Reader
from vdsm_ovfstore.store.verify import DAMAGED, OK, Report, verify

Contents = dict[int, list[str]]


def contents(domain: FileDomain) -> Contents:
    """The names of the VMs in each generation, read in full."""
    with Reader(domain) as reader:
        found = {}
        for generation in reader.generations():
            opened = reader.open(generation)
            names = [e.entity for e in entities(opened) if opened.read(e)]
            found[generation.number] = sorted(names)
        return found


def report(domain: FileDomain) -> Report:
    with Reader(domain) as reader:
        return verify(reader)


def files(domain: FileDomain) -> list[str]:
    return sorted(os.listdir(Path(domain.path, "ovf_store")))


def delete_volume(domain: FileDomain, number: int = 0) -> Path:
    """As VDSM does; returns the log, which is left."""
    volume = domain.volumes()[number]
    shutil.rmtree(Path(volume.path).parent)
    return Path(volume.log_path)


def age(log: Path, seconds: int) -> None:
    """Let it have been seen that long ago."""
    note = log.with_name(log.name + ".left")
    when = record.timestamp({"t": note.read_text().strip()}, "t") - seconds
    note.write_text(record.isotime(when) + "\n")


@pytest.fixture
def domain(tmp_path: Path) -> FileDomain:
    made = builders.make_domain(tmp_path)
    for number, names in enumerate((["web"], ["web", "db"], ["db", "mail"])):
        builders.upload_names(made, names, builders.EPOCH + number)
    return made


ALL: Contents = {1: ["web"], 2: ["db", "web"], 3: ["db", "mail"]}


class TestOrphans:
    def test_it_is_told_of(self, domain: FileDomain) -> None:
        log = delete_volume(domain)
        Job(domain.path).repair()
        (note,) = report(domain).notes
        assert f"the log of volume {log.name[:36]} is left" in note
        assert "it holds generation 1, 2, 3" in note
        assert "no generation of the store has" not in note

    def test_it_goes_after_a_month_and_when_asked_to(
        self, domain: FileDomain
    ) -> None:
        log = delete_volume(domain)
        assert Job(domain.path).repair(collect=True)["healed"] == []
        age(log, left.MONTH - 3600)
        assert Job(domain.path).repair(collect=True)["healed"] == []
        assert log.exists()
        age(log, 3600)
        assert Job(domain.path).repair()["healed"] == []
        assert log.exists()
        (told,) = Job(domain.path).repair(collect=True)["healed"]
        assert "removed a log" in told and log.name[:36] in told
        assert files(domain) == [Path(domain.volumes()[0].log_path).name]
        assert contents(domain) == ALL

    def test_what_only_it_has_stays(self, domain: FileDomain) -> None:
        """All volumes deleted, as an engine does, and new ones made."""
        logs = [delete_volume(domain), delete_volume(domain)]
        Job(domain.path).create(2, builders.CAPACITY)
        builders.upload_names(domain, ["web", "new"], builders.EPOCH + 9)
        Job(domain.path).repair()
        for log in logs:
            age(log, 2 * left.MONTH)
        assert Job(domain.path).repair(collect=True)["healed"] == []
        assert all(log.exists() for log in logs)
        notes = report(domain).notes
        assert len(notes) == 2
        assert all("has db, mail" in note for note in notes)

    def test_what_cannot_be_read_in_full_stays(
        self, domain: FileDomain
    ) -> None:
        with builders.opened(domain) as copies:
            entry = copies[0].entries()[0]
            frame = copies[0].segment(entry).frames[0]
        log = delete_volume(domain)
        builders.flip(str(log), entry.offset + frame.position + 300)
        Job(domain.path).repair()
        age(log, 2 * left.MONTH)
        assert Job(domain.path).repair(collect=True)["healed"] == []
        assert log.exists()
        assert "cannot be read" in report(domain).notes[0]

    def test_one_that_was_never_used_goes(self, domain: FileDomain) -> None:
        name = "7f1a2d3c-0000-4000-8000-000000000001.log"
        log = Path(domain.path, "ovf_store", name)
        log.touch()
        os.truncate(log, builders.CAPACITY)
        Job(domain.path).repair()
        age(log, left.MONTH)
        Job(domain.path).repair(collect=True)
        assert not log.exists()

    def test_a_volume_that_comes_back(self, domain: FileDomain) -> None:
        """The month begins anew when it goes again."""
        image = Path(domain.volumes()[0].path).parent
        log = Path(domain.volumes()[0].log_path)
        away = Path(domain.path).parent / "away"
        image.rename(away)
        Job(domain.path).repair()
        age(log, 2 * left.MONTH)
        away.rename(image)
        Job(domain.path).repair(collect=True)
        assert log.exists() and not any("left" in f for f in files(domain))
        assert report(domain).verdict == OK

    def test_not_while_a_volume_cannot_be_read(
        self, domain: FileDomain
    ) -> None:
        log = delete_volume(domain)
        Job(domain.path).repair()
        age(log, 2 * left.MONTH)
        other = Path(domain.volumes()[0].path)
        image = other.parent.with_name("2c1f0d3e-0000-4000-8000-00000000000a")
        image.mkdir()
        os.symlink("/nowhere", image / f"{log.name[:36]}.meta")
        Job(domain.path).repair(collect=True)
        assert report(domain).problems
        assert log.exists()


def extended(log: Path) -> None:
    os.truncate(log, log.stat().st_size + 4096)


def odd(log: Path) -> None:
    os.truncate(log, log.stat().st_size + 100)


def without_ring(log: Path) -> None:
    with log.open("r+b") as file:
        file.seek(-RING_SIZE, os.SEEK_END)
        file.write(bytes(RING_SIZE))


class TestSetAside:
    @pytest.mark.parametrize("damage", [extended, odd, without_ring])
    def test_one_copy(
        self, domain: FileDomain, damage: Callable[[Path], None]
    ) -> None:
        log = Path(domain.volumes()[0].log_path)
        damage(log)
        before = log.read_bytes()
        assert report(domain).verdict == DAMAGED
        assert contents(domain) == ALL
        Job(domain.path).repair()
        found = report(domain)
        assert found.verdict == OK, found.problems
        assert contents(domain) == ALL
        (name,) = [f for f in files(domain) if f.startswith(log.name + ".")
                   and not f.endswith(".left")]  # fmt: skip
        assert log.with_name(name).read_bytes() == before
        assert found.notes == [
            n for n in found.notes if f"set aside as {name}" in n
        ]

    @pytest.mark.parametrize("damage", [extended, odd, without_ring])
    def test_both_copies(
        self, domain: FileDomain, damage: Callable[[Path], None]
    ) -> None:
        """No seal is left: the heads give the newest, the logs the rest."""
        for volume in domain.volumes():
            damage(Path(volume.log_path))
        assert report(domain).verdict == DAMAGED
        Job(domain.path).repair()
        found = report(domain)
        assert found.verdict == OK, found.problems
        # What the heads show has got a new number.
        assert contents(domain) == {1: ["web"], 2: ["db", "web"],
                                    4: ["db", "mail"]}  # fmt: skip

    def test_both_copies_and_the_heads(self, domain: FileDomain) -> None:
        for volume in domain.volumes():
            without_ring(Path(volume.log_path))
            Path(volume.path).write_bytes(b"nothing" * 1000)
        Job(domain.path).repair()
        assert contents(domain) == ALL
        assert report(domain).verdict == OK

    def test_an_upload_instead(self, domain: FileDomain) -> None:
        """It gives no number twice, and leaves the rest to repair."""
        for volume in domain.volumes():
            without_ring(Path(volume.log_path))
        builders.upload_names(domain, ["new"], builders.EPOCH + 9)
        assert max(contents(domain)) == 5
        Job(domain.path).repair()
        assert contents(domain) == {1: ["web"], 2: ["db", "web"],
                                    4: ["db", "mail"], 5: ["new"]}  # fmt: skip

    def test_it_is_collected(self, domain: FileDomain) -> None:
        log = Path(domain.volumes()[0].log_path)
        without_ring(log)
        Job(domain.path).repair()
        (name,) = domain.left_logs().set_aside()
        age(log.with_name(name), left.MONTH)
        Job(domain.path).repair(collect=True)
        assert not log.with_name(name).exists()
        assert contents(domain) == ALL
        assert len(files(domain)) == 2

    def test_readers_see_what_repair_can_do(self, domain: FileDomain) -> None:
        for volume in domain.volumes():
            without_ring(Path(volume.log_path))
            Path(volume.path).write_bytes(b"nothing" * 1000)
        found = report(domain)
        assert found.verdict == DAMAGED
        assert [c.reason for c in found.copies] == 2 * [
            "there is no seal in its log, but there are generations"
        ]
        for copy in found.copies:
            assert {s.generation for s in copy.segments} == {1, 2, 3}

    @pytest.mark.parametrize("head", [b"nothing" * 1000, None])
    def test_a_store_of_one_generation(
        self, tmp_path: Path, head: Optional[bytes]
    ) -> None:
        domain = builders.make_domain(tmp_path)
        builders.upload_names(domain, ["web"])
        for volume in domain.volumes():
            without_ring(Path(volume.log_path))
            if head:
                Path(volume.path).write_bytes(head)
        Job(domain.path).repair()
        assert list(contents(domain).values()) == [["web"]]
        assert report(domain).verdict == OK
