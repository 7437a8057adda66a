# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Optional

import pytest

from tests.conftest import TREES, MakeFilesystem, MakeTree, run
from tests.storage.traced_system import Crash, TracedSystem
from vdsm_ovfstore import errors
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.storage.filevolume import FileVolume
from vdsm_ovfstore.storage.system import System

MIB = 1024**2
ROOT = os.geteuid() == 0


def only_volume(
    domain: Path, system: Optional[System] = None, write: bool = True
) -> FileVolume:
    """The domain's first volume, open."""
    volume = FileDomain.open(str(domain), system).volumes()[0]
    volume.open(write=write)
    return volume


def tree_of(domain: Path) -> list[str]:
    """All names below the domain."""
    return sorted(str(p.relative_to(domain)) for p in domain.rglob("*"))


@pytest.fixture
def domain(domain_tree: MakeTree) -> Path:
    path = domain_tree("nfs-v5")
    for name in ("inbox", "outbox"):  # large, and copied by some tests
        (path / "dom_md" / name).unlink()
    return path


@pytest.fixture
def volume(domain: Path) -> Iterator[FileVolume]:
    with only_volume(domain) as v:
        yield v


# -- what is there


def test_facts(domain: Path, volume: FileVolume) -> None:
    assert volume.domain == volume.domain_id == domain.name
    assert volume.id == "0d2b1f22-d0bf-49de-8577-483913cb45e4"
    assert volume.image == "d524a172-f012-48a3-8190-78e6f3f79d00"
    assert volume.capacity == 128 * MIB
    data = domain / "images" / volume.image / volume.id
    assert volume.path == str(data)
    assert volume.log_path == str(domain / f"ovf_store/{volume.id}.log")
    assert volume.lease == (domain.name, volume.id, f"{data}.lease", 0)
    assert volume.head_floor(12345) == 0


def test_head(volume: FileVolume) -> None:
    data = Path(volume.path).read_bytes()
    assert volume.head_size() == len(data) == 10240
    assert volume.head_read(0, 10240) == data
    assert volume.head_read(700, 9) == data[700:709]
    assert volume.head_read(10000, 4096) == data[10000:]
    assert not volume.head_is_empty()
    volume.head_flush()


def test_opened_for_reading_only(domain: Path) -> None:
    before = tree_of(domain)
    with only_volume(domain, write=False) as volume:
        volume.head_read(0, 10)
        for change in (change_head, change_metadata, make_log):
            with pytest.raises(ValueError, match="not open for writing"):
                change(volume)
    assert tree_of(domain) == before


def test_closed(volume: FileVolume) -> None:
    volume.close()
    volume.close()
    assert volume.read_metadata().capacity == 128 * MIB
    for use in (volume.head_size, volume.log_flush, volume.head_flush):
        with pytest.raises(ValueError, match="not open"):
            use()
    with pytest.raises(ValueError, match="not open"):
        volume.head_replace([], 0)


def test_open_twice_leaks_nothing(volume: FileVolume) -> None:
    volume.create_log()
    count = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        volume.open(write=True)
    assert len(os.listdir("/proc/self/fd")) == count


def test_volume_is_gone(domain: Path, volume: FileVolume) -> None:
    shutil.rmtree(domain / "images" / volume.image)
    with pytest.raises(errors.VolumeNotFound, match=volume.id):
        volume.open()


# -- metadata


@pytest.mark.parametrize("name", TREES)
def test_metadata_of_vdsm(domain_tree: MakeTree, name: str) -> None:
    domain = domain_tree(name)
    with only_volume(domain) as volume:
        path = Path(volume.metadata_path)
        before = path.read_bytes()
        metadata = volume.read_metadata()
        assert metadata.domain == domain.name
        assert metadata.image == volume.image
        volume.write_metadata(metadata)
        assert path.read_bytes() == before
        volume.write_metadata(metadata.updated("another"))
        after = before.replace(b"GEN=0", b"GEN=1").splitlines()
        after = [
            b"DESCRIPTION=another" if s.startswith(b"DESCRIPTION") else s
            for s in after
        ]
        assert path.read_bytes().splitlines() == after
        assert volume.read_metadata().description == "another"
        check_owner(path, 0o644)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\0" * 512, id="zeros"),
        pytest.param(b"\xff" * 512, id="garbage"),
        pytest.param(b"A=" + b"x" * 70000, id="huge"),
        pytest.param(None, id="missing"),
    ],
)
def test_unreadable_metadata(
    volume: FileVolume, content: Optional[bytes]
) -> None:
    path = Path(volume.metadata_path)
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(errors.VolumeMetadataUnreadable):
        volume.read_metadata()


