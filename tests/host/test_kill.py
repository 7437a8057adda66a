# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Processes that are killed, disks that are full, storage that goes away.

The store holds the old or the new generation, whole; who waits for an answer
gets one clear error; and the next upload works.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

import pytest

from tests.conftest import MakeFilesystem
from tests.host.harness import running_daemon, wait_until
from tests.host.hostbed import HostBed, request
from tests.host.peers import Answer, Raw
from tests.store.builders import (
    EPOCH,
    MIB,
    archive,
    archives,
    incompressible,
    make_domain,
)
from vdsm_ovfstore import errors
from vdsm_ovfstore.storage.filedomain import create_domain
from vdsm_ovfstore.store.child import WAITING

# All of them start daemons.
pytestmark = pytest.mark.slow

GRACE = 8.0  # of a stop, in seconds


@contextlib.contextmanager
def host(tmp_path: Path, **limits: object) -> Iterator[HostBed]:
    domain, spool = make_domain(tmp_path), tmp_path / "spool"
    spool.mkdir(exist_ok=True)
    limits = {"spool": spool, "stop": f"{GRACE} s", **limits}
    with running_daemon(tmp_path, [domain.path], limits=limits) as daemon:
        bed = HostBed(daemon, domain, Path(str(limits["spool"])))
        bed.start_store()
        yield bed
        bed.assert_nothing_left()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostBed]:
    with host(tmp_path_factory.mktemp("kill")) as bed:
        yield bed


@pytest.fixture
def bed(shared: HostBed) -> Iterator[HostBed]:
    """The daemon of all tests; each of them leaves it running."""
    yield shared
    shared.assert_nothing_left()


def large(bed: HostBed, seed: int = 0) -> bytes:
    """An archive whose commit takes a while."""
    notes = {"web": incompressible(3 * MIB, seed), "db": ""}
    return archive(bed.domain, notes, EPOCH + seed)


class Sending:
    """
    An upload in a thread of its own, and what it was answered.

    held are bytes that are not sent until go_on().
    """

    def __init__(self, bed: HostBed, tar: bytes, held: int = 0) -> None:
        self.tar = tar
        self.transfer = bed.ask_upload(tar)
        self.answer: Optional[Answer] = None
        self._bed = bed
        self._held = held
        self._go_on = threading.Event()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    def _main(self) -> None:
        whole = request("PUT", self.transfer["url"], self.tar)
        # The daemon may be killed at any time.
        with contextlib.suppress(OSError, AssertionError):
            with self._bed.peer() as peer:
                self._send(peer, whole)
                self.answer = peer.answer()

    def _send(self, peer: Raw, whole: bytes) -> None:
        peer.send(whole[: len(whole) - self._held])
        if self._held:
            self._go_on.wait(60)
            peer.send(whole[-self._held :])

    def go_on(self) -> None:
        self._go_on.set()

    def wait(self) -> Answer:
        self.end()
        assert self.answer is not None, "the connection was cut"
        return self.answer

    def end(self) -> None:
        """The daemon may have gone without an answer."""
        self.go_on()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def document(self) -> Any:
        return self._bed.daemon.call(
            "getTransfer", transferID=self.transfer["transferID"]
        )

    def wait_for(self, state: str) -> None:
        self._bed.wait_for_state(self.transfer, state)


