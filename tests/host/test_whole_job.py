# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
docs/verbs.md as its reader uses it: every block, in order, with curl alone.

The blocks run in one bash against a real daemon, over each way that the page
knows. What curl gets of each verb is what the schema promises.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.host.certs import certificates
from tests.host.harness import PROJECT, Daemon, running_daemon
from tests.store.builders import archive
from vdsm_ovfstore.api.schema import Definition
from vdsm_ovfstore.storage.filedomain import create_domain

PAGE = (PROJECT / "docs" / "verbs.md").read_text()

DEFINITION = Definition.load()

# The page's own, and what it is to be here.
DEFAULT_PKI = "/etc/pki/vdsm"
DEFAULT_SOCKET = "/run/ovfstored/socket"
DEFAULT_PORT = "61325"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("curl") is None, reason="there is no curl on this host"
    ),
]


class Block(NamedTuple):
    """heading is of the section it stands in."""

    heading: str
    text: str


def blocks(language: str) -> list[Block]:
    """All blocks of the page in this language, in order."""
    found, heading = [], ""
    pattern = rf"^## ([^\n]*)$|^```{language}\n(.*?)^```$"
    for match in re.finditer(pattern, PAGE, re.M | re.S):
        if match[1]:
            heading = match[1]
        else:
            found.append(Block(heading, match[2]))
    return found


def connect(word: str) -> str:
    """The block of "Connect" with that word."""
    (found,) = (
        b.text
        for b in blocks("sh")
        if b.heading == "Connect" and word in b.text
    )
    return found


def over_tls(daemon: Daemon) -> str:
    text = connect(DEFAULT_PKI).replace(DEFAULT_PORT, str(daemon.port))
    return text.replace(DEFAULT_PKI, str(certificates().client.path))


def over_socket(daemon: Daemon) -> str:
    return connect("--unix-socket").replace(DEFAULT_SOCKET, daemon.socket)


def over_loopback(daemon: Daemon) -> str:
    return connect("127.0.0.1").replace(DEFAULT_PORT, str(daemon.port))


def run(directory: Path, *scripts: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", "\n".join(scripts)],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=100,
    )


def answers(output: str) -> dict[str, Any]:
    """What curl printed for each verb."""
    parts = re.split(r"^=== (\w+)\n", output, flags=re.M)
    return {
        verb: json.loads(text) for verb, text in zip(parts[1::2], parts[2::2])
    }


@pytest.mark.parametrize("way", [over_tls, over_socket])
def test_whole_page(tmp_path: Path, way: Any) -> None:
    # As the storage is before anything of ours was there.
    domain = create_domain(str(tmp_path), "LOCALFS")
    tar = archive(domain, ["web", "db", "mail"])
    (tmp_path / "archive.tar").write_bytes(tar)
    (variables,) = (b.text for b in blocks("sh") if "ARCHIVE=" in b.text)
    script = [variables]
    for block in blocks("bash"):
        if block.heading in DEFINITION.verbs:
            script.append(f"echo '=== {block.heading}'")
        script.append(block.text)
    host = certificates().host.path if way is over_tls else None
    with running_daemon(tmp_path, [domain.path], tls=host) as daemon:
        done = run(tmp_path, way(daemon), *script)
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
    for name in ("downloaded.tar", "resumed.tar"):
        assert (tmp_path / name).read_bytes() == tar
    found = answers(done.stdout)
    # Not one verb is without its line for curl.
    assert list(found) == list(DEFINITION.verbs)
    for verb, answer in found.items():
        assert (answer["jsonrpc"], answer["id"]) == ("2.0", 1)
        DEFINITION.check_result(verb, answer["result"])
    # And what they said is about what was sent.
    assert found["listVms"]["result"]["total"] == 3
    assert found["getTransfer"]["result"]["state"] == "done"
    assert found["download"]["result"]["entity"] is not None


def test_status_is_for_the_socket_only(tmp_path: Path) -> None:
    (block,) = (b.text for b in blocks("sh") if "/ovf-store/status" in b.text)
    with running_daemon(tmp_path, [tmp_path]) as daemon:
        done = run(tmp_path, over_socket(daemon), block)
        assert json.loads(done.stdout)["pid"] == daemon.pid
        done = run(tmp_path, over_loopback(daemon), block)
        assert done.returncode != 0
        assert "404" in done.stderr


def test_error_of_curl(tmp_path: Path) -> None:
    """With the helpers of the page an error is a status and a document."""
    helpers = blocks("bash")[0].text
    with running_daemon(tmp_path, [tmp_path]) as daemon:
        done = run(
            tmp_path,
            over_socket(daemon),
            helpers,
            "call getTransfer "
            """'{"transferID": "91c7d3e5-2b48-4f06-ae19-d05f8b6c4a72"}'""",
        )
    assert done.returncode == 22
    error = json.loads(done.stdout)["error"]
    assert error["data"]["type"] == "TransferNotFound"
    assert "404" in done.stderr
