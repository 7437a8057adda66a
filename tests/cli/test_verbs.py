# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What each verb does, for people and with --json."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.cli.harness import (
    IDS,
    OVF,
    SAMPLES,
    Cli,
    Store,
    archive,
    make_store,
    tar,
)

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ"


class TestInit:
    def test_localfs(self, cli: Cli, tmp_path: Path) -> None:
        answer = cli.json("init", tmp_path, "--type", "localfs")
        assert Path(answer["path"]).parent == tmp_path
        assert answer["lock"] == "flock"
        assert answer["block_size"] == 512

    def test_prints_path_only(self, cli: Cli, tmp_path: Path) -> None:
        out = cli.ok("init", tmp_path, "--type", "localfs").text
        assert os.path.isfile(os.path.join(out.strip(), "dom_md/metadata"))

    def test_sectors_of_4k(self, cli: Cli, tmp_path: Path) -> None:
        answer = cli.json(
            "init",
            tmp_path,
            *("--type", "localfs", "--block-size", 4096, "--alignment", 2),
        )
        assert (answer["block_size"], answer["alignment"]) == (4096, 2 << 20)

    def test_impossible(self, cli: Cli, tmp_path: Path) -> None:
        options = ("--type", "localfs", "--version", 4, "--block-size", 4096)
        result = cli("init", tmp_path, *options)
        assert result.status == 2
        assert len(result.err.splitlines()) == 1
        assert list(tmp_path.iterdir()) == []

    def test_no_directory(self, cli: Cli, tmp_path: Path) -> None:
        result = cli("init", tmp_path / "none", "--type", "localfs")
        assert "no such directory" in result.is_error(3546)

    def test_leases_without_daemon(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "target").mkdir()
        cli.env["SANLOCK_RUN_DIR"] = str(tmp_path)
        result = cli("init", tmp_path / "target", "--type", "posixfs")
        result.is_error(3523)
        assert list((tmp_path / "target").iterdir()) == []


class TestCreate:
    def test_two_copies(self, cli: Cli, tmp_path: Path) -> None:
        path = cli.ok("init", tmp_path, "--type", "localfs").text.strip()
        answer = cli.json("create", path, "--size", 4)
        assert len(answer["created"]) == len(answer["copies"]) == 2
        status = cli.json("status", path)
        assert [c["capacity"] for c in status["copies"]] == [4 << 20] * 2

    def test_there_already(self, store: Store) -> None:
        before = store.contents()
        answer = store.json("create")
        assert answer["created"] == []
        assert len(answer["copies"]) == 2
        assert store.contents() == before

    def test_third_copy_gets_newest(self, store: Store) -> None:
        answer = store.json("create", "--copies", 3, "--size", 8)
        assert len(answer["created"]) == 1
        assert answer["joined"] == answer["created"]
        assert answer["degraded"] == []
        status = store.json("status")
        assert status["verdict"] == "ok"
        assert [c["generation"] for c in status["copies"]] == [1, 1, 1]

    def test_proposes_upload(self, empty: Store) -> None:
        out = empty.ok("create").text
        assert f"Next: ovfstore upload {empty.path} SOURCE" in out


class TestUpload:
    def test_file(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "a.tar").write_bytes(archive("one", "two", "three"))
        answer = store.json("upload", tmp_path / "a.tar")
        assert answer["generation"] == 2
        assert answer["entities"] == 3
        assert len(answer["copies"]) == 2
        assert answer["degraded"] == answer["healed"] == []
        assert store.names() == ["one", "three", "two"]

    def test_stdin(self, store: Store) -> None:
        assert store.upload("one")["generation"] == 2
        assert store.names() == ["one"]

    def test_same_again(self, store: Store) -> None:
        answer = store.upload("web", "db")
        assert answer["generation"] == 1
        assert answer["unchanged"] is True
        out = store.ok("upload", "-", data=archive("web", "db")).text
        assert out.startswith("Generation 1 was the newest already: 2 ent")

    def test_directory(self, store: Store) -> None:
        answer = store.json("upload", SAMPLES)
        assert answer["entities"] == len(list(SAMPLES.glob("*.ovf")))
        head = Path(store.copies()[0]["path"]).read_bytes()
        with tarfile.open(fileobj=BytesIO(head)) as file:
            names = file.getnames()
        assert names[0] == "info.json"
        assert names[-1] == "metadata.json"
        wanted = sorted(p.name for p in SAMPLES.glob("*.ovf"))
        assert names[1:-1] == wanted

    def test_names_and_ids(self, store: Store, tmp_path: Path) -> None:
        """The file's name, else what the OVF says."""
        source = tmp_path / "ovfs"
        source.mkdir()
        (source / f"{IDS[1].upper()}.OVF").write_text(OVF.format(name="one"))
        sample = next(iter(sorted(SAMPLES.glob("*.ovf"))))
        (source / "backup.xml").write_bytes(sample.read_bytes())
        (source / "notes.txt").write_text("no OVF")
        store.ok("upload", source)
        ids = [e["id"] for e in store.json("vms")["entities"]]
        assert sorted(ids) == sorted([IDS[1], sample.stem])

    def test_text(self, store: Store) -> None:
        out = store.ok("upload", "-", data=archive("one")).text
        assert re.match(r"Generation 2: 1 entity, .* on 2 copies, sha", out)
        assert out.endswith(f"Next: ovfstore status {store.path}\n")


