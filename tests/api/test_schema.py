# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The definition of the verbs: sound in itself, and nothing but what it allows
comes in or goes out.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsm_ovfstore import errors
from vdsm_ovfstore.api import schema
from vdsm_ovfstore.api.schema import Definition

PROJECT = Path(__file__).parents[2]
DOCUMENT = json.loads((PROJECT / "schema" / "verbs.json").read_text())
CLI = json.loads((PROJECT / "schema" / "cli.json").read_text())
DEFINITION = Definition.load()
VERBS = list(DEFINITION.verbs)

DOMAIN = "2af62d1e-8c1f-4c7b-9c5d-3b1f0a9e6d41"
OTHER = "5cc76352-3a3c-440e-9d6b-539562f85547"

each_verb = pytest.mark.parametrize("verb", VERBS)


def refused(verb: str, params: Any) -> errors.ParametersInvalid:
    """How these parameters are refused: in one line, not a long one."""
    with pytest.raises(errors.ParametersInvalid) as caught:
        DEFINITION.check_params(verb, params)
    text = str(caught.value)
    assert text.startswith(f"{verb}: ")
    assert text.isascii() and text.isprintable() and len(text) < 250
    return caught.value


def walk(node: Any) -> Iterator[dict[str, Any]]:
    """All objects below a schema, itself included."""
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for below in node:
            yield from walk(below)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


# -- the definition -----------------------------------------------------------


def test_the_verbs_are_those_of_the_interface() -> None:
    assert set(VERBS) == set(
        "ping list getInfo create upload download getTransfer getJobs abort "
        "listVms getVm getHistory diff verify repair restore pin "
        "unpin".split()
    )
    jobs = {name for name, verb in DEFINITION.verbs.items() if verb.job}
    assert jobs == {"create", "verify", "repair", "restore", "pin", "unpin"}


@each_verb
def test_schemas_are_valid(verb: str) -> None:
    known = DEFINITION.verbs[verb]
    parts = known.params, known.result, known.job_result, known.upload_result
    for part in parts:
        if part is not None:
            jsonschema.Draft7Validator.check_schema(part)
            assert not any("$ref" in node for node in walk(part))


def test_document_is_valid_as_it_stands() -> None:
    """Others may read the file: each schema, its references resolved."""
    for name, verb in DOCUMENT["verbs"].items():
        for part, given_as in (
            ("params", "params"),
            ("result", "result"),
            ("job_result", "job_result"),
            ("upload_result", "upload_result"),
        ):
            if part in verb:
                whole = {**verb[part], "definitions": DOCUMENT["definitions"]}
                if "$ref" in whole:
                    whole = {"allOf": [verb[part]], **whole}
                    del whole["$ref"]
                jsonschema.Draft7Validator.check_schema(whole)
                validator = jsonschema.Draft7Validator(whole)
                assert validator.is_valid(verb["example"][given_as]), name


@each_verb
def test_objects_are_closed(verb: str) -> None:
    known = DEFINITION.verbs[verb]
    parts = [known.params, known.result, known.job_result, known.upload_result]
    for node in walk(parts):
        if isinstance(node.get("properties"), dict):
            assert node["additionalProperties"] is False
            assert set(node["required"]) <= set(node["properties"])


@each_verb
def test_parameters_are_bounded(verb: str) -> None:
    params = DEFINITION.verbs[verb].params
    for node in walk(params["properties"]):
        types = node.get("type", [])
        if "string" in types:
            assert node["maxLength"] <= 255
        if "array" in types:
            # Longer ones are cut before they are looked at.
            assert node["maxItems"] < schema._ITEMS
        if "integer" in types or "number" in types:
            assert {"minimum", "maximum"} <= set(node)


@each_verb
def test_errors_exist(verb: str) -> None:
    names = DEFINITION.verbs[verb].errors
    assert len(set(names)) == len(names)
    kinds = [getattr(errors, name) for name in names]
    assert all(issubclass(kind, errors.Error) for kind in kinds)
    assert [k.code for k in kinds] == sorted(k.code for k in kinds)


