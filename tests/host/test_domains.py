# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Which domains a daemon finds, and what it says of those that it lost."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.host.harness import Daemon, running_daemon, wait_until
from vdsm_ovfstore import errors
from vdsm_ovfstore.host import scan
from vdsm_ovfstore.host.domains import FoundDomains
from vdsm_ovfstore.host.lockspaces import Lockspaces
from vdsm_ovfstore.storage.filedomain import create_domain

# A first look only; the tests ask for the others.
SELDOM = {"scan_interval": "1 h"}


def make_domain(directory: Path, domain: str = "") -> str:
    """A LocalFS domain in a directory; its id."""
    directory.mkdir(parents=True, exist_ok=True)
    made = create_domain(str(directory), "LOCALFS", domain=domain or None)
    return made.id


def listed(daemon: Daemon) -> dict[str, Any]:
    return {d["domain"]: d for d in daemon.call("list")["domains"]}


def test_domains_and_directories_of_domains(tmp_path: Path) -> None:
    alone = make_domain(tmp_path / "alone")
    below = {make_domain(tmp_path / "mnt" / name) for name in "ab"}
    paths = [tmp_path / "alone" / alone, tmp_path / "mnt"]
    with running_daemon(tmp_path, paths, storage=SELDOM) as daemon:
        found = listed(daemon)
        assert set(found) == {alone, *below}
        assert found[alone] == {
            "domain": alone,
            "path": str(tmp_path / "alone" / alone),
            "type": "LOCALFS",
            "domain_version": 5,
            "lock": "flock",
            "state": "ready",
            "problem": "",
        }


def test_one_that_came_is_found_when_asked_for(tmp_path: Path) -> None:
    with running_daemon(tmp_path, [tmp_path], storage=SELDOM) as daemon:
        assert listed(daemon) == {}
        # So long an unknown id makes nobody look again.
        first = make_domain(tmp_path / "first")
        wait_until(
            lambda: "result" in daemon.rpc("create", storagedomainID=first)
        )
        second = make_domain(tmp_path / "second")
        assert set(listed(daemon)) == {first}
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: set(listed(daemon)) == {first, second})


def test_look_that_fails_in_us_hides_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = make_domain(tmp_path / "a")

    class Broken(scan.Scanner):
        def _look(self, path: str) -> scan.Look:
            if path == "/b":
                raise KeyError(path)
            return super()._look(path)

    paths = [str(tmp_path / "a"), "/b"]
    looks = Broken(paths, False, 40).scan()
    assert [f.domain for f in looks[paths[0]].found] == [made]
    assert looks["/b"].hidden == ["/b"]
    assert "SCAN path=/b failed" in caplog.text


def test_unknown(tmp_path: Path) -> None:
    unknown = "11111111-2222-4333-8444-555555555555"
    with running_daemon(tmp_path, [tmp_path], storage=SELDOM) as daemon:
        error = daemon.error("getInfo", storagedomainID=unknown)
        assert error["type"] == "DomainNotServed"


def test_one_that_went_and_came_back(tmp_path: Path) -> None:
    made = make_domain(tmp_path / "a")
    stays = make_domain(tmp_path / "b")
    with running_daemon(
        tmp_path, [tmp_path / "a", tmp_path / "b"], storage=SELDOM
    ) as daemon:
        shutil.move(tmp_path / "a" / made, tmp_path / "away")
        daemon.signal(signal.SIGHUP)
        gone = wait_until(
            lambda: (
                listed(daemon)[made]["state"] == "failed" and listed(daemon)
            )
        )
        assert gone[made]["problem"] == "it is not there any more"
        assert gone[stays]["state"] == "ready"
        error = daemon.error("getInfo", storagedomainID=made)
        assert error["type"] == "DomainNotServed"
        shutil.move(tmp_path / "away", tmp_path / "a" / made)
        daemon.signal(signal.SIGHUP)
        wait_until(lambda: listed(daemon)[made]["state"] == "ready")
        assert "it is not there any more" in daemon.log


def test_one_domain_at_two_paths(tmp_path: Path) -> None:
    made = make_domain(tmp_path / "second")
    shutil.copytree(tmp_path / "second", tmp_path / "first")
    with running_daemon(
        tmp_path, [tmp_path / "first", tmp_path / "second"], storage=SELDOM
    ) as daemon:
        (found,) = daemon.call("list")["domains"]
        assert found["path"] == str(tmp_path / "first" / made)
        assert found["state"] == "ready"
        assert str(tmp_path / "second" / made) in found["problem"]