class TestDownload:
    def test_stdout(self, store: Store) -> None:
        assert store.ok("download").out == archive("web", "db")

    def test_file(self, store: Store, tmp_path: Path) -> None:
        target = tmp_path / "out" / "a.tar"
        target.parent.mkdir()
        target.write_text("older")
        answer = store.json("download", "-o", target)
        assert answer["file"] == str(target)
        assert answer["generation"]["number"] == 1
        assert target.read_bytes() == archive("web", "db")
        assert list(target.parent.iterdir()) == [target]

    def test_older(self, store: Store) -> None:
        store.upload("one")
        digest = store.json("history")["generations"][1]["sha256"]
        for generation in ("1", f"1:{digest[:8]}"):
            out = store.ok("download", "--generation", generation).out
            assert out == archive("web", "db")

    def test_unknown_generation(self, store: Store) -> None:
        result = store.cli("download", store.path, "-g", "7")
        result.is_error(3541)
        assert f"ovfstore history {store.path}" in result.err

    @pytest.mark.parametrize(
        "target", ["/dev/null", ".", "none/a.tar"], ids=["device", "dir", "no"]
    )
    def test_refuses_target(self, store: Store, target: str) -> None:
        result = store.cli("download", store.path, "-o", target)
        result.is_error(3546)
        assert not Path("/dev/null").is_file()

    def test_json_needs_file(self, store: Store) -> None:
        store.cli.error("download", store.path, status=2)


class TestStatus:
    def test_sound(self, store: Store) -> None:
        answer = store.json("status")
        assert answer["verdict"] == "ok"
        assert answer["newest"]["number"] == 1
        assert answer["newest"]["entities"] == 2
        assert answer["problems"] == []
        assert [c["verdict"] for c in answer["copies"]] == ["ok", "ok"]
        assert answer["age"] is not None

    def test_text(self, store: Store) -> None:
        lines = store.ok("status").text.splitlines()
        assert lines[0].split()[:2] == ["DOMAIN", "TYPE"]
        words = [store.path.name, "localfs", "5", "flock", "1"]
        assert lines[1].split()[:5] == words
        assert lines[1].split()[-2:] == ["2", "ok"]
        assert lines[-1] == f"Next: ovfstore vms {store.path}"

    def test_empty(self, empty: Store) -> None:
        answer = empty.json("status")
        assert answer["verdict"] == "empty"
        assert answer["newest"] is answer["age"] is None
        assert answer["next_step"] == f"ovfstore upload {empty.path} SOURCE"

    def test_path_is_quoted(self, cli: Cli, tmp_path: Path) -> None:
        (tmp_path / "a b").mkdir()
        path = cli.ok("init", "a b", "--type", "localfs").text.strip()
        result = cli("status", path)
        result.is_error(201)
        assert f"Run: ovfstore create '{path}'" in result.err

    def test_mount_point(self, store: Store) -> None:
        answer = store.cli.json("status", store.path.parent)
        assert answer["domain"] == store.path.name

    def test_buffered(self, store: Store) -> None:
        assert store.json("status", "--allow-buffered-io")["buffered"]
        out = store.ok("status", "--allow-buffered-io").text
        assert "Buffered I/O" in out


class TestList:
    def test_stores_below(self, store: Store, cli: Cli) -> None:
        parent = store.path.parent
        other = parent / "one" / "two"
        other.mkdir(parents=True)
        make_store(cli, other)
        cli.ok("init", parent, "--type", "localfs")  # has no store
        answer = cli.json("list", parent)
        found = {s["domain"]: s for s in answer["stores"]}
        assert len(found) == 2
        mine = found.pop(store.path.name)
        assert (mine["verdict"], mine["copies"]) == ("ok", 2)
        assert mine["newest"]["entities"] == 2
        assert next(iter(found.values()))["verdict"] == "empty"
        lines = cli.ok("list", parent).text.splitlines()
        assert len(lines) == 3
        assert any(store.path.name in line for line in lines[1:])

    def test_unreadable(self, store: Store, cli: Cli) -> None:
        parent = store.path.parent
        broken = parent / IDS[1] / "dom_md"
        broken.mkdir(parents=True)
        (broken / "metadata").write_text("SDUUID=x\n")
        answer = cli.json("list", parent, status=1)
        assert len(answer["stores"]) == 1
        assert [e["code"] for e in answer["unreadable"]] == [751]
        result = cli("list", parent)
        assert result.status == 1
        assert "warning: error 751" in result.err
        assert store.path.name in result.text

    def test_nothing(self, cli: Cli, tmp_path: Path) -> None:
        assert "No store found" in cli.ok("list", tmp_path).text

    def test_no_directory(self, cli: Cli) -> None:
        cli("list", "none").is_error(358)


