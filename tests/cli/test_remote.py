# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The command through a real host: the same answers as without one."""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.cli.harness import (
    IDS,
    OVF,
    SAMPLES,
    VMS,
    Cli,
    Result,
    Store,
    archive,
    damage_frame,
    damage_head,
    large,
    make_store,
    tar,
)
from tests.conftest import MakeTree
from tests.host.certs import certificates
from tests.host.harness import Daemon, running_daemon, wait_until
from vdsm_ovfstore.cli.options import LOCAL, VERBS

# All of them start daemons.
pytestmark = pytest.mark.slow


class Served(NamedTuple):
    """sound has generations 1 (web, db, twin, twin) and 2 (the samples)."""

    sound: Store
    lossy: Store
    empty: Store
    daemon: Daemon


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    parent = tmp_path_factory.mktemp("served")
    cli = Cli(parent)

    def make(name: str) -> Store:
        (parent / name).mkdir()
        store = make_store(cli, parent / name)
        if name == "sound":
            store.upload("web", "db", "twin", "twin")
            store.ok("upload", SAMPLES)
        elif name == "lossy":
            store.upload("web")
            store.ok("upload", "-", data=large(1))
            for copy in (0, 1):
                damage_frame(store, copy, 1)
                damage_head(store, copy)
        return store

    with ThreadPoolExecutor() as pool:
        sound, lossy, empty = pool.map(make, ("sound", "lossy", "empty"))
    with running_daemon(parent, [parent]) as daemon:
        yield Served(sound, lossy, empty, daemon)


class Hosted(Store):
    """Has one generation, web and db; its host serves nothing else."""

    daemon: Daemon


@pytest.fixture(scope="module")
def hosting(
    model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Daemon, Path]]:
    """A daemon and its only domain, whose content each test gets anew."""
    parent = tmp_path_factory.mktemp("hosting")
    path = parent / "domains" / model.name
    renew(model, path)
    with running_daemon(parent, [path]) as daemon:
        yield daemon, path


@pytest.fixture
def hosted(
    hosting: tuple[Daemon, Path], model: Path, cli: Cli
) -> Iterator[Hosted]:
    daemon, path = hosting
    renew(model, path)
    store = Hosted(path, cli)
    store.daemon = daemon
    cli.env["OVFSTORE_HOST"] = daemon.socket
    yield store


def renew(model: Path, path: Path) -> None:
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir()
    subprocess.run(
        ["cp", "-a", "--sparse=always", str(model), str(path)], check=True
    )


# -- looking ------------------------------------------------------------------


def both(served: Served, store: Store, *args: object) -> tuple[Any, Any]:
    """What the host's way gives, and the direct one."""
    verb, *more = args
    found = []
    for variable in (served.daemon.socket, "none"):
        cli = Cli(store.cli.cwd)
        cli.env["OVFSTORE_HOST"] = variable
        pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        found.append(cli.popen(verb, store.path, *more, **pipes))
    remote, direct = map(finished, found)
    return remote, direct


def finished(process: subprocess.Popen[bytes]) -> tuple[int, Any, str]:
    out, err = process.communicate(timeout=60)
    assert b"Traceback" not in err, err
    return timeless(Result(process.returncode, out, err.decode()))


def timeless(result: Result) -> tuple[int, Any, str]:
    """Without the age of what is seconds old."""
    out: Any = result.out
    try:
        out = result.json
        out.pop("age", None)
    except ValueError:
        if out.startswith((b"DOMAIN ", b"GENERATION ")):
            out = re.sub(r" +(\d+ (s|min))?", " ", result.text)
    return result.status, out, result.err