def test_a_damaged_one_hides_no_other(tmp_path: Path) -> None:
    sound = make_domain(tmp_path / "sound")
    broken = make_domain(tmp_path / "broken")
    metadata = tmp_path / "broken" / broken / "dom_md" / "metadata"
    metadata.write_bytes(b"\xff" * 512)
    with running_daemon(tmp_path, [tmp_path], storage=SELDOM) as daemon:
        assert set(listed(daemon)) == {sound}
        wait_until(lambda: str(metadata) in daemon.log)


def test_a_path_that_is_missing(tmp_path: Path) -> None:
    made = make_domain(tmp_path / "there")
    paths = [tmp_path / "missing", tmp_path / "there"]
    with running_daemon(tmp_path, paths, storage=SELDOM) as daemon:
        assert set(listed(daemon)) == {made}
        assert str(tmp_path / "missing") in daemon.log


def test_pool(tmp_path: Path) -> None:
    made = make_domain(tmp_path / "a")
    pool = "11111111-2222-4333-8444-555555555555"
    with running_daemon(tmp_path, [tmp_path], storage=SELDOM) as daemon:
        error = daemon.error(
            "getInfo", storagedomainID=made, storagepoolID=pool
        )
        assert error["type"] == "PoolMismatch"


# -- storage that hangs -------------------------------------------------------


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """
    A directory that hangs whoever looks below it: a process that stops.

    It stands for a dead NFS server, which only root of a real host can have.
    """
    directory = tmp_path / "errand"
    directory.mkdir()
    (directory / "hanging_errand.py").write_text(
        "import os, select\n"
        "from vdsm_ovfstore.api import errand\n"
        "from vdsm_ovfstore.store import child\n"
        "def run(request, watcher):\n"
        "    while any(os.path.exists(p + '/hangs')"
        " for p in request['paths']):\n"
        "        select.select([], [], [], 0.05)\n"
        "    return errand._discover(request)\n"
        "def main():\n"
        "    return child.serve(run)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(directory))
    monkeypatch.setattr(scan, "ERRAND", "hanging_errand")
    return tmp_path / "hanging"


def scanner(*paths: Path) -> scan.Scanner:
    return scan.Scanner([str(p) for p in paths], False, 50, deadline=0.5)


def test_a_path_that_hangs_hides_no_other(
    hanging: Path, tmp_path: Path
) -> None:
    make_domain(hanging)
    sound = make_domain(tmp_path / "sound")
    (hanging / "hangs").touch()
    looks = scanner(hanging, tmp_path / "sound").scan()
    assert [f.domain for f in looks[str(tmp_path / "sound")].found] == [sound]
    assert looks[str(hanging)].found == []
    assert looks[str(hanging)].hidden == [str(hanging)]
    (problem,) = looks[str(hanging)].problems
    assert "took too long" in problem


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_mounts_beside_one_that_hangs_are_found(
    hanging: Path, filesystem: Any
) -> None:
    """What is mounted below a path that hangs is looked at by itself."""
    top = filesystem()
    hanging.symlink_to(top.parent)
    made = make_domain(top)
    (top.parent / "hangs").touch()
    look = scanner(top.parent).scan()[str(top.parent)]
    assert [f.domain for f in look.found] == [made]
    assert look.hidden == [str(top.parent)]


def test_a_known_domain_stays_while_its_path_hangs(hanging: Path) -> None:
    made = make_domain(hanging)
    lockspaces = Lockspaces(0, 0, str(hanging / "state"))
    domains = FoundDomains(scanner(hanging), lockspaces, 3600)
    domains.start()
    try:
        path = domains.path(made)
        (hanging / "hangs").touch()
        domains.rescan()
        problem = wait_until(lambda: domains.list()[0]["problem"])
        assert problem == f"cannot look at {hanging} any more"
        assert domains.path(made) == path
        (hanging / "hangs").unlink()
        domains.rescan()
        wait_until(lambda: domains.list()[0]["problem"] == "")
        shutil.rmtree(path)
        domains.rescan()
        wait_until(lambda: domains.list()[0]["state"] == "failed")
        with pytest.raises(errors.DomainNotServed):
            domains.path(made)
    finally:
        domains.stop()