# -- log


def test_create_log(domain: Path, volume: FileVolume) -> None:
    assert not volume.has_log()
    assert volume.log_size == 0
    volume.create_log()
    path = Path(volume.log_path)
    assert volume.has_log()
    assert volume.log_size == path.stat().st_size == 128 * MIB
    assert path.stat().st_blocks == 0
    check_owner(path, 0o660)
    check_owner(domain / "ovf_store", 0o755)
    volume.log_write(127 * MIB, b"seal" * 1024)
    volume.log_flush()
    assert volume.log_read(127 * MIB + 4090, 12) == b"alseal" + bytes(6)
    assert FileDomain.open(str(domain)).logs() == [volume.id]


def test_log_is_made_once(volume: FileVolume) -> None:
    volume.create_log()
    volume.log_write(0, b"x" * 4096)
    with pytest.raises(errors.StorageFailed) as e:
        volume.create_log()
    assert e.value.errno == errno.EEXIST
    assert volume.log_read(0, 4096) == b"x" * 4096


def test_empty_log_is_none(domain: Path, volume: FileVolume) -> None:
    (domain / "ovf_store").mkdir()
    Path(volume.log_path).touch()
    volume.open(write=True)
    assert not volume.has_log()
    volume.create_log()
    assert volume.log_size == 128 * MIB


# -- head


@pytest.mark.parametrize(
    "length",
    [
        pytest.param(0, id="empty"),
        pytest.param(1, id="byte"),
        pytest.param(10240, id="tar"),
        pytest.param(2 * MIB + 512, id="large"),
    ],
)
def test_head_replace(domain: Path, volume: FileVolume, length: int) -> None:
    before = os.stat(volume.path)
    data = os.urandom(length)
    pieces = [data[i : i + 7777] for i in range(0, length, 7777)]
    volume.head_replace(pieces, length)
    padded = data + bytes(-length % 4096)
    assert Path(volume.path).read_bytes() == padded
    assert volume.head_size() == len(padded)
    assert volume.head_read(0, length + 5000) == padded
    assert os.stat(volume.path).st_ino != before.st_ino
    check_owner(Path(volume.path), 0o660)
    assert os.listdir(domain / "ovf_store") == []


@pytest.mark.parametrize("length", [99, 101])
def test_head_of_another_length(
    domain: Path, volume: FileVolume, length: int
) -> None:
    before = Path(volume.path).read_bytes()
    with pytest.raises(ValueError, match="expected"):
        volume.head_replace([b"x" * 100], length)
    assert Path(volume.path).read_bytes() == before
    assert os.listdir(domain / "ovf_store") == []


def test_head_whose_source_fails(domain: Path, volume: FileVolume) -> None:
    def source() -> Iterator[bytes]:
        yield b"x" * MIB
        raise KeyError("source")

    with pytest.raises(KeyError):
        volume.head_replace(source(), 2 * MIB)
    assert volume.head_size() == 10240
    assert os.listdir(domain / "ovf_store") == []


def test_order_of_head_replace(domain: Path) -> None:
    system = TracedSystem()
    with only_volume(domain, system) as volume:
        volume.create_log()  # so that ovf_store is there
        system.calls.clear()
        volume.head_replace([b"x" * 5000], 5000)
        order = [
            c
            for c in system.calls
            if c.name in ("open", "pwritev", "fsync", "rename", "fchmod")
        ]
    store, images = str(domain / "ovf_store"), os.path.dirname(volume.path)
    new = order[0].what
    assert new.startswith(f"{store}/{volume.id}.head.")
    assert order == [
        ("open", new),
        ("fchmod", new),
        ("pwritev", new),
        ("fsync", new),
        ("rename", f"{new} {volume.path}"),
        ("fsync", images),
        ("fsync", store),
        ("open", volume.path),
    ]


def test_stale_files_are_removed(domain: Path, volume: FileVolume) -> None:
    volume.create_log()
    store = domain / "ovf_store"
    ours = [f"{volume.id}.{kind}.{'0f' * 8}" for kind in ("head", "meta")]
    kept = [
        f"{volume.id}.log",
        f"{volume.id}.head.0f",
        f"{volume.id}.other.{'0f' * 8}",
        f"00000000-0000-4000-8000-000000000000.head.{'0f' * 8}",
    ]
    for name in ours + kept[1:]:
        (store / name).touch()
    volume.remove_stale_heads()
    assert sorted(os.listdir(store)) == sorted(kept)


