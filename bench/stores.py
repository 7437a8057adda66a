# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Archives and stores to measure with, and the commands on them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable

import vdsm_ovfstore
from vdsm_ovfstore.format.archive_writer import engine_members, write_archive
from vdsm_ovfstore.storage.filedomain import create_domain

ROOT = os.path.dirname(os.path.dirname(vdsm_ovfstore.__file__))

_TIME = 1_700_000_000  # of the archives, that runs are alike
_CLI = "import sys; from vdsm_ovfstore.cli.main import main; sys.exit(main())"


def make_archive(path: str, ovfs: Iterable[tuple[str, bytes]]) -> None:
    """Write the archive that the engine would make of OVFs."""
    domain = "00000000-0000-4000-8000-000000000001"
    members = engine_members(
        domain, ((name, len(data), [data]) for name, data in ovfs), _TIME, {}
    )
    with open(path, "wb") as file:
        file.writelines(write_archive(members, _TIME))


def make_store(directory: str, copies: int = 2) -> str:
    """Make a LocalFS domain with empty copies; return its path."""
    domain = create_domain(directory, "LOCALFS")
    for _ in range(copies):
        domain.create_volume()
    return domain.path


def environment(directory: str) -> dict[str, str]:
    """
    The environment of the commands: as if the package were installed, which
    means that its modules are compiled.
    """
    env = dict(os.environ)
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    env["PYTHONPYCACHEPREFIX"] = os.path.join(directory, "compiled")
    env["PYTHONPATH"] = ROOT
    env["TMPDIR"] = directory
    return env


def command(*arguments: str) -> list[str]:
    """The ovfstore command, as the installed script starts it."""
    return [sys.executable, "-c", _CLI, *arguments]


def upload(domain: str, tar: str) -> list[str]:
    """The command that uploads; the archives have nothing in common."""
    return command("upload", "--force", domain, tar)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def call(arguments: list[str], env: dict[str, str]) -> bytes:
    """Run a command; return what it writes."""
    return subprocess.run(
        arguments, env=env, check=True, stdout=subprocess.PIPE
    ).stdout
