# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The documents are true: commands parse, codes and verbs are those of the
code, links lead somewhere, rooms know whom they may.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli import options
from vdsm_ovfstore.store import retention, verify

PROJECT = Path(__file__).parents[1]
OPERATIONS = PROJECT / "docs" / "operations.md"
ARCHITECTURE = PROJECT / "docs" / "architecture.md"
DOCUMENTS = [PROJECT / "README.md", *sorted((PROJECT / "docs").glob("*.md"))]
VERBS = [name for name, _, _ in options.VERBS]

documents = pytest.mark.parametrize(
    "document", DOCUMENTS, ids=[d.name for d in DOCUMENTS]
)


# -- commands -----------------------------------------------------------------


def fenced(text: str) -> Iterator[str]:
    """The lines of code blocks, continued ones joined."""
    for block in re.findall(r"^```\w*\n(.*?)^```$", text, re.S | re.M):
        yield from re.sub(r"\\\n>?", " ", block).splitlines()


def inline(text: str) -> Iterator[str]:
    """What stands between backquotes; it may run over a line's end."""
    prose = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.S | re.M)
    for code in re.findall(r"`([^`]+)`", prose):
        yield " ".join(code.split())


def commands(text: str) -> Iterator[list[str]]:
    """The arguments of each ovfstore that is called somewhere."""
    for line in (*fenced(text), *inline(text)):
        # Not the name alone, nor what it says: "ovfstore: error ...".
        if not re.search(r"(^|[\s|])ovfstore \S", line):
            continue
        lexer = shlex.shlex(line, posix=True, punctuation_chars="|<>;&")
        lexer.whitespace_split = True
        lexer.commenters = ""
        words = list(lexer)
        while "ovfstore" in words:
            words = words[words.index("ovfstore") + 1 :]
            end = [n for n, w in enumerate(words) if w[0] in "|<>;&"]
            yield words[: min(end, default=len(words))]


@documents
def test_commands_parse(document: Path) -> None:
    for words in commands(document.read_text(encoding="utf-8")):
        if words == ["VERB", "--help"]:
            continue
        try:
            options.parse(words)
        except SystemExit as e:
            assert e.code == 0, words  # --help, --version
        except errors.UsageError as e:
            pytest.fail(f"ovfstore {' '.join(words)}: {e}")


@documents
def test_options_exist(
    document: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for verb in VERBS:
        with pytest.raises(SystemExit):
            options.parse([verb, "--help"])
    known = set(re.findall(r"--[\w-]+", capsys.readouterr().out))
    text = document.read_text(encoding="utf-8")
    named = {c.split()[0] for c in inline(text) if c.startswith("--")}
    assert named <= known


def test_every_verb_is_documented() -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    called = {words[0] for words in commands(text) if words}
    assert called >= set(VERBS)


@documents
def test_named_tests_exist(document: Path) -> None:
    """A test that is named as proof is there: file, class and function."""
    text = document.read_text(encoding="utf-8")
    for name in re.findall(r"\btests/[\w/]+\.py(?:::\w+)+", text):
        path, *parts = name.split("::")
        inside: ast.AST = ast.parse((PROJECT / path).read_text("utf-8"))
        for part in parts:
            found = [
                node
                for node in ast.iter_child_nodes(inside)
                if isinstance(node, (ast.ClassDef, ast.FunctionDef))
                and node.name == part
            ]
            assert found, name
            inside = found[-1]


def test_every_row_of_what_goes_wrong_is_proved() -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([PW]\d+) \|.*\| (.*) \|$", text, re.M)
    proofs = {row: proof for row, proof in rows if "::" in proof}
    assert list(proofs) == [
        *(f"P{n}" for n in range(1, 18)),
        *(f"W{n}" for n in range(1, 16)),
    ]


def test_commands_are_found() -> None:
    text = (
        "see `ovfstore status $M` or `ovfstore`\n```text\n"
        "$ ovfstore download $M | ovfstore upload $M - > log\n"
        "ovfstore: error 201: none\novfstore: Run: ovfstore create /x\n"
        "$ sudo -u vdsm ovfstore list \\\n> --json\n```\n"
    )
    assert list(commands(text)) == [
        ["download", "$M"],
        ["upload", "$M", "-"],
        ["create", "/x"],
        ["list", "--json"],
        ["status", "$M"],
    ]


# -- codes and words ----------------------------------------------------------


def kinds(kind: type[errors.Error]) -> Iterator[type[errors.Error]]:
    yield kind
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from kinds(below)


def test_error_table() -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d{3,4}) \| (\w+) \| ([^|]+) \|", text, re.M)
    expected = sorted(
        (
            str(kind.code),
            kind.__name__,
            "128 + n" if kind is errors.Interrupted else str(kind.exit_status),
        )
        for kind in kinds(errors.Error)
    )
    assert sorted(rows) == expected


