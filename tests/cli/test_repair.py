# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""repair: what is mended, and that nothing is made worse."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.cli.harness import Store, damage
from vdsm_ovfstore.format.seal import RING_SIZE
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.reader import Reader


def flip(store: Store, copy: int, generation: int) -> None:
    """One bit in the last block of a generation's segment."""
    with Reader(FileDomain.open(str(store.path))) as reader:
        one = reader.copies[copy]
        entry = next(e for e in one.entries() if e.generation == generation)
        frame = one.segment(entry).frames[-1]
    damage(store.log(copy), entry.offset + frame.position + frame.stored - 1)


def test_nothing_to_mend(store: Store) -> None:
    out = store.ok("repair").text
    assert "nothing to mend" in out
    assert store.json("repair")["healed"] == []


def test_old_generation_is_mended_from_the_other_copy(store: Store) -> None:
    for number in range(4):
        store.upload("web", f"vm{number}")
    oldest = store.json("history")["generations"][-1]["number"]
    flip(store, 0, oldest)
    assert store.cli("verify", store.path).status == 3
    healed = store.json("repair")["healed"]
    assert healed == [
        f"rewrote generation {oldest} on {store.copies()[0]['volume']}"
    ]
    store.ok("verify")


def test_head_is_rewritten_and_what_was_there_is_kept(store: Store) -> None:
    store.upload("web", "db")
    names = store.names()
    head = Path(store.copies()[0]["path"])
    head.write_bytes(b"not an archive")
    answer = store.json("repair")
    assert len(answer["copies"]) == 2
    assert any("suspect" in what for what in answer["healed"])
    assert store.names() == names
    store.ok("verify")
    with Reader(FileDomain.open(str(store.path))) as reader:
        aside = [
            b"".join(copy.segment(entry).tar()).rstrip(b"\0")
            for copy in reader.copies
            for entry in copy.entries()
            if not entry.shown
        ]
    assert aside == [b"not an archive"]


def test_missing_log_is_made_from_the_head(store: Store) -> None:
    before = store.upload("web", "db")
    store.log(0).unlink()
    answer = store.json("repair")
    assert answer["generation"] == before["generation"]
    assert answer["sha256"] == before["sha256"]
    store.ok("verify")


def test_orphans_are_told_of_and_collected_in_time(store: Store) -> None:
    log, image = store.log(0), Path(store.copies()[0]["path"]).parent
    shutil.rmtree(image)
    store.json("repair", status=3)  # a copy is missing
    store.ok("create")
    title = f"the log of volume {log.name[:36]} is left, the volume is gone"
    assert store.json("status")["notes"] == [title]
    (note,) = store.json("verify")["notes"]
    assert note.startswith(title) and "it holds generation 1" in note
    assert store.json("repair", "--collect-orphans")["healed"] == []
    assert log.exists()
    log.with_name(log.name + ".left").write_text("2026-01-01T00:00:00Z\n")
    out = store.ok("repair", "--collect-orphans").text
    assert f"Mended: removed a log that is not used: {title}" in out
    assert not log.exists()
    assert store.json("verify")["notes"] == []


def test_generations_that_no_seal_names_come_back(store: Store) -> None:
    """Both rings are gone, and both heads: verify tells what to type."""
    store.upload("web", "db", "mail")
    before = store.json("history")["generations"]
    for number, copy in enumerate(store.copies()):
        log = store.log(number)
        damage(log, log.stat().st_size - RING_SIZE, RING_SIZE)
        Path(copy["path"]).write_bytes(b"not an archive")
    answer = store.json("verify", status=3)
    assert answer["next_step"] == f"ovfstore repair {store.path}"
    store.json("repair")
    after = store.json("history")["generations"]
    assert [(g["number"], g["sha256"]) for g in after] == [
        (g["number"], g["sha256"]) for g in before
    ]
    assert store.names() == ["db", "mail", "web"]


def test_damage_on_both_copies_stays_reported(store: Store) -> None:
    store.upload("web", "db")
    oldest = store.json("history")["generations"][-1]["number"]
    store.upload("web", "db", "mail")
    for copy in (0, 1):
        flip(store, copy, oldest)
    store.json("repair")
    assert store.cli("verify", store.path).status == 3
    assert store.names() == ["db", "mail", "web"]
