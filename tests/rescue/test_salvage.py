# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
All that is there is found, nothing that was never there, and each is graded
as it deserves.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.rescue.builders import (
    KIB,
    MIB,
    NAMES,
    Map,
    Part,
    best,
    dd,
    domain_of_two,
    graded,
    image,
    mapped,
    overwrite,
    rescue,
    stored,
)
from tests.store import builders
from vdsm_ovfstore import errors
from vdsm_ovfstore.format import description
from vdsm_ovfstore.format.tarheader import BLOCK
from vdsm_ovfstore.rescue.salvage import Report
from vdsm_ovfstore.rescue.sources import open_sources
from vdsm_ovfstore.rescue.versions import (
    ARCHIVE,
    FRAME,
    MEMBER,
    PARTIAL,
    UNVERIFIED,
    VERIFIED,
)
from vdsm_ovfstore.storage.filedomain import FileDomain

ALL_VERIFIED = dict.fromkeys(NAMES, VERIFIED)


class Damaged(NamedTuple):
    """A store of its own for each test, and what it held."""

    domain: FileDomain
    archives: dict[int, bytes]

    @property
    def path(self) -> Path:
        return Path(self.domain.path)

    def head(self, number: int = 0) -> Path:
        return Path(self.domain.volumes()[number].path)

    def log(self, number: int = 0) -> Path:
        return Path(self.domain.volumes()[number].log_path)


