# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""docs/verbs.md is what the definition makes it, and what it shows is so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.schema import Definition
from vdsm_ovfstore.host import answers

PROJECT = Path(__file__).parents[2]
SCRIPT = PROJECT / "scripts" / "verbs-doc"
PAGE = (PROJECT / "docs" / "verbs.md").read_text(encoding="utf-8")
DEFINITION = Definition.load()
VERBS = list(DEFINITION.verbs)

# Stand for what a reader has in his shell.
VARIABLES = {
    "DOMAIN_ID": "2af62d1e-8c1f-4c7b-9c5d-3b1f0a9e6d41",
    "VM_ID": "5cc76352-3a3c-440e-9d6b-539562f85547",
    "TRANSFER_ID": "91c7d3e5-2b48-4f06-ae19-d05f8b6c4a72",
    "JOB_ID": "f4b19e07-63ad-4d52-8c7e-1a905bd2e836",
    "SIZE": "89088",
    "SHA256": "a" * 64,
}

each_verb = pytest.mark.parametrize("verb", VERBS)


def run(*args: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([sys.executable, SCRIPT, *args], capture_output=True)


def section(verb: str) -> str:
    found = re.search(rf"^## {verb}\n(.*?)(?=^## )", PAGE, re.S | re.M)
    assert found, verb
    return found[1]


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)


def test_page_is_up_to_date() -> None:
    done = run()
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode() == PAGE, "run: scripts/verbs-doc --write"


def test_wrong_arguments() -> None:
    done = run("--wirte")
    assert done.returncode == 2
    assert done.stderr == b"usage: scripts/verbs-doc [--write]\n"


def test_nothing_is_left_open() -> None:
    assert not re.search(r"@\w+@|\{self|None(?!-Match)|\[\]\(", PAGE)


@each_verb
def test_request_and_answers_are_right(verb: str) -> None:
    request, result, *more = map(json.loads, blocks(section(verb), "json"))
    assert request["method"] == f"OvfStore.{verb}"
    DEFINITION.check_params(verb, request["params"])
    DEFINITION.check_result(verb, result)
    known = DEFINITION.verbs[verb]
    assert len(more) == known.job + (known.upload_result is not None)


@each_verb
def test_line_for_curl_is_right(verb: str) -> None:
    (line,) = blocks(section(verb), "bash")
    command, body, rest = re.split(r" <<END\n|^END\n", line, flags=re.M)
    assert command.startswith("$CURL ") and '"$HOST/ovf-store/rpc"' in command
    assert rest == ""
    body = re.sub(r"\$(\w+)", lambda m: VARIABLES[m[1]], body)
    request = json.loads(body)
    assert request["method"] == f"OvfStore.{verb}"
    DEFINITION.check_params(verb, request["params"])


@each_verb
def test_every_error_is_told(verb: str) -> None:
    """In the section of the verb, or among those that verbs share."""
    common = section("Errors")
    rows = re.findall(
        r"^\| ([\d, ]+) \| (\d+) \| (\w+) \|", section(verb) + common, re.M
    )
    told = {name: (status, int(code)) for status, code, name in rows}
    for name in DEFINITION.verbs[verb].errors:
        kind = getattr(errors, name)
        status, code = told[name]
        assert code == kind.code
        one = answers.status_of(kind(stalled=False, gone=False))
        assert str(one) in status.split(", ")


def test_every_refusal_of_http_is_told() -> None:
    code = "".join(
        path.read_text(encoding="utf-8")
        for path in (PROJECT / "vdsm_ovfstore" / "host").glob("*.py")
    )
    refused = set(re.findall(r"\bRefused\(\s*(\d{3})\b", code))
    assert len(refused) > 5
    assert refused == set(
        re.findall(r"^\| (\d{3}) \| [^|]+ \|$", section("Errors"), re.M)
    )


@each_verb
def test_every_parameter_and_field_is_told(verb: str) -> None:
    text = section(verb)
    known = DEFINITION.verbs[verb]
    for schema in (known.params, known.result, known.job_result):
        for name in schema["properties"] if schema else ():
            assert f"| `{name}` |" in text


def test_shell_is_well_formed() -> None:
    """All blocks, as a reader pastes them: one after the other."""
    for language in ("sh", "bash"):
        done = subprocess.run(
            ["bash", "-n"],
            input="".join(blocks(PAGE, language)).encode(),
            stderr=subprocess.PIPE,
        )
        assert (done.returncode, done.stderr) == (0, b"")


def test_shell_knows_its_variables() -> None:
    """What a block uses was set by one above it, or by the reader."""
    known = {"ARCHIVE", "DOMAIN_ID", "HOST", "CURL"}
    for block in blocks(PAGE, "bash"):
        known.update(re.findall(r"^ *([A-Z_0-9]+)=", block, re.M))
        used = set(re.findall(r"\$\{?([A-Z_][A-Z_0-9]*)", block))
        assert used <= known