class TestVms:
    def test_samples(self, store: Store) -> None:
        store.ok("upload", SAMPLES)
        found = store.json("vms")["entities"]
        assert {e["id"] for e in found} == {
            p.stem for p in SAMPLES.glob("*.ovf")
        }
        assert {e["kind"] for e in found} == {"vm", "template"}
        assert max(len(e["disks"]) for e in found) >= 2
        lines = store.ok("vms").text.splitlines()
        assert lines[0].split() == ["NAME", "ID", "KIND", "DISKS", "SIZE"]
        assert len(lines) == len(found) + 1

    def test_older(self, store: Store) -> None:
        store.upload("one")
        assert store.names("--generation", 1) == ["db", "web"]

    def test_names_cannot_steer_the_terminal(self, store: Store) -> None:
        name = "a\x9b31mb\u202ec\nd"
        store.ok("upload", "-", data=archive(name))
        out = store.ok("vms").text
        assert len(out.splitlines()) == 2
        assert "a\\x9b31mb\\u202ec\\x0ad" in out
        assert store.names() == [name]


class TestShow:
    def test_exactly(self, store: Store) -> None:
        store.ok("upload", SAMPLES)
        for sample in SAMPLES.glob("*.ovf"):
            out = store.ok("show", sample.stem).out
            assert out == sample.read_bytes()

    @pytest.mark.parametrize("vm", ["web", IDS[0], IDS[0].upper()])
    def test_by_name_and_id(self, store: Store, vm: str) -> None:
        assert store.ok("show", vm).text == OVF.format(name="web")

    def test_json(self, store: Store) -> None:
        answer = store.json("show", "db")
        assert answer["entity"]["id"] == IDS[1]
        assert answer["generation"]["number"] == 1

    def test_unknown(self, store: Store) -> None:
        result = store.cli("show", store.path, "none")
        result.is_error(3543)
        assert f"Run: ovfstore vms {store.path}" in result.err

    def test_ambiguous(self, store: Store) -> None:
        store.upload("twin", "twin")
        message = store.cli("show", store.path, "twin").is_error(3544)
        assert IDS[0] in message
        assert IDS[1] in message


class TestHistory:
    def test_newest_first(self, store: Store) -> None:
        store.upload("a", "b", "c")
        store.upload("a")  # so few that the one before is pinned
        found = store.json("history")["generations"]
        assert [g["number"] for g in found] == [3, 2, 1]
        assert [g["entities"] for g in found] == [1, 3, 2]
        assert [g["pinned"] for g in found] == ["", "shrink", ""]
        assert {len(g["copies"]) for g in found} == {2}
        lines = store.ok("history").text.splitlines()
        assert re.match(rf" +3  {found[0]['sha256'][:12]}  {TIME}", lines[1])
        assert "2 of 2" in lines[1]

    def test_empty(self, empty: Store) -> None:
        assert empty.json("history")["generations"] == []


