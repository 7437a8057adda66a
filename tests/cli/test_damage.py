# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Damage: what is said of it, what can be had, and what mends it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.harness import (
    OVF,
    VMS,
    Store,
    archive,
    damage,
    damage_frame,
    damage_head,
    large,
)


@pytest.fixture
def larger(store: Store) -> Store:
    store.json("upload", "-", data=large(1))
    return store


def run_next(store: Store, text: str) -> None:
    """Type the command that was proposed."""
    (line,) = [x for x in text.splitlines() if x.startswith("Next: ")]
    program = f"{shlex.quote(sys.executable)} -m vdsm_ovfstore"
    line = line[len("Next: ") :].replace("ovfstore ", f"{program} ")
    subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=store.cli.cwd,
        env=store.cli.env,
        check=True,
        stdout=subprocess.DEVNULL,
    )


class TestSound:
    @pytest.mark.parametrize("option", [(), ("--quick",)], ids=["deep", "q"])
    def test_ok(self, larger: Store, option: tuple[str, ...]) -> None:
        answer = larger.json("verify", *option)
        assert answer["verdict"] == "ok"
        assert answer["recoverable"] == 2
        assert [g["verdict"] for g in answer["generations"]] == ["ok", "ok"]
        assert all(len(c["segments"]) == 2 for c in answer["copies"])
        out = larger.ok("verify", *option).text
        assert out.endswith(f"Next: ovfstore vms {larger.path}\n")

    def test_empty(self, empty: Store) -> None:
        answer = empty.json("verify")
        assert answer["verdict"] == "empty"
        assert answer["generations"] == []


class TestHead:
    def test_one_copy(self, store: Store) -> None:
        damage_head(store, 0)
        status = store.json("status", status=3)
        assert status["copies"][0]["head"] == "damaged"
        assert status["next_step"] == f"ovfstore verify {store.path}"
        assert store.ok("download").out == archive("web", "db")

        result = store.cli("verify", store.path)
        assert result.status == 3
        run_next(store, result.text)
        assert store.json("verify")["verdict"] == "ok"

    def test_all_copies(self, store: Store) -> None:
        damage_head(store, 0)
        damage_head(store, 1)
        answer = store.json("verify", status=3)
        assert answer["recoverable"] == 1
        assert store.ok("show", "web").text == OVF.format(name="web")


class TestLog:
    def test_one_frame(self, larger: Store) -> None:
        damage_frame(larger, 0, 1)
        answer = larger.json("verify", status=3)
        newest = answer["generations"][0]
        assert newest["verdict"] == "damaged"
        assert newest["whole"] is True
        assert newest["lost"] == []
        assert newest["damaged_on"] == [answer["copies"][0]["volume"]]
        assert answer["recoverable"] == 2
        segments = answer["copies"][0]["segments"]
        named = {e for s in segments for e in s["entities"]}
        assert 0 < len(named) < VMS

        result = larger.cli("verify", larger.path)
        volume = answer["copies"][0]["volume"]
        assert f"copy {volume} is damaged" in result.text
        run_next(larger, result.text)
        assert larger.json("verify")["verdict"] == "ok"

    def test_quick_sees_records_only(self, larger: Store) -> None:
        damage_frame(larger, 0, 1)
        assert larger.json("verify", "--quick")["verdict"] == "ok"

    def test_different_frames(self, larger: Store) -> None:
        """No copy has it whole, but both together have."""
        damage_frame(larger, 0, 0)
        damage_frame(larger, 1, 1)
        damage_head(larger, 0)
        damage_head(larger, 1)
        answer = larger.json("verify", status=3)
        assert answer["generations"][0]["whole"] is True
        assert answer["recoverable"] == 2
        assert larger.ok("download").out == large(1)


class TestLost:
    @pytest.fixture
    def lossy(self, larger: Store) -> Store:
        """A frame of the newest generation is gone everywhere."""
        for copy in (0, 1):
            damage_frame(larger, copy, 1)
            damage_head(larger, copy)
        return larger

    def test_names_what_is_lost(self, lossy: Store) -> None:
        answer = lossy.json("verify", status=3)
        newest, older = answer["generations"]
        assert newest["verdict"] == "damaged"
        assert newest["whole"] is False
        assert 0 < len(newest["lost"]) < VMS
        assert newest["recoverable_entities"] == VMS - len(newest["lost"])
        assert older["verdict"] == "ok"
        result = lossy.cli("verify", lossy.path)
        assert f"Lost of generation 2: {newest['lost'][0]}" in result.text
        assert result.text.endswith(
            f"Next: ovfstore salvage {lossy.path} -o DIR\n"
        )

    def test_extract_goes_on(self, lossy: Store, tmp_path: Path) -> None:
        lost = lossy.json("verify", status=3)["generations"][0]["lost"]
        answer = lossy.json("extract", "-o", tmp_path / "out", status=3)
        assert [e["name"] for e in answer["failed"]] == lost
        assert {e["error"]["code"] for e in answer["failed"]} == {3540}
        files = list((tmp_path / "out").iterdir())
        assert len(files) == VMS - len(lost)
        result = lossy.cli(
            "extract", lossy.path, "-o", tmp_path / "out", "--force"
        )
        assert result.status == 3
        assert result.err.count("was not written: error 3540") == len(lost)

    def test_download_leaves_nothing(
        self, lossy: Store, tmp_path: Path
    ) -> None:
        target = tmp_path / "out"
        target.mkdir()
        result = lossy.cli("download", lossy.path, "-o", target / "a.tar")
        result.is_error(3540, status=3)
        assert list(target.iterdir()) == []
        assert lossy.cli("download", lossy.path).status == 3

    def test_show(self, lossy: Store) -> None:
        lost = lossy.json("verify", status=3)["generations"][0]["lost"]
        result = lossy.cli("show", lossy.path, lost[0])
        result.is_error(3540, status=3)
        assert result.out == b""

    def test_next_upload_works(self, lossy: Store) -> None:
        assert lossy.upload("new")["generation"] >= 3
        assert lossy.names() == ["new"]

    def test_nothing_left(self, store: Store) -> None:
        for copy in (0, 1):
            head = Path(store.copies()[copy]["path"])
            damage(store.log(copy), 0, 7 << 20)
            damage(head, 0, head.stat().st_size)
        answer = store.json("verify", status=4)
        assert answer["recoverable"] == 0
        assert answer["generations"][0]["verdict"] == "lost"
        assert answer["next_step"].startswith("ovfstore salvage")


class TestMissing:
    def test_copy_is_gone(self, store: Store) -> None:
        path = Path(store.copies()[0]["path"])
        for file in path.parent.iterdir():
            file.unlink()
        path.parent.rmdir()
        status = store.json("status", status=3)
        assert any("is missing" in p for p in status["problems"])
        assert store.names() == ["db", "web"]
        result = store.cli("verify", store.path)
        assert result.text.endswith(f"Next: ovfstore create {store.path}\n")
        run_next(store, result.text)
        copies = store.copies()
        assert [c["verdict"] for c in copies] == ["ok", "ok"]
        assert [c["generation"] for c in copies] == [1, 1]

    def test_member_excluded(self, store: Store) -> None:
        """Degraded is a success, and is said."""
        meta = Path(store.copies()[0]["path"] + ".meta")
        text = meta.read_text()
        meta.write_text(text.replace("VOLTYPE=LEAF", "VOLTYPE=SHARED"))
        result = store.cli("upload", store.path, "-", data=archive("new"))
        assert result.status == 0
        assert "warning: copy" in result.err
        assert "error 3504" in result.err
        assert store.names() == ["new"]