# The text is made of the document, but for what show prints.
LOOKS: dict[str, tuple[object, ...]] = {
    "status": ("status", "--json"),
    "status-text": ("status",),
    "history": ("history", "--json"),
    "diff": ("diff", "--json"),
    "diff-backwards": ("diff", 2, 1, "--json"),
    "vms": ("vms", "--json"),
    "verify": ("verify", "--json"),
    "verify-quick": ("verify", "--quick", "--json"),
    "no-digest": ("vms", "-g", "01:", "--json"),
    "show": ("show", "web", "-g", 1, "--json"),
    "show-id": ("show", IDS[0].upper(), "-g", "1"),
}
FAILS: dict[str, tuple[object, ...]] = {
    "unknown": ("show", "nobody"),
    "unknown-id": ("show", IDS[50]),
    "no-name": ("show", ""),
    "long-name": ("show", "x" * 300),
    "ambiguous": ("show", "twin", "-g", 1),
    "no-generation": ("vms", "-g", 9),
    "no-such-digest": ("show", "web", "-g", "1:ffff"),
    "nothing-before": ("diff", 1, 9),
}


@pytest.mark.parametrize("name", LOOKS)
def test_sound(served: Served, name: str) -> None:
    remote, direct = both(served, served.sound, *LOOKS[name])
    assert remote == direct


@pytest.mark.parametrize("name", FAILS)
def test_fails(served: Served, name: str) -> None:
    """Both on stderr and as a document."""
    remote, direct = both(served, served.sound, *FAILS[name], "--json")
    assert remote == direct
    assert remote[0] != 0
    assert remote[2].startswith("ovfstore: error ")


@pytest.mark.parametrize(
    "args,status",
    [
        pytest.param(("status", "--json"), 3, id="status"),
        pytest.param(("verify", "--json"), 3, id="verify"),
        pytest.param(("show", "vm3", "--json"), 3, id="lost-json"),
        pytest.param(("show", "vm3"), 3, id="lost"),
        pytest.param(("show", "vm0"), 0, id="not-lost"),
    ],
)
def test_lossy(served: Served, args: tuple[str], status: int) -> None:
    remote, direct = both(served, served.lossy, *args)
    assert remote == direct
    assert remote[0] == status


@pytest.mark.parametrize(
    "verb", ["status", "history", "vms", "download", "diff"]
)
def test_empty(served: Served, verb: str) -> None:
    """That is no loss; there is one thing to do."""
    remote, direct = both(served, served.empty, verb)
    assert remote == direct
    status, out, err = remote
    proposed = f"ovfstore upload {served.empty.path} SOURCE"
    if verb == "status":
        assert (status, proposed in out) == (0, True)
    elif verb != "history":
        assert (status, f"Run: {proposed}" in err) == (1, True)


def test_exact(served: Served) -> None:
    sample = max(SAMPLES.glob("*.ovf"), key=lambda p: p.stat().st_size)
    result = through(served.daemon, served.sound, "show", sample.stem)
    assert result.out == sample.read_bytes()


def through(daemon: Daemon, store: Store, verb: str, *args: object) -> Result:
    """The host is named, so that nothing else is done."""
    options = ("--host", daemon.socket)
    return store.cli(verb, store.path, *args, *options)


def test_large_ovf(hosted: Hosted) -> None:
    """One that is no part of a document."""
    text = OVF.format(name="big") + " " * (2 << 20)
    hosted.ok("upload", "-", data=tar((f"{IDS[0]}.ovf", text)))
    assert hosted.json("show", "big")["ovf"] is None
    assert hosted.ok("show", "big").text == text


def test_many_vms(hosted: Hosted) -> None:
    """More than a host gives at a time."""
    ids = [f"00000000-0000-4000-8000-{n:012}" for n in range(1100)]
    members = [(f"{i}.ovf", OVF.format(name=f"vm-{i}")) for i in ids]
    hosted.ok("upload", "-", data=tar(*members))
    answer = hosted.json("vms")
    assert [e["id"] for e in answer["entities"]] == ids
    assert (answer["first"], answer["total"]) == (0, 1100)
    assert answer == hosted.json("vms", "--direct")