class TestExtract:
    def test_all(self, store: Store, tmp_path: Path) -> None:
        store.ok("upload", SAMPLES)
        answer = store.json("extract", "-o", tmp_path / "out")
        assert answer["failed"] == []
        for sample in SAMPLES.glob("*.ovf"):
            found = tmp_path / "out" / sample.name
            assert found.read_bytes() == sample.read_bytes()
        assert len(answer["extracted"]) == len(list(SAMPLES.glob("*.ovf")))

    def test_some(self, store: Store, tmp_path: Path) -> None:
        out = store.ok("extract", "web", IDS[0], "-o", tmp_path / "out").text
        assert out.startswith("Wrote 1 OVF of generation 1")
        assert os.listdir(tmp_path / "out") == [f"{IDS[0]}.ovf"]

    def test_unknown_writes_nothing(
        self, store: Store, tmp_path: Path
    ) -> None:
        target = tmp_path / "out"
        result = store.cli("extract", store.path, "web", "x", "-o", target)
        result.is_error(3543)
        assert not target.exists()

    def test_existing_file(self, store: Store, tmp_path: Path) -> None:
        target = tmp_path / "out"
        target.mkdir()
        (target / f"{IDS[0]}.ovf").write_text("mine")
        answer = store.json("extract", "-o", target, status=1)
        assert [e["id"] for e in answer["failed"]] == [IDS[0]]
        assert answer["failed"][0]["error"]["code"] == 3546
        assert (target / f"{IDS[0]}.ovf").read_text() == "mine"
        assert (target / f"{IDS[1]}.ovf").read_text() == OVF.format(name="db")
        store.ok("extract", "-o", target, "--force")
        assert (target / f"{IDS[0]}.ovf").read_text() == OVF.format(name="web")
        assert len(list(target.iterdir())) == 2

    @pytest.mark.parametrize(
        "args",
        [
            pytest.param(("-o", "out", "db"), id="last"),
            pytest.param(("db", "-o", "out", "web"), id="both-sides"),
            pytest.param(("web", "-g", "1", "db", "-o", "out"), id="between"),
        ],
    )
    def test_names_behind_options(
        self, store: Store, args: tuple[str, ...]
    ) -> None:
        answer = store.json("extract", *args)
        names = {e["name"] for e in answer["extracted"]}
        assert names == {"db", "web"} & set(args)

    def test_unknown_option(self, store: Store) -> None:
        error = store.cli.error(
            *("extract", store.path, "-o", "out", "--bogus", "x"), status=2
        )
        assert "unrecognized arguments: --bogus;" in error["message"]

    def test_no_directory(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        for target, reason in (("file", "no directory"), ("a/b", "No such")):
            result = store.cli("extract", store.path, "-o", target)
            assert reason in result.is_error(3546)

    def test_interrupted(self, store: Store) -> None:
        """It says how far it came; no half a file is there."""
        code = (
            "import sys; from vdsm_ovfstore.cli import direct, main\n"
            "read = direct.Direct.read\n"
            "def once(*args):\n"
            "    def stop(*args): raise KeyboardInterrupt\n"
            "    direct.Direct.read = stop\n"
            "    return read(*args)\n"
            "direct.Direct.read = once\n"
            "sys.exit(main.main())\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "extract", store.path, "-o", "out"],
            cwd=store.cli.cwd,
            env=store.cli.env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 130
        assert "1 of 2 files were written to out" in done.stderr
        assert len(os.listdir(store.cli.cwd / "out")) == 1

    def test_link_is_not_followed(self, store: Store, tmp_path: Path) -> None:
        target = tmp_path / "out"
        target.mkdir()
        (target / f"{IDS[0]}.ovf").symlink_to(tmp_path / "elsewhere")
        store.cli("extract", store.path, "-o", target)
        store.ok("extract", "-o", target, "--force")
        assert not (tmp_path / "elsewhere").exists()
        assert not (target / f"{IDS[0]}.ovf").is_symlink()


class TestExplain:
    def test_one(self, cli: Cli) -> None:
        answer = cli.json("explain", 3543)
        assert [c["name"] for c in answer["codes"]] == ["EntityNotFound"]
        out = cli.ok("explain", 651).text
        assert "is in use by OWNER" in out
        assert "Exit status: 5" in out
        assert "{" not in out

    def test_all(self, cli: Cli) -> None:
        codes = [c["code"] for c in cli.json("explain")["codes"]]
        assert codes == sorted(codes)
        assert len(codes) > 40
        assert len(cli.ok("explain").text.splitlines()) == len(codes) + 1

    def test_one_code_of_two_errors(self, cli: Cli) -> None:
        names = [c["name"] for c in cli.json("explain", 358)["codes"]]
        assert names == ["DomainNotFound", "DomainNotServed"]
        out = cli.ok("explain", 358).text
        assert all(f"358 {name}: " in out for name in names)

    def test_unknown(self, cli: Cli) -> None:
        assert cli("explain", 1).status == 2


class TestUnsealed:
    """What hosts without us wrote can be read, and is said to be that."""

    @pytest.fixture
    def stock(self, empty: Store) -> Store:
        data = tar(
            ("info.json", "{}"), (f"{IDS[0]}.ovf", OVF.format(name="old"))
        )
        for copy in empty.copies():
            Path(copy["path"]).write_bytes(data)
        return empty

    def test_read(self, stock: Store) -> None:
        status = stock.cli("status", stock.path, "--json").json
        assert status["newest"]["kind"] == "unsealed"
        assert stock.names() == ["old"]
        assert stock.ok("show", "old").text == OVF.format(name="old")
        history: Any = stock.json("history")["generations"]
        assert [g["kind"] for g in history] == ["unsealed"]
        assert "unsealed" in stock.ok("history").text


class TestTarReads:
    def test_dd_and_tar(self, store: Store) -> None:
        """What people type without us still works."""
        for copy in store.copies():
            line = f"dd if={copy['path']} bs=4k status=none | tar -tf -"
            done = subprocess.run(
                ["bash", "-o", "pipefail", "-c", line],
                capture_output=True,
                check=True,
                text=True,
            )
            assert done.stdout.split() == [f"{i}.ovf" for i in IDS[:2]]
