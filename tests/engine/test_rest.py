# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The REST source, against answers in the SDK's own XML, over TLS."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.engine import engine_api
from tests.engine.bed import Bed, engine_archive
from tests.engine.conftest import MakeBed
from tests.engine.engine_api import (
    CLUSTER,
    PASSWORD,
    POOL,
    TOKEN,
    Api,
    Cut,
    Hang,
    Reply,
    fault,
    serving,
)
from tests.engine.ovfs import Disk, ident, make_ovf
from tests.host.certs import certificates
from vdsm_ovfstore import errors
from vdsm_ovfstore.engine import config, report
from vdsm_ovfstore.engine.rest import Engine
from vdsm_ovfstore.engine.source import IMAGE_LOCKED

pytest.importorskip("ovirtsdk4", reason="no ovirt-engine-sdk-python here")

A, B = ident("a"), ident("b")


@pytest.fixture
def api() -> Iterator[Api]:
    made = Api()
    made.add_domain(A, "data-a")
    made.add_domain(B, "data-b")
    with serving(made):
        yield made


@pytest.fixture
def conf(api: Api, tmp_path: Path) -> config.Source:
    password = tmp_path / "password"
    password.write_text(f"{PASSWORD}\n")
    return config.Source(
        kind=config.ENGINE,
        url=api.url,
        user="admin@internal",
        password_file=str(password),
        ca=str(certificates().host.authority),
        page=4,
        timeout=1.0,
    )


@pytest.fixture
def engine(conf: config.Source) -> Iterator[Engine]:
    made = Engine(conf, 54321)
    yield made
    made.close()


@pytest.fixture
def seen(dry: Bed, engine: Engine) -> Bed:
    """A bed whose source is the engine."""
    dry.source = engine
    return dry


# -- what works ---------------------------------------------------------------


def test_pages(api: Api, seen: Bed) -> None:
    for number in range(11):
        api.add_vm(f"vm{number:02}", make_ovf(f"vm{number:02}", [Disk(A)]))
    assert seen.look()["source"]["problem"] == ""
    assert len(seen.placed(A)) == 11
    pages = [q for path, q in api.requests if path.endswith("/vms")]
    assert [q["search"] for q in pages] == [
        f"sortby name page {n}" for n in (1, 2, 3)
    ]
    assert {(q["max"], q["token"]) for q in pages} == {("4", TOKEN)}


def test_a_last_page_that_is_full(api: Api, seen: Bed) -> None:
    for number in range(8):
        api.add_vm(f"vm{number}", make_ovf(f"vm{number}", [Disk(A)]))
    seen.look()
    assert len(seen.placed(A)) == 8


def test_an_engine_that_knows_no_pages(api: Api, seen: Bed) -> None:
    """It gives the first one again and again: an end, not a loop."""
    for number in range(4):
        api.add_vm(f"vm{number}", make_ovf(f"vm{number}", [Disk(A)]))
    api._page = lambda query: api.vms  # type: ignore[method-assign]
    seen.look()
    assert len(seen.placed(A)) == 4


def test_who_we_are(api: Api, seen: Bed) -> None:
    seen.look()
    ((_, form),) = [r for r in api.requests if r[0].endswith("/token")]
    assert (form["username"], form["password"]) == ("admin@internal", PASSWORD)


def test_a_token_is_used_and_not_revoked(
    api: Api, conf: config.Source, tmp_path: Path, dry: Bed
) -> None:
    token = tmp_path / "token"
    token.write_text("mine\n")
    conf = dataclasses.replace(
        conf, password_file="", user="", token_file=str(token)
    )
    dry.source = Engine(conf, None)
    assert dry.look()["source"]["problem"] == ""
    dry.source.close()
    assert {q["token"] for _, q in api.requests} == {"mine"}
    assert not any("sso" in path for path, _ in api.requests)


def test_changes_removals_locks(api: Api, seen: Bed) -> None:
    for name in ("web", "db", "mail"):
        api.add_vm(name, make_ovf(name, [Disk(A)]), "up")
    seen.look()
    before = seen.marks()
    seen.look()
    assert seen.marks() == before
    api.add_vm("web", make_ovf("web", [Disk(B)], generation=2), "up")
    api.add_vm("db", make_ovf("db", [Disk(A)], generation=2), "image_locked")
    api.locked = [ident("mail 0")]
    api.add_vm("mail", make_ovf("mail", [Disk(A)], generation=2), "up")
    found = seen.look()
    assert {e["id"] for e in found["waiting"]} == {ident("db"), ident("mail")}
    assert seen.placed(B) == ["web"]
    rows = seen.query("SELECT name, generation, status FROM entities")
    assert sorted(map(tuple, rows)) == [
        *(("db", 1, 1), ("mail", 1, 1), ("web", 2, 1)),
    ]
    api.vms = [vm for vm in api.vms if vm.name != "web"]
    seen.look()
    assert seen.placed(B) == []


