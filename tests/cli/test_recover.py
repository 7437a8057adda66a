# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""recover: what an import would bring back, and why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.cli.harness import (
    Cli,
    Store,
    damage,
    damage_head,
    make_store,
    tar,
)
from tests.cli.test_diff import put, vm
from tests.store import builders

TEMPLATE = builders.vm_id("base")


def told(store: Store, *args: object, status: int = 0) -> dict[str, Any]:
    """Verdict and reasons by name."""
    answer = store.json("recover", *args, status=status)
    return {
        e["name"]: (e["verdict"], e["reasons"]) for e in answer["entities"]
    }


def thin(name: str, template: str) -> tuple[str, str]:
    member, text = vm(name)
    parts = (
        f"<TemplateId>{template}</TemplateId>"
        "<TemplateName>base &amp; more</TemplateName>"
        "<ExportDate>2026/02/17 14:05:40</ExportDate>"
        "<Generation>31</Generation>"
    )
    return member, text.replace("<Name>", f"{parts}<Name>", 1)


def on(domain: str, name: str, disk: str) -> tuple[str, str]:
    """A VM of which a disk is said to be on a domain."""
    member, text = vm(name, disk)
    item = (
        f"<Item><rasd:HostResource>{builders.disk_id(disk)}/"
        f"{builders.vm_id(disk)}</rasd:HostResource>"
        f"<rasd:StorageId>{domain}</rasd:StorageId></Item>"
    )
    text = text.replace(
        "<ovf:Envelope ", '<ovf:Envelope xmlns:rasd="http://r" ', 1
    )
    return member, text.replace("</Content>", f"{item}</Content>", 1)


@pytest.fixture
def other(cli: Cli, tmp_path: Path) -> Store:
    (tmp_path / "other").mkdir()
    return make_store(cli, tmp_path / "other", 4)


class TestVerdicts:
    def test_ready(self, empty: Store) -> None:
        empty.json("upload", "-", data=tar(vm("web", "a"), vm("pxe")))
        put(empty, "a")
        answer = empty.json("recover")
        assert (answer["ready"], answer["broken"]) == (2, 0)
        assert answer["generation"]["number"] == 1
        (web,) = (e for e in answer["entities"] if e["name"] == "web")
        assert [d["state"] for d in web["disks"]] == ["here"]
        assert answer["unused"] == []
        result = empty.ok("recover")
        assert "Of 2: 2 ready, 0 waiting" in result.text
        assert result.text.endswith(
            f"Next: ovfstore recover {empty.path} --to DIR\n"
        )

    def test_disks(self, empty: Store, other: Store) -> None:
        members = (
            vm("gone", "gone"),
            on(empty.path.name, "deleted", "deleted"),
            on(other.path.name, "there", "there"),
            on(other.path.name, "nowhere", "nowhere"),
            vm("cut", "cut"),
        )
        empty.json("upload", "-", data=tar(*members))
        put(other, "there")
        directory = put(empty, "cut")
        for file in directory.iterdir():
            file.unlink()
        found = told(empty, status=3)
        verdicts = {name: verdict for name, (verdict, _) in found.items()}
        assert verdicts == {
            "gone": "broken",
            "deleted": "broken",
            "there": "waiting",
            "nowhere": "waiting",
            "cut": "broken",
        }
        disk, volume = builders.disk_id("cut"), builders.vm_id("cut")
        assert found["cut"][1] == [f"disk {disk} lacks volume {volume}"]
        disk = builders.disk_id("there")
        should = f"disk {disk} should be on domain {other.path.name}"
        assert found["there"][1] == [should]

        found = told(empty, "--also", other.path.parent, status=3)
        assert found["there"][1] == [should.replace("should be", "is")]
        disk = builders.disk_id("nowhere")
        assert found["nowhere"] == (
            "broken",
            [
                f"disk {disk} is not on this domain, nor on domain "
                f"{other.path.name}"
            ],
        )
        text = empty.cli("recover", empty.path).text
        assert should in text
        assert "0 ready, 2 waiting for others, 3 with disks that are" in text

    def test_template(self, empty: Store) -> None:
        empty.json("upload", "-", data=tar(thin("thin", TEMPLATE)))
        found = told(empty, status=3)
        reason = "needs template base & more, which is not in this store"
        assert found["thin"] == ("waiting", [reason])
        base = vm("base")
        empty.json("upload", "-", data=tar(thin("thin", TEMPLATE), base))
        assert told(empty)["thin"] == ("ready", [])
        answer = empty.json("recover")
        (entity,) = (e for e in answer["entities"] if e["name"] == "thin")
        assert entity["template"] == TEMPLATE
        assert entity["exported"] == "2026/02/17 14:05:40"
        assert entity["revision"] == 31
        blank = thin("thin", "00000000-0000-0000-0000-000000000000")
        empty.json("upload", "-", data=tar(blank))
        assert told(empty)["thin"] == ("ready", [])

    def test_an_ovf_is_lost(self, store: Store) -> None:
        for copy in (0, 1):
            damage_frame_of(store, copy)
            damage_head(store, copy)
        answer = store.json("recover", status=4)
        assert answer["lost"] == 2
        assert all("cannot be read" in e["reasons"][0]
                   for e in answer["entities"])  # fmt: skip
        assert answer["next_step"] == f"ovfstore verify {store.path}"

    def test_one_copy_is_enough(self, store: Store) -> None:
        damage_frame_of(store, 0)
        damage_head(store, 1)
        assert store.json("recover")["ready"] == 2


