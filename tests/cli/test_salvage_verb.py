# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""salvage, from the installed package and from the one file of make rescue."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.cli.harness import (
    IDS,
    OVF,
    PROJECT,
    VMS,
    Cli,
    Store,
    archive,
    damage_frame,
    damage_head,
    large,
)

MIB = 1024**2


class Zipped(Cli):
    """The command in one file, and nothing but the standard library."""

    def __init__(self, cwd: Path, file: Path) -> None:
        super().__init__(cwd)
        self.file = file
        del self.env["PYTHONPATH"]

    def command(self, *args: object) -> list[str]:
        # -I: no PYTHONPATH, no directory of its own; -S: no site-packages.
        python = [sys.executable, "-I", "-S"]
        return [*python, str(self.file), *map(str, args)]


@pytest.fixture(scope="session")
def zipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rescue") / "ovfstore"
    subprocess.run(
        [sys.executable, str(PROJECT / "scripts/make-rescue"), str(file)],
        check=True,
        capture_output=True,
    )
    return file


@pytest.fixture(params=["package", "zip"])
def either(
    request: pytest.FixtureRequest, tmp_path: Path, zipped: Path
) -> Cli:
    if request.param == "zip":
        return Zipped(tmp_path, zipped)
    return Cli(tmp_path)


class TestFound:
    def test_a_domain(self, store: Store, either: Cli, tmp_path: Path) -> None:
        before = store.contents()
        answer = either.json("salvage", store.path)
        assert [e["name"] for e in answer["entities"]] == ["db", "web"]
        assert {e["grade"] for e in answer["entities"]} == {"verified"}
        assert [g["verified"] for g in answer["generations"]] == [2]
        assert answer["lost"] == answer["notes"] == []
        assert answer["directory"] is None
        assert answer["next_step"] == f"ovfstore salvage {store.path} -o DIR"

        result = either.ok("salvage", store.path, "-o", tmp_path / "out")
        assert "Found 2 OVFs: 2 verified, 0 unverified" in result.text
        assert result.text.endswith(f"Wrote 2 files to {tmp_path}/out\n")
        for entity, name in zip(IDS, ("web", "db")):
            path = tmp_path / "out" / f"{entity}.ovf"
            assert path.read_text() == OVF.format(name=name)
            assert path.stat().st_mode & 0o777 == 0o600
        assert store.contents() == before

    def test_cut_tar(self, either: Cli, tmp_path: Path) -> None:
        data = archive("web", "db")
        at = data.find(IDS[1].encode()) + 512 + 100
        (tmp_path / "cut").write_bytes(data[:at])
        out = tmp_path / "out"
        answer = either.json("salvage", "cut", "-o", out, status=3)
        grades = {e["id"]: e["grade"] for e in answer["entities"]}
        assert grades == {IDS[0]: "unverified", IDS[1]: "partial"}
        assert (out / f"{IDS[0]}.ovf").read_text() == OVF.format(name="web")
        partial = (out / f"{IDS[1]}.partial").read_text()
        assert partial == OVF.format(name="db")[:100]
        result = either("salvage", "cut")
        assert "Found 2 OVFs: 0 verified, 1 unverified, 1 partial" in (
            result.text
        )
        assert f"100 B of {len(OVF.format(name='db'))} B" in result.text

    def test_nothing(self, either: Cli, tmp_path: Path) -> None:
        (tmp_path / "noise").write_bytes(os.urandom(MIB))
        answer = either.json("salvage", "noise", "-o", "out", status=4)
        assert answer["entities"] == answer["generations"] == []
        assert list((tmp_path / "out").iterdir()) == []
        assert either("salvage", "noise").text == (
            "Found 0 OVFs: 0 verified, 0 unverified, 0 partial\n"
        )


class TestVersions:
    @pytest.fixture
    def older(self, store: Store) -> Store:
        """web and db; then web, another one, and new."""
        store.json(
            "upload", "-", data=archive("changed", "db", "new"), status=0
        )
        return store

    def test_written(self, older: Store, tmp_path: Path) -> None:
        out = tmp_path / "out"
        answer = older.json("salvage", "--versions", "-o", out)
        web = next(e for e in answer["entities"] if e["id"] == IDS[0])
        assert web["name"] == "changed"
        assert (web["versions"], web["generation"]) == (2, 2)
        (other,) = web["others"]
        assert (other["name"], other["generation"]) == ("web", 1)
        assert other["file"] == f"{IDS[0]}.1.ovf"
        assert (out / other["file"]).read_text() == OVF.format(name="web")
        assert len(list(out.iterdir())) == 4

    def test_best_only(self, older: Store, tmp_path: Path) -> None:
        answer = older.json("salvage", "-o", tmp_path / "out")
        assert {len(e["others"]) for e in answer["entities"]} == {0}
        assert len(list((tmp_path / "out").iterdir())) == 3

    def test_deleted_ones_come_from_history(self, older: Store) -> None:
        older.json("upload", "-", data=archive("changed"))
        answer = older.json("salvage")
        found = {e["id"]: e["generation"] for e in answer["entities"]}
        assert found == {IDS[0]: 3, IDS[1]: 2, IDS[2]: 2}


