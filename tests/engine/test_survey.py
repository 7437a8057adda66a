# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Looks at a directory: what goes where, what waits, what is marked."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.engine.bed import Bed
from tests.engine.ovfs import Disk, ident, make_ovf
from vdsm_ovfstore import errors
from vdsm_ovfstore.engine import facts
from vdsm_ovfstore.engine.directory import Directory, statuses
from vdsm_ovfstore.engine.facts import EVERYWHERE, read_facts
from vdsm_ovfstore.engine.source import DOWN, IMAGE_LOCKED, Item
from vdsm_ovfstore.engine.state import State
from vdsm_ovfstore.format import member, ovf

A, B = ident("a"), ident("b")
SAMPLES = Path(__file__).parents[2] / "samples" / "ovfs"


# -- what an OVF says ---------------------------------------------------------


def domains(*disks: Disk, **options: Any) -> tuple[str, ...]:
    return read_facts(make_ovf("vm", disks, **options), ident("vm")).domains


def test_where_it_belongs() -> None:
    assert domains(Disk(A)) == (A,)
    assert domains(Disk(A), Disk(B), Disk(A)) == (A, B)
    assert domains() == (EVERYWHERE,)
    assert domains(Disk("", kind="LUN")) == (EVERYWHERE,)
    assert domains(Disk(A, shareable=True)) == (EVERYWHERE,)
    assert domains(Disk(A), Disk(B, shareable=True)) == (A,)
    assert domains(Disk(A), Disk("", kind="LUN")) == (A,)
    # Its own domain has no store: nowhere, in the engine.
    assert domains(Disk(B, kind="CINDER")) == (EVERYWHERE,)
    assert domains(Disk(B, kind="MANAGED_BLOCK_STORAGE")) == (EVERYWHERE,)
    assert domains(Disk(A), origin=4) == ()
    assert domains(Disk(A.upper())) == (A,)


def test_memory_of_snapshots() -> None:
    parts = [ident(str(n)) for n in range(6)]
    data = make_ovf("vm", [Disk(A)], memory=",".join(parts))
    found = read_facts(data, ident("vm"))
    assert found.memory == (parts[2], parts[4])
    assert found.domains == (A,)


def test_facts_of_samples() -> None:
    found = {
        path.stem: read_facts(path.read_bytes(), path.stem)
        for path in SAMPLES.glob("*.ovf")
    }
    assert sorted((f.kind, f.name, f.generation) for f in found.values()) == [
        ("template", "rhel9-base", 2),
        ("vm", "HarbourEngine", 88),
        (
            "vm",
            "arch\u00edv-\u0434\u0430\u043d\u043d\u044b\u0435-\u5009\u5eab",
            19,
        ),
        ("vm", "harbour-web-01", 31),
        ("vm", "orders-db", 58),
        ("vm", "rescue-pxe", 4),
    ]
    assert [len(f.domains) for f in found.values()].count(2) == 3


@pytest.mark.parametrize(
    "data",
    [
        make_ovf("other"),
        make_ovf("vm").replace(
            b"<?xml", b"<!DOCTYPE a [<!ENTITY b 'c'>]><?xml"
        ),
        make_ovf("vm").replace(
            b"<ovf:Envelope ", b"<!DOCTYPE a [<!ENTITY b 'c'>]><ovf:Envelope "
        ),
        make_ovf("vm").replace(b"<Name>vm</Name>", b""),
        b"",
        b"\0" * 100,
        b"<a>" * 1000,
        b" " * (ovf.MAX_OVF + 1),
    ],
    ids=["other", "late", "dtd", "name", "empty", "zeros", "deep", "long"],
)
def test_bad_ovfs(data: bytes) -> None:
    with pytest.raises(errors.OvfRefused):
        read_facts(data, ident("vm"))


@pytest.mark.parametrize("number", ["", "x", "-1", "9" * 30, "1" * 100000])
def test_senseless_generations(number: str) -> None:
    data = make_ovf("vm", [Disk(A)]).replace(
        b"<Generation>1<", f"<Generation>{number}<".encode()
    )
    assert read_facts(data, ident("vm")).generation == 0


def test_other_prefixes() -> None:
    data = make_ovf("vm", [Disk(A)])
    data = data.replace(b"rasd:", b"r:").replace(b"xmlns:rasd", b"xmlns:r")
    assert read_facts(data, ident("vm")).domains == (A,)


# -- what is marked -----------------------------------------------------------


def test_a_change_marks_where_it_was_and_where_it_is(dry: Bed) -> None:
    dry.vm("web", A)
    dry.look()
    before = dry.marks()
    dry.vm("web", B)
    dry.look()
    assert dry.marks() == {d: m + 1 for d, m in before.items()}
    assert (dry.placed(A), dry.placed(B)) == ([], ["web"])


