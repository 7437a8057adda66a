# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""From a directory of OVFs into stores, through a real host."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.engine.bed import Bed
from tests.engine.conftest import MakeBed
from tests.engine.ovfs import ident, make_ovf
from tests.host.harness import PROJECT
from vdsm_ovfstore import errors
from vdsm_ovfstore.engine import decisions, marks, report
from vdsm_ovfstore.engine.source import DOWN, IMAGE_LOCKED

# They start a daemon, whose processes take seconds.
pytestmark = pytest.mark.slow


def test_first_update(bed: Bed) -> None:
    bed.vm("web", bed.a)
    bed.vm("db", bed.a, bed.b)
    bed.vm("pxe")
    found = bed.once()
    assert bed.names(bed.a) == ["db", "pxe", "web"]
    assert bed.names(bed.b) == ["db", "pxe"]
    assert len(bed.client.get_info(bed.a)["copies"]) == 2
    assert bed.row(bed.a, found)["state"] == "current"
    assert report.exit_status(found) == errors.EXIT_OK


def test_the_archive_is_the_engines(bed: Bed) -> None:
    bed.vm("web", bed.a, generation=7)
    bed.vm("db", bed.a)
    bed.statuses(web=1, db=DOWN, stranger=1)
    bed.once()
    members = bed.members(bed.a)
    ovfs = sorted(f"{ident(name)}.ovf" for name in ("web", "db"))
    assert list(members) == [
        *("info.json", *ovfs, "metadata.json", "manifest.json")
    ]
    info = json.loads(members["info.json"])
    assert info["Storage Domains"] == [{"uuid": bed.a}]
    assert json.loads(members["metadata.json"]) == {
        "VM Status": {ident("web"): 1}
    }
    manifest = bed.manifest(bed.a)
    text = (PROJECT / "docs" / "format.md").read_text()
    section = text.partition("### Manifest\n")[2].partition("\n## ")[0]
    documented = re.findall(r"^\| `(\w+)` \|", section, re.M)
    assert sorted(documented) == sorted(manifest)
    entry = manifest["entities"][ident("web")]
    listed = {
        e["id"]: e["sha256"] for e in bed.client.all_vms(bed.a)["entities"]
    }
    assert entry == {
        "generation": 7,
        "sha256": listed[ident("web")],
        "kind": "vm",
        "registered": True,
    }


def test_only_what_changed_is_sent(bed: Bed) -> None:
    bed.vm("web", bed.a)
    bed.vm("db", bed.b)
    bed.once()
    bed.vm("db", bed.b, generation=2)
    bed.once()
    assert (bed.generation(bed.a), bed.generation(bed.b)) == (1, 2)
    bed.once()
    assert (bed.generation(bed.a), bed.generation(bed.b)) == (1, 2)


def test_force(bed: Bed) -> None:
    bed.vm("web", bed.a, bed.b)
    bed.once()
    with bed.state.connect() as connection:
        decisions.force(connection, bed.a)
    # Made within the same second it would be the same archive.
    time.sleep(1.1)
    bed.once()
    assert (bed.generation(bed.a), bed.generation(bed.b)) == (2, 1)
    with bed.state.connect() as connection:
        with pytest.raises(errors.DomainUnknown):
            decisions.force(connection, ident("nowhere"))


def test_a_removal(bed: Bed) -> None:
    bed.vm("web", bed.a)
    bed.vm("db", bed.a)
    bed.once()
    bed.remove("db")
    bed.once()
    assert bed.names(bed.a) == ["web"]


def test_an_empty_source_empties_no_store(bed: Bed) -> None:
    bed.vm("web", bed.a)
    bed.vm("db", bed.a)
    bed.once()
    bed.remove("web")
    bed.remove("db")
    found = bed.once()
    assert bed.names(bed.a) == ["db", "web"]
    assert found["source"]["code"] == errors.SourceShrunk.code
    assert report.exit_status(found) == errors.EXIT_STALE
    bed.once(accept_removals=True)
    assert bed.names(bed.a) == []


def test_a_locked_vm_waits(make_bed: MakeBed) -> None:
    bed = make_bed(1)
    bed.vm("web", bed.a)
    bed.vm("db", bed.a)
    bed.once()
    bed.statuses(web=IMAGE_LOCKED)
    bed.vm("web", bed.a, generation=2)
    bed.vm("db", bed.a, generation=2)
    found = bed.once()
    (waiting,) = found["waiting"]
    assert (waiting["id"], waiting["stored"]) == (ident("web"), True)
    entries = bed.manifest(bed.a)["entities"]
    assert entries[ident("web")]["generation"] == 1
    assert entries[ident("db")]["generation"] == 2
    bed.statuses()
    assert bed.once()["waiting"] == []
    assert bed.manifest(bed.a)["entities"][ident("web")]["generation"] == 2


def test_a_bad_ovf_keeps_the_last_good_one(make_bed: MakeBed) -> None:
    bed = make_bed(1)
    bed.vm("web", bed.a)
    bed.vm("db", bed.a)
    bed.once()
    bed.write("web", make_ovf("web")[:-9])
    bed.write("new", b"<!DOCTYPE x []><x/>")
    bed.vm("db", bed.a, generation=2)
    found = bed.once()
    bad = {entity["id"]: entity["stored"] for entity in found["bad"]}
    assert bad == {ident("web"): True, ident("new"): False}
    assert report.exit_status(found) == errors.EXIT_STALE
    entries = bed.manifest(bed.a)["entities"]
    assert entries[ident("web")]["generation"] == 1
    assert entries[ident("db")]["generation"] == 2
    bed.vm("web", bed.a)
    bed.vm("new", bed.a)
    assert bed.once()["bad"] == []
    assert bed.names(bed.a) == ["db", "new", "web"]


def test_the_users_choice_is_kept(bed: Bed) -> None:
    with bed.state.connect() as connection:
        decisions.choose(connection, bed.b, marks.OFF)
    bed.vm("web", bed.a, bed.b)
    found = bed.once()
    assert bed.row(bed.b, found)["state"] == "off"
    with pytest.raises(errors.VolumeNotFound):
        bed.client.get_info(bed.b)
    with bed.state.connect() as connection:
        decisions.choose(connection, bed.b, marks.AUTO)
    bed.set(domains={"stores": True})
    bed.once()
    assert bed.names(bed.b) == ["web"]


def test_a_domain_that_nobody_serves(bed: Bed) -> None:
    elsewhere = ident("elsewhere")
    bed.set(domains={"stores": True})
    bed.vm("web", bed.a, elsewhere)
    found = bed.once()
    row = bed.row(elsewhere, found)
    assert (row["state"], row["code"]) == ("failed", errors.NoHost.code)
    assert bed.row(bed.a, found)["state"] == "current"


def test_a_store_that_lost_its_newest_is_mended(make_bed: MakeBed) -> None:
    """An archive of ours that comes late, after a newer one."""
    bed = make_bed(1)
    bed.vm("web", bed.a)
    bed.once()
    older = bed.archive(bed.a)
    bed.vm("db", bed.a)
    bed.once()
    bed.upload(bed.a, older)
    assert bed.names(bed.a) == ["web"]
    found = bed.once()
    assert bed.names(bed.a) == ["db", "web"]
    assert bed.row(bed.a, found)["state"] == "current"