@pytest.fixture(scope="module")
def original(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[FileDomain, dict[int, bytes]]:
    return domain_of_two(tmp_path_factory.mktemp("original"))


@pytest.fixture
def store(
    original: tuple[FileDomain, dict[int, bytes]], tmp_path: Path
) -> Damaged:
    domain, archives = original
    target = tmp_path / domain.id
    subprocess.run(
        ["cp", "-a", "--sparse=always", domain.path, str(target)], check=True
    )
    return Damaged(FileDomain.open(str(target)), archives)


def check(report: Report, archives: dict[int, bytes]) -> None:
    """Nothing is called verified, or complete, that was not stored."""
    known: dict[str, dict[int, str]] = {}
    for number, archive in archives.items():
        for entity, sha256 in stored(archive).items():
            known.setdefault(entity, {})[number] = sha256
    for entity, version in report.versions.best.items():
        if version.grade == VERIFIED:
            assert version.proof and version.origin.key is not None
            number = version.origin.key.number
            assert version.sha256 == known[entity][number]
        elif version.grade == UNVERIFIED:
            assert version.sha256 in known[entity].values()
        else:
            data = version.read()
            assert data
            begun = [a.find(data) for a in archives.values()]
            assert max(begun) >= 0, "bytes that were never there"


class TestWhole:
    def test_a_domain(self, store: Damaged) -> None:
        report = rescue(store.path)
        assert graded(report) == ALL_VERIFIED
        check(report, store.archives)
        newest, older = report.generations
        assert (newest.key.number, newest.is_newest) == (2, True)
        assert (older.key.number, older.is_newest) == (1, False)
        for generation in report.generations:
            assert generation.count(VERIFIED) == len(NAMES)
            assert generation.lost == 0
        assert report.lost == []
        assert {v.proof for v in report.versions.best.values()} == {FRAME}
        assert {v.origin.key.number for v in _versions(report)} == {2}

    def test_all_versions(self, store: Damaged) -> None:
        report = rescue(store.path, all_versions=True)
        older = stored(store.archives[1])
        for entity, version in report.versions.best.items():
            (other,) = report.versions.others(entity)
            assert report.versions.counts[entity] == 2
            assert other.sha256 == older[entity]
            assert other.grade == version.grade == VERIFIED

    def test_what_is_read_stays_as_it_is(self, store: Damaged) -> None:
        before = _contents(store.path)
        rescue(store.path)
        assert _contents(store.path) == before

    def test_a_domain_twice_and_its_parent(self, store: Damaged) -> None:
        report = rescue(store.path, store.path.parent, store.log())
        assert len(report.sources) == 4
        assert graded(report) == ALL_VERIFIED


class TestParts:
    """One thing at a time is left; what proves what."""

    def test_log_only(self, store: Damaged) -> None:
        report = rescue(store.log())
        assert graded(report) == ALL_VERIFIED
        assert {v.proof for v in _versions(report)} == {FRAME}

    def test_head_only(self, store: Damaged) -> None:
        report = rescue(store.head())
        assert graded(report) == dict.fromkeys(NAMES, UNVERIFIED)
        check(report, store.archives)
        assert report.generations == []
        # Its info.json says what it is, and nobody vouches for that.
        version = best(report, "vm0")
        assert version.origin.domain == store.domain.id
        assert version.origin.time == builders.EPOCH + 2

    def test_head_and_seals(self, store: Damaged) -> None:
        """A seal has the digest of the whole archive."""
        overwrite(store.log(), 0, 15 * MIB)
        report = rescue(store.log(), store.head())
        assert graded(report) == ALL_VERIFIED
        assert {v.proof for v in _versions(report)} == {ARCHIVE}
        assert report.generations[0].lost == 0
        assert report.generations[1].lost == len(NAMES)

    def test_head_and_index(self, store: Damaged) -> None:
        """A cut head is as good as what an index says of its members."""
        for part in _frames(mapped(store.domain, 2), 0):
            overwrite(part.path, part.begin, part.end)
        overwrite(store.log(), 15 * MIB, 16 * MIB)
        os.truncate(store.head(), 2 * MIB)
        report = rescue(store.log(), store.head())
        check(report, store.archives)
        verified = {
            v.text.name: v.proof
            for v in _versions(report)
            if v.grade == VERIFIED and v.origin.key.number == 2
        }
        assert verified == dict.fromkeys(NAMES[:4], MEMBER)

    def test_frames_only(self, store: Damaged) -> None:
        """Without headers: all frames together are the archive."""
        for number in (1, 2):
            for part in mapped(store.domain, number).headers:
                overwrite(part.path, part.begin, part.end)
        overwrite(store.log(), 15 * MIB, 16 * MIB)
        report = rescue(store.log())
        assert graded(report) == ALL_VERIFIED
        assert {v.proof for v in _versions(report)} == {ARCHIVE}

    def test_some_frames_only(self, store: Damaged) -> None:
        """No digest is left; that of zlib tells what can be used."""
        newest, older = (mapped(store.domain, n) for n in (2, 1))
        for part in (*newest.headers, *older.headers):
            overwrite(part.path, part.begin, part.end)
        for part in (newest.frames["vm3"][0], *_frames(older, 0)):
            overwrite(part.path, part.begin, part.end)
        overwrite(store.log(), 15 * MIB, 16 * MIB)
        report = rescue(store.log())
        check(report, store.archives)
        same = [n for n in NAMES if newest.frames[n] == newest.frames["vm3"]]
        assert graded(report) == {
            name: UNVERIFIED for name in NAMES if name not in same
        }

    def test_table_lost(self, store: Damaged) -> None:
        """Each member is proven by its own digest in the index."""
        part = mapped(store.domain, 2).tables[0]
        overwrite(part.path, part.begin, part.end)
        report = rescue(store.log())
        check(report, store.archives)
        assert graded(report) == ALL_VERIFIED
        assert {v.proof for v in _versions(report)} == {MEMBER}

    def test_index_lost(self, store: Damaged) -> None:
        part = mapped(store.domain, 2).indexes[0]
        overwrite(part.path, part.begin, part.end)
        report = rescue(store.log())
        check(report, store.archives)
        assert graded(report) == ALL_VERIFIED
        assert {v.proof for v in _versions(report)} == {FRAME}

    def test_tar_header_lost(self, store: Damaged) -> None:
        """The OVF itself says whose it is."""
        at = store.archives[2].find(builders.vm_id("vm5").encode())
        overwrite(store.head(), at, at + 100)
        report = rescue(store.head())
        check(report, store.archives)
        assert graded(report) == dict.fromkeys(NAMES, UNVERIFIED)

    def test_a_newer_head(self, store: Damaged) -> None:
        """A host without us wrote last: the other version, unverified."""
        names = ("vm0", "new")
        for number, volume in enumerate(store.domain.volumes()):
            tar = builders.archive(
                store.domain, names, builders.EPOCH + 9 + number
            )
            builders.stock_write(volume, tar)
        report = rescue(store.path, all_versions=True)
        assert graded(report) == {**ALL_VERIFIED, "new": UNVERIFIED}
        others = report.versions.others(builders.vm_id("vm0"))
        assert [v.grade for v in others] == [VERIFIED, UNVERIFIED]


class TestDamage:
    def test_first_third_overwritten(
        self, store: Damaged, tmp_path: Path
    ) -> None:
        """Of each file, and of a disk with all of them."""
        found = [mapped(store.domain, n) for n in (2, 1)]
        hit = []
        for path in (*map(store.log, (0, 1)), *map(store.head, (0, 1))):
            size = path.stat().st_size
            overwrite(path, 0, size // 3)
            hit.append((str(path), 0, size // 3))
        report = rescue(store.path)
        check(report, store.archives)
        recovered = set(graded(report))
        for name in NAMES:
            places = [p for m in found for p in m.frames[name]]
            places += found[0].heads[name]
            there = [p for p in places if not any(p.is_hit(*h) for h in hit)]
            assert (name in recovered) == bool(there), name
        assert len(recovered) == len(NAMES)  # the odd epoch is on top

        disk = image(store.domain, tmp_path / "disk")
        overwrite(disk, 0, disk.stat().st_size // 3)
        report = rescue(disk)
        check(report, store.archives)
        assert graded(report) == ALL_VERIFIED

    def test_volume_truncated_by_dd(self, store: Damaged) -> None:
        """As VDSM starts it, killed before the first byte or after some."""
        dd("/dev/null", store.head(0), "bs=1M")
        dd(store.head(1), store.head(0), "bs=1M", "count=1", "conv=fsync")
        dd("/dev/null", store.head(1), "bs=1M")
        report = rescue(store.path)
        assert graded(report) == ALL_VERIFIED
        check(report, store.archives)

        report = rescue(store.head(0), store.head(1))
        check(report, store.archives)
        # 1 MiB: two of them, and the beginning of the third.
        assert graded(report) == {
            "vm0": UNVERIFIED,
            "vm1": UNVERIFIED,
            "vm2": PARTIAL,
        }

    def test_cut_in_the_middle_of_a_member(
        self, store: Damaged, tmp_path: Path
    ) -> None:
        tar = store.archives[2]
        at = tar.find(builders.vm_id("vm2").encode()) + BLOCK
        for cut in (at + 200_001, at + 600, at + 7):
            path = tmp_path / "cut.tar"
            path.write_bytes(tar[:cut])
            report = rescue(path)
            check(report, store.archives)
            grades = graded(report)
            assert grades["vm0"] == grades["vm1"] == UNVERIFIED
            name = {7: builders.vm_id("vm2")}.get(cut - at, "vm2")
            assert grades[name] == PARTIAL
            version = best(report, "vm2")
            assert version.read() == tar[at:cut]
            assert version.size > version.length == cut - at
            assert report.lost == []
        path.write_bytes(tar[:at])
        report = rescue(path)
        assert set(graded(report)) == {"vm0", "vm1"}
        assert [lost.entity for lost in report.lost] == [builders.vm_id("vm2")]

    def test_cut_in_a_log(self, store: Damaged) -> None:
        """A copy that ends in the middle of the last frame there is."""
        parts = mapped(store.domain, 1).frames["vm7"]
        log = store.log()
        part = next(p for p in parts if p.path == str(log))
        os.truncate(log, part.begin + 400 * KIB)
        report = rescue(log, all_versions=True)
        check(report, store.archives)
        (generation,) = (g for g in report.generations if g.key.number == 1)
        assert generation.count(VERIFIED) == len(NAMES) - 1
        assert generation.count(PARTIAL) == 1

    def test_random_bytes(self, tmp_path: Path) -> None:
        path = tmp_path / "noise"
        with path.open("wb") as file:
            for seed in range(16):
                file.write(random.Random(seed).randbytes(MIB))
        report = rescue(path)
        assert report.versions.best == {}
        assert report.generations == []
        assert report.lost == []
        assert report.scanned == 16 * MIB

    @pytest.mark.parametrize("seed", range(12))
    def test_anything(self, store: Damaged, seed: int) -> None:
        """
        Holes at random: what an oracle says can be had is had.

        It knows what each way to a VM consists of.
        """
        noise = random.Random(seed)
        files = [*map(store.log, (0, 1)), *map(store.head, (0, 1))]
        newest = mapped(store.domain, 2)
        hits: list[tuple[str, int, int]] = []
        for path in files:
            size = path.stat().st_size
            for _ in range(noise.choice((1, 3, 20))):
                begin = noise.randrange(size)
                end = min(size, begin + noise.choice((1, 5000, 3 * MIB)))
                data = noise.choice((b"", bytes(end - begin)))
                overwrite(path, begin, end, data)
                hits.append((str(path), begin, end))

        def intact(part: Part) -> bool:
            return not any(part.is_hit(*h) for h in hits)

        headers = [intact(p) for p in newest.headers]
        report = rescue(store.path, all_versions=True)
        check(report, store.archives)
        sha256 = stored(store.archives[2])
        tables = [h and intact(p) for h, p in zip(headers, newest.tables)]
        indexes = [h and intact(p) for h, p in zip(headers, newest.indexes)]
        for name in NAMES:
            entity = builders.vm_id(name)
            frames = [intact(p) for p in newest.frames[name]]
            heads = [intact(p) for p in newest.heads[name]]
            have = [
                v
                for v in _all(report, entity)
                if v.sha256 == sha256[entity] and v.grade != PARTIAL
            ]
            if any(frames) or any(heads):
                assert have, name
            if (
                any(frames)
                and any(tables)
                or (any(indexes) and (any(frames) or any(heads)))
            ):
                assert have[0].grade == VERIFIED, name

    def test_flipped_bits_prove_nothing(self, store: Damaged) -> None:
        """One in each frame and each head, of both generations."""
        for number in (1, 2):
            found = mapped(store.domain, number)
            parts = {*sum(found.frames.values(), [])}
            parts |= {*sum(found.heads.values(), [])}
            for part in parts:
                builders.flip(part.path, (part.begin + part.end) // 2)
        report = rescue(store.path)
        for version in _versions(report):
            if version.grade == VERIFIED:
                data = version.read() or b""
                digests = [stored(a) for a in store.archives.values()]
                digest = hashlib.sha256(data).hexdigest()
                assert digest in [d[version.entity] for d in digests]


class TestImages:
    def test_a_file_system_in_4_gib(
        self, store: Damaged, tmp_path: Path
    ) -> None:
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("there is no mkfs.ext4 on this host")
        disk = tmp_path / "disk"
        with disk.open("wb") as file:
            file.truncate(4 << 30)
        directory = tmp_path / "content"
        directory.mkdir()
        store.path.rename(directory / store.domain.id)
        subprocess.run(
            ["mkfs.ext4", "-q", "-d", str(directory), str(disk)], check=True
        )
        report = rescue(disk)
        assert graded(report) == ALL_VERIFIED
        check(report, store.archives)

    def test_somewhere_in_4_gib(self, store: Damaged, tmp_path: Path) -> None:
        disk = image(store.domain, tmp_path / "disk", 2_999_999 * 512)
        os.truncate(disk, 4 << 30)
        report = rescue(disk)
        assert graded(report) == ALL_VERIFIED
        check(report, store.archives)

    def test_two_domains(self, store: Damaged, tmp_path: Path) -> None:
        other = builders.make_domain(tmp_path)
        builders.upload_names(other, ["vm0", "other"], builders.EPOCH + 100)
        report = rescue(tmp_path)
        assert graded(report) == {**ALL_VERIFIED, "other": VERIFIED}
        report = rescue(tmp_path, domain=other.id)
        assert graded(report) == {"vm0": VERIFIED, "other": VERIFIED}


class TestForeign:
    def test_disks_of_guests(self, store: Damaged) -> None:
        """A guest that writes a store to its disk is not listened to."""
        planted = builders.archive(store.domain, ["planted"])
        disk = store.path / "images" / builders.disk_id("guest")
        disk.mkdir()
        volume = builders.vm_id("guest")
        (disk / volume).write_bytes(planted)
        text = store.head().with_name(store.head().name + ".meta").read_text()
        meta = disk / f"{volume}.meta"
        meta.write_text(text.replace("DISKTYPE=OVFS", "DISKTYPE=DATA"))
        assert "planted" not in graded(rescue(store.path))
        meta.unlink()
        assert "planted" not in graded(rescue(store.path))

    def test_links_are_not_followed(self, store: Damaged) -> None:
        head = store.head()
        elsewhere = store.path.parent / "elsewhere"
        head.rename(elsewhere)
        head.symlink_to(elsewhere)
        problems: list[errors.Error] = []
        with open_sources([str(store.path)], problems) as sources:
            assert str(head) not in [source.path for source in sources]
        (problem,) = problems
        assert "symbolic link" in str(problem)

    @pytest.mark.parametrize(
        "name",
        ["../../etc/x.ovf", "x.ovf", "0" * 36 + ".ovf", "info.json.ovf"],
    )
    def test_names_are_not_paths(self, tmp_path: Path, name: str) -> None:
        tar = builders.archive("0" * 36, ["vm0"])
        old = f"{builders.vm_id('vm0')}.ovf".encode().ljust(100, b"\0")
        new = name.encode().ljust(100, b"\0")
        change = sum(new) - sum(old)
        at = tar.find(old)
        digits = int(tar[at + 148 : at + 154], 8) + change
        path = tmp_path / "tar"
        path.write_bytes(
            tar.replace(old, new).replace(
                tar[at + 148 : at + 154], b"%06o" % digits
            )
        )
        report = rescue(path)
        # As text without a header it is found again, by its own id.
        assert set(report.versions.best) <= {builders.vm_id("vm0")}

    def test_another_ovf_under_this_name(self, tmp_path: Path) -> None:
        tar = builders.archive("0" * 36, ["vm0", "vm1"])
        one = tar.find(builders.vm_id("vm0").encode())
        two = tar.find(builders.vm_id("vm1").encode())
        mixed = tar[:one] + tar[one : one + BLOCK] + tar[two + BLOCK :]
        path = tmp_path / "tar"
        path.write_bytes(mixed)
        report = rescue(path)
        assert builders.vm_id("vm0") not in report.versions.best

    def test_suspects(self, store: Damaged) -> None:
        """Kept for the expert; its bytes are right, and nobody's."""
        for volume in store.domain.volumes():
            tar = builders.archive(store.domain, ["vm0", "torn"])
            builders.dd_write(volume, tar)
        builders.repair(store.domain)
        report = rescue(*map(store.log, (0, 1)))
        assert graded(report) == {**ALL_VERIFIED, "torn": UNVERIFIED}

    def test_description_is_not_needed(self, store: Damaged) -> None:
        volume = store.domain.volumes()[0]
        builders.set_description(volume, description.created())
        shutil.rmtree(store.path / "dom_md")
        assert graded(rescue(store.path)) == ALL_VERIFIED


def _versions(report: Report) -> list[Any]:
    return list(report.versions.best.values())


def _all(report: Report, entity: str) -> list[Any]:
    if entity not in report.versions.best:
        return []
    first = report.versions.best[entity]
    return [first, *report.versions.others(entity)]


def _frames(found: Map, copy: int) -> set[Part]:
    """All frames on one copy."""
    return {parts[copy] for parts in found.frames.values()}


def _contents(path: Path) -> dict[str, tuple[int, int, str]]:
    found = {}
    for file in path.rglob("*"):
        st = file.stat()
        digest = ""
        if file.is_file():
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
        found[str(file)] = (st.st_mtime_ns, st.st_size, digest)
    return found
