# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The verbs in vdsmd: answers in VDSM's shape, its jobs, its locks."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest

from tests.plugin.bed import POOL, Bed, wait_for
from tests.store import builders
from tests.store.builders import archive
from vdsm_ovfstore import errors
from vdsm_ovfstore.api.schema import Definition
from vdsm_ovfstore.plugin import schema
from vdsm_ovfstore.plugin.verbs import Verbs

DEFINITION = Definition.load()


class Service:
    """Answers each call with what it is told to."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def call(self, verb: str, params: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer(verb, params) if callable(self.answer) else {}


def test_an_answer() -> None:
    verbs = Verbs(Service(lambda verb, params: {"v": verb, **params}), 1)
    commands = verbs.command_info("OvfStore", {"getInfo": None})
    (command,) = commands.values()
    assert list(commands) == ["OvfStore_getInfo"]
    assert command["ret"] == "result"
    assert command["call"](None, {"a": 1}) == {
        "status": {"code": 0, "message": "Done"},
        "result": {"v": "getInfo", "a": 1},
    }


def test_an_error_has_its_code_and_the_next_step() -> None:
    answer = Verbs(Service(errors.NotSpm(pool="p")), 1).answer("upload", {})
    assert answer["status"]["code"] == 654
    message = answer["status"]["message"]
    assert "not the SPM of storage pool p" in message
    assert "getSpmStatus" in message


def test_nothing_is_raised() -> None:
    answer = Verbs(Service(ZeroDivisionError("secret")), 1).answer("ping", {})
    assert answer["status"]["code"] == errors.Unexpected.code
    assert "secret" not in answer["status"]["message"]


def test_few_threads_wait_for_storage() -> None:
    """Of VDSM's eight; the others are told to come again."""
    begun, go = threading.Semaphore(0), threading.Event()

    def slow(verb: str, params: Any) -> Any:
        begun.release()
        go.wait(30)
        return {}

    verbs = Verbs(Service(slow), threads=2)
    threads = [
        threading.Thread(target=verbs.answer, args=("getInfo", {}))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
        assert begun.acquire(timeout=30)
    busy = verbs.answer("getVm", {})
    assert busy["status"]["code"] == errors.HostBusy.code
    go.set()
    for thread in threads:
        thread.join()
    assert verbs.answer("getVm", {})["status"]["code"] == 0


# -- VDSM's schema ------------------------------------------------------------


def test_every_verb_is_in_the_schema() -> None:
    methods = schema.methods(DEFINITION)
    assert set(methods) == {f"OvfStore.{verb}" for verb in DEFINITION.verbs}
    for verb in DEFINITION.verbs.values():
        params = methods[f"OvfStore.{verb.name}"]["params"]
        assert [p["name"] for p in params] == list(verb.params["properties"])
        for param in params:
            needed = param["name"] in verb.params["required"]
            assert ("defaultvalue" not in param) == needed


def test_what_may_be_of_several_types() -> None:
    """VDSM has no words for it; its strict mode must let it through."""
    method = schema.methods(DEFINITION)["OvfStore.listVms"]
    # VDSM copies it by pickle.
    (found,) = (
        pickle.loads(pickle.dumps(p["type"]))
        for p in method["params"]
        if p["name"] == "generation"
    )
    assert found["type"] == "enum"
    assert 12 in found["values"]
    assert "12:0123" in found["values"]


def test_what_may_be_null() -> None:
    """VDSM takes null for missing, which only what has a default may be."""
    result = schema.methods(DEFINITION)["OvfStore.getTransfer"]["return"]
    example = DEFINITION.verbs["getTransfer"].example["result"]
    null = {name for name, value in example.items() if value is None}
    assert null == {"result", "error"}
    found = {p["name"] for p in result["type"]["properties"]}
    needed = {
        p["name"]
        for p in result["type"]["properties"]
        if "defaultvalue" not in p
    }
    assert found - needed >= null


def test_vdsm_takes_our_examples() -> None:
    """With its own check, strict; where VDSM can be imported."""
    vdsmapi = pytest.importorskip("vdsm.api.vdsmapi")
    found = vdsmapi.Schema((), True)
    found._methods.update(schema.methods(DEFINITION))
    for verb in DEFINITION.verbs.values():
        rep = vdsmapi.MethodRep("OvfStore", verb.name)
        found.verify_args(rep, verb.example["params"])
        found.verify_retval(rep, verb.example["result"])
    rep = vdsmapi.MethodRep("OvfStore", "listVms")
    example = DEFINITION.verbs["listVms"].example["params"]
    for generation in (12, "12", "12:0123"):
        found.verify_args(rep, {**example, "generation": generation})


# -- in a vdsmd ---------------------------------------------------------------


def test_list_and_reading(bed: Bed) -> None:
    tar = archive(bed.domain, ["web"])
    builders.upload(bed.domain, tar)
    (listed,) = bed.plugin.service.call("list", {})["domains"]
    assert (listed["domain"], listed["state"]) == (bed.domain.id, "ready")
    assert bed.call("getInfo", storagepoolID=POOL)["newest"]["number"] == 1
    assert bed.call("listVms")["total"] == 1


def test_other_pool_and_other_domain(bed: Bed) -> None:
    other = builders.vm_id("other")
    with pytest.raises(errors.PoolMismatch):
        bed.call("getInfo", storagepoolID=other)
    with pytest.raises(errors.DomainNotServed):
        bed.call("getInfo", storagedomainID=other)
    del bed.monitor.found[bed.domain.id]
    with pytest.raises(errors.DomainNotServed):
        bed.call("getInfo")


@pytest.mark.parametrize("verb", ["create", "repair", "upload"])
def test_only_the_spm_writes(bed: Bed, verb: str) -> None:
    bed.pool.spmRole = "Free"
    size = {"size": 2048} if verb == "upload" else {}
    with pytest.raises(errors.NotSpm):
        bed.call(verb, **size)


def test_no_host_id_yet(bed: Bed) -> None:
    from vdsm.storage import monitor

    bed.monitor.found[bed.domain.id] = monitor.Status(host_id=False)
    with pytest.raises(errors.LockspaceMissing):
        bed.call("repair")


def test_a_job_is_a_job_of_vdsm(bed: Bed) -> None:
    from vdsm import jobs

    builders.upload(bed.domain, archive(bed.domain, ["web"]))
    done = bed.job("repair")
    assert done["status"] == "done"
    view = jobs._jobs[done["jobID"]]
    assert view.info() == {
        "id": done["jobID"],
        "status": "done",
        "description": f"repair OVF store of {bed.domain.id}",
        "job_type": "storage",
        "progress": 100.0,
    }
    wait_for(lambda: view.deleted and view.told)
    with pytest.raises(jobs.JobNotActive):
        view.abort()


def test_a_job_that_fails(bed: Bed) -> None:
    from vdsm import jobs
    from vdsm.storage import resourceManager as rm

    # A task of VDSM has an image of ours, and keeps it.
    space = rm.getNamespace("01_img", bed.domain.id)
    rm.held[space, bed.volumes[0].image] = rm.EXCLUSIVE
    failed = bed.job("repair", timeout=0.2)
    assert failed["status"] == "failed"
    assert failed["error"]["code"] == errors.LeaseBusy.code
    info = jobs.info()[failed["jobID"]]
    assert info["error"]["code"] == errors.LeaseBusy.code
    rm.held.clear()


def test_vdsms_locks_are_held_while_it_is_written(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vdsm.storage import resourceManager as rm

    from vdsm_ovfstore.store import launch

    repair, seen = launch.repair, []

    def look(path: str, options: launch.Options, collect: bool) -> Any:
        seen.append(dict(rm.held))
        return repair(path, options, collect)

    monkeypatch.setattr(launch, "repair", look)
    assert bed.job("repair")["status"] == "done"
    space = f"01_img_{bed.domain.id}"
    images = sorted(v.image for v in bed.volumes)
    assert seen == [
        {
            ("00_storage", bed.domain.id): rm.SHARED,
            **{(space, image): rm.EXCLUSIVE for image in images},
        }
    ]
    assert rm.held == {}


def test_create_goes_through_vdsm(bed: Bed) -> None:
    made = []

    def make_volume(image: str, volume: str, size: int, desc: str) -> None:
        made.append((size, desc))
        bed.domain.create_volume(size)

    bed.hsm.make_volume = make_volume
    builders.upload(bed.domain, archive(bed.domain, ["web"]))
    done = bed.job("create", copies=3, size=builders.CAPACITY)
    assert done["status"] == "done", done["error"]
    assert len(done["result"]["copies"]) == 3
    assert len(done["result"]["joined"]) == 1
    description = '{"DiskAlias":"OVF_STORE","DiskDescription":"OVF_STORE"}'
    assert made == [(builders.CAPACITY, description)]
    # VDSM's task is cleared.
    assert bed.hsm.taskMng.tasks == {}


def test_vdsm_cannot_create(bed: Bed) -> None:
    def make_volume(*args: Any) -> None:
        raise OSError("no space")

    bed.hsm.make_volume = make_volume
    failed = bed.job("create", copies=3, size=builders.CAPACITY)
    assert failed["error"]["code"] == errors.VdsmRefused.code
    assert "no space" in failed["error"]["message"]
