# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The command as such: options, streams, terminals, the schema."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.cli.harness import (
    PROJECT,
    SAMPLES,
    SCHEMA,
    Cli,
    Store,
    archive,
    strict,
)
from vdsm_ovfstore.cli.options import VERBS

NAMES = [name for name, _, _ in VERBS]


class TestUsage:
    def test_no_arguments(self, cli: Cli) -> None:
        out = cli.ok().text
        assert out.startswith("usage: ovfstore")
        assert all(name in out for name in NAMES)

    @pytest.mark.parametrize("verb", NAMES)
    def test_help(self, cli: Cli, verb: str) -> None:
        out = cli.ok(verb, "--help").text
        assert out.startswith(f"usage: ovfstore {verb}")
        assert "--json" in out

    def test_version(self, cli: Cli) -> None:
        assert cli.ok("--version").text.strip()

    @pytest.mark.parametrize(
        "args",
        [
            pytest.param(("bogus",), id="verb"),
            pytest.param(("history",), id="argument"),
            pytest.param(("status", "x", "--bogus"), id="option"),
            pytest.param(("create", "x", "--copies", "0"), id="zero"),
            pytest.param(("create", "x", "--copies", "two"), id="word"),
            pytest.param(("create", "x", "--timeout", "nan"), id="nan"),
            pytest.param(("upload", "x", "--timeout", "-1"), id="negative"),
            pytest.param(("status", "x", "--js"), id="abbreviation"),
            pytest.param(("explain", "x"), id="code"),
            pytest.param(("vms", "x", "-g", "abc"), id="generation"),
            pytest.param(("vms", "x", "-g", "1:xyz"), id="digest"),
        ],
    )
    def test_error(self, cli: Cli, args: tuple[str, ...]) -> None:
        result = cli(*args)
        assert result.status == 2
        assert result.out == b""
        assert len(result.err.splitlines()) == 1
        assert result.err.startswith("ovfstore: ")
        assert cli.error(*args, status=2)["code"] == 3548

    def test_options_before_the_verb(self, store: Store) -> None:
        after = store.json("history")
        before = store.cli("--json", "history", store.path).json
        assert before == after

    def test_debug(self, cli: Cli) -> None:
        done = subprocess.run(
            cli.command("status", "none", "--debug"),
            cwd=cli.cwd,
            env=cli.env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "Traceback" in done.stderr
        assert "ovfstore: error 358" in done.stderr

    def test_verbose(self, store: Store) -> None:
        result = store.cli("upload", store.path, SAMPLES, "-v")
        assert result.status == 0
        assert "SEAL volume=" in result.err


class TestStreams:
    def test_reader_has_gone(self, store: Store) -> None:
        read, write = os.pipe()
        os.close(read)
        process = store.cli.popen(
            "vms", store.path, stdout=write, stderr=subprocess.PIPE
        )
        os.close(write)
        _, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (141, b"")

    @pytest.mark.parametrize("verb", ["status", "download"])
    def test_full(self, store: Store, verb: str) -> None:
        with open("/dev/full", "wb") as full:
            process = store.cli.popen(
                verb, store.path, stdout=full, stderr=subprocess.PIPE
            )
            _, err = process.communicate(timeout=20)
        assert process.returncode == 1
        assert err.startswith(b"ovfstore: error 3546: Cannot write standard")
        assert b"Traceback" not in err

    def test_no_locale(self, store: Store) -> None:
        store.upload("größe")
        store.cli.env.update(LC_ALL="C", PYTHONCOERCECLOCALE="0")
        store.cli.env["PYTHONUTF8"] = "0"
        assert "gr" in store.ok("vms").out.decode("ascii", "replace")

    def test_unexpected(self, cli: Cli) -> None:
        """One line, whatever it was."""
        code = (
            "import sys; from vdsm_ovfstore.cli import main, options\n"
            "def parse(argv): raise ZeroDivisionError('a\\nb')\n"
            "options.parse = parse; sys.exit(main.main(['--json']))"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=cli.env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        lines = done.stderr.splitlines()
        assert lines[0] == (
            "ovfstore: error 3549: Unexpected ZeroDivisionError: a\\x0ab"
        )
        assert "--debug" in lines[1]
        assert json.loads(done.stdout)["error"]["code"] == 3549


def on_terminal(cli: Cli, *args: object, **env: str) -> tuple[int, str]:
    """Run with a terminal for stdin, stdout and stderr."""
    main, child = pty.openpty()
    environment = {**cli.env, "TERM": "xterm", **env}
    if not environment["NO_COLOR"]:
        del environment["NO_COLOR"]
    process = subprocess.Popen(
        cli.command(*args),
        cwd=cli.cwd,
        env=environment,
        stdin=child,
        stdout=child,
        stderr=child,
    )
    os.close(child)
    seen = b""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if not select.select([main], [], [], 1)[0]:
            continue
        try:
            data = os.read(main, 65536)
        except OSError:  # the last holder of the terminal has ended
            break
        if not data:
            break
        seen += data
    os.close(main)
    return process.wait(timeout=20), seen.decode()


class TestTerminal:
    def test_no_tar(self, store: Store) -> None:
        status, out = on_terminal(store.cli, "download", store.path)
        assert status == 2
        assert "will not write a tar to the terminal" in out
        assert len(out.splitlines()) == 1

    def test_no_archive_from_it(self, store: Store) -> None:
        status, out = on_terminal(store.cli, "upload", store.path, "-")
        assert status == 2
        assert "from the terminal" in out

    def test_colour(self, store: Store) -> None:
        _, plain = on_terminal(store.cli, "status", store.path)
        assert "\x1b[3" not in plain
        _, coloured = on_terminal(store.cli, "status", store.path, NO_COLOR="")
        assert "\x1b[32mok\x1b[0m" in coloured

    def test_progress(self, store: Store) -> None:
        _, out = on_terminal(store.cli, "upload", store.path, SAMPLES)
        assert "checking [" in out
        assert "writing copy" in out
        last = out.replace("\r\n", "\n").rpartition("\r\x1b[K")[2]
        assert last.startswith("Generation 2: ")

    def test_no_progress(self, store: Store) -> None:
        _, out = on_terminal(
            store.cli, "upload", store.path, SAMPLES, "--no-progress"
        )
        assert "\x1b" not in out

    def test_ovf_cannot_steer_it(self, store: Store) -> None:
        store.ok("upload", "-", data=archive("a\x9b31mb"))
        _, out = on_terminal(store.cli, "show", store.path, "a\x9b31mb")
        assert "\x9b" not in out
        assert "a\\x9b31mb" in out


class TestSchema:
    def test_is_sound(self) -> None:
        jsonschema.Draft7Validator.check_schema(SCHEMA)
        assert SCHEMA["definitions"]["version"]["const"] == 1

    def test_has_every_verb(self) -> None:
        named = [d["$ref"].rpartition("/")[2] for d in SCHEMA["oneOf"]]
        # Those of metrics have a format of their own.
        assert sorted([*named, "metrics"]) == sorted(["error", *NAMES])

    def test_whole(self, store: Store) -> None:
        """An answer is exactly one of the documents."""
        validator = jsonschema.Draft7Validator(strict(SCHEMA))
        for verb in ("status", "history", "vms", "verify"):
            validator.validate(store.json(verb))
        other = store.json("vms")
        other["more"] = 1
        assert not validator.is_valid(other)

    def test_error_with_hostile_fields(self, cli: Cli) -> None:
        name = os.fsdecode(b"no\xffne\n")
        error: Any = cli.error("status", name)
        assert error["fields"]["path"] == name


class TestStart:
    def test_verbs_are_imported_when_called(self, cli: Cli) -> None:
        """argparse and the verb's own modules, nothing of the others."""
        code = (
            "import sys; from vdsm_ovfstore.cli.main import main\n"
            "main(['explain', '651'])\n"
            "print([m for m in sys.modules if 'ovfstore' in m or m in"
            " ('subprocess', 'tempfile', 'shutil', 'tarfile')])"
        )
        done = subprocess.run(
            [sys.executable, "-S", "-c", code],
            env=cli.env,
            capture_output=True,
            text=True,
            check=True,
        )
        loaded = done.stdout.splitlines()[-1]
        for module in ("store", "storage", "format", "lease"):
            assert f"vdsm_ovfstore.{module}" not in loaded
        for module in ("subprocess", "tempfile", "shutil", "tarfile"):
            assert f"'{module}'" not in loaded

    @pytest.mark.parametrize(
        "handler,status",
        [
            pytest.param("default_int_handler", -signal.SIGINT, id="heard"),
            pytest.param("SIG_IGN", 0, id="ignored"),
        ],
    )
    def test_interrupt_while_it_is_imported(
        self, cli: Cli, handler: str, status: int
    ) -> None:
        code = (
            "import os, signal, sys\n"
            "class Interrupt:\n"
            "    def find_spec(self, name, *args):\n"
            "        if name == 'vdsm_ovfstore.cli.call':\n"
            "            os.kill(os.getpid(), signal.SIGINT)\n"
            f"signal.signal(signal.SIGINT, signal.{handler})\n"
            "sys.meta_path.insert(0, Interrupt())\n"
            "from vdsm_ovfstore.cli.main import main\n"
            "main(['explain', '651'])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], env=cli.env, capture_output=True
        )
        assert (done.returncode, done.stderr) == (status, b"")

    def test_entry_points_agree(self, cli: Cli, tmp_path: Path) -> None:
        code = "import sys; from vdsm_ovfstore.cli.main import main; "
        done = subprocess.run(
            [sys.executable, "-c", code + "sys.exit(main(['explain', '1']))"],
            cwd=PROJECT,
            capture_output=True,
        )
        assert done.returncode == cli("explain", 1).status == 2
