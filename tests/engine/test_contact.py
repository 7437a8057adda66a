# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Stores that somebody else has written: an engine, an updater, a person."""

from __future__ import annotations

import json

import pytest

from tests.engine.bed import Bed, engine_archive
from tests.engine.conftest import MakeBed
from tests.engine.ovfs import Disk, ident, make_ovf
from vdsm_ovfstore import errors
from vdsm_ovfstore.engine import decisions
from vdsm_ovfstore.engine.directory import Directory

# They start a daemon, whose processes take seconds.
pytestmark = pytest.mark.slow


def engines(domain: str, *names: str, **statuses: int) -> bytes:
    """The archive that an engine makes of VMs of these names."""
    ovfs = {name: make_ovf(name, [Disk(domain)]) for name in names}
    running = {ident(name): status for name, status in statuses.items()}
    return engine_archive(domain, ovfs, running)


def make_store(bed: Bed, copies: int = 2) -> None:
    """As an engine has it: volumes that nothing was written to yet."""
    for _ in range(copies):
        bed.domains[bed.a].create_volume(8 * 2**20)


@pytest.fixture
def bed(make_bed: MakeBed) -> Bed:
    return make_bed(1)


def test_first_contact(bed: Bed) -> None:
    """With a store that was never sealed: two heads, written by dd."""
    make_store(bed)
    tar = engines(bed.a, "theirs", "web", "last", theirs=1, web=1)
    for volume in bed.domains[bed.a].volumes():
        bed.stock_write(bed.a, tar, volume=volume)
    bed.vm("web", bed.a, generation=5)
    bed.vm("new", bed.a)
    found = bed.once()
    assert bed.row(bed.a, found)["state"] == "current"
    assert bed.names(bed.a) == ["last", "new", "theirs", "web"]
    listed = bed.manifest(bed.a)["entities"]
    registered = {e for e in listed if listed[e]["registered"]}
    assert registered == {ident("web"), ident("new")}
    assert listed[ident("web")]["generation"] == 5
    members = bed.members(bed.a)
    # The status of what is carried is carried, too.
    statuses = json.loads(members["metadata.json"])["VM Status"]
    assert statuses == {ident("theirs"): 1}
    names = list(members)
    carried = sorted(f"{ident(n)}.ovf" for n in ("theirs", "last"))
    assert names[names.index("metadata.json") + 1 : -1] == carried
    # What was there before is still there.
    assert bed.archive(bed.a, 1) == tar
    # And it stays so.
    bed.vm("web", bed.a, generation=6)
    bed.once()
    assert bed.names(bed.a) == ["last", "new", "theirs", "web"]


def test_a_fresh_source_empties_no_store(bed: Bed) -> None:
    bed.vm("one", bed.a)
    bed.vm("two", bed.a)
    bed.once()
    bed.fresh_state()
    bed.remove("one")
    bed.remove("two")
    bed.once()
    assert bed.names(bed.a) == ["one", "two"]
    bed.vm("pxe", bed.a)
    found = bed.once()
    assert bed.names(bed.a) == ["one", "pxe", "two"]
    assert {e["name"] for e in found["unregistered"]} == {"one", "two"}


def test_drop(bed: Bed) -> None:
    make_store(bed)
    bed.upload(bed.a, engines(bed.a, "one", "two", "three"))
    bed.vm("web", bed.a)
    bed.once()
    with bed.state.connect() as connection:
        with pytest.raises(errors.NotUnregistered):
            decisions.drop(connection, bed.a, [ident("web")])
        assert decisions.drop(connection, bed.a, [ident("one")]) == 1
    bed.once()
    assert bed.names(bed.a) == ["three", "two", "web"]
    with bed.state.connect() as connection:
        assert decisions.drop(connection, bed.a, []) == 2
        with pytest.raises(errors.NotUnregistered):
            decisions.drop(connection, bed.a, [])
    found = bed.once()
    assert bed.names(bed.a) == ["web"]
    assert found["unregistered"] == []