def damage_frame_of(store: Store, copy: int) -> None:
    """Of the only generation, its only one."""
    log = store.log(copy)
    at = log.read_bytes().find(b"OVFSTORE-FRAME")
    damage(log, at + 300)


class TestUnused:
    def test_whose_it_was(self, empty: Store) -> None:
        """A VM has vanished, and its disk is there: P3 of the users."""
        empty.json("upload", "-", data=tar(vm("web", "a"), vm("db", "b")))
        empty.json("upload", "-", data=tar(vm("web", "a")))
        put(empty, "a")
        put(empty, "b", alias="db_Disk1")
        put(empty, "c")
        answer = empty.json("recover")
        unused = {d["image"]: d["last_of"] for d in answer["unused"]}
        was = unused[builders.disk_id("b")]
        assert (was["name"], was["generation"]) == ("db", 1)
        assert was["id"] == builders.vm_id("db")
        assert unused[builders.disk_id("c")] is None
        text = empty.ok("recover").text
        assert "db in generation 1" in text
        step = text.splitlines()[-1]
        assert step == (
            f"Next: ovfstore extract {empty.path} {was['id']} -g 1 -o DIR"
        )
        words = step.replace("DIR", "out").split()[2:]
        empty.cli.ok(*words)
        assert (empty.cli.cwd / "out" / f"{was['id']}.ovf").exists()


class TestTo:
    def test_written(self, empty: Store, tmp_path: Path) -> None:
        members = (vm("web", "a"), vm("db", "b"), thin("thin", TEMPLATE))
        empty.json("upload", "-", data=tar(*members))
        put(empty, "a")
        out = tmp_path / "out"
        answer = empty.json("recover", "--to", out, status=3)
        files = {e["name"]: e["file"] for e in answer["entities"]}
        assert files == {
            "web": f"{builders.vm_id('web')}.ovf",
            "db": f"incomplete/{builders.vm_id('db')}.ovf",
            "thin": f"{builders.vm_id('thin')}.ovf",
        }
        for name, text in members:
            (file,) = (f for f in files.values() if f.endswith(name))
            assert (out / file).read_text() == text
            assert (out / file).stat().st_mode & 0o777 == 0o600

        answer = empty.json("recover", "--to", out, status=3)
        assert {e["error"]["code"] for e in answer["failed"]} == {3546}
        empty.json("recover", "--to", out, "--force", status=3)

    def test_older(self, empty: Store, tmp_path: Path) -> None:
        empty.json("upload", "-", data=tar(vm("old")))
        empty.json("upload", "-", data=tar(vm("new")))
        answer = empty.json("recover", "-g", 1, "--to", tmp_path / "out")
        assert [e["name"] for e in answer["entities"]] == ["old"]

    def test_refused(self, store: Store, other: Store) -> None:
        for target in (store.path / "out", other.path / "out"):
            error = store.cli.error(
                "recover", store.path, "--also", other.path, "--to", target
            )
            assert error["code"] == 3546
            assert not target.exists()
        cli = store.cli
        assert cli.error("recover", store.path, "--also", "x")["code"] == 358
        assert cli("recover", store.path, "--host", "/x").status == 2

    def test_nothing_is_changed(self, store: Store, tmp_path: Path) -> None:
        before = store.contents()
        store.json("recover", "--to", tmp_path / "out")
        assert store.contents() == before

    def test_empty(self, empty: Store) -> None:
        assert empty.cli.error("recover", empty.path)["code"] == 3545