class TestLost:
    def test_named(self, store: Store, tmp_path: Path) -> None:
        store.json("upload", "-", data=large(1))
        for copy in (0, 1):
            damage_frame(store, copy, 1)
            head = Path(store.copies()[copy]["path"])
            os.truncate(head, 0)
        answer = store.json("salvage", status=3)
        lost = [one["name"] for one in answer["lost"]]
        newest = answer["generations"][0]
        assert newest["entities"] == VMS
        assert newest["lost"] >= len(lost) > 0
        result = store.cli("salvage", store.path)
        assert f"Lost: {', '.join(lost)}" in result.text


class TestRefused:
    def test_target_in_the_domain(self, store: Store) -> None:
        before = store.contents()
        (log,) = sorted((store.path / "ovf_store").glob("*.log"))[:1]
        for source in (store.path, log):
            target = store.path / "out"
            error = store.cli.error("salvage", source, "-o", target)
            assert error["code"] == 3546
            assert "lies on" in error["message"]
        assert store.contents() == before

    def test_files_that_exist(self, store: Store, tmp_path: Path) -> None:
        out = tmp_path / "out"
        store.json("salvage", "-o", out)
        (out / f"{IDS[0]}.ovf").write_text("mine")
        answer = store.json("salvage", "-o", out, status=3)
        assert {e["error"]["code"] for e in answer["failed"]} == {3546}
        assert (out / f"{IDS[0]}.ovf").read_text() == "mine"
        result = store.cli("salvage", store.path, "-o", out)
        assert result.status == 3
        assert "was not written: error 3546" in result.err
        store.json("salvage", "-o", out, "--force")
        assert (out / f"{IDS[0]}.ovf").read_text() != "mine"

    @pytest.mark.parametrize(
        "path,code",
        [("missing", 3516), ("/dev/null", 3516), (".", 358)],
    )
    def test_sources(self, cli: Cli, path: str, code: int) -> None:
        cli("salvage", path).is_error(code)

    def test_usage(self, cli: Cli) -> None:
        for args in ((), ("x", "--domain", "y"), ("x", "--host", "/h")):
            result = cli("salvage", *args)
            assert result.status == 2
            assert result.err.count("\n") == 1

    def test_other_domain(self, store: Store) -> None:
        other = ("--domain", IDS[0])
        assert store.json("salvage", *other, status=4)["entities"] == []
        own = ("--domain", store.path.name.upper())
        assert len(store.json("salvage", *own)["entities"]) == 2

    def test_part_of_a_domain_unreadable(self, store: Store) -> None:
        damage_head(store, 0)
        head = Path(store.copies()[0]["path"])
        head.unlink()
        head.symlink_to("/etc/passwd")
        answer = store.json("salvage", status=3)
        assert len(answer["unreadable"]) == 1
        assert len(answer["entities"]) == 2
        result = store.cli("salvage", store.path)
        assert "warning: error 3530" in result.err


class TestZip:
    def test_the_same_each_time(self, zipped: Path, tmp_path: Path) -> None:
        again = tmp_path / "again"
        run = subprocess.run(
            [sys.executable, str(PROJECT / "scripts/make-rescue"), str(again)],
            check=True,
            capture_output=True,
            text=True,
        )
        assert "Python 3.9" in run.stdout
        assert again.read_bytes() == zipped.read_bytes()
        names = zipfile.ZipFile(zipped).namelist()
        assert "vdsm_ovfstore/rescue/scan.py" in names
        assert not any("/host/" in name for name in names)

    def test_runs_by_itself(self, zipped: Path, store: Store) -> None:
        """With the python3 of its first line, from wherever it lies."""
        result = subprocess.run(
            [str(zipped), "salvage", str(store.path)],
            capture_output=True,
            cwd="/",
            env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"},
        )
        assert result.returncode == 0, result
        assert result.stderr == b""

    def test_other_verbs(
        self, zipped: Path, store: Store, tmp_path: Path
    ) -> None:
        """A rescue shell has the others, too, up to the worker."""
        command = Zipped(tmp_path, zipped)
        for verb in ("status", "verify", "history", "vms", "repair"):
            command.ok(verb, store.path)
        assert "salvage" in command.ok("--help").text

    def test_an_old_python(self, zipped: Path, tmp_path: Path) -> None:
        main = zipfile.ZipFile(zipped).read("__main__.py").decode()
        (tmp_path / "main.py").write_text(
            "import sys; sys.version_info = (3, 6, 8)\n" + main
        )
        result = subprocess.run(
            [sys.executable, "main.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 1
        assert result.stderr.startswith("ovfstore: needs Python 3.9 or later")
        assert result.stderr.count("\n") == 1


def test_schema_has_no_other_fields(store: Store, tmp_path: Path) -> None:
    """What the harness checks for each answer, once with everything."""
    shutil.copy(store.log(0), tmp_path / "log")
    answer: Any = store.cli.json("salvage", "log", "--versions", "-o", "out")
    assert answer["sources"][0]["device"] is False
