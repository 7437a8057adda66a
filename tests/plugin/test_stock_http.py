# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The engine's PUT and GET on VDSM's port, over real sockets."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import socket
import threading
import time
from typing import Any

import pytest

from tests.plugin.bed import POOL, Bed, wait_for
from tests.store import builders
from tests.store.builders import archive, archives, head
from vdsm_ovfstore import errors
from vdsm_ovfstore.api.stock_upload import StockUpload
from vdsm_ovfstore.host.limits import Limits
from vdsm_ovfstore.lease.flock import FlockLock
from vdsm_ovfstore.plugin import answers
from vdsm_ovfstore.plugin.config import Config, Stock


def code(answer: Any) -> int:
    assert answer.headers["content-type"] == "application/json"
    assert int(answer.headers["content-length"]) == len(answer.body)
    status = json.loads(answer.body)["status"]
    assert status["message"]
    return int(status["code"])


def test_put_and_get(bed: Bed) -> None:
    tar = archive(bed.domain, ["web", "db"])
    for volume in bed.volumes:
        put = bed.put(volume, tar)
        assert put.status == 200
        # The task is left for the engine, which clears it.
        task = bed.hsm.taskMng.getTaskStatus(put.headers["task-id"])
        assert task["taskResult"] == "success"
        assert head(volume, len(tar)) == tar
    assert archives(bed.domain) == {1: tar}
    for volume in bed.volumes:
        got = bed.get(volume, len(tar))
        assert (got.status, got.body) == (206, tar)
        assert got.headers["content-length"] == str(len(tar))
        assert got.headers["content-range"] == f"bytes 0-{len(tar) - 1}"
        assert got.headers["task-id"]
    # None of it was VDSM's own doing.
    from vdsm.storage import image

    assert (bed.http.seen, image.copied) == ([], [])


def test_a_failed_write_is_an_error(bed: Bed) -> None:
    tar = archive(bed.domain, ["web"])
    bed.put(bed.volumes[0], tar)
    path = bed.volumes[0].metadata_path
    with open(path, "rb") as f:
        text = f.read()
    with open(path, "wb") as f:
        f.write(text.replace(b"FORMAT=RAW", b"FORMAT=COW"))
    before = set(bed.hsm.taskMng.tasks)
    answer = bed.put(bed.volumes[0], archive(bed.domain, ["db"]))
    assert answer.status == 500
    assert code(answer) == errors.VolumeRefused.code
    # No task is left behind, and the old archive is.
    assert set(bed.hsm.taskMng.tasks) == before
    assert archives(bed.domain) == {1: tar}


def test_a_damaged_head(bed: Bed) -> None:
    tar = archive(bed.domain, ["web"])
    bed.put(bed.volumes[0], tar)
    builders.flip(bed.volumes[0].path, 700)
    assert bed.get(bed.volumes[0], len(tar)).body == tar


def test_nothing_to_get(bed: Bed) -> None:
    answer = bed.get(bed.volumes[0], 1024)
    assert answer.status == 500
    assert code(answer) == errors.StoreEmpty.code


@pytest.mark.parametrize(
    "headers",
    [
        {"Image-Id": builders.vm_id("other")},
        {"Storage-Domain-Id": builders.vm_id("other")},
        {"Storage-Pool-Id": builders.vm_id("other")},
        {"Volume-Id": builders.vm_id("other")},
        {"Storage-Pool-Id": ""},
    ],
    ids=["image", "domain", "pool", "volume", "none"],
)
def test_what_is_not_ours_is_vdsms(bed: Bed, headers: dict[str, str]) -> None:
    given = bed.headers(bed.volumes[0], **headers)
    assert bed.ask("PUT", "/", given, b"data").status == 299
    span = {**given, "Range": "bytes=0-3"}
    assert bed.ask("GET", "/", span).status == 299
    (_, put, body), (_, get, _) = bed.http.seen
    assert body == b"data"
    for name, value in given.items():
        assert (put[name], get[name]) == (value, value)
    bed.http.seen.clear()


def test_other_hosts_than_the_spm(bed: Bed) -> None:
    """VDSM's own code says 654."""
    bed.pool.spmRole = "Free"
    assert bed.put(bed.volumes[0], archive(bed.domain, ["web"])).status == 299
    bed.http.seen.clear()


def test_no_archive_is_written_by_vdsm(bed: Bed) -> None:
    from vdsm.storage import image

    data = random.Random(1).randbytes(50_000)
    assert bed.put(bed.volumes[0], data).status == 200
    volume = bed.volumes[0]
    assert image.copied == [(bed.domain.id, volume.image, volume.id, data)]