class TestDownload:
    def test_stdout(self, served: Served) -> None:
        remote, direct = both(served, served.sound, "download", "-g", 1)
        assert remote == direct
        assert remote[1] == archive("web", "db", "twin", "twin")

    def test_file(self, served: Served, tmp_path: Path) -> None:
        target = tmp_path / "a.tar"
        answer = through(
            served.daemon, served.sound, "download", "-o", target, "--json"
        ).json
        assert answer["file"] == str(target)
        assert answer["generation"]["number"] == 2
        assert answer["path"] == str(served.sound.path)
        assert target.stat().st_size == answer["generation"]["length"]

    def test_damaged(self, served: Served, tmp_path: Path) -> None:
        target = tmp_path / "a.tar"
        remote, direct = both(served, served.lossy, "download", "-o", target)
        assert remote == direct
        assert remote[0] == 3
        assert os.listdir(tmp_path) == []


class TestExtract:
    @pytest.mark.parametrize(
        "vms",
        [
            pytest.param((), id="all"),
            pytest.param(("vm5", "vm3", IDS[0]), id="some"),
            pytest.param(("vm0", "nobody"), id="unknown"),
        ],
    )
    def test_lossy(
        self, served: Served, tmp_path: Path, vms: tuple[str, ...]
    ) -> None:
        """Those that are lost are told, and the others written."""
        hint = f" --host {served.daemon.socket}"

        def extract(*way: str) -> tuple[object, ...]:
            cwd = tmp_path / way[0]
            cwd.mkdir()
            args = (served.lossy.path, *vms, "-o", "out", *way)
            result = Cli(cwd)("extract", *args)
            files = {f.name: f.read_bytes() for f in cwd.glob("out/*")}
            err = result.err.replace(hint, "")
            return result.status, result.text, err, files

        with ThreadPoolExecutor() as pool:
            ways = (("--host", served.daemon.socket), ("--direct",))
            seen = list(pool.map(lambda way: extract(*way), ways))
        assert seen[0] == seen[1]
        assert seen[0][0] == (1 if "nobody" in vms else 3)

    def test_sound(self, served: Served, tmp_path: Path) -> None:
        result = through(
            served.daemon, served.sound, "extract", "-o", tmp_path / "out"
        )
        assert result.status == 0
        for sample in SAMPLES.glob("*.ovf"):
            found = tmp_path / "out" / sample.name
            assert found.read_bytes() == sample.read_bytes()


# -- writing ------------------------------------------------------------------