class Locked:
    """The lock of the domain, taken by somebody else."""

    def __init__(self, bed: HostBed) -> None:
        path = os.path.join(bed.domain.path, "ovf_store")
        self._fd = os.open(path, os.O_RDONLY)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __enter__(self) -> Locked:
        return self

    def __exit__(self, *exc: object) -> None:
        self.release()

    def release(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def worker_of(bed: HostBed) -> int:
    """The process that writes; there has to be one."""
    (pid,) = wait_until(lambda: bed.working("store.worker"))
    return int(pid)


def stop_in_midst(bed: HostBed) -> tuple[Sending, int]:
    """An upload, and its worker, stopped while it writes."""
    for seed in range(10, 20):
        with Locked(bed) as lock:
            sending = Sending(bed, large(bed, seed))
            wait_until(lambda s=sending: s.document()["step"] == WAITING)
            pid = worker_of(bed)
            lock.release()
            wait_until(lambda s=sending: s.document()["step"] != WAITING)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        if sending.document()["state"] == "writing" and bed.locks():
            return sending, pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
        assert sending.wait().status == 200
        bed.tar = sending.tar
    raise AssertionError("ten workers were too quick")


def is_running(pid: int) -> bool:
    """False as well if only its parent has not looked yet."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def gone(pids: list[int]) -> bool:
    return not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def assert_told(answer: Answer, kind: str, *words: str) -> None:
    error = answer.error
    assert error["type"] == kind
    assert error["code"] == getattr(errors, kind).code
    assert error["message"].isprintable() and error["next_step"]
    for word in words:
        assert word in error["message"]


def assert_survived(bed: HostBed, new: bytes) -> None:
    """Sound after at most one repair, old or new, and it goes on."""
    domain = bed.domain.id
    job = bed.daemon.job("verify", storagedomainID=domain)
    if job["result"]["verdict"] != "ok":
        job = bed.daemon.job("repair", storagedomainID=domain)
        assert job["status"] == "done", job["error"]
        job = bed.daemon.job("verify", storagedomainID=domain)
    assert job["result"]["verdict"] == "ok", job["result"]["problems"]
    found = archives(bed.domain)
    assert found[max(found)] in (bed.tar, new)
    # Longer than what may have been left of the large one.
    bed.upload(archive(bed.domain, ["after"], EPOCH + 1000 + max(found)))
    bed.assert_intact()
    assert list(bed.spool.iterdir()) == []


# -- the daemon ---------------------------------------------------------------


def receiving(bed: HostBed) -> Sending:
    sending = Sending(bed, archive(bed.domain, ["new"]), held=100)
    sending.wait_for("receiving")
    return sending


def checking(bed: HostBed) -> Sending:
    """An errand is there: on a busy machine a sender may look slow."""
    for seed in range(20, 30):
        sending = Sending(bed, large(bed, seed), held=1)
        with contextlib.suppress(AssertionError):
            wait_until(lambda: bed.working("api.errand"), 3)
            return sending
        assert sending.wait().status == 200
        bed.tar = sending.tar
    raise AssertionError("ten senders were too slow")


def waiting(bed: HostBed) -> Sending:
    """A worker is there, and has to wait for the lock."""
    sending = Sending(bed, large(bed))
    wait_until(lambda: sending.document()["step"] == WAITING)
    worker_of(bed)
    return sending


@pytest.mark.parametrize("reach", [receiving, checking])
def test_daemon_killed(
    bed: HostBed, reach: Callable[[HostBed], Sending]
) -> None:
    sending, orphans = reach(bed), bed.children()
    bed.daemon.kill()
    sending.end()
    assert sending.answer is None
    wait_until(lambda: gone(orphans))
    bed.daemon.start()
    assert_survived(bed, bed.tar)


def test_daemon_killed_while_its_worker_waits(bed: HostBed) -> None:
    with Locked(bed):
        sending, orphans = waiting(bed), bed.children()
        bed.daemon.kill()
        sending.end()
        wait_until(lambda: gone(orphans))
    bed.daemon.start()
    assert_survived(bed, bed.tar)


def test_daemon_killed_while_its_worker_writes(bed: HostBed) -> None:
    sending, worker = stop_in_midst(bed)
    orphans = bed.children()
    try:
        bed.daemon.kill()
        sending.end()
        bed.daemon.start()
        # The old worker cannot end, and has the lock.
        new = archive(bed.domain, ["next"])
        answer = bed.put(bed.ask_upload(new, timeout=0)["url"], new)
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        assert_told(answer, "LeaseBusy", bed.domain.id)
    finally:
        os.kill(worker, signal.SIGCONT)
    wait_until(lambda: gone(orphans))
    assert_survived(bed, sending.tar)


def kill_at(bed: HostBed, seconds: float, seed: int) -> None:
    """Kill the daemon that long after an upload began, and go on."""
    sending, orphans = Sending(bed, large(bed, seed)), bed.children()
    time.sleep(seconds)
    orphans += bed.children()
    bed.daemon.kill()
    sending.end()
    wait_until(lambda: gone(orphans))
    bed.daemon.start()
    if sending.answer is not None:
        # What was answered is there.
        assert sending.answer.status == 200
        bed.tar = sending.tar
    assert_survived(bed, sending.tar)


def test_daemon_killed_at_some_moment(bed: HostBed) -> None:
    kill_at(bed, 0.1, 0)


@pytest.mark.campaign
@pytest.mark.timeout(300)
def test_daemon_killed_at_many_moments(bed: HostBed) -> None:
    moments = random.Random(1)
    for seed in range(20):
        kill_at(bed, moments.uniform(0, 0.5), seed)


def test_spool_file_has_no_name(bed: HostBed) -> None:
    """Not even for a moment, in which it could be left behind."""
    sending = receiving(bed)
    try:
        paths = [
            os.readlink(f"/proc/{bed.daemon.pid}/fd/{fd}")
            for fd in os.listdir(f"/proc/{bed.daemon.pid}/fd")
        ]
    finally:
        answer = sending.wait()
    assert answer.status == 200
    bed.tar = sending.tar
    spooled = [p for p in paths if p.startswith(str(bed.spool))]
    # As the kernel shows a file that was made with O_TMPFILE.
    assert len(spooled) == 2
    assert all(Path(p).name.startswith("#") for p in spooled)


# -- its children -------------------------------------------------------------


def test_worker_killed_while_it_waits(bed: HostBed) -> None:
    with Locked(bed):
        sending = waiting(bed)
        os.kill(worker_of(bed), signal.SIGKILL)
        answer = sending.wait()
    assert answer.status == 500
    assert_told(answer, "WorkerFailed", "killed by SIGKILL")
    assert_survived(bed, bed.tar)


def test_worker_killed_while_it_writes(bed: HostBed) -> None:
    sending, worker = stop_in_midst(bed)
    os.kill(worker, signal.SIGKILL)
    answer = sending.wait()
    assert answer.status == 500
    assert_told(answer, "WorkerFailed", "killed by SIGKILL")
    assert_survived(bed, sending.tar)


def test_errand_killed(bed: HostBed) -> None:
    sending = checking(bed)
    (pid,) = bed.working("api.errand")
    os.kill(pid, signal.SIGKILL)
    answer = sending.wait()
    assert answer.status == 500
    assert_told(answer, "WorkerFailed", "killed by SIGKILL")
    assert_survived(bed, bed.tar)


def test_spares_killed(bed: HostBed) -> None:
    """They have not begun anything: nobody hears of it."""
    spares = wait_until(bed.children)
    for pid in spares:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(map(is_running, spares)))
    assert_survived(bed, bed.tar)


# -- a stop -------------------------------------------------------------------


def test_stop_with_work_under_way(bed: HostBed) -> None:
    """Who writes may end; who waits or sends is told."""
    writing, worker = stop_in_midst(bed)
    queued = Sending(bed, archive(bed.domain, ["queued"]))
    queued.wait_for("queued")
    sending = Sending(bed, archive(bed.domain, ["late"]), held=100)
    sending.wait_for("receiving")
    idle = bed.ask_upload(archive(bed.domain, ["never"]))
    children = bed.children()
    began = time.monotonic()
    bed.daemon.signal(signal.SIGTERM)
    wait_until(lambda: bed.daemon.status()["stopping"])
    sending.go_on()
    for refused in (queued, sending):
        answer = refused.wait()
        assert answer.status == 410
        assert_told(answer, "Aborted", refused.transfer["transferID"])
    assert bed.state(idle) == "aborted"
    answer = bed.verb(
        "upload", {"storagedomainID": bed.domain.id, "size": 2048}
    )
    assert answer.status == 503
    assert "it is stopping" in answer.error["message"]
    os.kill(worker, signal.SIGCONT)
    assert writing.wait().status == 200
    assert bed.daemon.wait() == 0
    assert time.monotonic() - began < GRACE
    assert gone(children)
    assert not os.path.exists(bed.daemon.socket)
    bed.tar = writing.tar
    bed.assert_intact()
    bed.daemon.start()
    assert_survived(bed, bed.tar)


@pytest.mark.slow
def test_stop_ends_a_worker_that_hangs(tmp_path: Path) -> None:
    with host(tmp_path, stop="1 s") as bed:
        writing, worker = stop_in_midst(bed)
        children = bed.children()
        try:
            bed.daemon.signal(signal.SIGTERM)
            assert bed.daemon.wait() == 0
            assert_told(writing.wait(), "Aborted")
            wait_until(lambda: gone([worker, *children]))
        finally:
            # Never left behind, whatever became of the daemon.
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)
        bed.daemon.start()
        assert_survived(bed, writing.tar)


# -- full disks ---------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 96 MiB, of which the spool leaves 64 MiB free."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no tmpfs here: {done.stderr.strip()}")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def fill(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", 0) as f:
        while True:
            f.write(bytes(MIB))


def test_spool_is_full(tmp_path: Path, small_disk: Path) -> None:
    with host(tmp_path, spool=small_disk) as bed:
        new = archive(bed.domain, ["new"])
        transfer = bed.ask_upload(new)
        filler = small_disk / "filler"
        fill(filler)
        answer = bed.put(transfer["url"], new)
        assert answer.status == 507
        assert_told(answer, "SpoolFull", "No space left", "spool")
        # The next is told before it sends.
        answer = bed.verb(
            "upload", {"storagedomainID": bed.domain.id, "size": len(new)}
        )
        assert answer.status == 503
        assert answer.headers["retry-after"] == "10"
        assert "free in its spool directory" in answer.error["message"]
        filler.unlink()
        bed.assert_intact()
        assert_survived(bed, bed.tar)


def test_domain_is_full(tmp_path: Path, filesystem: MakeFilesystem) -> None:
    mounted, spool = filesystem(), tmp_path / "spool"
    spool.mkdir()
    domain = create_domain(str(mounted), "LOCALFS")
    for _ in range(2):
        domain.create_volume(8 * MIB)
    with running_daemon(
        tmp_path, [domain.path], limits={"spool": spool}
    ) as daemon:
        bed = HostBed(daemon, domain, spool)
        bed.start_store()
        filler = mounted / "filler"
        fill(filler)
        new = large(bed)
        answer = bed.put(bed.ask_upload(new)["url"], new)
        assert answer.status == 507, answer.body
        assert_told(answer, "StorageFull", str(mounted))
        bed.assert_intact()
        filler.unlink()
        assert_survived(bed, new)
        bed.assert_nothing_left()


# -- storage that goes away ---------------------------------------------------


def test_domain_goes_away(bed: HostBed) -> None:
    away = f"{bed.domain.path}.away"
    tar = archive(bed.domain, ["new"])
    transfer = bed.ask_upload(tar)
    os.rename(bed.domain.path, away)
    try:
        answer = bed.put(transfer["url"], tar)
        assert answer.status == 404
        assert_told(answer, "DomainNotFound", bed.domain.path)
        for verb in ("getInfo", "listVms", "getHistory", "download"):
            found = bed.daemon.error(verb, storagedomainID=bed.domain.id)
            assert found["code"] == 358
            assert bed.domain.id in found["message"]
        assert bed.daemon.call("ping")["api"] == 1
    finally:
        os.rename(away, bed.domain.path)
    bed.daemon.signal(signal.SIGHUP)
    wait_until(lambda: bed.daemon.call("list")["domains"])
    assert_survived(bed, bed.tar)


def test_domain_goes_away_in_midst(bed: HostBed) -> None:
    """The worker has it open; what it wrote is where the domain is."""
    sending, worker = stop_in_midst(bed)
    away = f"{bed.domain.path}.away"
    os.rename(bed.domain.path, away)
    os.kill(worker, signal.SIGCONT)
    answer = sending.wait()
    os.rename(away, bed.domain.path)
    if answer.status != 200:
        assert_told(answer, answer.error["type"])
    assert_survived(bed, sending.tar)


def test_volumes_go_away(bed: HostBed) -> None:
    images, tar = Path(bed.domain.path) / "images", bed.tar
    shutil.copytree(images, images.with_name("kept"))
    shutil.rmtree(images)
    images.mkdir()
    new = archive(bed.domain, ["new"])
    answer = bed.verb(
        "upload", {"storagedomainID": bed.domain.id, "size": len(new)}
    )
    assert answer.status == 404
    assert answer.error["data"]["type"] == "VolumeNotFound"
    images.rmdir()
    images.with_name("kept").rename(images)
    assert bed.download() == tar