@pytest.mark.parametrize("sent", [0, 100, 3000])
def test_cut_off(bed: Bed, sent: int) -> None:
    tar = archive(bed.domain, ["web"])
    lines = ["PUT / HTTP/1.1", f"Content-Length: {len(tar)}"]
    lines += [f"{k}: {v}" for k, v in bed.headers(bed.volumes[0]).items()]
    with socket.create_connection(("127.0.0.1", bed.port)) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode() + tar[:sent])
        sock.shutdown(socket.SHUT_WR)
        answer = b""
        while data := sock.recv(4096):
            answer += data
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert f"after {sent} of {len(tar)}".encode() in answer
    assert bed.hsm.taskMng.tasks == {}
    assert archives(bed.domain) == {}


def limited(monkeypatch: pytest.MonkeyPatch, **limits: Any) -> None:
    monkeypatch.setattr(
        Config, "server_limits", lambda self: Limits(**limits)
    )


def begin_to_put(bed: Bed, length: int) -> socket.socket:
    """A connection on which the body is to come."""
    lines = ["PUT / HTTP/1.1", f"Content-Length: {length}"]
    lines += [f"{k}: {v}" for k, v in bed.headers(bed.volumes[0]).items()]
    sock = socket.create_connection(("127.0.0.1", bed.port), 30)
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    return sock


def rest(sock: socket.socket) -> bytes:
    answer = b""
    while data := sock.recv(4096):
        answer += data
    return answer