@pytest.mark.parametrize(
    "name, document",
    [
        ("statusStore", "statusDocument"),
        ("verify", "verifyDocument"),
        ("create", "createDocument"),
        ("repair", "repairDocument"),
        ("upload", "uploadDocument"),
        ("generation", "generation"),
        ("entity", "entity"),
        ("segment", "segment"),
        ("degraded", "degraded"),
    ],
)
def test_documents_are_those_of_the_command(name: str, document: str) -> None:
    mine = DOCUMENT["definitions"][document]
    theirs = CLI["definitions"][name]
    apart = {"version", "verb", "next_step"}
    assert set(mine["properties"]) == set(theirs["properties"]) - apart
    assert set(mine["required"]) == set(theirs["required"]) - apart


# -- examples -----------------------------------------------------------------


@each_verb
def test_examples_are_right(verb: str) -> None:
    example = DEFINITION.verbs[verb].example
    DEFINITION.check_params(verb, example["params"])
    DEFINITION.check_result(verb, example["result"])
    if "job_result" in example:
        DEFINITION.check_job_result(verb, example["job_result"])
    if "upload_result" in example:
        DEFINITION.check_upload_result(verb, example["upload_result"])
    known = DEFINITION.verbs[verb]
    assert known.job == ("job_result" in example)
    assert (known.upload_result is not None) == ("upload_result" in example)


@each_verb
def test_results_are_strict(verb: str) -> None:
    """One field less, or one more, is not what the verb answers."""
    result = DEFINITION.verbs[verb].example["result"]
    for name in result:
        less = {k: v for k, v in result.items() if k != name}
        with pytest.raises(errors.Unexpected, match=f"{name} is missing"):
            DEFINITION.check_result(verb, less)
    with pytest.raises(errors.Unexpected, match='there is no "surplus"'):
        DEFINITION.check_result(verb, {**result, "surplus": 1})


# -- parameters that are right ------------------------------------------------


def test_defaults_are_filled_in() -> None:
    asked = {"storagedomainID": DOMAIN}
    assert DEFINITION.check_params("create", asked) == {
        "storagedomainID": DOMAIN,
        "copies": 2,
        "size": 128 * 1024**2,
        "timeout": 60,
    }
    assert asked == {"storagedomainID": DOMAIN}
    given_ = {**asked, "timeout": 0.5}
    full = {**given_, "collectOrphans": False}
    assert DEFINITION.check_params("repair", given_) == full


@pytest.mark.parametrize(
    "verb, more",
    [
        ("listVms", {"generation": 12}),
        ("listVms", {"generation": 0}),
        ("listVms", {"generation": "12"}),
        ("listVms", {"generation": "12:3f9a"}),
        ("listVms", {"generation": "0:" + "a" * 64}),
        ("getVm", {"name": "archív-данные-倉庫"}),
        ("getVm", {"name": "n" * 255}),
        ("getVm", {"vmID": OTHER}),
        ("download", {"name": "x"}),
        ("upload", {"size": 2**40, "sha256": "a" * 64}),
        ("create", {"timeout": 86400.0}),
    ],
)
def test_accepted(verb: str, more: dict[str, Any]) -> None:
    params = {"storagedomainID": DOMAIN, **more}
    assert DEFINITION.check_params(verb, params).items() >= params.items()


# -- parameters that are wrong ------------------------------------------------


