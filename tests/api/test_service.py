# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The verbs, without HTTP: what they do, refuse, and leave behind."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import signal
import subprocess
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from tests.api.servicebed import (
    PIECE,
    Bed,
    children,
    pieces,
    ticket,
    wait_for,
)
from tests.store.builders import MIB, archive, incompressible, vm_id
from vdsm_ovfstore import errors
from vdsm_ovfstore.api import check
from vdsm_ovfstore.api.spool import Reservation
from vdsm_ovfstore.api.task import Task
from vdsm_ovfstore.api.transfers import Transfer
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store import process
from vdsm_ovfstore.store.child import WAITING
from vdsm_ovfstore.store.process import Process


class MakeBed(Protocol):
    def __call__(self, domains: int = 1, **settings: Any) -> Bed: ...


@pytest.fixture
def make_bed(tmp_path: Path) -> Iterator[MakeBed]:
    beds = []

    def make(domains: int = 1, **settings: Any) -> Bed:
        beds.append(Bed(tmp_path, domains, settings))
        return beds[-1]

    yield make
    for bed in beds:
        bed.assert_nothing_left()
        bed.service.stop(5)


@pytest.fixture
def bed(make_bed: MakeBed) -> Bed:
    return make_bed()


@pytest.fixture
def tar(bed: Bed) -> bytes:
    return archive(bed.domain, ["web", "db"])


@contextlib.contextmanager
def locked(domain: FileDomain) -> Iterator[None]:
    """Another process of this host writes to the domain."""
    fd = domain.store_directory(create=True)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


# -- the whole way ------------------------------------------------------------


def test_an_archive_goes_and_comes_back(bed: Bed, tar: bytes) -> None:
    sha256 = hashlib.sha256(tar).hexdigest()
    asked = bed.ask_upload(tar, sha256=sha256)
    assert bed.state(asked) == "waiting"
    answer = bed.put(asked["url"], tar)
    assert (answer["generation"], answer["sha256"]) == (1, sha256)
    assert answer["domain"] == bed.domain.id
    assert bed.state(asked) == "done"

    down = bed.ask("download")
    assert (down["size"], down["sha256"]) == (len(tar), sha256)
    assert bed.get(down["url"]) == tar
    assert bed.state(down) == "done"


def test_a_store_is_made_and_verified(make_bed: MakeBed) -> None:
    bed = make_bed()
    made = bed.wait(bed.ask("create", copies=3, size=8 * MIB)["jobID"])
    assert made["status"] == "done"
    assert len(made["result"]["created"]) == 1
    tar = archive(bed.domain, ["web"])
    bed.put(bed.ask_upload(tar)["url"], tar)
    checked = bed.wait(bed.ask("verify")["jobID"])
    assert (checked["status"], checked["progress"]) == ("done", 100)
    assert checked["result"]["verdict"] == "ok"
    repaired = bed.wait(bed.ask("repair")["jobID"])
    assert len(repaired["result"]["copies"]) == 3


def test_one_vm(bed: Bed, tar: bytes) -> None:
    bed.put(bed.ask_upload(tar)["url"], tar)
    vm = bed.ask("getVm", vmID=vm_id("web"))
    assert vm["entity"]["name"] == "web"
    down = bed.ask("download", name="web")
    data = bed.get(down["url"])
    assert data.decode() == vm["ovf"]
    assert hashlib.sha256(data).hexdigest() == vm["entity"]["sha256"]


def test_pages_of_vms(bed: Bed) -> None:
    names = [f"vm{n:02}" for n in range(7)]
    tar = archive(bed.domain, names)
    bed.put(bed.ask_upload(tar)["url"], tar)
    seen: list[str] = []
    for first in (0, 3, 6):
        page = bed.ask("listVms", first=first, count=3)
        assert (page["first"], page["total"]) == (first, 7)
        seen += [e["name"] for e in page["entities"]]
    assert seen == names