def test_one_that_a_page_has_missed(api: Api, seen: Bed) -> None:
    """Removed VMs move those behind them to the page before."""
    for name in ("web", "db"):
        api.add_vm(name, make_ovf(name, [Disk(A)]))
    seen.look()
    page = api._page
    api._page = lambda query: page(query)[1:]  # type: ignore[method-assign]
    seen.look()
    assert seen.placed(A) == ["db", "web"]


def test_statuses_are_all_known(api: Api, engine: Engine) -> None:
    statuses = list(api.types.VmStatus)
    for status in statuses:
        api.add_vm(status.value, make_ovf(status.value), status.value)
    items = [item for page in engine.pages(100) for item in page]
    found = {item.id: item.status for item in items}
    assert len(set(found.values())) == len(statuses)
    assert found[ident("image_locked")] == IMAGE_LOCKED
    assert found[ident("down")] == 0
    assert {item.pool for item in items} == {POOL}


def test_diskless_vms_stay_in_their_data_center(api: Api, seen: Bed) -> None:
    api.add_vm("pxe", make_ovf("pxe"))
    other = ident("of another data center")
    seen.query(
        "INSERT INTO domains (id, known, pool) VALUES (?, 1, 'x')", other
    )
    seen.look()
    assert seen.placed(A) == seen.placed(B) == ["pxe"]
    assert seen.placed(other) == []


def test_templates_keep_what_a_store_has(api: Api, seen: Bed) -> None:
    api.templates.append(api.types.Template(id=ident("base"), name="base"))
    (bad,) = seen.look()["bad"]
    assert bad["id"] == ident("base")
    assert "none of templates" in bad["reason"]


def test_domains_and_hosts(api: Api, engine: Engine) -> None:
    api.add_domain(ident("iso"), "iso", "iso")
    api.domains[1].status = api.types.StorageDomainStatus.MAINTENANCE
    found = engine.domains()
    assert found is not None
    assert [(d.id, d.name, d.active, d.pool) for d in found] == [
        (A, "data-a", True, POOL),
        (B, "data-b", False, POOL),
    ]
    api.add_host("host1.example.com", "none")
    api.add_host("fd00::7", "spm")
    api.add_host("host3.example.com", "none", "maintenance")
    assert engine.hosts() == [
        "https://[fd00::7]:54321",
        "https://host1.example.com:54321",
    ]


def test_a_vm_without_its_ovf(api: Api, seen: Bed) -> None:
    api.add_vm("web", make_ovf("web", [Disk(A)]))
    api.vms.append(
        api.types.Vm(
            id=ident("bare"),
            name="bare",
            status=api.types.VmStatus.UP,
            cluster=api.types.Cluster(id=CLUSTER),
        )
    )
    (bad,) = seen.look()["bad"]
    assert bad["id"] == ident("bare")
    assert seen.placed(A) == ["web"]


# -- what does not ------------------------------------------------------------


def html(status: int) -> Reply:
    """As a proxy before the engine says it."""
    headers = (("Content-Type", "text/html"), ("Retry-After", "1"))
    return Reply(status, b"<html>no</html>", headers)


XML = (("Content-Type", "application/xml"),)

TROUBLES: list[Any] = [
    ("401", lambda: fault(401, "Unauthorized"), "[source] user", 0),
    ("403", lambda: fault(403, "Forbidden"), "[source] user", 0),
    ("404", lambda: fault(404, "Not Found"), "[source] url", 0),
    ("409", lambda: fault(409, "Conflict", "is locked"), "tried again", 30),
    ("500", lambda: fault(500, "Internal"), "tried again", 30),
    ("503", lambda: html(503), "tried again", 30),
    ("302", lambda: html(302), "[source] url", 0),
    ("other", lambda: html(200), "[source] url", 30),
    ("broken", lambda: Reply(200, b"<vms><vm id=", XML), "[source]", 0),
    ("empty", lambda: Reply(200, b"", XML), "[source]", 0),
    ("wrong", lambda: Reply(200, b"<hosts/>", XML), "[source]", 0),
]


@pytest.mark.parametrize(
    ("where", "reply"),
    [
        *(("/vms", t[1]) for t in TROUBLES),
        *(("/disks", t[1]) for t in TROUBLES if t[0] in ("503", "wrong")),
    ],
    ids=[*(t[0] for t in TROUBLES), "disks-503", "disks-wrong"],
)
def test_trouble(api: Api, seen: Bed, where: str, reply: Any) -> None:
    """Nothing is removed, what is known is kept, and it comes back."""
    for number in range(6):
        api.add_vm(f"vm{number}", make_ovf(f"vm{number}", [Disk(A)]))
    seen.look()
    kept = seen.placed(A)

    def trouble(path: str, query: dict[str, str]) -> Any:
        second = "page 2" in query.get("search", "page 2")
        wanted = where != "/vms" or second
        return reply() if path.endswith(where) and wanted else None

    api.trouble = trouble
    api.vms = api.vms[:5]
    source = seen.look()["source"]
    if source["problem"]:
        assert source["code"] == errors.SourceFailed.code
        assert "\n" not in source["problem"]
        assert source["next_step"]
    else:
        # An empty list of something else: then each VM is asked for.
        assert reply().body in (b"", b"<hosts/>")
    assert set(seen.placed(A)) >= set(kept) - {"vm5"}
    api.trouble = lambda path, query: None
    assert seen.look()["source"]["problem"] == ""
    assert seen.placed(A) == [f"vm{n}" for n in range(5)]