@pytest.mark.parametrize(
    "verb, params, text, parameter",
    [
        pytest.param(*case, id=case[0] + "-" + case[2].replace(" ", "_")[:40])
        for case in (
            (
                "getInfo",
                {},
                "storagedomainID is missing",
                "storagedomainID",
            ),
            (
                "getInfo",
                {"storageDomainId": DOMAIN},
                'it takes no parameter "storageDomainId"; did you mean '
                "storagedomainID?",
                "storageDomainId",
            ),
            (
                "getInfo",
                {"domain": DOMAIN},
                'it takes no parameter "domain"; storagedomainID is missing',
                "domain",
            ),
            ("ping", {"x": 1}, 'it takes no parameter "x"', "x"),
            (
                "getInfo",
                {"storagedomainID": DOMAIN.upper()},
                "storagedomainID must be a UUID in lower case, "
                f'not "{DOMAIN.upper()}"',
                "storagedomainID",
            ),
            (
                "getInfo",
                {"storagedomainID": DOMAIN + "\n"},
                "storagedomainID must be a UUID in lower case, "
                f'not "{DOMAIN}\\n"',
                "storagedomainID",
            ),
            (
                "getInfo",
                {"storagedomainID": "../" * 20},
                "storagedomainID must be a UUID in lower case, "
                f'not "{"../" * 13}."...',
                "storagedomainID",
            ),
            (
                "getInfo",
                {"storagedomainID": None},
                "storagedomainID must be a UUID in lower case, not null",
                "storagedomainID",
            ),
            (
                "upload",
                {"storagedomainID": DOMAIN},
                "size is missing",
                "size",
            ),
            (
                "upload",
                {"storagedomainID": DOMAIN, "size": True},
                "size must be an integer, not true",
                "size",
            ),
            (
                "upload",
                {"storagedomainID": DOMAIN, "size": 4096.0},
                "size must be an integer, not 4096.0",
                "size",
            ),
            (
                "upload",
                {"storagedomainID": DOMAIN, "size": 0},
                "size must be 1 to 1099511627776, not 0",
                "size",
            ),
            (
                "upload",
                {"storagedomainID": DOMAIN, "size": 10**5000},
                "size must be 1 to 1099511627776, "
                "not a number of more than 40 digits",
                "size",
            ),
            (
                "upload",
                {"storagedomainID": DOMAIN, "size": 1, "sha256": "A" * 64},
                "sha256 must be a SHA-256 in lower-case hex, "
                f'not "{"A" * 40}"...',
                "sha256",
            ),
            (
                "create",
                {"storagedomainID": DOMAIN, "timeout": float("nan")},
                "timeout must be a number, not NaN",
                "timeout",
            ),
            (
                "create",
                {"storagedomainID": DOMAIN, "timeout": float("inf")},
                "timeout must be a number, not Infinity",
                "timeout",
            ),
            (
                "verify",
                {"storagedomainID": DOMAIN, "quick": 1},
                "quick must be true or false, not 1",
                "quick",
            ),
            (
                "listVms",
                {"storagedomainID": DOMAIN, "generation": "12\n"},
                "generation must be the number of a generation, or "
                '"NUMBER:DIGEST", not "12\\n"',
                "generation",
            ),
            (
                "listVms",
                {"storagedomainID": DOMAIN, "generation": -1},
                "generation must be 0 to 9007199254740991, not -1",
                "generation",
            ),
            (
                "listVms",
                {"storagedomainID": DOMAIN, "count": 1001},
                "count must be 1 to 1000, not 1001",
                "count",
            ),
            (
                "getVm",
                {"storagedomainID": DOMAIN, "name": "n" * 256},
                "name must have 1 to 255 characters, not 256",
                "name",
            ),
            (
                "getVm",
                {"storagedomainID": DOMAIN},
                "give exactly one of vmID and name",
                None,
            ),
            (
                "abort",
                {"transferID": OTHER, "jobID": OTHER},
                "give exactly one of transferID and jobID",
                None,
            ),
            (
                "download",
                {"storagedomainID": DOMAIN, "vmID": OTHER, "name": "x"},
                "give at most one of vmID and name",
                None,
            ),
            (
                "getJobs",
                {"jobIDs": [OTHER, "x"]},
                'jobIDs[1] must be a UUID in lower case, not "x"',
                "jobIDs",
            ),
            (
                "getJobs",
                {"jobIDs": [OTHER] * 101},
                "jobIDs must have at most 100 items, not 101",
                "jobIDs",
            ),
            (
                "getJobs",
                {"jobIDs": OTHER},
                f'jobIDs must be a list, not "{OTHER}"',
                "jobIDs",
            ),
            (
                "getInfo",
                [DOMAIN],
                "parameters are given by name, in an object, not as a list",
                None,
            ),
        )
    ],
)
def test_refused(verb: str, params: Any, text: str, parameter: Any) -> None:
    error = refused(verb, params)
    assert str(error) == f"{verb}: {text}"
    assert error.fields()["parameter"] == parameter