def test_what_is_carried_and_then_known(bed: Bed) -> None:
    """Somebody registers it: the source's OVF takes its place."""
    make_store(bed)
    bed.upload(bed.a, engines(bed.a, "one", "two"))
    bed.vm("web", bed.a)
    bed.once()
    bed.vm("one", bed.a, generation=9)
    found = bed.once()
    entry = bed.manifest(bed.a)["entities"][ident("one")]
    assert (entry["registered"], entry["generation"]) == (True, 9)
    assert [e["name"] for e in found["unregistered"]] == ["two"]
    # Gone from the source again, and so from the store.
    bed.remove("one")
    bed.once()
    assert bed.names(bed.a) == ["two", "web"]


def test_what_the_source_cannot_give_is_lent(bed: Bed) -> None:
    """A fresh state, and a VM that is bad since: the store has it."""
    bed.vm("web", bed.a, generation=4)
    bed.vm("db", bed.a)
    bed.once()
    bed.fresh_state()
    bed.write("web", b"<spoilt/>")
    bed.vm("db", bed.a, generation=2)
    found = bed.once()
    (bad,) = found["bad"]
    assert (bad["id"], bad["stored"]) == (ident("web"), True)
    entry = bed.manifest(bed.a)["entities"][ident("web")]
    assert (entry["generation"], entry["registered"]) == (4, True)


def test_an_engine_that_goes_on_is_refused(bed: Bed) -> None:
    bed.vm("web", bed.a)
    bed.once()
    bed.upload(bed.a, engines(bed.a, "web", "theirs"))
    bed.vm("web", bed.a, generation=2)
    row = bed.row(bed.a, bed.once())
    assert (row["state"], row["code"]) == (
        *("contested", errors.StoreContested.code),
    )
    assert "engine_updates" in row["next_step"]
    assert bed.names(bed.a) == ["theirs", "web"]
    # Told that it is off, it takes over, and loses nothing.
    bed.set(source={"engine_updates": False})
    assert bed.row(bed.a, bed.once())["state"] == "current"
    assert bed.names(bed.a) == ["theirs", "web"]
    assert bed.manifest(bed.a)["entities"][ident("web")]["generation"] == 2


def test_a_stock_host_is_noticed(bed: Bed) -> None:
    """It wrote to one head, beside the seals: nobody has adopted it yet."""
    bed.vm("web", bed.a)
    bed.once()
    bed.stock_write(bed.a, engines(bed.a, "web", "theirs"))
    row = bed.row(bed.a, bed.once())
    assert row["state"] == "contested"
    assert bed.names(bed.a) == ["theirs", "web"]


def test_accept(bed: Bed) -> None:
    bed.vm("web", bed.a)
    bed.once()
    bed.upload(bed.a, engines(bed.a, "theirs"))
    assert bed.row(bed.a, bed.once())["state"] == "contested"
    with bed.state.connect() as connection:
        decisions.accept(connection, bed.a)
    assert bed.row(bed.a, bed.once())["state"] == "current"
    assert bed.names(bed.a) == ["theirs", "web"]
    # Once, not for ever.
    bed.upload(bed.a, engines(bed.a, "again"))
    assert bed.row(bed.a, bed.once())["state"] == "contested"


class Engine(Directory):
    """A source that is a running engine."""

    is_engine = True


def test_a_running_engines_store_is_refused_at_once(bed: Bed) -> None:
    make_store(bed)
    bed.upload(bed.a, engines(bed.a, "web"))
    bed.vm("web", bed.a, generation=2)
    bed.source = Engine(str(bed.ovfs))
    assert bed.row(bed.a, bed.once())["state"] == "contested"
    assert bed.generation(bed.a) == 1
    bed.set(source={"engine_updates": False})
    assert bed.row(bed.a, bed.once())["state"] == "current"


def test_another_updater_is_refused(make_bed: MakeBed, bed: Bed) -> None:
    other = make_bed(1, path="other")
    bed.vm("web", bed.a)
    bed.once()
    other.domains, other.ids = bed.domains, bed.ids
    other.fresh_state()
    other.vm("theirs", bed.a)
    assert other.row(bed.a, other.once())["state"] == "current"
    assert other.names(bed.a) == ["theirs", "web"]
    bed.vm("web", bed.a, generation=2)
    row = bed.row(bed.a, bed.once())
    assert row["state"] == "contested"
    assert "another updater" in row["problem"]