def test_an_old_generation(bed: Bed, tar: bytes) -> None:
    newer = archive(bed.domain, ["web"])
    for data in (tar, newer):
        bed.put(bed.ask_upload(data)["url"], data)
    assert bed.get(bed.ask("download", generation=1)["url"]) == tar
    assert bed.get(bed.ask("download")["url"]) == newer
    digest = hashlib.sha256(tar).hexdigest()[:12]
    wanted = f"1:{digest}"
    assert bed.get(bed.ask("download", generation=wanted)["url"]) == tar
    assert [g["number"] for g in bed.ask("getHistory")["generations"]] == [
        2,
        1,
    ]


def test_uploads_of_one_domain_take_turns(make_bed: MakeBed) -> None:
    bed = make_bed(domains=2)
    first, second = bed.domains.known.values()
    answers: dict[str, list[int]] = {first.id: [], second.id: []}

    def put(domain: FileDomain, number: int) -> None:
        tar = archive(domain, [f"vm{number}"])
        asked = bed.call(
            "upload", storagedomainID=domain.id, size=len(tar), force=True
        )
        answer = bed.put(asked["url"], tar)
        answers[domain.id].append(answer["generation"])

    threads = [
        threading.Thread(target=put, args=(domain, number))
        for domain in (first, second)
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for numbers in answers.values():
        assert sorted(numbers) == [1, 2, 3, 4]


# -- the sender ---------------------------------------------------------------


def any_speed_is(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """A busy machine makes every sender slow; tests say which it is."""
    for name in ("_FAST", "_SLOW"):
        limit = 0.0 if what == "fast" else float("inf")
        monkeypatch.setattr(check, name, limit)


def test_a_slow_sender_costs_no_process(bed: Bed) -> None:
    tar = archive(bed.domain, {"web": incompressible(MIB)})

    def drip() -> Iterator[bytes]:
        left = pieces(tar)
        yield next(left)
        # Slower than any rate that counts as fast.
        threading.Event().wait(1.3)
        for piece in left:
            assert children() == []
            yield piece

    answer = bed.send(bed.ask_upload(tar)["url"], len(tar), drip())
    assert answer["generation"] == 1


def test_a_fast_sender_is_checked_while_it_sends(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    any_speed_is(monkeypatch, "fast")
    tar = archive(bed.domain, {"web": incompressible(3 * MIB)})
    seen: list[list[int]] = []

    def rush() -> Iterator[bytes]:
        for piece in pieces(tar):
            seen.append(children())
            yield piece

    answer = bed.send(bed.ask_upload(tar)["url"], len(tar), rush())
    assert answer["sha256"] == hashlib.sha256(tar).hexdigest()
    assert len(seen[-1]) == 1


def test_a_bad_archive_is_refused_while_it_comes(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not after a client has sent 40 MiB of nonsense."""
    any_speed_is(monkeypatch, "fast")
    taken = 0

    def nonsense() -> Iterator[bytes]:
        nonlocal taken
        for taken in range(7 * MIB // PIECE):
            yield b"\xff" * PIECE
            if taken > 20:
                threading.Event().wait(0.2)

    asked = bed.ask("upload", size=7 * MIB)
    with pytest.raises(errors.NotAnArchive):
        bed.send(asked["url"], 7 * MIB, nonsense())
    assert taken * PIECE < 7 * MIB - PIECE
    assert bed.state(asked) == "failed"


def test_a_sender_that_gets_slow_gives_its_process_back(
    bed: Bed, monkeypatch: pytest.MonkeyPatch
) -> None:
    any_speed_is(monkeypatch, "fast")
    tar = archive(bed.domain, {"web": incompressible(3 * MIB)})

    def slowing() -> Iterator[bytes]:
        left = pieces(tar)
        for _ in range(16):
            yield next(left)
        assert len(children()) == 1
        any_speed_is(monkeypatch, "slow")
        yield next(left)
        assert children() == []
        yield from left

    answer = bed.send(bed.ask_upload(tar)["url"], len(tar), slowing())
    assert answer["sha256"] == hashlib.sha256(tar).hexdigest()


def cut(tar: bytes) -> Iterator[bytes]:
    yield tar[: len(tar) // 2]
    raise errors.TransferIncomplete(
        done=len(tar) // 2, length=len(tar), reason="cut", stalled=False
    )


@pytest.mark.parametrize("size", [10_000, 3 * MIB], ids=["small", "large"])
def test_a_cut_connection(bed: Bed, tar: bytes, size: int) -> None:
    bed.put(bed.ask_upload(tar)["url"], tar)
    data = archive(bed.domain, {"web": incompressible(size)})
    asked = bed.ask_upload(data)
    with pytest.raises(errors.TransferIncomplete):
        bed.send(asked["url"], len(data), cut(data))
    found = bed.call("getTransfer", transferID=asked["transferID"])
    assert (found["state"], found["error"]["code"]) == ("failed", 3517)
    assert bed.newest() == 1


def test_an_end_that_comes_early(bed: Bed, tar: bytes) -> None:
    asked = bed.ask_upload(tar)
    with pytest.raises(errors.TransferIncomplete, match="512 of"):
        bed.send(asked["url"], len(tar), iter([tar[:512]]))


# -- what is refused ----------------------------------------------------------


def test_a_url_is_for_one_use(bed: Bed, tar: bytes) -> None:
    asked = bed.ask_upload(tar)
    bed.put(asked["url"], tar)
    with pytest.raises(errors.TransferRefused, match="it has been used") as e:
        bed.put(asked["url"], tar)
    assert e.value.gone
    assert bed.newest() == 1


def test_a_url_is_for_one_peer_at_a_time(bed: Bed, tar: bytes) -> None:
    asked = bed.ask_upload(tar)
    upload = bed.service.transfers.begin_upload(ticket(asked["url"]), len(tar))
    with pytest.raises(errors.TransferRefused, match="in use") as e:
        bed.put(asked["url"], tar)
    assert not e.value.gone
    upload.receive(pieces(tar))
    upload.close()


def test_who_comes_back_at_once_is_waited_for(bed: Bed, tar: bytes) -> None:
    """A peer has the last byte before we know that it was sent."""
    bed.put(bed.ask_upload(tar)["url"], tar)
    down = bed.ask("download")
    begun = bed.service.transfers.begin_download(ticket(down["url"]))
    begun.sent(512)
    last = threading.Timer(0.2, begun.close)
    last.start()
    assert bed.get(down["url"]) == tar
    last.join()


def test_who_sees_the_end_finds_room(
    bed: Bed, tar: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []

    def close(self: Reservation) -> None:
        seen.append(bed.state(asked))
        original(self)

    original = Reservation.close
    monkeypatch.setattr(Reservation, "close", close)
    asked = bed.ask_upload(tar)
    bed.put(asked["url"], tar)
    assert (seen, bed.state(asked)) == (["writing"], "done")


def test_a_url_is_for_one_verb(bed: Bed, tar: bytes) -> None:
    up = bed.ask_upload(tar)
    with pytest.raises(errors.TransferRefused, match="it is for upload"):
        bed.get(up["url"])
    bed.put(up["url"], tar)
    down = bed.ask("download")
    with pytest.raises(errors.TransferRefused, match="it is for download"):
        bed.put(down["url"], tar)
    assert bed.get(down["url"]) == tar


def test_a_url_that_nobody_gave(bed: Bed) -> None:
    with pytest.raises(errors.TransferNotFound):
        bed.put("/ovf-store/transfers/" + "0" * 32, b"")


def test_a_url_expires(make_bed: MakeBed) -> None:
    bed = make_bed(transfer_expires=0.05)
    tar = archive(bed.domain, ["web"])
    asked = bed.ask_upload(tar)

    def expired() -> bool:
        bed.service._registry.sweep()
        return bed.state(asked) == "expired"

    wait_for(expired)
    with pytest.raises(errors.TransferRefused, match="in time") as e:
        bed.put(asked["url"], tar)
    assert e.value.gone


@pytest.mark.parametrize("more", [-512, 512], ids=["shorter", "longer"])
def test_another_length_than_announced(
    bed: Bed, tar: bytes, more: int
) -> None:
    asked = bed.ask("upload", size=len(tar) + more)
    with pytest.raises(errors.ArchiveMismatch, match="were announced"):
        bed.put(asked["url"], tar)
    assert bed.state(asked) == "failed"


@pytest.mark.parametrize("where", ["verb", "header"])
def test_another_digest_than_announced(
    bed: Bed, tar: bytes, where: str
) -> None:
    wrong = hashlib.sha256(b"another").hexdigest()
    params = {"sha256": wrong} if where == "verb" else {}
    asked = bed.ask_upload(tar, **params)
    with pytest.raises(errors.ArchiveMismatch, match=wrong):
        bed.put(asked["url"], tar, None if params else wrong)
    assert bed.newest() == 0


def test_two_digests_that_differ(bed: Bed, tar: bytes) -> None:
    right = hashlib.sha256(tar).hexdigest()
    asked = bed.ask_upload(tar, sha256="0" * 64)
    with pytest.raises(errors.ArchiveMismatch, match="announced was"):
        bed.put(asked["url"], tar, right)


def test_too_large_for_the_store(bed: Bed) -> None:
    with pytest.raises(errors.ArchiveTooLarge, match="this store"):
        bed.ask("upload", size=9 * MIB)


def test_too_large_for_the_spool(make_bed: MakeBed) -> None:
    bed = make_bed(spool_bytes=2 * MIB)
    with pytest.raises(errors.ArchiveTooLarge, match="the spool") as e:
        bed.ask("upload", size=MIB)
    assert "spool_bytes" in e.value.next_step


def test_a_spool_that_others_use(make_bed: MakeBed) -> None:
    bed = make_bed(spool_bytes=2 * MIB)
    asked = bed.ask("upload", size=10240)
    with pytest.raises(errors.HostBusy, match="spool") as e:
        bed.ask("upload", size=MIB // 2)
    assert e.value.retry_after > 0
    bed.call("abort", transferID=asked["transferID"])
    asked = bed.ask("upload", size=MIB // 2)
    bed.call("abort", transferID=asked["transferID"])


def test_too_many_transfers(make_bed: MakeBed) -> None:
    bed = make_bed(transfers=2)
    tar = archive(bed.domain, ["web"])
    asked = [bed.ask_upload(tar) for _ in range(2)]
    with pytest.raises(errors.HostBusy, match="2 transfers are open"):
        bed.ask_upload(tar)
    bed.put(asked[0]["url"], tar)
    third = bed.ask_upload(tar)
    for one in (asked[1], third):
        bed.call("abort", transferID=one["transferID"])


def test_unknown_domain(bed: Bed) -> None:
    with pytest.raises(errors.DomainNotServed):
        bed.call("getInfo", storagedomainID=str(uuid.uuid4()))


def test_another_pool(bed: Bed) -> None:
    with pytest.raises(errors.PoolMismatch):
        bed.ask("getInfo", storagepoolID=str(uuid.uuid4()))


def test_a_lockspace_that_is_not_joined(bed: Bed, tar: bytes) -> None:
    bed.put(bed.ask_upload(tar)["url"], tar)
    bed.domains.joining = True
    for verb in ("create", "repair"):
        with pytest.raises(errors.LockspaceMissing):
            bed.ask(verb)
    with pytest.raises(errors.LockspaceMissing):
        bed.ask_upload(tar)
    assert bed.ask("getInfo")["verdict"] == "ok"


def test_an_empty_store_has_nothing_to_send(bed: Bed) -> None:
    with pytest.raises(errors.StoreEmpty):
        bed.ask("download")


def test_what_an_errand_meets_comes_whole(bed: Bed, tar: bytes) -> None:
    bed.put(bed.ask_upload(tar)["url"], tar)
    with pytest.raises(errors.EntityNotFound) as e:
        bed.ask("getVm", name="nobody")
    assert str(e.value) == "Generation 1 holds no VM or template 'nobody'"


# -- a store in use, and abort ------------------------------------------------


def test_a_store_in_use(bed: Bed, tar: bytes) -> None:
    asked = bed.ask_upload(tar, timeout=0.2)
    with locked(bed.domain), pytest.raises(errors.LeaseBusy):
        bed.put(asked["url"], tar)
    assert bed.state(asked) == "failed"
    assert bed.newest() == 0


def test_abort_before_the_first_byte(bed: Bed, tar: bytes) -> None:
    asked = bed.ask_upload(tar)
    answer = bed.call("abort", transferID=asked["transferID"])
    assert answer == {"aborted": True, "state": "aborted"}
    with pytest.raises(errors.TransferRefused, match="aborted"):
        bed.put(asked["url"], tar)


def test_abort_while_it_comes(bed: Bed, tar: bytes) -> None:
    asked = bed.ask_upload(tar)

    def aborted() -> Iterator[bytes]:
        yield tar[:512]
        bed.call("abort", transferID=asked["transferID"])
        yield tar[512:]

    with pytest.raises(errors.Aborted):
        bed.send(asked["url"], len(tar), aborted())
    assert bed.state(asked) == "aborted"


def test_abort_while_it_waits_for_the_lease(bed: Bed, tar: bytes) -> None:
    asked = bed.ask_upload(tar)
    found: list[errors.Error] = []

    def put() -> None:
        try:
            bed.put(asked["url"], tar)
        except errors.Error as e:
            found.append(e)

    with locked(bed.domain):
        thread = threading.Thread(target=put)
        thread.start()
        wait_for(lambda: bed.state(asked) == "writing" and children())
        bed.call("abort", transferID=asked["transferID"])
        thread.join()
    assert isinstance(found[0], errors.Aborted)
    assert bed.state(asked) == "aborted"
    assert bed.newest() == 0


def test_abort_in_the_queue(bed: Bed, tar: bytes) -> None:
    first, second = bed.ask("repair")["jobID"], ""
    with locked(bed.domain):
        wait_for(children)
        second = bed.ask("repair")["jobID"]
        queues = {bed.domain.id: 2}
        wait_for(lambda: bed.service.status()["queues"] == queues)
        bed.call("abort", jobID=second)
        assert bed.wait(second)["status"] == "aborted"
    assert bed.wait(first)["status"] in ("done", "failed")


def test_abort_of_a_job_that_ended(bed: Bed) -> None:
    job = bed.ask("verify")["jobID"]
    assert bed.wait(job)["status"] == "done"
    assert bed.call("abort", jobID=job) == {"aborted": False, "state": "done"}


def test_no_abort_while_the_storage_is_written() -> None:
    task = Task("upload x")
    task.write(WAITING)
    task.write("claiming")
    with pytest.raises(errors.AbortRefused, match="upload x"):
        task.abort()
    assert not task.aborted


def test_an_abort_that_comes_after_the_leases(
    bed: Bed, tar: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """We hear of the leases late: the worker knows better."""
    asked = bed.ask_upload(tar)
    late = threading.Event()
    answer: list[Any] = []

    def write(self: Task, step: str) -> None:
        if step != WAITING:
            late.wait(10)
        original(self, step)

    original = Task.write
    monkeypatch.setattr(Task, "write", write)
    thread = threading.Thread(
        target=lambda: answer.append(bed.put(asked["url"], tar))
    )
    thread.start()
    # It is committed although nobody here has heard of the leases yet.
    wait_for(lambda: bed.newest() == 1)
    timer = threading.Timer(0.3, late.set)
    timer.start()
    with pytest.raises(errors.AbortRefused):
        bed.call("abort", transferID=asked["transferID"])
    thread.join()
    timer.join()
    assert answer[0]["generation"] == 1
    assert bed.state(asked) == "done"


def test_jobs_fail_with_an_error(bed: Bed) -> None:
    job = bed.wait(bed.ask("create", copies=1, size=8 * MIB)["jobID"])
    assert job["status"] == "done"
    with locked(bed.domain):
        job = bed.wait(bed.ask("repair", timeout=0.2)["jobID"])
    assert (job["status"], job["error"]["code"]) == ("failed", 651)
    assert job["result"] is None


def test_unknown_jobs_and_transfers(bed: Bed) -> None:
    nobody = str(uuid.uuid4())
    with pytest.raises(errors.JobNotFound):
        bed.call("getJobs", jobIDs=[nobody])
    with pytest.raises(errors.JobNotFound):
        bed.call("abort", jobID=nobody)
    with pytest.raises(errors.TransferNotFound):
        bed.call("abort", transferID=nobody)


def test_what_has_ended_is_forgotten(make_bed: MakeBed) -> None:
    bed = make_bed(remembered=2)
    tar = archive(bed.domain, ["web"])
    asked = [bed.ask_upload(tar) for _ in range(4)]
    for one in asked:
        bed.call("abort", transferID=one["transferID"])
    bed.service._registry.sweep()
    with pytest.raises(errors.TransferNotFound):
        bed.state(asked[0])
    assert bed.state(asked[3]) == "aborted"


# -- downloads ----------------------------------------------------------------


def test_a_download_is_continued(bed: Bed, tar: bytes) -> None:
    bed.put(bed.ask_upload(tar)["url"], tar)
    down = bed.ask("download")
    begun = bed.service.transfers.begin_download(ticket(down["url"]))
    begun.sent(1000)
    begun.close()
    assert bed.state(down) == "waiting"
    assert bed.get(down["url"]) == tar
    with pytest.raises(errors.TransferRefused, match="it has been used"):
        bed.get(down["url"])


def test_a_damaged_generation_is_not_sent(bed: Bed) -> None:
    tar = archive(bed.domain, {"web": incompressible(100_000)})
    bed.put(bed.ask_upload(tar)["url"], tar)
    down = bed.ask("download")
    for volume in bed.domain.volumes():
        for path, end in ((volume.path, 0), (volume.log_path, MIB)):
            data = bytearray(Path(path).read_bytes())
            # In each page but the first ones; the ring stays as it is.
            for offset in range(8192, len(data) - end, 4096):
                data[offset] ^= 0xFF
            Path(path).write_bytes(data)
    with pytest.raises(errors.Error) as e:
        bed.get(down["url"])
    assert isinstance(e.value, (errors.Damaged, errors.GenerationNotFound))
    assert bed.state(down) == "failed"


def test_a_busy_host_keeps_the_download(
    make_bed: MakeBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = make_bed(readers=1, read_timeout=0.5)
    tar = archive(bed.domain, ["web"])
    bed.put(bed.ask_upload(tar)["url"], tar)
    down = bed.ask("download")
    slots = bed.service._runner._slots["scan"]
    assert slots.acquire(bed.domain.path)
    with pytest.raises(errors.HostBusy, match="read this store"):
        bed.get(down["url"])
    slots.release(bed.domain.path)
    assert bed.state(down) == "waiting"
    assert bed.get(down["url"]) == tar


def test_an_abort_at_the_end_of_a_request(
    bed: Bed, tar: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed.put(bed.ask_upload(tar)["url"], tar)
    down = bed.ask("download")
    begun = bed.service.transfers.begin_download(ticket(down["url"]))
    begun.sent(100)

    def extend() -> None:
        # Here nobody looks any more whether it was aborted.
        Transfer.abort(begun)

    monkeypatch.setattr(begun, "extend", extend)
    begun.close()
    assert bed.state(down) == "aborted"
    with pytest.raises(errors.TransferRefused, match="aborted"):
        bed.get(down["url"])


def test_an_abort_while_the_next_one_waits(bed: Bed, tar: bytes) -> None:
    bed.put(bed.ask_upload(tar)["url"], tar)
    down = bed.ask("download")
    begun = bed.service.transfers.begin_download(ticket(down["url"]))
    begun.sent(512)
    begun.abort()
    # The one that waits may be quicker than who leaves.
    begun._busy.release()
    with pytest.raises(errors.TransferRefused, match="aborted"):
        bed.get(down["url"])
    assert bed.state(down) == "aborted"


# -- what the system refuses --------------------------------------------------


def test_a_thread_that_cannot_be_had(
    make_bed: MakeBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = make_bed(jobs=1)

    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(errors.HostBusy, match="new thread"):
            bed.ask("verify")
    assert bed.wait(bed.ask("verify")["jobID"])["status"] == "done"


def test_storage_that_hangs_takes_one_process(
    make_bed: MakeBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stopped process that cannot be killed stands for one in state D."""
    bed = make_bed(domains=2, read_timeout=0.2)
    other = list(bed.domains.known)[1]
    stuck: list[Any] = []
    give = Process.give

    def stop(self: Process, *request: Any) -> Process:
        os.kill(self.pid, signal.SIGSTOP)
        stuck.append(self)
        return give(self, *request)

    with monkeypatch.context() as patch:
        patch.setattr(process, "_GRACE", 0.2)
        patch.setattr(Process, "give", stop)
        patch.setattr(subprocess.Popen, "kill", lambda self: None)
        with pytest.raises(errors.WorkerFailed, match="it hangs"):
            bed.ask("getInfo")
    with pytest.raises(errors.StorageFailed, match="hangs in a call"):
        bed.ask("getInfo")
    assert len(children()) == 1
    stuck[0]._child.kill()
    stuck[0]._child.wait()
    bed.call("getHistory", storagedomainID=other)


def test_storage_that_hangs_leaves_slots_to_others(
    make_bed: MakeBed, monkeypatch: pytest.MonkeyPatch
) -> None:
    bed = make_bed(domains=2, readers=4)
    other = list(bed.domains.known)[1]
    stopped: list[int] = []
    give = Process.give

    def stop(self: Process, request: Any, *more: Any) -> Process:
        if request["path"] == bed.domain.path:
            os.kill(self.pid, signal.SIGSTOP)
            stopped.append(self.pid)
        return give(self, request, *more)

    monkeypatch.setattr(Process, "give", stop)
    threads = [
        threading.Thread(target=bed.ask, args=("getHistory",))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: len(stopped) >= 2)
        bed.call("getHistory", storagedomainID=other)
        assert len(stopped) == 2
    finally:
        monkeypatch.setattr(Process, "give", give)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        for thread in threads:
            thread.join()


# -- the end ------------------------------------------------------------------


def test_stop_ends_what_waits(bed: Bed, tar: bytes) -> None:
    asked = bed.ask_upload(tar)
    with locked(bed.domain):
        job = bed.ask("repair")["jobID"]
        wait_for(children)
        bed.service.stop(5)
    assert bed.state(asked) == "aborted"
    assert bed.wait(job)["status"] == "aborted"
    with pytest.raises(errors.HostBusy, match="stopping"):
        bed.ask_upload(tar)


def test_spares_are_ready_and_end_with_the_service(
    make_bed: MakeBed,
) -> None:
    bed = make_bed(spares=True)
    wait_for(lambda: len(children()) == 4)
    ready = set(children())
    tar = archive(bed.domain, ["web"])
    bed.put(bed.ask_upload(tar)["url"], tar)
    # Three were used, and there are new ones.
    wait_for(lambda: len(set(children()) - ready) == 3)
    killed = children()[0]
    os.kill(killed, signal.SIGKILL)
    stat = Path(f"/proc/{killed}/stat")
    wait_for(lambda: stat.read_text().split()[2] == "Z")
    assert bed.ask("getInfo")["verdict"] == "ok"
    bed.service.stop(5)
