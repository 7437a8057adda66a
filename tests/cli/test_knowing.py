# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""wait, metrics, maintain, and what history foretells."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.cli.harness import (
    IDS,
    SAMPLES,
    Cli,
    Store,
    damage_frame,
    damage_head,
    large,
)

# -- wait ---------------------------------------------------------------------


def test_what_is_there(store: Store) -> None:
    text = store.ok("wait", "-g", 1).text
    assert re.fullmatch(r"Generation 1, \d+ (s|min|h) old\n", text)
    answer = store.json("wait", "--newer-than", "2020-01-01T00:00:00Z")
    assert answer["generation"]["number"] == 1
    assert store.json("wait", "--newer-than", 1_500_000_000)["generation"]


def test_what_comes(store: Store) -> None:
    waiting = store.cli.popen(
        *("wait", store.path, "-g", 2, "--timeout", 60),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    store.upload("web", "mail")
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, err) == (0, b"")
    assert out.startswith(b"Generation 2, ")


def test_what_does_not_come(store: Store, empty: Store) -> None:
    result = store.cli("wait", store.path, "-g", 9, "--timeout", 0.1)
    message = result.is_error(3562)
    assert message == (
        "generation 9 did not come within 0.1 s; the newest is 1"
    )
    args = ("wait", empty.path, "--newer-than", 1, "--timeout", 0)
    assert "the newest is none" in empty.cli(*args).is_error(3562)


@pytest.mark.parametrize(
    "args",
    [(), ("-g", "x"), ("--newer-than", "noon"), ("-g", 1, "--newer-than", 1)],
    ids=["nothing", "number", "time", "both"],
)
def test_wait_for_what(store: Store, args: tuple[object, ...]) -> None:
    assert store.cli("wait", store.path, *args).status == 2


# -- history --preview --------------------------------------------------------


def test_preview(store: Store) -> None:
    for name in ("a", "b", "c"):
        store.upload("web", name)
    before = store.contents()
    answer = store.json("history", "--preview", "--keep", "2,0,0,0")
    assert [g["next"] for g in answer["generations"]] == [
        "stays",
        "stays",
        "expired",
        "expired",
    ]
    text = store.ok("history", "--preview", "--keep", "2,0,0,0").text
    assert text.count("expired\n") == 2
    assert text.endswith(
        "The next upload lets 2 generations go, if it is as large as the "
        "newest\n"
    )
    assert "0 generations go" in store.ok("history", "--preview").text
    assert store.contents() == before


@pytest.mark.parametrize(
    "args",
    [
        ("--keep", "2,0,0,0"),
        ("--preview", "--keep", "2"),
        ("--preview", "--keep", "60,60,0,1"),
        ("--preview", "--keep", "-1,0,0,0"),
    ],
    ids=["without preview", "too few", "too many", "negative"],
)
def test_keep_what(store: Store, args: tuple[str, ...]) -> None:
    assert store.cli("history", store.path, *args).status == 2


# -- the guard ----------------------------------------------------------------


def test_doubtful_upload(store: Store, monkeypatch: Any) -> None:
    monkeypatch.setattr(Cli, "force", False)
    before = store.json("history")
    result = store.cli("upload", store.path, SAMPLES)
    message = result.is_error(3561)
    assert "it lacks 2 of 2 VMs and templates" in message
    assert f"ovfstore upload {store.path} SOURCE --force" in result.err
    assert store.json("history") == before
    store.json("upload", SAMPLES, "--force")
    assert len(store.json("history")["generations"]) == 2


# -- maintain -----------------------------------------------------------------


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "maintain.json"


def maintain(
    store: Store, state: Path, *args: object, status: int = 0
) -> Any:
    command = ("maintain", store.path, "--state", state, *args)
    return store.cli.json(*command, status=status)  # type: ignore[arg-type]


def test_nothing_to_mend(store: Store, state: Path) -> None:
    before = store.contents()
    (found,) = maintain(store, state)["domains"]
    assert (found["verdict"], found["healed"]) == ("ok", [])
    assert store.contents() == before
    (kept,) = json.loads(state.read_text())["domains"]
    assert kept == found
    text = store.cli.ok("maintain", store.path, "--state", state).text
    assert store.path.name in text


def test_mends(store: Store, state: Path) -> None:
    damage_head(store, 0)
    (found,) = maintain(store, state, "--check-only", status=3)["domains"]
    assert (found["verdict"], found["healed"]) == ("damaged", [])
    (found,) = maintain(store, state)["domains"]
    assert found["verdict"] == "ok"
    assert any("damaged head" in what for what in found["healed"])
    store.ok("verify")