@documents
def test_codes_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    known = {kind.code for kind in kinds(errors.Error)}
    named = re.findall(r"\berror (\d{3,4})\b", text)
    named += re.findall(r"\b(35[0-5]\d)\b", text)
    assert {int(code) for code in named} <= known | {3500, 3549}


@pytest.mark.parametrize(
    "word",
    [
        *(verify.OK, verify.EMPTY, verify.DAMAGED, verify.LOST),
        *(verify.UNSEALED, verify.BEHIND, verify.INTERRUPTED),
        *(verify.FOREIGN, verify.UNREADABLE),
        *(retention.SHRINK, retention.ADOPTED),
    ],
)
def test_words_have_a_row(word: str) -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    assert re.search(rf"^\| `{word}` \|", text, re.M)


def test_exit_statuses() -> None:
    text = OPERATIONS.read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d) \| ", text, re.M)
    known = [v for k, v in vars(errors).items() if k.startswith("EXIT_")]
    assert [int(r) for r in rows] == sorted(known)


def test_retention_settings() -> None:
    """The numbers in prose are those of the code."""
    text = " ".join(OPERATIONS.read_text(encoding="utf-8").split())
    s = retention.Settings()
    assert (
        f"The newest {s.newest} generations, then the newest of each of "
        f"{s.hourly} hours, {s.daily} days and {s.monthly} months"
    ) in text


# -- links --------------------------------------------------------------------


def anchors(document: Path) -> set[str]:
    """The names that headings get where documents are shown."""
    text = document.read_text(encoding="utf-8")
    text = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.S | re.M)
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
        for title in titles
    }


@documents
def test_links(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    text = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.S | re.M)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def test_files_named_in_architecture_exist() -> None:
    text = ARCHITECTURE.read_text(encoding="utf-8")
    named = re.findall(r"`((?:tests|docs)/[\w/.]+)`", text)
    assert named
    assert [n for n in named if not (PROJECT / n).exists()] == []


# -- rooms --------------------------------------------------------------------


def known_by(room: str) -> set[str]:
    """The other rooms that modules of this one import."""
    found: set[str] = set()
    for path in (PROJECT / "vdsm_ovfstore" / room).glob("*.py"):
        text = path.read_text(encoding="utf-8")
        found.update(re.findall(r"vdsm_ovfstore\.(\w+)", text))
    return found - {room, "errors"}


def test_rooms() -> None:
    package = PROJECT / "vdsm_ovfstore"
    rooms = {p.parent.name for p in package.glob("*/__init__.py")}
    text = ARCHITECTURE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)/` \| .*? \|([^|]*)\|$", text, re.M)
    drawn = {room: set(re.findall(r"`(\w+)`", whom)) for room, whom in rows}
    assert drawn == {room: known_by(room) for room in rooms}
    # Arrows point up the table only.
    order = [room for room, _ in rows]
    for number, room in enumerate(order):
        assert drawn[room] <= set(order[:number])


def test_no_trace_of_a_checkout() -> None:
    """Paths of the machine where the examples were made stay there."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert os.fspath(PROJECT) + os.sep not in text