@pytest.mark.parametrize(
    ("reply", "step"),
    [t[1:3] for t in TROUBLES[:6]],
    ids=[t[0] for t in TROUBLES[:6]],
)
def test_the_next_step(api: Api, seen: Bed, reply: Any, step: str) -> None:
    api.trouble = lambda path, query: (
        reply() if path.endswith("/vms") else None
    )
    source = seen.look()["source"]
    assert step in source["next_step"]


@pytest.mark.parametrize("error", [Hang, Cut])
@pytest.mark.parametrize("where", ["/vms", "/token"])
def test_cut_and_silent(
    api: Api, seen: Bed, error: type[Exception], where: str
) -> None:
    def trouble(path: str, query: dict[str, str]) -> Any:
        if path.endswith(where):
            raise error
        return None

    api.trouble = trouble
    source = seen.look()["source"]
    assert source["code"] == errors.SourceFailed.code
    api.trouble = lambda path, query: None
    assert seen.look()["source"]["problem"] == ""


def test_a_token_that_has_expired(api: Api, seen: Bed) -> None:
    """The SDK asks for a new one, once, by itself."""
    api.add_vm("web", make_ovf("web", [Disk(A)]))
    refusals = [fault(401, "Unauthorized")]

    def trouble(path: str, query: dict[str, str]) -> Any:
        return refusals.pop() if path.endswith("/vms") and refusals else None

    api.trouble = trouble
    assert seen.look()["source"]["problem"] == ""
    assert seen.placed(A) == ["web"]


def test_nobody_there(api: Api, conf: config.Source, dry: Bed) -> None:
    url = "https://127.0.0.1:1/ovirt-engine/api"
    dry.source = Engine(dataclasses.replace(conf, url=url), None)
    assert dry.look()["source"]["code"] == errors.SourceFailed.code


def test_a_certificate_of_somebody_else(
    api: Api, conf: config.Source, dry: Bed
) -> None:
    ca = str(certificates().foreign.authority)
    dry.source = Engine(dataclasses.replace(conf, ca=ca), None)
    source = dry.look()["source"]
    assert source["code"] == errors.SourceFailed.code
    assert api.requests == []


@pytest.mark.parametrize("key", ["password_file", "ca"])
def test_files_that_are_not_there(
    api: Api, conf: config.Source, dry: Bed, key: str
) -> None:
    values: dict[str, Any] = {key: "/nowhere"}
    bad = dataclasses.replace(conf, **values)
    dry.source = Engine(bad, None)
    assert "/nowhere" in dry.look()["source"]["problem"]


def test_without_the_sdk(
    conf: config.Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ovirtsdk4", None)
    with pytest.raises(errors.PackageMissing) as e:
        Engine(conf, None)
    assert "ovirt-engine-sdk-python" in e.value.next_step


def test_replies_are_the_sdks() -> None:
    reply = engine_api.fault(409, "Conflict", "busy")
    assert b"<fault>" in reply.body and b"<reason>" in reply.body


@pytest.mark.slow
def test_from_the_engine_into_a_store(
    api: Api, conf: config.Source, make_bed: MakeBed
) -> None:
    """Through a real host: first refused, since the engine writes as well."""
    bed = make_bed(1)
    api.domains.clear()
    api.add_domain(bed.a, "data")
    api.templates.append(api.types.Template(id=ident("base"), name="base"))
    api.add_vm("web", make_ovf("web", [Disk(bed.a)], 2), "up")
    base = make_ovf("base", [Disk(bed.a)], template=True)
    bed.domains[bed.a].create_volume(8 * 2**20)
    bed.upload(
        bed.a, engine_archive(bed.a, {"web": make_ovf("web"), "base": base})
    )
    bed.source = Engine(conf, None)
    row = bed.row(bed.a, bed.once())
    assert (row["name"], row["state"]) == ("data", "contested")
    bed.set(source={"engine_updates": False})
    found = bed.once()
    bed.source.close()
    assert bed.row(bed.a, found)["state"] == "current"
    assert bed.names(bed.a) == ["base", "web"]
    members = bed.members(bed.a)
    assert members[f"{ident('base')}.ovf"] == base
    assert json.loads(members["metadata.json"]) == {
        "VM Status": {ident("web"): 1}
    }
    (bad,) = found["bad"]
    assert (bad["id"], bad["stored"]) == (ident("base"), True)
    assert report.exit_status(found) == errors.EXIT_OK
    # A template that no store has is something to be told of.
    api.templates.append(api.types.Template(id=ident("new"), name="new"))
    assert report.exit_status(bed.once()) == errors.EXIT_STALE