def test_silence_in_mid_upload(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited(monkeypatch, idle=0.2)
    with begin_to_put(bed, 100_000) as sock:
        sock.sendall(bytes(1000))
        answer = rest(sock)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"nothing came or went for too long" in answer
    assert bed.hsm.taskMng.tasks == {}


def test_a_body_that_drips(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte comes in time, and the whole would take for ever."""
    limited(monkeypatch, body_time=0.5, body_rate=10**9)
    with begin_to_put(bed, 100_000) as sock:
        over = threading.Event()

        def drip() -> None:
            while not over.wait(0.02):
                try:
                    sock.send(b"x")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            answer = sock.recv(4096)
        finally:
            over.set()
            thread.join()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert bed.hsm.taskMng.tasks == {}


def test_a_peer_that_takes_nothing(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task of a download does not last as long as its peer likes."""
    tar = archive(bed.domain, ["web"])
    assert bed.put(bed.volumes[0], tar).status == 200
    (before,) = bed.hsm.taskMng.tasks
    limited(monkeypatch, idle=0.2)
    # Much more than a socket holds: zeros, at the end.
    lines = ["GET / HTTP/1.1", "Range: bytes=0-49999999"]
    lines += [f"{k}: {v}" for k, v in bed.headers(bed.volumes[0]).items()]
    with socket.create_connection(("127.0.0.1", bed.port), 30) as sock:
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        assert sock.recv(12) == b"HTTP/1.1 206"
        # It failed, and was cleared.
        wait_for(lambda: set(bed.hsm.taskMng.tasks) == {before})


def test_signs_of_life(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """They come while the work goes on, and no client takes them for more."""
    tar = archive(bed.domain, ["web"])
    commit = StockUpload.commit
    seen = threading.Event()

    def slow(self: StockUpload, timeout: float) -> Any:
        assert seen.wait(30)
        return commit(self, timeout)

    monkeypatch.setattr(StockUpload, "commit", slow)
    monkeypatch.setattr(answers, "_SIGN_OF_LIFE", 0.05)
    sign = b"HTTP/1.1 100 Continue\r\n\r\n"
    with begin_to_put(bed, len(tar)) as sock:
        sock.sendall(tar)
        with sock.makefile("rb") as file:
            assert file.read(3 * len(sign)) == 3 * sign
            seen.set()
            last = file.read()
    while last.startswith(sign):
        last = last[len(sign) :]
    assert last.startswith(b"HTTP/1.1 200 OK\r\n")
    # Python's own client is one of those that take a 102 for the answer.
    seen.clear()
    threading.Timer(0.5, seen.set).start()
    assert bed.put(bed.volumes[1], tar).status == 200


@pytest.mark.parametrize("fails", [False, True], ids=["succeeds", "fails"])
def test_vdsm_forgets_the_task(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    """As it does with all of them when its role as SPM ends."""
    tar = archive(bed.domain, ["web"])
    commit = StockUpload.commit

    def forgotten(self: StockUpload, timeout: float) -> Any:
        # It began before it was forgotten, and we have it by then.
        wait_for(lambda: begun)
        bed.hsm.taskMng.tasks.clear()
        if fails:
            raise errors.Aborted(what="upload")
        return commit(self, timeout)

    begun: list[Any] = []
    begin = bed.plugin.vdsm.begun

    def begin_and_tell(task: str) -> Any:
        begun.append(begin(task))
        return begun[0]

    monkeypatch.setattr(StockUpload, "commit", forgotten)
    monkeypatch.setattr(bed.plugin.vdsm, "begun", begin_and_tell)
    answer = bed.put(bed.volumes[0], tar)
    if fails:
        assert (answer.status, code(answer)) == (500, errors.Aborted.code)
    else:
        assert (answer.status, archives(bed.domain)) == (200, {1: tar})


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_vdsm_knows_no_such_task(
    bed: Bed, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """It forgot it at once."""
    tar = archive(bed.domain, ["web"])
    assert bed.put(bed.volumes[0], tar).status == 200

    def unknown(task: str) -> Any:
        raise KeyError(task)

    monkeypatch.setattr(bed.hsm.taskMng, "_getTask", unknown)
    if method == "PUT":
        answer = bed.put(bed.volumes[0], archive(bed.domain, ["db"]))
    else:
        answer = bed.get(bed.volumes[0], len(tar))
    assert answer.status == 500
    assert code(answer) == errors.VdsmRefused.code


def test_recovering(bed: Bed) -> None:
    bed.cif.recovering = True
    tar = archive(bed.domain, ["web"])
    for answer in (
        bed.put(bed.volumes[0], tar),
        bed.get(bed.volumes[0], len(tar)),
        bed.ask("POST", "/ovf-store/rpc", {}, b"{}"),
    ):
        assert answer.status == 503
        assert code(answer) == 99
    assert bed.http.seen == []


def test_the_task_is_stopped(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Task.stop ends the worker; the engine hears of it."""
    tar = archive(bed.domain, ["web"])
    commit = StockUpload.commit

    def stopped_first(self: StockUpload, timeout: float) -> Any:
        (task,) = bed.hsm.taskMng.tasks.values()
        task.stop()
        return commit(self, timeout)

    monkeypatch.setattr(StockUpload, "commit", stopped_first)
    answer = bed.put(bed.volumes[0], tar)
    assert answer.status == 500
    assert code(answer) == errors.Aborted.code
    monkeypatch.undo()
    assert bed.put(bed.volumes[0], tar).status == 200


def test_the_worker_is_killed(bed: Bed) -> None:
    tar = archive(bed.domain, {"big": builders.incompressible(3_000_000)})
    killed = []

    def kill() -> bool:
        for _, process in bed.plugin.service.runner._alive():
            if process._deadline != float("inf"):
                os.kill(process.pid, signal.SIGKILL)
                killed.append(process.pid)
        return bool(killed)

    thread = threading.Thread(target=lambda: wait_for(kill))
    thread.start()
    answer = bed.put(bed.volumes[0], tar)
    thread.join()
    # Whatever was killed, an errand or the worker: an error or VDSM's way,
    # and then it works.
    assert answer.status in (200, 299, 500)
    bed.http.seen.clear()
    assert bed.put(bed.volumes[0], tar).status == 200
    assert tar in archives(bed.domain).values()


def test_a_domain_that_is_deactivated_meanwhile(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else would keep it from being written, without leases."""
    old, new = (archive(bed.domain, [name]) for name in ("web", "db"))
    assert bed.put(bed.volumes[0], old).status == 200
    receive = bed.plugin.stock.receive

    def receive_and_deactivate(*args: Any) -> StockUpload:
        upload = receive(*args)
        bed.monitor.found.clear()
        return upload

    monkeypatch.setattr(bed.plugin.stock, "receive", receive_and_deactivate)
    answer = bed.put(bed.volumes[0], new)
    assert (answer.status, code(answer)) == (500, errors.DomainNotServed.code)
    assert archives(bed.domain) == {1: old}
    assert head(bed.volumes[0], len(old)) == old


def test_a_lockspace_that_is_joined_meanwhile(bed: Bed) -> None:
    """A new domain: the engine uploads as soon as it is active."""
    from vdsm.storage import monitor

    class Joining(monitor.Status):  # type: ignore[misc]
        asked = 0

        @property
        def hasHostId(self) -> bool:
            self.asked += 1
            return self.asked > 3

    status = bed.monitor.found[bed.domain.id] = Joining()
    tar = archive(bed.domain, ["web"])
    assert bed.put(bed.volumes[0], tar).status == 200
    assert archives(bed.domain) == {1: tar}
    assert status.asked > 3


def test_a_lockspace_that_is_not_joined(bed: Bed) -> None:
    from vdsm.storage import monitor

    bed.plugin.config = dataclasses.replace(
        bed.plugin.config, stock=Stock(timeout=0)
    )
    bed.monitor.found[bed.domain.id] = monitor.Status(host_id=False)
    answer = bed.put(bed.volumes[0], archive(bed.domain, ["web"]))
    assert answer.status == 500
    assert code(answer) == errors.LockspaceMissing.code
    assert archives(bed.domain) == {}


def test_writers_end_with_the_pool(bed: Bed) -> None:
    aborted: list[bool] = []

    class Task:
        what = "a task"
        aborted = False

        def abort(self, force: bool = False) -> None:
            aborted.append(force)

        def check(self) -> None:
            pass

    with bed.plugin.writers.writing(bed.domain.id, Task()):
        bed.plugin._watch.look()
        assert aborted == []
        bed.pool.spmRole = "Free"
        bed.plugin._watch.look()
        assert aborted == [True]
    bed.plugin._watch.look()
    assert aborted == [True]


def test_leaving_a_domain(bed: Bed, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker has ended when VDSM goes on, and its lease is free."""
    old, new = (archive(bed.domain, [name]) for name in ("web", "db"))
    assert bed.put(bed.volumes[0], old).status == 200
    commit, writes = StockUpload.commit, threading.Event()

    def told(self: StockUpload, timeout: float) -> Any:
        writes.set()
        return commit(self, timeout)

    monkeypatch.setattr(StockUpload, "commit", told)
    lock = FlockLock(bed.domain.id, f"{bed.domain.path}/ovf_store")
    lock.acquire(time.monotonic() + 30)
    found: list[Any] = []
    upload = threading.Thread(
        target=lambda: found.append(bed.put(bed.volumes[0], new))
    )
    upload.start()
    try:
        assert writes.wait(30)
        bed.plugin.leave(["another"])
        assert bed.plugin.writers._tasks
        bed.plugin.leave([bed.domain.id])
        wait_for(lambda: not bed.plugin.writers._tasks)
    finally:
        upload.join()
        lock.release()
    assert found[0].status == 500
    assert archives(bed.domain) == {1: old}


# -- /ovf-store/ --------------------------------------------------------------


def rpc(bed: Bed, verb: str, **params: Any) -> Any:
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": f"OvfStore.{verb}",
        "params": params,
    }
    headers = {"Content-Type": "application/json"}
    answer = bed.ask(
        "POST", "/ovf-store/rpc", headers, json.dumps(call).encode()
    )
    return json.loads(answer.body)


def test_verbs_and_streams(bed: Bed) -> None:
    tar = archive(bed.domain, ["web"])
    domain = {"storagedomainID": bed.domain.id, "storagepoolID": POOL}
    asked = rpc(bed, "upload", size=len(tar), **domain)["result"]
    put = bed.ask("PUT", asked["url"], {}, tar)
    assert (put.status, json.loads(put.body)["generation"]) == (200, 1)
    asked = rpc(bed, "download", **domain)["result"]
    assert bed.ask("GET", asked["url"], {}).body == tar
    for volume in bed.volumes:
        assert head(volume, len(tar)) == tar


@pytest.mark.parametrize("method", ["PUT", "GET", "POST"])
def test_no_such_path(bed: Bed, method: str) -> None:
    body = None if method == "GET" else b"x"
    answer = bed.ask(method, "/ovf-store/none", {}, body)
    assert answer.status == 404
    assert json.loads(answer.body)["error"]["type"] == "RequestInvalid"


def test_post_elsewhere(bed: Bed) -> None:
    assert bed.ask("POST", "/", {}, b"x").status == 404
    assert bed.http.HttpDetector().detect(b"POST /")


def test_expect_continue(bed: Bed) -> None:
    """Nothing of a body is asked for that will be refused."""
    line = "PUT /ovf-store/transfers/none HTTP/1.1\r\nHost: x\r\n"
    with socket.create_connection(("127.0.0.1", bed.port)) as sock:
        sock.sendall(
            f"{line}Content-Length: 9\r\nExpect: 100-continue\r\n\r\n".encode()
        )
        assert sock.recv(4096).startswith(b"HTTP/1.1 404 ")


def test_chunked(bed: Bed) -> None:
    line = "PUT /ovf-store/transfers/none HTTP/1.1\r\nHost: x\r\n"
    with socket.create_connection(("127.0.0.1", bed.port)) as sock:
        sock.sendall(f"{line}Transfer-Encoding: chunked\r\n\r\n".encode())
        assert sock.recv(4096).startswith(b"HTTP/1.1 411 ")