class TestUpload:
    @pytest.mark.parametrize("source", ["file", "stdin", "directory"])
    def test_sources(
        self, hosted: Hosted, tmp_path: Path, source: str
    ) -> None:
        data = archive("one", "two", "three")
        given: object = "-"
        if source == "file":
            given = tmp_path / "a.tar"
            (tmp_path / "a.tar").write_bytes(data)
        elif source == "directory":
            given = tmp_path / "ovfs"
            (tmp_path / "ovfs").mkdir()
            for number, name in enumerate(("one", "two", "three")):
                ovf = tmp_path / "ovfs" / f"{IDS[number]}.ovf"
                ovf.write_text(OVF.format(name=name))
        answer = hosted.json("upload", given, data=data)
        assert answer["generation"] == 2
        assert answer["entities"] == 3
        assert answer["path"] == str(hosted.path)
        names = hosted.json("vms", "--direct")["entities"]
        assert {n["name"] for n in names} == {"one", "two", "three"}

    def test_same_again(self, hosted: Hosted) -> None:
        out = hosted.ok("upload", "-", data=archive("web", "db")).text
        assert out.startswith("Generation 1 was the newest already: 2 ent")
        assert out.endswith(f"Next: ovfstore status {hosted.path}\n")

    @pytest.mark.parametrize(
        "data,code",
        [
            pytest.param(b"", 3513, id="empty"),
            pytest.param(gzip.compress(archive("vm")), 3511, id="gzip"),
            pytest.param(tar((f"{IDS[0]}.ovf", "<a>")), 3514, id="ovf"),
        ],
    )
    def test_refused(
        self, served: Served, tmp_path: Path, data: bytes, code: int
    ) -> None:
        store = served.sound
        (tmp_path / "a.tar").write_bytes(data)
        before = store.contents()
        remote, direct = both(served, store, "upload", tmp_path / "a.tar")
        assert remote == direct
        assert remote[2].startswith(f"ovfstore: error {code}: ")
        assert store.contents() == before

    @pytest.mark.parametrize("through", ["file", "stdin"])
    def test_too_large(
        self, served: Served, tmp_path: Path, through: str
    ) -> None:
        """Of an endless one no more is taken than can be told."""
        store, cli = served.sound, Cli(tmp_path)
        cli.env["OVFSTORE_HOST"] = served.daemon.socket
        (tmp_path / "a.tar").write_bytes(archive("vm") + bytes(9 << 20))
        before = store.contents()
        if through == "file":
            result = cli("upload", store.path, tmp_path / "a.tar")
        else:
            code = f"cat {tmp_path}/a.tar /dev/zero | "
            code += " ".join(cli.command("upload", store.path, "-"))
            done = subprocess.run(
                ["bash", "-c", code],
                cwd=tmp_path,
                env=cli.env,
                capture_output=True,
            )
            result = Result(done.returncode, done.stdout, done.stderr.decode())
        message = result.is_error(3510)
        assert f"more than {8 << 20} bytes" in message or through == "file"
        assert f"ovfstore create {store.path} --copies 4" in result.err
        assert store.contents() == before

    def test_no_source(self, served: Served) -> None:
        remote, direct = both(served, served.sound, "upload", "none.tar")
        assert remote == direct
        assert "error 3516" in remote[2]


class TestJobs:
    def test_create(self, hosted: Hosted) -> None:
        answer = hosted.json("create", "--copies", 3, "--size", 8)
        assert len(answer["created"]) == 1
        assert len(answer["copies"]) == 3
        assert len(hosted.json("status", "--direct")["copies"]) == 3
        out = hosted.ok("create").text
        assert out.startswith("The store has 3 copies, 0 of them new\n")
        assert out.endswith(f"Next: ovfstore status {hosted.path}\n")

    def test_repair(self, hosted: Hosted) -> None:
        damage_head(hosted, 0)
        result = hosted.ok("repair")
        assert "Mended: rewrote a damaged head" in result.text
        assert "Generation 1 is complete on 2 copies" in result.text
        assert hosted.json("verify")["verdict"] == "ok"
        assert hosted.json("repair")["healed"] == []

    def test_restore_and_pins(self, hosted: Hosted) -> None:
        hosted.ok("upload", "-", data=archive("new"))
        assert hosted.json("restore", 1)["dry_run"] is True
        before = hosted.json("vms", "-g", 1)["entities"]
        answer = hosted.json("restore", 1, "--yes")
        assert (answer["restored"], answer["generation"]) == (1, 3)
        assert hosted.json("vms")["entities"] == before
        assert hosted.json("pin", 2)["pinned"] is True
        found = hosted.json("history", "--direct")["generations"]
        assert [g["pinned"] for g in found][1] == "user"
        assert hosted.json("unpin", 2)["pinned"] is False
        args = ("restore", hosted.path, 9, "--yes")
        code = hosted.cli.error(*args, "--host", hosted.daemon.socket)["code"]
        assert code == 3541

    @pytest.mark.parametrize("verb", ["repair", "create", "upload"])
    def test_in_use(self, served: Served, verb: str) -> None:
        store = served.sound
        args = ("-",) if verb == "upload" else ()
        options = ("--timeout", 0.1, "--host", served.daemon.socket)
        with locked(store):
            result = store.cli(
                verb, store.path, *args, *options, data=archive("new")
            )
        assert "in use by" in result.is_error(651, status=5)