def test_who_wrote_between_our_look_and_our_update(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.vm("web", bed.a)
    bed.once()
    note = "vdsm_ovfstore.engine.ledger.note_sending"
    from vdsm_ovfstore.engine import ledger

    original = ledger.note_sending

    def between(*args: str) -> None:
        original(*args)  # type: ignore[arg-type]
        bed.upload(bed.a, engines(bed.a, "theirs"))

    bed.vm("web", bed.a, generation=2)
    with monkeypatch.context() as patch:
        patch.setattr(note, between)
        assert bed.row(bed.a, bed.once())["state"] == "contested"
    # What it wrote is not lost: the next update will hold it.
    (carried,) = bed.report()["unregistered"]
    assert carried["name"] == "theirs"


def test_an_answer_that_was_lost(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archive has arrived, and we were killed before we could note it."""
    bed.vm("web", bed.a)

    def killed(*args: object) -> None:
        raise errors.HostUnreachable(
            address="it", reason="gone", kind="lost", way_out=""
        )

    with monkeypatch.context() as patch:
        patch.setattr("vdsm_ovfstore.engine.ledger.note_stored", killed)
        assert bed.row(bed.a, bed.once())["state"] == "failed"
    assert bed.names(bed.a) == ["web"]
    bed.vm("web", bed.a, generation=2)
    found = bed.once()
    assert bed.row(bed.a, found)["state"] == "current"
    assert found["unregistered"] == []


def test_an_ovf_that_only_the_host_refuses(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host of another version: the others go on, the last good stays."""
    bed.vm("web", bed.a)
    bed.vm("db", bed.a)
    bed.once()
    bed.vm("db", bed.a, generation=2)
    bed.write("web", b"<x/>")
    from vdsm_ovfstore.engine import facts

    def lenient(data: bytes, entity: str) -> facts.Facts:
        if data == b"<x/>":
            return facts.Facts("vm", "web", 2, (), (), (bed.a,))
        return original(data, entity)

    original = facts.read_facts
    with monkeypatch.context() as patch:
        patch.setattr("vdsm_ovfstore.engine.facts.read_facts", lenient)
        bed.once()
        # It is not tried with the host again.
        generation = bed.generation(bed.a)
        found = bed.once()
    assert bed.generation(bed.a) == generation
    assert bed.row(bed.a, found)["state"] == "current"
    (bad,) = found["bad"]
    assert "The host refuses it" in bad["reason"]
    listed = bed.manifest(bed.a)["entities"]
    assert [listed[ident(n)]["generation"] for n in ("web", "db")] == [1, 2]


def test_an_answer_that_was_lost_of_what_is_still_so(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then it is found, and not sent again."""
    bed.vm("web", bed.a)

    def killed(*args: object) -> None:
        raise errors.Aborted(what="us")

    with monkeypatch.context() as patch:
        patch.setattr("vdsm_ovfstore.engine.ledger.note_stored", killed)
        bed.once()
    row = bed.row(bed.a, bed.once())
    assert (row["state"], row["generation"]) == ("current", 1)
    assert bed.generation(bed.a) == 1


def test_what_cannot_be_read_back_is_not_written_over(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_store(bed)
    bed.upload(bed.a, engines(bed.a, "theirs"))
    bed.vm("web", bed.a)

    def damaged(*args: object) -> None:
        raise errors.Damaged(what="It", reason="so it is")

    with monkeypatch.context() as patch:
        patch.setattr("vdsm_ovfstore.engine.contact.fetch", damaged)
        assert bed.row(bed.a, bed.once())["code"] == errors.Damaged.code
        assert bed.generation(bed.a) == 1
        # Somebody says that it may be.
        with bed.state.connect() as connection:
            decisions.accept(connection, bed.a)
        assert bed.row(bed.a, bed.once())["state"] == "current"
    assert bed.names(bed.a) == ["web"]
