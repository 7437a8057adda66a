# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TREES, MakeFilesystem, MakeTree
from tests.storage.traced_system import Crash, TracedSystem
from vdsm_ovfstore import errors
from vdsm_ovfstore.format.ids import is_uuid
from vdsm_ovfstore.storage.filedomain import (
    FileDomain,
    create_domain,
    find_domains,
)
from vdsm_ovfstore.storage.tree import random_id

MIB = 1024**2
ROOT = os.geteuid() == 0

FACTS = {
    "nfs-v4": (4, "NFS", 512, "sanlock", 1),
    "nfs-v5": (5, "NFS", 512, "sanlock", 2),
    "localfs-v5": (5, "LOCALFS", 512, "flock", 1),
    "localfs-v5-4k": (5, "LOCALFS", 4096, "flock", 1),
}


class Leases:
    """Writes what says how it was asked for, as sanlock would."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def resource(self, **args: Any) -> None:
        self.calls.append(args)
        with open(args["path"], "r+b") as f:
            f.truncate(args["offset"] + args["align"])

    def lockspace(self, **args: Any) -> None:
        self.calls.append(args)
        with open(args["path"], "r+b") as f:
            f.truncate(args["align"])


def modes(domain: Path) -> dict[str, str]:
    """Type, mode and owner of all below a domain, ids as X."""
    found = {}
    for path in domain.rglob("*"):
        name = "/".join(
            "X" + part[36:] if is_uuid(part[:36]) else part
            for part in path.relative_to(domain).parts
        )
        st = path.stat()
        found[name] = f"{st.st_mode:o} {st.st_uid}:{st.st_gid}"
    return found


# -- opening


@pytest.mark.parametrize("name", TREES)
def test_open(domain_tree: MakeTree, name: str) -> None:
    path = domain_tree(name)
    domain = FileDomain.open(str(path))
    version, type_, block_size, kind, count = FACTS[name]
    assert domain.id == path.name
    assert domain.path == str(path)
    assert domain.version == version
    assert domain.type == type_
    assert domain.block_size == block_size
    assert domain.alignment == MIB
    assert domain.lock_kind == kind
    assert domain.metadata.uuid == path.name
    domain.writable()
    volumes = domain.volumes()
    assert len(volumes) == count
    assert [v.id for v in volumes] == sorted(v.id for v in volumes)
    assert domain.problems == []
    assert domain.logs() == []


def test_open_by_mount_and_link(domain_tree: MakeTree) -> None:
    path = domain_tree("nfs-v5")
    link = path.parent.parent / "pool"
    link.symlink_to(path)
    for way in (path.parent, link, str(path) + "/"):
        assert FileDomain.open(str(way)).path == str(path)


def test_open_relative(
    domain_tree: MakeTree, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = domain_tree("nfs-v5")
    monkeypatch.chdir(path)
    assert FileDomain.open(".").path == str(path)


def test_not_found(domain_tree: MakeTree, tmp_path: Path) -> None:
    path = domain_tree("nfs-v5")
    domain_tree("nfs-v4", path.parent)
    (path.parent / "nfs-v4").rename(path.parent / random_id())
    other = next(p for p in path.parent.iterdir() if p != path)
    next(other.iterdir()).rename(path.parent / next(other.iterdir()).name)
    file = tmp_path / "file"
    file.touch()
    empty = tmp_path / "empty"
    empty.mkdir()
    for where, reason in (
        (path.parent, "it has 2 of them; give the path of one"),
        (tmp_path / "nowhere", "no such directory"),
        (file, "no such directory"),
        (empty, "no dom_md/metadata there, nor one level below"),
    ):
        with pytest.raises(errors.DomainNotFound) as e:
            FileDomain.open(str(where))
        fields = {"path": str(where), "reason": reason}
        assert e.value.fields() == fields


def test_copy_under_another_name(domain_tree: MakeTree) -> None:
    path = domain_tree("nfs-v5")
    copy = path.parent.parent / "copy" / random_id()
    shutil.copytree(path, copy)
    with pytest.raises(errors.DomainIdMismatch, match=path.name):
        FileDomain.open(str(copy))


def test_damaged_metadata(domain_tree: MakeTree) -> None:
    path = domain_tree("nfs-v5")
    metadata = path / "dom_md/metadata"
    metadata.write_bytes(metadata.read_bytes().replace(b"NFS", b"FCP"))
    with pytest.raises(errors.DomainMetadataInvalid):
        FileDomain.open(str(path))
    metadata.write_bytes(b"x" * 70000)
    with pytest.raises(errors.StorageFailed) as e:
        FileDomain.open(str(path))
    assert e.value.errno == errno.EFBIG


def test_block_domain(domain_tree: MakeTree) -> None:
    path = domain_tree("nfs-v5")
    metadata = path / "dom_md/metadata"
    metadata.unlink()
    metadata.symlink_to(f"/dev/{path.name}/metadata")
    with pytest.raises(errors.BlockDomainUnsupported, match=path.name):
        FileDomain.open(str(path))
    problems: list[errors.Error] = []
    assert find_domains(str(path.parent), problems=problems) == []
    assert problems == []


@pytest.mark.parametrize("name", ["dom_md", "dom_md/metadata"])
def test_planted_links(domain_tree: MakeTree, name: str) -> None:
    path = domain_tree("nfs-v5")
    outside = path.parent.parent / "outside"
    (path / name).rename(outside)
    (path / name).symlink_to(outside)
    with pytest.raises(errors.StorageFailed, match="symbolic link"):
        FileDomain.open(str(path))


@pytest.mark.parametrize("version", [3, 6])
def test_version_that_is_not_written(
    domain_tree: MakeTree, version: int
) -> None:
    domain = FileDomain.open(str(domain_tree("nfs-v5")))
    domain.version = version
    assert len(domain.volumes()) == 2
    with pytest.raises(errors.DomainVersionUnsupported):
        domain.writable()
    with pytest.raises(errors.DomainVersionUnsupported):
        domain.create_volume(format_lease=Leases().resource)


# -- volumes


def test_volumes_by_disktype_only(domain_tree: MakeTree) -> None:
    path = domain_tree("nfs-v5")
    domain = FileDomain.open(str(path))
    data, store = domain.volumes()
    meta = Path(data.metadata_path)
    text = meta.read_bytes()
    meta.write_bytes(text.replace(b"DISKTYPE=OVFS", b"DISKTYPE=DATA"))
    # An image that VDSM is deleting, and files of no volume.
    shutil.copytree(
        path / "images" / store.image,
        path / "images" / f"_remove_me_{store.image}",
    )
    Path(store.path + ".meta.new").write_bytes(text)
    (path / "images" / store.image / "notes.meta").write_bytes(text)
    (path / "images" / "notes").touch()
    assert [v.id for v in domain.volumes()] == [store.id]
    assert domain.problems == []


def test_unreadable_metadata_is_a_problem(domain_tree: MakeTree) -> None:
    path = domain_tree("nfs-v5")
    domain = FileDomain.open(str(path))
    bad, good = domain.volumes()
    Path(bad.metadata_path).write_bytes(b"\xff" * 512)
    (path / "images" / random_id()).mkdir()  # no volume, no problem
    planted = path / "images" / random_id()
    planted.symlink_to(path / "images" / good.image)
    assert [v.id for v in domain.volumes()] == [good.id]
    found = {type(e): e for e in domain.problems}
    assert len(domain.problems) == len(found) == 2
    assert found[errors.VolumeMetadataUnreadable].fields()["volume"] == bad.id
    assert found[errors.StorageFailed].fields()["path"] == str(planted)
    Path(bad.metadata_path).unlink()
    planted.unlink()
    domain.volumes()
    assert domain.problems == []


# -- creating volumes


@pytest.mark.parametrize("name", TREES)
def test_create_volume(domain_tree: MakeTree, name: str) -> None:
    path = domain_tree(name)
    like_vdsm = modes(path)
    domain = FileDomain.open(str(path))
    old = {v.id for v in domain.volumes()}
    leases = Leases()
    volume = domain.create_volume(format_lease=leases.resource)
    assert volume.id not in old
    (again,) = (v for v in domain.volumes() if v.id not in old)
    assert repr(again) == repr(volume)
    assert again.lease == volume.lease
    new = modes(path)
    assert oct(os.stat(path / "ovf_store").st_mode) == "0o40755"
    del new["ovf_store"]
    if ROOT:
        assert new == like_vdsm
    assert set(new) == set(like_vdsm)
    with volume:
        volume.open(write=True)
        assert volume.head_is_empty()
        assert volume.head_size() == 128 * MIB
        assert os.stat(volume.path).st_blocks == 0
        metadata = volume.read_metadata()
        metadata.enforce(volume.id, domain.id, volume.image)
        assert metadata.is_store()
        assert metadata.capacity == 128 * MIB
        assert metadata.legality == "LEGAL"
        assert metadata.description == (
            '{"DiskAlias":"OVF_STORE","DiskDescription":"OVF_STORE"}'
        )
    expected = []
    if domain.lock_kind == "sanlock":
        expected.append(
            {
                "lockspace": domain.id,
                "resource": volume.id,
                "path": volume.path + ".lease",
                "offset": 0,
                "align": MIB,
                "sector": 512,
            }
        )
    assert leases.calls == expected


def test_lease_is_not_forgotten(domain_tree: MakeTree) -> None:
    domain = FileDomain.open(str(domain_tree("nfs-v5")))
    with pytest.raises(ValueError, match="format_lease"):
        domain.create_volume()


def names_in(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*"))


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(OSError(errno.EIO, "Input/output error"), id="error"),
        pytest.param(Crash(), id="crash"),
    ],
)
def test_create_volume_is_interrupted_anywhere(
    domain_tree: MakeTree, error: BaseException
) -> None:
    path = domain_tree("nfs-v5")
    (path / "ovf_store").mkdir()
    before = names_in(path)
    complete = 0
    n = 0
    while True:
        system = TracedSystem()
        domain = FileDomain.open(str(path), system)
        system.calls.clear()
        system.fail, system.error = n, error
        made = False
        try:
            domain.create_volume(8 * MIB, Leases().resource)
            made = True
        except (errors.StorageFailed, Crash):
            pass
        if len(system.calls) <= n:
            assert made
            break
        count = len(FileDomain.open(str(path)).volumes())
        assert FileDomain.open(str(path)).problems == []
        if isinstance(error, Crash):
            # A volume is complete or is not there.
            complete += count == 3
            assert count in (2, 3)
            for image in (path / "images").iterdir():
                files = list(image.iterdir())
                if any(f.suffix == ".meta" for f in files):
                    assert len(files) == 3, n
        else:
            assert count == (3 if made else 2), n
            if not made and system.calls[n].name not in ("rmdir", "unlink"):
                assert names_in(path) == before, (n, system.calls[n])
        for name in set(names_in(path)) - set(before):
            if (path / name).is_dir():
                shutil.rmtree(path / name)
            else:
                (path / name).unlink(missing_ok=True)
        n += 1
    assert n > 30
    if isinstance(error, Crash):
        assert complete  # the crash came after the commit too


def test_lease_that_cannot_be_written(domain_tree: MakeTree) -> None:
    path = domain_tree("nfs-v5")

    def refuse(**args: Any) -> None:
        raise errors.LeaseFailed(reason="no", **args)

    before = names_in(path)
    with pytest.raises(errors.LeaseFailed):
        FileDomain.open(str(path)).create_volume(format_lease=refuse)
    assert names_in(path) == sorted([*before, "ovf_store"])


# -- our directory


def test_logs_and_store_directory(domain_tree: MakeTree) -> None:
    path = domain_tree("nfs-v5")
    domain = FileDomain.open(str(path))
    with pytest.raises(errors.StorageFailed) as e:
        domain.store_directory()
    assert e.value.errno == errno.ENOENT
    for _ in range(2):
        fd = domain.store_directory(create=True)
        try:
            assert os.readlink(f"/proc/self/fd/{fd}") == f"{path}/ovf_store"
        finally:
            os.close(fd)
    orphan = random_id()
    for name in (orphan + ".log", "notes.log", random_id()):
        (path / "ovf_store" / name).touch()
    assert domain.logs() == [orphan]


# -- finding


def test_find_domains(domain_tree: MakeTree, tmp_path: Path) -> None:
    mnt = tmp_path / "mnt"
    gluster = mnt / "glusterSD"
    gluster.mkdir(parents=True)
    nfs = domain_tree("nfs-v5", gluster)
    damaged = domain_tree("nfs-v4", mnt)
    (damaged / "dom_md/metadata").write_bytes(b"VERSION=4\n")
    local = domain_tree("localfs-v5", tmp_path / "data")
    (mnt / "_data_local").symlink_to(local.parent)
    (mnt / "again").symlink_to(local.parent)
    (mnt / "loop").symlink_to(mnt)
    (mnt / "dangling").symlink_to(tmp_path / "nowhere")
    (mnt / "file").touch()
    problems: list[errors.Error] = []
    found = find_domains(str(mnt), problems=problems)
    assert [d.path for d in found] == sorted([str(nfs), str(local)])
    (problem,) = problems
    assert isinstance(problem, errors.DomainMetadataInvalid)
    assert [d.path for d in find_domains(str(mnt), depth=2)] == [str(local)]
    assert [d.path for d in find_domains(str(nfs), depth=0)] == [str(nfs)]


def test_find_nothing(tmp_path: Path) -> None:
    problems: list[errors.Error] = []
    assert find_domains(str(tmp_path), problems=problems) == []
    assert problems == []
    assert find_domains(str(tmp_path / "nowhere"), problems=problems) == []
    assert [type(p) for p in problems] == [errors.StorageFailed]


# -- creating domains


def test_create_localfs_domain(domain_tree: MakeTree, tmp_path: Path) -> None:
    vdsm = modes(domain_tree("localfs-v5"))
    vdsm = {k: v for k, v in vdsm.items() if not k.startswith("images/")}
    domain = create_domain(str(tmp_path), "LOCALFS", block_size=4096)
    assert domain.block_size == 4096
    assert domain.lock_kind == "flock"
    made = modes(Path(domain.path))
    assert set(made) == set(vdsm)
    if ROOT:
        assert made == vdsm
    with domain.create_volume(8 * MIB) as volume:
        volume.open(write=True)
        volume.head_replace([b"x"], 1)
    assert len(FileDomain.open(str(tmp_path / domain.id)).volumes()) == 1


@pytest.mark.parametrize("version", [4, 5])
def test_create_domain_with_leases(tmp_path: Path, version: int) -> None:
    leases = Leases()
    wanted = random_id()
    domain = create_domain(
        str(tmp_path),
        "POSIXFS",
        version=version,
        domain=wanted,
        format_lockspace=leases.lockspace,
        format_lease=leases.resource,
    )
    assert (domain.id, domain.version) == (wanted, version)
    dom_md = tmp_path / wanted / "dom_md"
    common = {"lockspace": wanted, "align": MIB, "sector": 512}
    assert leases.calls == [
        {"path": f"{dom_md}/ids", **common},
        {
            "path": f"{dom_md}/leases",
            "resource": "SDM",
            "offset": MIB,
            **common,
        },
    ]
    assert (dom_md / "ids").stat().st_size == MIB
    assert (dom_md / "leases").stat().st_size == 2 * MIB
    with pytest.raises(errors.StorageFailed) as e:
        create_domain(str(tmp_path), "LOCALFS", domain=wanted)
    assert e.value.errno == errno.EEXIST
    assert FileDomain.open(str(tmp_path)).type == "POSIXFS"


@pytest.mark.parametrize(
    "args",
    [
        pytest.param({"type": "FCP"}, id="block"),
        pytest.param({"type": "NFS"}, id="no-leases"),
        pytest.param({"type": "LOCALFS", "version": 3}, id="version"),
        pytest.param(
            {"type": "LOCALFS", "version": 4, "block_size": 4096}, id="v4-4k"
        ),
        pytest.param({"type": "LOCALFS", "domain": "../x"}, id="id"),
    ],
)
def test_create_domain_refuses(tmp_path: Path, args: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        create_domain(str(tmp_path), **args)
    assert os.listdir(tmp_path) == []


def test_create_domain_cleans_up(tmp_path: Path) -> None:
    n = 0
    reached = True
    while reached:
        system = TracedSystem(n, OSError(errno.EIO, "Input/output error"))
        try:
            create_domain(str(tmp_path), "LOCALFS", system=system)
        except errors.StorageFailed:
            # Once it is complete it is not taken away: what failed then
            # is reading it back.
            left = os.listdir(tmp_path)
            whole = "rename" in system.names()[:n] and bool(left)
            assert len(left) == whole, n
        else:
            whole = True
        if whole:
            (domain,) = find_domains(str(tmp_path))
            shutil.rmtree(domain.path)
        reached = len(system.calls) > n
        n += 1
    assert n > 30


@pytest.mark.root
@pytest.mark.parametrize("sector", [512, 4096])
def test_domain_on_sectors(filesystem: MakeFilesystem, sector: int) -> None:
    mounted = filesystem(sector)
    domain = create_domain(str(mounted), "LOCALFS", block_size=sector)
    with domain.create_volume() as volume:
        volume.open(write=True)
        volume.create_log()
        volume.head_replace([b"x" * 10240], 10240)
    assert volume.id in FileDomain.open(str(mounted)).logs()
    assert len(find_domains(str(mounted))) == 1


@pytest.mark.root
def test_volume_on_full_file_system(filesystem: MakeFilesystem) -> None:
    mounted = filesystem(size=8 * MIB)
    domain = create_domain(str(mounted), "LOCALFS")
    with open(mounted / "filler", "wb", buffering=0) as f:
        with pytest.raises(OSError, match="No space left"):
            while True:
                f.write(bytes(4096))
    with pytest.raises(errors.StorageFull):
        domain.create_volume()
    assert os.listdir(mounted / domain.id / "images") == []