@contextlib.contextmanager
def locked(store: Store) -> Iterator[None]:
    """As another process that writes to the store."""
    fd = os.open(store.path / "ovf_store", os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


class TestInterrupt:
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_job(self, hosted: Hosted, number: signal.Signals) -> None:
        with locked(hosted):
            process = hosted.cli.popen(
                "repair", hosted.path, stderr=subprocess.PIPE
            )
            jobs = wait_until(lambda: in_use(hosted.daemon, "jobs"))
            process.send_signal(number)
            _, err = process.communicate(timeout=20)
            assert process.returncode == 128 + number
            assert b"Interrupted by " + number.name.encode() in err
            ids = [job["jobID"] for job in jobs]
            wait_until(
                lambda: (
                    [j["status"] for j in jobs_of(hosted.daemon, ids)]
                    == ["aborted"]
                )
            )

    def test_upload(self, hosted: Hosted, tmp_path: Path) -> None:
        (tmp_path / "a.tar").write_bytes(archive("new"))
        with locked(hosted):
            process = hosted.cli.popen(
                "upload", hosted.path, tmp_path / "a.tar"
            )
            wait_until(lambda: in_use(hosted.daemon, "transfers"))
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=20) == 130
            wait_until(lambda: not hosted.daemon.status()["transfers"])
        assert hosted.names() == ["db", "web"]


def jobs_of(daemon: Daemon, ids: list[str]) -> list[Any]:
    found = daemon.call("getJobs", jobIDs=ids)["jobs"]
    return list(found)


def in_use(daemon: Daemon, what: str) -> list[Any]:
    """Those that have come to the lease."""
    return [one for one in daemon.status()[what] if "lease" in one["step"]]


# -- which way ----------------------------------------------------------------


def here(
    cli: Cli, path: object, *args: object, patience: float = 30
) -> Result:
    """Run the command on a machine whose host has its socket there."""
    code = (
        "import sys; from vdsm_ovfstore.cli import main, serving, way; "
        f"serving.PATIENCE = {patience}; "
        "way.SOCKETS = (sys.argv.pop(1),); sys.exit(main.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), *map(str, args)],
        cwd=cli.cwd,
        env=cli.env,
        capture_output=True,
    )
    return Result(done.returncode, done.stdout, done.stderr.decode())


class TestHostOfThisMachine:
    def test_serves_it(self, served: Served) -> None:
        cli, path = served.sound.cli, served.sound.path
        result = here(cli, served.daemon.socket, "vms", path, "-v")
        assert f"STORE through={served.daemon.socket} " in result.err
        assert result.out == cli("vms", path).out

    @pytest.mark.parametrize("option", ["--direct", "--allow-buffered-io"])
    def test_is_not_asked(self, served: Served, option: str) -> None:
        cli, path = served.sound.cli, served.sound.path
        result = here(cli, served.daemon.socket, "vms", path, "-v", option)
        assert result.status == 0
        assert "STORE through=nobody" in result.err

    def test_does_not_serve_it(self, served: Served, store: Store) -> None:
        socket = served.daemon.socket
        result = here(store.cli, socket, "vms", store.path)
        assert (result.status, result.err) == (0, "")
        result = here(store.cli, socket, "vms", store.path, "-v")
        assert "not served" in result.err

    def test_is_not_ready(
        self, cli: Cli, domain_tree: MakeTree, tmp_path: Path
    ) -> None:
        """Without its lockspace it would refuse what can be done here."""
        path = domain_tree("nfs-v5")
        env = {**os.environ, "SANLOCK_RUN_DIR": str(tmp_path)}
        with running_daemon(tmp_path, [path], env=env) as daemon:
            result = here(cli, daemon.socket, "status", path, "-v")
        assert "state='failed'" in result.err
        assert "STORE through=nobody" in result.err
        assert result.status == cli("status", path).status

    def test_nobody_listens(self, store: Store, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(tmp_path / "socket"))
        result = here(store.cli, tmp_path / "socket", "vms", store.path)
        assert (result.status, result.err) == (0, "")

    def test_is_silent(self, store: Store, tmp_path: Path) -> None:
        """One that hangs keeps nobody for long."""
        with socket.socket(socket.AF_UNIX) as silent:
            silent.bind(str(tmp_path / "socket"))
            silent.listen()
            path = tmp_path / "socket"
            result = here(store.cli, path, "vms", store.path, patience=0.2)
        assert (result.status, result.err) == (0, "")