def test_first_in_the_order_of_the_definition() -> None:
    """Whatever the order in which they were given."""
    wrong = {"timeout": -1, "size": "x", "storagedomainID": 1, "sha256": 2}
    for _ in range(len(wrong)):
        first = next(iter(wrong))
        wrong[first] = wrong.pop(first)
        error = refused("upload", dict(wrong))
        assert error.fields()["parameter"] == "storagedomainID"
    # What is unknown explains what is missing.
    error = refused("upload", {"Size": 1, "timeout": -1})
    assert error.fields()["parameter"] == "Size"


@pytest.mark.parametrize("verb", ["getinfo", "OvfStore.ping", "", "é" * 1000])
def test_unknown_verb(verb: str) -> None:
    with pytest.raises(errors.RequestInvalid) as caught:
        DEFINITION.check_params(verb, {})
    text = str(caught.value)
    assert text.startswith('Invalid request: there is no verb "')
    assert len(text) < 400 and text.isascii()
    assert ("did you mean getInfo?" in text) == (verb == "getinfo")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(nested(100_000), id="deep"),
        pytest.param([nested(100_000)], id="deep item"),
        pytest.param([1] * 1_000_000, id="many"),
        pytest.param({str(n): n for n in range(1000)}, id="object"),
        pytest.param("x" * 10_000_000, id="long"),
        pytest.param("\ud800\x1b[2J", id="surrogate"),
        pytest.param("\U00010000" * 40, id="escaped"),
    ],
)
def test_hostile_values(value: Any) -> None:
    for verb, name in (
        ("getInfo", "storagedomainID"),
        ("getJobs", "jobIDs"),
        ("upload", "size"),
        ("listVms", "generation"),
    ):
        params = {**DEFINITION.verbs[verb].example["params"], name: value}
        assert refused(verb, params).fields()["parameter"] == name


junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.just(DOMAIN),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=5,
)


@given(data=st.data())
def test_anything_is_right_or_refused(data: st.DataObject) -> None:
    verb = data.draw(st.sampled_from(VERBS))
    known = list(DEFINITION.verbs[verb].params["properties"])
    names = st.sampled_from(known) if known else st.just("x")
    params = data.draw(st.dictionaries(names | st.text(), junk, max_size=4))
    if data.draw(st.booleans()):
        params = {**DEFINITION.verbs[verb].example["params"], **params}
    try:
        checked = DEFINITION.check_params(verb, params)
    except errors.ParametersInvalid as e:
        text = str(e)
        assert text.isascii() and text.isprintable() and len(text) < 250
        parameter = e.fields()["parameter"]
        if parameter in known:
            assert parameter in text
    else:
        assert checked.items() >= params.items()
        assert set(checked) <= set(known)
        assert not any(
            isinstance(v, float) and v != v for v in params.values()
        )


# -- results that are wrong ---------------------------------------------------


def test_wrong_results_say_where() -> None:
    result = copy.deepcopy(DEFINITION.verbs["listVms"].example["result"])
    result["entities"][0]["disks"].append("x")
    with pytest.raises(errors.Unexpected) as caught:
        DEFINITION.check_result("listVms", result)
    assert str(caught.value) == (
        "Unexpected result of listVms: entities[0].disks[1] must be a UUID "
        'in lower case, not "x"'
    )