def test_collects_what_nobody_uses(store: Store, state: Path) -> None:
    """A log whose volume is gone: noted, and removed a month later."""
    log = store.log(0)
    orphan = log.with_name(f"{IDS[1]}.log")
    orphan.write_bytes(log.read_bytes())
    maintain(store, state)
    assert orphan.exists() and Path(f"{orphan}.left").exists()
    assert maintain(store, state)["domains"][0]["verdict"] == "ok"


def test_what_cannot_be_mended(empty: Store, state: Path) -> None:
    for seed in (1, 2, 3):
        empty.json("upload", "-", data=large(seed))
    for copy in (0, 1):
        damage_frame(empty, copy, 0)
    (found,) = maintain(empty, state, status=3)["domains"]
    assert found["verdict"] != "ok"
    assert found["problems"]


def test_several(store: Store, state: Path, tmp_path: Path) -> None:
    """One that cannot be read keeps nobody from the others."""
    broken = tmp_path / IDS[0] / "dom_md"
    broken.mkdir(parents=True)
    (broken / "metadata").write_text("nonsense\n")
    parent = store.path.parent
    command = ("maintain", parent, "--state", state)
    result = store.cli(*command, "--json")
    found = json.loads(result.out)
    assert [d["domain"] for d in found["domains"]] == [store.path.name]
    if parent == tmp_path:
        assert result.status == 1
        assert len(found["unreadable"]) == 1


def test_no_state(store: Store) -> None:
    """What cannot be kept is an error: metrics would tell old news."""
    result = store.cli("maintain", store.path, "--state", "/nowhere/x.json")
    result.is_error(3546)


def test_no_such_place(cli: Cli, state: Path) -> None:
    for verb in ("maintain", "metrics"):
        cli(verb, "/nowhere", "--state", state).is_error(358)


# -- metrics ------------------------------------------------------------------


def parsed(text: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """By Prometheus' own parser."""
    parser = pytest.importorskip("prometheus_client.parser")
    return {
        (s.name, tuple(s.labels.values())): s.value
        for family in parser.text_string_to_metric_families(text)
        for s in family.samples
    }


def test_metrics(store: Store, state: Path) -> None:
    found = parsed(store.ok("metrics", "--state", state).text)
    domain = (store.path.name,)
    assert found["ovfstore_up", (str(store.path),)] == 1
    assert found["ovfstore_healthy", domain] == 1
    assert found["ovfstore_generation", domain] == 1
    assert found["ovfstore_entities", domain] == 2
    assert found["ovfstore_copies", domain] == 2
    assert found["ovfstore_copies_healthy", domain] == 2
    assert found["ovfstore_unreadable", ()] == 0
    when = found["ovfstore_generation_timestamp_seconds", domain]
    assert abs(when - time.time()) < 86400
    for copy in store.copies():
        labels = (*domain, copy["volume"])
        assert found["ovfstore_log_used_bytes", labels] == copy["log_used"]
        assert found["ovfstore_capacity_bytes", labels] == copy["capacity"]
    assert not any(name.startswith("ovfstore_verified") for name, _ in found)


def test_metrics_tell_of_the_last_check(store: Store, state: Path) -> None:
    damage_head(store, 0)
    maintain(store, state, "--check-only", status=3)
    found = parsed(store.ok("metrics", "--state", state).text)
    domain = (store.path.name,)
    assert found["ovfstore_verified", domain] == 0
    assert found["ovfstore_healthy", domain] == 0
    assert found["ovfstore_copies_healthy", domain] == 1
    when = found["ovfstore_verified_timestamp_seconds", domain]
    assert abs(when - time.time()) < 3600


def test_metrics_to_a_file(store: Store, state: Path, tmp_path: Path) -> None:
    target = tmp_path / "ovfstore.prom"
    target.write_text("old")
    args = ("metrics", "--state", state, "--output", target)
    assert store.cli.ok(*args, store.path).out == b""
    assert target.stat().st_mode & 0o777 == 0o644
    assert ("ovfstore_unreadable", ()) in parsed(target.read_text())
    assert list(tmp_path.glob("*.part")) == []
    for wrong in (tmp_path / "x.txt", tmp_path):
        refused = store.cli("metrics", store.path, "--output", wrong)
        assert refused.status == 2
    assert store.cli("metrics", store.path, "--json").status == 2


def test_hostile_paths(cli: Cli, store: Store, state: Path) -> None:
    name = 'q"uo\\te\nline'
    strange = store.path.parent / name
    strange.mkdir()
    moved = strange / store.path.name
    store.path.rename(moved)
    found = parsed(cli.ok("metrics", strange, "--state", state).text)
    assert found["ovfstore_up", (str(moved),)] == 1
    moved.rename(store.path)


def test_state_that_is_none(store: Store, state: Path) -> None:
    for text in ("", "[]", "{}", '{"version": 1, "domains": [1]}', "\0"):
        state.write_text(text)
        store.ok("metrics", "--state", state)