class TestNamed:
    def test_is_not_there(self, store: Store, tmp_path: Path) -> None:
        result = store.cli("vms", store.path, "--host", tmp_path / "none")
        assert "no such socket" in result.is_error(3526)

    def test_does_not_serve_it(self, served: Served, store: Store) -> None:
        result = through(served.daemon, store, "vms")
        assert str(store.path) in result.is_error(358)
        result = store.cli("vms", IDS[0], "--host", served.daemon.socket)
        assert IDS[0] in result.is_error(358)

    def test_by_id(self, served: Served, cli: Cli) -> None:
        """What is proposed then works."""
        options = ("--host", served.daemon.socket)
        name = served.sound.path.name
        answer = cli.json("status", name, *options)
        assert answer["path"] == str(served.sound.path)
        proposed = answer["next_step"].split()
        assert proposed[:3] == ["ovfstore", "vms", name]
        assert cli(*proposed[1:]).status == 0

    @pytest.mark.parametrize("option", ["host", "variable"])
    def test_none(self, store: Store, option: str) -> None:
        options: tuple[str, ...] = ("--host", "none")
        if option == "variable":
            store.cli.env["OVFSTORE_HOST"] = "none"
            options = ()
        result = store.cli("vms", store.path, "-v", *options)
        assert "STORE through=nobody" in result.err

    def test_option_wins(self, served: Served) -> None:
        cli, path = served.sound.cli, served.sound.path
        cli.env["OVFSTORE_HOST"] = "/nowhere"
        result = cli("vms", path, "--host", served.daemon.socket)
        del cli.env["OVFSTORE_HOST"]
        assert result.status == 0

    def test_not_both(self, store: Store) -> None:
        result = store.cli("vms", store.path, "--host", "/x", "--direct")
        assert result.status == 2

    @pytest.mark.parametrize("verb", LOCAL)
    def test_local_verbs(self, cli: Cli, verb: str) -> None:
        args = () if verb == "explain" else (".",)
        result = cli(verb, *args, "--host", "/x")
        assert result.status == 2
        assert "leave out --host" in result.err

    def test_local_verbs_are_verbs(self) -> None:
        assert set(LOCAL) < {name for name, _, _ in VERBS}

    def test_directory_with_the_domain(self, served: Served) -> None:
        cli, path = served.sound.cli, served.sound.path
        options = ("--host", served.daemon.socket)
        answer = cli.json("vms", path.parent, *options)
        assert answer["path"] == str(path)

    def test_directory_with_several(self, hosted: Hosted) -> None:
        """Also when the host serves but one of them."""
        hosted.cli.ok("init", hosted.path.parent, "--type", "localfs")
        hosted.cli("upload", hosted.path.parent, SAMPLES).is_error(358)
        hosted.cli("status", hosted.path.parent, "--direct").is_error(358)

    def test_symbolic_link(self, served: Served, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to(served.sound.path)
        options = ("--host", served.daemon.socket)
        answer = served.sound.cli.json("vms", tmp_path / "link", *options)
        assert answer["path"] == str(served.sound.path)


class TestList:
    """What a host serves, for who names it."""

    @pytest.mark.parametrize("way", ["option", "variable"])
    def test_domains(self, served: Served, tmp_path: Path, way: str) -> None:
        cli = Cli(tmp_path)
        options: tuple[str, ...] = ("--host", served.daemon.socket)
        if way == "variable":
            cli.env["OVFSTORE_HOST"] = served.daemon.socket
            options = ()
        answer = cli.json("list", *options)
        assert answer["host"] == served.daemon.socket
        found = {d["domain"]: d for d in answer["domains"]}
        stores = (served.sound, served.lossy, served.empty)
        assert set(found) == {store.path.name for store in stores}
        domain = found[served.sound.path.name]
        assert domain["path"] == str(served.sound.path)
        assert (domain["state"], domain["problem"]) == ("ready", "")

    def test_text(self, served: Served, cli: Cli) -> None:
        lines = cli.ok("list", "--host", served.daemon.socket).text
        title, *rows = lines.splitlines()
        assert title.split() == "DOMAIN TYPE LOCK STATE PROBLEM PATH".split()
        path = str(served.empty.path)
        (row,) = (r.split() for r in rows if r.endswith(path))
        assert row == [path[-36:], "localfs", "flock", "ready", "-", path]

    def test_directory_is_not_the_hosts(
        self, served: Served, cli: Cli
    ) -> None:
        result = cli("list", ".", "--host", served.daemon.socket)
        assert result.status == 2
        assert "leave out PATH" in result.err
        cli.env["OVFSTORE_HOST"] = served.daemon.socket
        assert "stores" in cli.json("list", ".", "--direct")

    def test_is_proposed(self, served: Served, cli: Cli) -> None:
        """What to type when a domain is not served works."""
        result = cli("status", "xyz", "--host", served.daemon.socket)
        result.is_error(358)
        (proposed,) = re.findall(r"Run: ovfstore (.*)", result.err)
        assert proposed == f"list --host {served.daemon.socket}"
        assert served.sound.path.name in cli.ok(*proposed.split()).text
        cli.env["OVFSTORE_HOST"] = served.daemon.socket
        assert cli("status", "xyz").err.endswith("Run: ovfstore list\n")

    def test_local_without_a_name(self, served: Served, cli: Cli) -> None:
        """The host of this machine is not asked: the storage has more."""
        parent = served.empty.path.parent
        result = here(cli, served.daemon.socket, "list", parent)
        assert "VERDICT" in result.text


def test_host_that_is_empty(cli: Cli) -> None:
    result = cli("status", "x", "--host", "")
    assert result.status == 2
    assert "--host is empty" in result.err


def test_key_needs_cert(cli: Cli) -> None:
    result = cli("status", "x", "--host", "/x", "--key", "/y")
    assert (result.status, "--key needs --cert" in result.err) == (2, True)


class TestTls:
    def test_by_certificate(self, store: Store, tmp_path: Path) -> None:
        made = certificates()
        limits = {"spool_bytes": "2 MiB"}
        with running_daemon(
            tmp_path, [store.path], tls=made.host.path, limits=limits
        ) as daemon:
            mine = made.client
            options = [
                *("--host", daemon.url),
                *("--cacert", str(mine.authority)),
                *("--cert", str(mine.certificate), "--key", str(mine.key)),
            ]
            name = store.path.name
            assert store.cli.json("vms", name, *options)["total"] == 2
            data = archive("new")
            result = store.cli("upload", name, "-", *options, data=data)
            assert result.status == 0
            assert result.text.endswith(f"{name} {' '.join(options)}\n")
            result = store.cli("vms", name, *options[:4])
            result.is_error(3526)
            assert "--cert and --key" in result.err
            # Beside TLS: all at once is too much for so small a spool.
            store.ok("upload", "-", "--direct", data=large(1))
            result = store.cli("extract", name, "-o", "out", *options)
            assert result.status == 0
            assert "error 3510" in result.err and "longer" in result.err
            assert len(os.listdir(store.cli.cwd / "out")) == VMS


def test_json_of_an_error(served: Served, cli: Cli) -> None:
    """It is told as one of this process is."""
    error = cli.error(
        "vms", served.sound.path, "-g", 9, "--host", served.daemon.socket
    )
    assert error["type"] == "GenerationNotFound"
    assert error["fields"] == {"generation": "9"}
    assert json.dumps(error["next_step"]).count("history") == 1