def test_a_diskless_vm_is_everywhere(dry: Bed) -> None:
    dry.vm("pxe")
    before = dry.marks()
    dry.look()
    assert dry.marks() == {d: m + 1 for d, m in before.items()}
    assert dry.placed(A) == dry.placed(B) == ["pxe"]


def test_a_file_written_again_is_no_change(dry: Bed) -> None:
    dry.vm("web", A)
    dry.look()
    before = dry.marks()
    dry.vm("web", A)
    dry.look()
    assert dry.marks() == before


def test_a_change_within_one_tick_is_seen(dry: Bed) -> None:
    """Same size, same times, same file: nothing but the bytes differ."""
    dry.vm("web", A, notes="1")
    path = dry.ovfs / f"{ident('web')}.ovf"
    dry.look()
    times = path.stat()
    path.write_bytes(make_ovf("web", [Disk(A)], notes="2"))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    before = dry.marks()
    dry.look()
    assert dry.marks()[A] == before[A] + 1


def test_what_rests_is_not_read_again(
    dry: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vdsm_ovfstore.engine.directory._TICK", 0)
    dry.vm("web", A)
    dry.look()
    monkeypatch.setattr(Directory, "read", None)
    assert dry.look()["bad"] == []


def test_a_status_marks_where_running_begins_or_ends(dry: Bed) -> None:
    dry.vm("web", A)
    dry.look()
    seen = []
    for status in (2, 1, 1, DOWN):
        dry.statuses(web=status)
        dry.look()
        seen.append(dry.marks()[A])
    assert seen == [seen[0], seen[0], seen[0], seen[0] + 1]


def test_external_vms_are_left_out(dry: Bed) -> None:
    dry.vm("esx", A, origin=4)
    before = dry.marks()
    assert dry.look()["bad"] == []
    assert (dry.placed(A), dry.marks()) == ([], before)
    dry.vm("esx", A, origin=3)
    dry.look()
    assert dry.placed(A) == ["esx"]


# -- what waits ---------------------------------------------------------------


def test_a_locked_vm_waits_at_most_so_long(dry: Bed) -> None:
    dry.set(updates={"locked_wait": 0.0})
    dry.vm("web", A, generation=1)
    dry.look()
    dry.statuses(web=IMAGE_LOCKED)
    dry.vm("web", A, generation=2)
    for generation in (1, 2):
        dry.look()
        (row,) = dry.query("SELECT generation, status FROM entities")
        assert tuple(row) == (generation, IMAGE_LOCKED * (generation - 1))


class Changing:
    """A directory whose files are written while they are read."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __call__(self, file: Any, limit: int) -> bytes:
        data: bytes = file.read()
        with self._path.open("ab") as out:
            out.write(b" ")
        return data


def test_a_changing_vm_waits(
    dry: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    dry.vm("web", A)
    path = dry.ovfs / f"{ident('web')}.ovf"
    with monkeypatch.context() as patch:
        patch.setattr("vdsm_ovfstore.engine.directory._read", Changing(path))
        (waiting,) = dry.look()["waiting"]
        assert (waiting["id"], waiting["stored"]) == (ident("web"), False)
        # One that never rests is taken as it is, in the end.
        dry.set(updates={"locked_wait": 0.0})
        dry.look()
    assert dry.placed(A) == ["web"]
    assert dry.look()["waiting"] == []


# -- what is bad --------------------------------------------------------------


def test_a_bad_one_never_stops_the_others(dry: Bed) -> None:
    dry.vm("web", A)
    dry.vm("db", A)
    dry.look()
    dry.write("web", b"<x/>")
    dry.vm("db", B)
    (dry.ovfs / f"{ident('link')}.ovf").symlink_to("/etc/passwd")
    os.mkfifo(dry.ovfs / f"{ident('fifo')}.ovf")
    (dry.ovfs / f"{ident('dir')}.ovf").mkdir()
    with (dry.ovfs / f"{ident('huge')}.ovf").open("wb") as f:
        f.truncate(2**40)
    (dry.ovfs / "README").write_text("not a VM")
    bad = {entity["id"] for entity in dry.look()["bad"]}
    names = ("web", "link", "fifo", "dir", "huge")
    assert bad == {ident(name) for name in names}
    assert (dry.placed(A), dry.placed(B)) == (["web"], ["db"])
    # What is bad still is not read each time, and is still reported.
    assert {e["id"] for e in dry.look()["bad"]} == bad


def test_a_mistake_of_ours_is_one_vms(
    dry: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(data: bytes, entity: str) -> facts.Facts:
        if entity == ident("web"):
            raise ZeroDivisionError("oops")
        return read_facts(data, entity)

    dry.vm("web", A)
    dry.vm("db", A)
    monkeypatch.setattr("vdsm_ovfstore.engine.facts.read_facts", broken)
    (bad,) = dry.look()["bad"]
    assert "ZeroDivisionError" in bad["reason"]
    assert dry.placed(A) == ["db"]


def test_back_to_what_was_good(dry: Bed) -> None:
    dry.vm("web", A)
    dry.look()
    dry.write("web", b"<x/>")
    assert dry.look()["bad"]
    dry.vm("web", A)
    assert dry.look()["bad"] == []


# -- what is gone -------------------------------------------------------------


def test_removals_have_a_limit(dry: Bed) -> None:
    names = [f"vm{n}" for n in range(30)]
    for name in names:
        dry.vm(name, A)
    dry.look()
    for name in names[:10]:
        dry.remove(name)
    assert dry.look()["source"]["problem"] == ""
    for name in names[10:22]:
        dry.remove(name)
    dry.vm("new", A)
    source = dry.look()["source"]
    assert source["code"] == errors.SourceShrunk.code
    assert "--accept-removals" in source["next_step"]
    # All but the removals is done.
    assert len(dry.placed(A)) == 21


def test_a_source_that_is_gone(dry: Bed) -> None:
    dry.vm("web", A)
    dry.look()
    dry.ovfs.rename(dry.ovfs.with_name("elsewhere"))
    assert dry.look()["source"]["code"] == errors.SourceFailed.code
    assert dry.placed(A) == ["web"]


def test_a_listing_that_misses_one(dry: Bed) -> None:
    """As pages of what changes meanwhile do."""

    class Missing(Directory):
        def pages(self, count: int) -> Iterator[Sequence[Item]]:
            for page in super().pages(count):
                yield page[1:]

    for name in ("web", "db", "mail"):
        dry.vm(name, A)
    dry.look()
    dry.source = Missing(str(dry.ovfs))
    dry.look()
    assert dry.placed(A) == ["db", "mail", "web"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"VM Status": {"x": "up"}}', "[" * 10000]
)
def test_bad_statuses(dry: Bed, text: str) -> None:
    dry.vm("web", A)
    dry.look()
    (dry.ovfs / "metadata.json").write_text(text)
    dry.vm("web", B)
    # Whether it is locked cannot be told: nothing goes on.
    assert dry.look()["source"]["code"] == errors.SourceFailed.code
    assert dry.placed(A) == ["web"]


def test_statuses_are_bounded(dry: Bed) -> None:
    path = dry.ovfs / "metadata.json"
    path.write_bytes(b" " * (member.MAX_JSON + 1))
    assert "longer than" in dry.look()["source"]["problem"]
    assert statuses({"VM Status": {A.upper(): 1}}) == {A: 1}


# -- the state ----------------------------------------------------------------


def test_a_state_of_another_version(dry: Bed) -> None:
    dry.query("PRAGMA user_version = 99")
    with pytest.raises(errors.StateUnusable, match="version 99"):
        State(dry.state_path)


def test_a_state_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"no database at all, but long enough to look at" * 9)
    with pytest.raises(errors.StateUnusable):
        State(str(path))
    with pytest.raises(errors.StateUnusable, match="no directory"):
        State(str(tmp_path / "missing" / "state.db"))


def test_the_state_is_nobody_elses(dry: Bed) -> None:
    assert os.stat(dry.state_path).st_mode & 0o777 == 0o600


def test_marks_come_with_the_change_or_not_at_all(
    dry: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever stops a look: no generation advances without its marks."""
    dry.vm("web", A)
    dry.look()
    before = dry.marks()
    for name in ("place", "register"):
        dry.vm("web", B, generation=2)
        with monkeypatch.context() as patch:
            patch.setattr(f"vdsm_ovfstore.engine.entities.{name}", None)
            dry.look()
        assert dry.marks() == before
        (row,) = dry.query("SELECT generation FROM entities")
        assert row["generation"] == 1
    dry.look()
    assert dry.marks() == {d: m + 1 for d, m in before.items()}


def test_writers_wait_for_one_another(dry: Bed) -> None:
    """A look and a decision at the same time."""
    for number in range(20):
        dry.vm(f"vm{number}", A)

    def decide() -> None:
        for _ in range(20):
            with dry.state.connect() as connection:
                connection.execute("UPDATE domains SET forced = 1")
            time.sleep(0.001)

    thread = threading.Thread(target=decide)
    thread.start()
    dry.look()
    thread.join()
    assert len(dry.placed(A)) == 20


def test_what_root_makes_is_the_services(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    os.chown(tmp_path, 1234, 5678)
    path = tmp_path / "state.db"
    State(str(path))
    assert (path.stat().st_uid, path.stat().st_gid) == (1234, 5678)
