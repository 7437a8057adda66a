# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Domains, file systems and locks that do not let us write."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.harness import IDS, SAMPLES, Cli, Store, archive, make_store
from tests.conftest import MakeFilesystem, MakeTree, run
from vdsm_ovfstore.format.sdmeta import DomainMetadata

NEW = archive("new")


@contextlib.contextmanager
def locked(store: Store) -> Iterator[int]:
    """As another process that writes to the store."""
    fd = os.open(store.path / "ovf_store", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield fd
    finally:
        os.close(fd)


class TestDomain:
    def test_unknown(self, cli: Cli) -> None:
        result = cli("status", "none")
        assert "no such directory" in result.is_error(358)

    def test_not_one(self, cli: Cli, tmp_path: Path) -> None:
        result = cli("upload", tmp_path, "-", data=NEW)
        assert "no dom_md/metadata" in result.is_error(358)

    def test_several(self, store: Store) -> None:
        parent = store.path.parent
        store.cli.ok("init", parent, "--type", "localfs")
        result = store.cli("status", parent)
        assert "2 of them" in result.is_error(358)

    def test_other_directory(self, store: Store) -> None:
        moved = store.path.with_name(IDS[0])
        store.path.rename(moved)
        for verb in ("status", "vms", "verify"):
            store.cli(verb, moved).is_error(3501)
        store.cli("upload", moved, "-", data=NEW).is_error(3501)

    def test_without_store(self, cli: Cli, tmp_path: Path) -> None:
        path = cli.ok("init", tmp_path, "--type", "localfs").text.strip()
        for verb in ("status", "vms", "history", "download", "verify"):
            result = cli(verb, path)
            result.is_error(201)
            assert f"Run: ovfstore create {path}" in result.err
        cli("upload", path, "-", data=NEW).is_error(201)

    def test_unreadable_metadata(self, store: Store) -> None:
        for copy in store.copies():
            Path(copy["path"] + ".meta").write_bytes(b"\xff" * 600)
        result = store.cli("upload", store.path, "-", data=NEW)
        result.is_error(207)

    def test_version_3(self, store: Store) -> None:
        path = store.path / "dom_md" / "metadata"
        metadata = DomainMetadata.parse(path.read_bytes(), str(path))
        path.write_bytes(metadata._replace(version=3).text())
        assert store.names() == ["db", "web"]
        assert store.json("status")["domain_version"] == 3
        before = store.contents()
        store.cli("upload", store.path, "-", data=NEW).is_error(3502)
        store.cli("create", store.path).is_error(3502)
        assert store.contents() == before

    @pytest.mark.parametrize("name", ["localfs-v5", "nfs-v4", "nfs-v5"])
    def test_made_by_vdsm(
        self, cli: Cli, domain_tree: MakeTree, name: str
    ) -> None:
        """Whatever it has, it is told in a table or in one line."""
        path = domain_tree(name)
        result = cli("status", path)
        assert result.status in (0, 1, 3)
        if result.status == 1:
            assert len(result.err.splitlines()) == 2
        else:
            cli.json("status", path, status=result.status)
            cli.json("history", path)


class TestReadOnly:
    @pytest.fixture
    def read_only(self, store: Store) -> Iterator[Store]:
        parent = store.path.parent
        if os.geteuid() != 0:
            for path in store.path.rglob("*"):
                path.chmod(0o555 if path.is_dir() else 0o444)
            store.path.chmod(0o555)
            yield store
            return
        try:
            run("mount", "--bind", str(parent), str(parent))
        except subprocess.CalledProcessError as e:
            pytest.skip(f"no bind mount here: {e.stderr}")
        try:
            run("mount", "-o", "remount,ro,bind", str(parent))
            yield store
        finally:
            run("umount", "--lazy", str(parent))

    def test_reads(self, read_only: Store) -> None:
        assert read_only.json("status")["verdict"] == "ok"
        assert read_only.ok("download").out == archive("web", "db")
        assert read_only.json("verify")["verdict"] == "ok"

    def test_does_not_write(self, read_only: Store) -> None:
        result = read_only.cli("upload", read_only.path, "-", data=NEW)
        result.is_error(3531)
        assert read_only.names() == ["db", "web"]


class TestFull:
    def test_generation_stays(
        self, cli: Cli, filesystem: MakeFilesystem
    ) -> None:
        mounted = filesystem(512, 48 << 20)
        store = make_store(cli, mounted)
        store.upload("web", "db")
        filler = mounted / "filler"
        with filler.open("wb", buffering=0) as file:
            for size in (1 << 20, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))

        result = cli("upload", store.path, SAMPLES)
        result.is_error(3532)
        assert store.ok("download").out == archive("web", "db")
        filler.unlink()
        assert cli("verify", store.path).status in (0, 3)
        store.ok("upload", SAMPLES)
        assert store.json("verify")["verdict"] == "ok"


class TestLock:
    def test_busy(self, store: Store) -> None:
        before = store.contents()
        with locked(store):
            began = time.monotonic()
            result = store.cli(
                "upload", store.path, "-", "--timeout", 0.7, data=NEW
            )
            took = time.monotonic() - began
        message = result.is_error(651, status=5)
        assert f"process {os.getpid()} (" in message
        assert took >= 0.7
        assert "--timeout" in result.err.splitlines()[1]
        assert store.contents() == before

    def test_waits(self, store: Store) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(locked(store))
            timer = threading.Timer(0.8, stack.close)
            timer.start()
            assert store.upload("new")["generation"] == 2
            timer.join()

    def test_readers_do_not_wait(self, store: Store) -> None:
        with locked(store):
            assert store.names() == ["db", "web"]
            assert store.json("verify")["verdict"] == "ok"


class TestSignals:
    @pytest.mark.parametrize(
        "number,status",
        [
            pytest.param(signal.SIGINT, 130, id="interrupt"),
            pytest.param(signal.SIGTERM, 143, id="terminate"),
            pytest.param(signal.SIGHUP, 129, id="hang-up"),
        ],
    )
    def test_worker_ends_too(
        self, store: Store, tmp_path: Path, number: int, status: int
    ) -> None:
        (tmp_path / "a.tar").write_bytes(NEW)
        with locked(store):
            process = store.cli.popen(
                *("upload", store.path, tmp_path / "a.tar", "-v"),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
            assert process.stderr is not None
            log = b""
            while b"acquiring flock" not in log:
                line = process.stderr.readline()
                assert line, log
                log += line
            worker = worker_of(process.pid)
            process.send_signal(number)
            _, err = process.communicate(timeout=20)
        assert process.returncode == status
        last = [x for x in err.decode().splitlines() if "ovfstore: " in x]
        name = signal.Signals(number).name
        assert last[0] == f"ovfstore: error 3538: Interrupted by {name}"
        assert b"Traceback" not in err
        assert not Path(f"/proc/{worker}").exists()
        assert store.names() == ["db", "web"]


def worker_of(pid: int) -> int:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1
    return int(children[0])
