# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""repair: what is mended, and that nothing is made worse."""

from __future__ import annotations

from pathlib import Path

from tests.cli.harness import Store, damage
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


def test_damage_on_both_copies_stays_reported(store: Store) -> None:
    store.upload("web", "db")
    oldest = store.json("history")["generations"][-1]["number"]
    store.upload("web", "db", "mail")
    for copy in (0, 1):
        flip(store, copy, oldest)
    store.json("repair")
    assert store.cli("verify", store.path).status == 3
    assert store.names() == ["db", "mail", "web"]
