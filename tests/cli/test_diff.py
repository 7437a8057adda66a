# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""diff: two generations; a generation and the disks that are there."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.cli.harness import IDS, Cli, Store, archive, damage_frame, tar
from tests.store import builders

MIB = 1024**2


def vm(name: str, *disks: str, note: str = "") -> tuple[str, str]:
    """A member: the VM of that name, always with the same id."""
    files = "".join(
        f'<File ovf:href="{builders.disk_id(d)}/{builders.vm_id(d)}"/>'
        for d in disks
    )
    text = builders.ovf(name, note).decode()
    head, _, rest = text.partition("<References>")
    rest = rest.partition("</References>")[2]
    ovf = f"{head}<References>{files}</References>{rest}"
    return f"{builders.vm_id(name.partition(' ')[0])}.ovf", ovf


def put(store: Store, disk: str, alias: str = "", kind: str = "DATA") -> Path:
    """A disk of one volume on the domain."""
    directory = store.path / "images" / builders.disk_id(disk)
    directory.mkdir()
    volume = directory / builders.vm_id(disk)
    volume.touch()
    text = Path(store.copies()[0]["path"] + ".meta").read_text()
    lines = [
        line
        for line in text.splitlines()
        if not line.startswith(("DISKTYPE=", "DESCRIPTION=", "IMAGE="))
    ]
    lines.insert(0, f"IMAGE={builders.disk_id(disk)}")
    lines.insert(0, f"DISKTYPE={kind}")
    lines.insert(0, f'DESCRIPTION={{"DiskAlias":"{alias}"}}')
    meta = volume.with_name(volume.name + ".meta")
    meta.write_text("\n".join(lines) + "\n")
    return directory


@pytest.fixture
def stores(empty: Store) -> Store:
    """Three generations: something added, removed, renamed, and so on."""
    first = (vm("web", "a", "b"), vm("db", "c"), vm("old"))
    second = (vm("web", "a", "d"), vm("db renamed", "c"), vm("new"))
    for number, members in enumerate((first, second, second)):
        data = tar(*members, ("info.json", f'{{"n": {number}}}'))
        empty.json("upload", "-", data=data)
    return empty


class TestGenerations:
    def test_all_there_is(self, stores: Store) -> None:
        answer = stores.json("diff", 1, 2)
        assert answer["old"]["number"] == 1
        assert answer["new"]["number"] == 2
        assert [e["name"] for e in answer["added"]] == ["new"]
        assert [e["name"] for e in answer["removed"]] == ["old"]
        renamed, disks = answer["changed"]
        assert (renamed["old_name"], renamed["name"]) == ("db", "db renamed")
        assert disks["name"] == "web"
        assert disks["disks_added"] == [builders.disk_id("d")]
        assert disks["disks_removed"] == [builders.disk_id("b")]
        assert answer["same"] == 0

        text = stores.ok("diff", 1, 2).text
        assert "changed  db renamed" in text
        assert "was db" in text
        assert "1 disk more, 1 disk less" in text
        assert text.endswith(
            "From generation 1 to 2: 1 added, 1 removed, 2 changed, "
            "0 as before\n"
        )

    def test_defaults(self, stores: Store) -> None:
        """The newest, with the one before it; OLD with the newest."""
        answer = stores.json("diff")
        assert (answer["old"]["number"], answer["new"]["number"]) == (2, 3)
        assert answer["same"] == 3
        assert stores.ok("diff").text == (
            "From generation 2 to 3: 0 added, 0 removed, 0 changed, "
            "3 as before\n"
        )
        answer = stores.json("diff", 1)
        assert (answer["old"]["number"], answer["new"]["number"]) == (1, 3)

    def test_backwards(self, stores: Store) -> None:
        answer = stores.json("diff", 3, 1)
        assert [e["name"] for e in answer["added"]] == ["old"]

    def test_refused(self, stores: Store, store: Store) -> None:
        assert stores.cli.error("diff", stores.path, 7)["code"] == 3541
        message = store.cli("diff", store.path).is_error(3541)
        assert message == "There is no generation before 1 in this store"
        for args in (("x",), ("-g", "1"), ("--disks", "1"), ("1", "2", "3")):
            assert store.cli("diff", store.path, *args).status == 2

    def test_one_copy_is_damaged(self, stores: Store) -> None:
        damage_frame(stores, 0, 0)
        assert stores.json("diff")["same"] == 3


class TestDisks:
    def test_both_ways(self, stores: Store) -> None:
        put(stores, "a")
        put(stores, "lost", alias="lost_Disk1")
        put(stores, "iso", alias="iso", kind="ISOF")
        (stores.path / "images" / builders.disk_id("rest")).mkdir()
        answer = stores.json("diff", "--disks")
        assert answer["present"] == 1
        absent = {e["name"]: e["absent"] for e in answer["absent"]}
        assert absent == {
            "web": [builders.disk_id("d")],
            "db renamed": [builders.disk_id("c")],
        }
        unused = {d["image"]: d for d in answer["unused"]}
        lost = unused[builders.disk_id("lost")]
        assert lost["alias"] == "lost_Disk1"
        assert lost["type"] == "DATA"
        assert lost["capacity"] == 8 * MIB
        assert unused[builders.disk_id("iso")]["type"] == "ISOF"
        assert unused[builders.disk_id("rest")]["volumes"] == 0
        assert len(unused) == 3  # not the OVF_STOREs

        text = stores.ok("diff", "--disks").text
        assert "lost_Disk1" in text
        assert "1 disks of VMs are there, 2 are not; 3 belong to no" in text

    def test_of_an_older_generation(self, stores: Store) -> None:
        put(stores, "b")
        answer = stores.json("diff", "--disks", "-g", 1)
        assert answer["generation"]["number"] == 1
        assert answer["present"] == 1
        assert answer["unused"] == []

    def test_hostile_metadata(self, stores: Store) -> None:
        directory = put(stores, "x", alias="\\u001b[31m\\u202e")
        (meta,) = directory.glob("*.meta")
        text = stores.ok("diff", "--disks").text
        assert "\\x1b[31m\\u202e" in text
        for content in ("", "DESCRIPTION=[[[", "\xff\x00"):
            meta.write_text(content)
            (unused,) = stores.json("diff", "--disks")["unused"]
            assert (unused["alias"], unused["volumes"]) == ("", 1)

    def test_a_host_cannot(self, cli: Cli, stores: Store) -> None:
        result = cli("diff", stores.path, "--disks", "--host", "/nowhere")
        assert result.status == 2


def test_what_a_shortcut_does_not_find(store: Store) -> None:
    """Every other way to the generations finds the same."""
    before = store.json("history")
    shutil.rmtree(Path(store.copies()[0]["path"]).parent)
    after = store.json("history")
    assert [g["number"] for g in after["generations"]] == [1]
    assert after["copies"] == 1 < before["copies"]
    answer: Any = store.upload("web", "db", "new")
    assert answer["generation"] == 2
    assert store.json("diff")["added"][0]["id"] == IDS[2]


def test_unsealed(empty: Store) -> None:
    for copy in empty.copies():
        Path(copy["path"]).write_bytes(archive("web"))
    assert empty.cli.error("diff", empty.path)["code"] == 3541
    assert empty.json("diff", "--disks")["absent"] == []