def test_reader_keeps_its_head_until_it_opens_again(
    domain: Path, volume: FileVolume
) -> None:
    with only_volume(domain, write=False) as reader:
        old = reader.head_read(0, 4096)
        volume.head_replace([b"x" * 4096], 4096)
        assert reader.head_read(0, 4096) == old
        reader.open()
        assert reader.head_read(0, 4096) == b"x" * 4096


class StaleOnce(System):
    stale = False

    def preadv(self, fd: int, view: memoryview, offset: int) -> int:
        if self.stale:
            self.stale = False
            raise OSError(errno.ESTALE, "Stale file handle")
        return super().preadv(fd, view, offset)


@pytest.mark.parametrize("write", [False, True])
def test_stale_handle(domain: Path, write: bool) -> None:
    system = StaleOnce()
    with only_volume(domain, system, write=write) as volume:
        system.stale = True
        if write:  # somebody is writing beside us: no time to look away
            with pytest.raises(errors.StorageFailed):
                volume.head_read(0, 4096)
        else:
            data = Path(volume.path).read_bytes()
            assert volume.head_read(0, 4096) == data[:4096]


# -- every call fails once; a crash at every call


def change_head(volume: FileVolume) -> None:
    volume.head_replace([b"new" * 3000], 9000)


def change_metadata(volume: FileVolume) -> None:
    volume.write_metadata(volume.read_metadata().updated("new"))


def make_log(volume: FileVolume) -> None:
    volume.create_log()


CHANGES = [
    pytest.param(change_head, id="head"),
    pytest.param(change_metadata, id="metadata"),
    pytest.param(make_log, id="log"),
]
Change = Callable[[FileVolume], None]
State = tuple[bytes, bytes, int]


def state(volume: FileVolume) -> State:
    log = Path(volume.log_path)
    return (
        Path(volume.path).read_bytes(),
        Path(volume.metadata_path).read_bytes(),
        log.stat().st_size if log.exists() else 0,
    )


def interrupted(
    domain: Path, change: Change, error: BaseException
) -> Iterator[tuple[FileVolume, State, bool, int]]:
    """
    For each call: the volume after `change` was interrupted there, its
    state before, whether it raised, and the state after an undisturbed one.
    """
    n = 0
    while True:
        copy = domain.parent / f"n{n}" / domain.name
        shutil.copytree(domain, copy)
        system = TracedSystem()
        with only_volume(copy, system) as volume:
            before = state(volume)
            system.calls.clear()
            system.fail, system.error = n, error
            raised = True
            try:
                change(volume)
                raised = False
            except (errors.StorageFailed, Crash):
                pass
            reached = len(system.calls) > n
            system.fail = None
        if reached:
            yield volume, before, raised, n
        shutil.rmtree(copy.parent)
        if not reached:
            assert not raised
            assert n > 5
            return
        n += 1


def expected_after(domain: Path, change: Change) -> State:
    copy = domain.parent / "undisturbed" / domain.name
    shutil.copytree(domain, copy)
    with only_volume(copy) as volume:
        change(volume)
        return state(volume)


@pytest.mark.parametrize("change", CHANGES)
def test_every_call_may_fail(domain: Path, change: Change) -> None:
    new = expected_after(domain, change)
    error = OSError(errno.EIO, "Input/output error")
    for volume, old, raised, n in interrupted(domain, change, error):
        now = state(volume)
        assert now == (old if raised else new) or now == new, n
        store = Path(volume.log_path).parent
        if store.exists():
            left = [x for x in os.listdir(store) if not x.endswith(".log")]
            assert left == [], n
        volume.open(write=True)  # and another try goes through
        if state(volume) != new or change is not make_log:
            change(volume)
        volume.close()


@pytest.mark.parametrize("change", CHANGES)
def test_crash_at_every_call(domain: Path, change: Change) -> None:
    new = expected_after(domain, change)
    for volume, old, raised, n in interrupted(domain, change, Crash()):
        assert state(volume) in ((old, new) if raised else (new,)), n
        volume.open(write=True)
        if volume.has_log() != bool(new[2]) or change is not make_log:
            change(volume)
        volume.remove_stale_heads()
        assert state(volume)[2] == new[2]
        volume.close()
        left = os.listdir(Path(volume.log_path).parent)
        assert [x for x in left if not x.endswith(".log")] == [], n