def test_wrong_alternative_says_where() -> None:
    """newest is a generation or null; the generation was meant."""
    result = copy.deepcopy(DEFINITION.verbs["getInfo"].example["result"])
    result["newest"]["kind"] = "x"
    with pytest.raises(errors.Unexpected) as caught:
        DEFINITION.check_result("getInfo", result)
    assert "newest.kind must be one of" in str(caught.value)
    result["newest"] = None
    DEFINITION.check_result("getInfo", result)


def test_wrong_results_of_jobs_and_uploads() -> None:
    with pytest.raises(errors.Unexpected, match="job result of repair: it"):
        DEFINITION.check_job_result("repair", None)
    with pytest.raises(errors.Unexpected, match="upload result of upload"):
        DEFINITION.check_upload_result("upload", {})
    with pytest.raises(ValueError, match="ping has no job_result"):
        DEFINITION.check_job_result("ping", {})


def test_a_large_answer_is_checked_in_time() -> None:
    """
    A page of 1000 VMs: 0.1 s on one core. Twenty times as much tells that
    something in it has become quadratic.
    """
    result = copy.deepcopy(DEFINITION.verbs["listVms"].example["result"])
    result["entities"] *= 1000
    began = time.process_time()
    DEFINITION.check_result("listVms", result)
    assert time.process_time() - began < 2


# -- where the file is --------------------------------------------------------


def load_in(where: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    """In a Python that sees the package below `where`, and jsonschema."""
    code = (
        "from vdsm_ovfstore import errors",
        "from vdsm_ovfstore.api import schema",
        "try:",
        "    definition = schema.Definition.load()",
        *(f"    {line}" for line in lines),
        "except errors.Error as e:",
        "    print(type(e).__name__, e)",
    )
    return subprocess.run(
        [sys.executable, "-c", "\n".join(code)],
        env={**os.environ, "PYTHONPATH": os.fspath(where)},
        cwd=where,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """The package as it lies in PREFIX/lib/python3.X/site-packages."""
    site = tmp_path / "lib" / "python3.9" / "site-packages"
    shutil.copytree(
        PROJECT / "vdsm_ovfstore",
        site / "vdsm_ovfstore",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    return site


def test_installed_file_is_found(site: Path, tmp_path: Path) -> None:
    share = tmp_path / "share" / "vdsm-ovfstore" / "schema"
    share.mkdir(parents=True)
    shutil.copy(PROJECT / "schema" / "verbs.json", share)
    done = load_in(site, "print(schema.find())")
    assert done.stdout == f"{share / 'verbs.json'}\n"


@pytest.mark.skipif(
    os.path.exists("/usr/share/vdsm-ovfstore/schema/verbs.json"),
    reason="this package is installed here",
)
def test_no_file(site: Path, tmp_path: Path) -> None:
    done = load_in(site)
    assert done.stdout.startswith(
        "Error The definition of the verbs is not installed; it is none of "
    )
    assert f"{tmp_path}/share/vdsm-ovfstore/schema/verbs.json" in done.stdout


def test_damaged_file(site: Path) -> None:
    path = site / "schema" / "verbs.json"
    path.parent.mkdir()
    path.write_text("{")
    done = load_in(site)
    assert done.stdout.startswith(f"Error Cannot read {path}: ")


def test_no_jsonschema() -> None:
    done = load_in(
        PROJECT,
        "import sys; sys.modules['jsonschema'] = None",
        "definition.check_params('ping', {})",
    )
    assert done.stdout == (
        f"PackageMissing {sys.executable} has no jsonschema\n"
    )


def test_jsonschema_is_not_imported_before_it_is_needed() -> None:
    """Whoever only asks for names should not wait for it."""
    done = load_in(PROJECT, "import sys; print('jsonschema' in sys.modules)")
    assert done.stdout == "False\n"