# -- what was planted


def test_planted_links(domain: Path, volume: FileVolume) -> None:
    volume.create_log()
    outside = domain.parent / "outside"
    image = domain / "images" / volume.image
    store = domain / "ovf_store"
    targets = [
        image / volume.id,
        image / f"{volume.id}.meta",
        image,
        domain / "images",
        store / f"{volume.id}.log",
        store,
    ]
    for target in targets:
        target.rename(outside)
        target.symlink_to(outside)
        with pytest.raises(errors.StorageFailed, match="symbolic link"):
            volume.open(write=True)
            volume.read_metadata()
        target.unlink()
        outside.rename(target)
    volume.open(write=True)


def test_planted_link_is_replaced_not_followed(
    domain: Path, volume: FileVolume
) -> None:
    """The names are taken over after the volume was opened."""
    secret = domain.parent / "secret"
    secret.write_bytes(b"secret")
    volume.create_log()
    for path in (Path(volume.path), Path(volume.metadata_path)):
        path.unlink()
        path.symlink_to(secret)
    metadata = FileDomain.open(str(domain)).volumes()[0].read_metadata()
    volume.write_metadata(metadata)
    volume.head_replace([b"x"], 1)
    assert secret.read_bytes() == b"secret"
    assert not Path(volume.path).is_symlink()
    assert not Path(volume.metadata_path).is_symlink()


def test_root_that_was_mounted_over(domain: Path, volume: FileVolume) -> None:
    domain.rename(domain.parent / "moved")
    shutil.copytree(domain.parent / "moved", domain)
    volume.head_read(0, 10)  # what is open stays open
    with pytest.raises(errors.StorageFailed, match="no longer mounted"):
        volume.open()


# -- real file systems


@pytest.mark.root
@pytest.mark.parametrize(
    "sector", [pytest.param(512, id="512"), pytest.param(4096, id="4k")]
)
def test_on_sectors(
    filesystem: MakeFilesystem, domain_tree: MakeTree, sector: int
) -> None:
    domain = domain_tree("localfs-v5-4k", filesystem(sector))
    with only_volume(domain) as volume:
        data = os.urandom(10240)
        volume.create_log()
        volume.log_write(4096, data[:8192])
        volume.head_replace([data], len(data))
        volume.write_metadata(volume.read_metadata().updated("new"))
    with only_volume(domain, write=False) as volume:
        assert volume.log_read(5000, 100) == data[904:1004]
        assert volume.head_read(0, 12288) == data + bytes(2048)
        assert volume.read_metadata().description == "new"


@pytest.mark.root
def test_read_only(filesystem: MakeFilesystem, domain_tree: MakeTree) -> None:
    mounted = filesystem()
    domain = domain_tree("localfs-v5", mounted)
    run("mount", "-o", "remount,ro", str(mounted))
    with only_volume(domain, write=False) as volume:
        assert len(volume.head_read(0, 10240)) == 10240
        with pytest.raises(errors.StorageReadOnly) as e:
            volume.open(write=True)
    assert e.value.errno == errno.EROFS
    with pytest.raises(errors.StorageReadOnly) as e:
        FileDomain.open(str(domain)).create_volume(MIB)
    assert str(e.value).startswith(f"Cannot write {domain}/ovf_store: Read-")


@pytest.mark.root
def test_full(filesystem: MakeFilesystem, domain_tree: MakeTree) -> None:
    mounted = filesystem(size=8 * MIB)
    domain = domain_tree("localfs-v5", mounted)
    with only_volume(domain) as volume:
        before = Path(volume.path).read_bytes()
        volume.create_log()
        with pytest.raises(errors.StorageFull):
            volume.head_replace((bytes(MIB) for _ in range(16)), 16 * MIB)
        assert Path(volume.path).read_bytes() == before
        left = os.listdir(domain / "ovf_store")
        assert left == [f"{volume.id}.log"]
        with pytest.raises(errors.StorageFull):
            for n in range(16):
                volume.log_write(n * MIB, bytes(MIB))
        with pytest.raises(errors.StorageFull) as e:
            volume.write_metadata(volume.read_metadata().updated("new"))
        assert e.value.operation == "write"
        assert volume.read_metadata().description != "new"


def check_owner(path: Path, mode: int) -> None:
    st = path.stat()
    assert stat.S_IMODE(st.st_mode) == mode
    if ROOT:
        assert (st.st_uid, st.st_gid) == (36, 36)
