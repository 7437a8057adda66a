# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The man pages have every verb, option and key; so has the completion."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.packaging.conftest import PROJECT
from vdsm_ovfstore.cli import options
from vdsm_ovfstore.engine import command
from vdsm_ovfstore.engine import config as updater
from vdsm_ovfstore.host import config as host
from vdsm_ovfstore.host import daemon, drop_ins
from vdsm_ovfstore.plugin import config as plugin

PAGES = (
    ("ovfstore", "man1/ovfstore.1", options.make_parser),
    ("ovfstored", "man8/ovfstored.8", daemon.make_parser),
    ("ovfstore-updater", "man8/ovfstore-updater.8", command.make_parser),
)
CONFIGURATIONS = (
    ("ovfstored.conf", host.Config),
    ("vdsm-ovfstore.conf", plugin.Config),
    ("ovfstore-updater.conf", updater.Config),
)

pages = pytest.mark.parametrize(
    "path, make", [p[1:] for p in PAGES], ids=[p[0] for p in PAGES]
)
configurations = pytest.mark.parametrize(
    "name, config", CONFIGURATIONS, ids=[c[0] for c in CONFIGURATIONS]
)


def verbs(parser: argparse.ArgumentParser) -> dict[str, Any]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for verb in action.choices.values():
                if isinstance(verb, options.Parser):
                    verb.complete()
            return dict(action.choices)
    return {}


def names(parser: argparse.ArgumentParser) -> set[str]:
    """All options but --help."""
    found = {o for a in parser._actions for o in a.option_strings}
    return found - {"-h", "--help"}


def written(text: str) -> set[str]:
    """The options that have an entry."""
    return {
        f"-{option}"
        for line in re.findall(r"^\.It (Fl .*)$", text, re.M)
        for option in re.findall(r"Fl (\S+)", line)
    }


def sections(text: str, macro: str) -> dict[str, str]:
    parts = re.split(rf"^\.{macro} (.*)\n", text, flags=re.M)[1:]
    return dict(zip(parts[::2], parts[1::2]))


@pages
def test_options(made: Path, path: str, make: Any) -> None:
    text = (made / path).read_text()
    assert written(sections(text, "Sh")["OPTIONS"]) == names(make())


@pages
def test_verbs(made: Path, path: str, make: Any) -> None:
    """Each has a section, with the options that not all of them have."""
    parser = make()
    known = verbs(parser)
    text = sections((made / path).read_text(), "Sh").get("VERBS", "")
    written_verbs = sections(text, "Ss")
    assert list(written_verbs) == list(known)
    general = set(names(parser)) if path == PAGES[0][1] else set()
    for name, verb in known.items():
        section = written_verbs[name]
        own = names(verb) - (general - {"--version"})
        assert written(section) == own, name
        assert f".Nm Cm {name} " in section
        for action in verb._actions:
            if not action.option_strings:
                assert f"\n.It Ar {action.metavar}\n" in section, name
        assert len(section.split(".Bl")[0].splitlines()) > 2, name


def test_exit_statuses(made: Path) -> None:
    text = sections((made / "man1/ovfstore.1").read_text(), "Sh")
    found = re.findall(r"^\.It (\d)$", text["EXIT STATUS"], re.M)
    assert found == list("012345")


@configurations
def test_keys(made: Path, name: str, config: Any) -> None:
    """Each key in its section, with its default and what it does."""
    text = (made / "man5" / f"{name}.5").read_text()
    found: dict[str, list[str]] = {}
    for section, body in sections(text, "Sh").items():
        match = re.fullmatch(r"SECTION \[(\w+)\]", section)
        if match:
            keys = re.findall(r"^\.It Cm (\w+) = Ar \S", body, re.M)
            found[match[1]] = keys
    document = drop_ins.Loaded(config(), {}).document()
    assert found == {name: list(keys) for name, keys in document.items()}


def test_pages_are_those_of_the_packages(made: Path) -> None:
    spec = (PROJECT / "packaging" / "vdsm-ovfstore.spec.in").read_text()
    packed = re.findall(r"^%\{_mandir\}/(man\d/\S+)\*$", spec, re.M)
    pages = [str(p.relative_to(made)) for p in made.glob("man?/*")]
    assert sorted(packed) == sorted(pages)


def test_pages_lead_somewhere(made: Path) -> None:
    ours = {p.name for p in made.glob("man?/*")}
    for path in made.glob("man?/*"):
        text = path.read_text()
        assert "@" not in text.replace("admin@internal", ""), path
        for name, section in re.findall(r"^\.Xr (\S+) (\d)", text, re.M):
            assert f"{name}.{section}" in ours | {"systemd.1"}, path


# -- completion ---------------------------------------------------------------


def completed(made: Path, *words: str) -> list[str]:
    """What bash proposes for the last word."""
    quoted = " ".join(map(shlex.quote, words))
    code = (
        f"source {shlex.quote(str(made / 'ovfstore.bash'))}; "
        f"COMP_WORDS=(ovfstore {quoted}); COMP_CWORD={len(words)}; "
        '_ovfstore; printf "%s\\n" "${COMPREPLY[@]}"; complete -p ovfstore'
    )
    done = subprocess.run(
        ["bash", "-euc", code], capture_output=True, text=True, check=True
    )
    assert not done.stderr
    *proposed, registered = done.stdout.splitlines()
    assert registered == "complete -o default -F _ovfstore ovfstore"
    return [word for word in proposed if word]


class TestCompletion:
    def test_verbs(self, made: Path) -> None:
        assert completed(made, "") == [name for name, _, _ in options.VERBS]
        assert completed(made, "--json", "ex") == ["extract", "explain"]

    def test_options(self, made: Path) -> None:
        parser = options.make_parser()
        found = completed(made, "--")
        assert set(found) == {
            o for o in names(parser) | {"--help"} if o.startswith("--")
        }

    def test_options_of_verbs(self, made: Path) -> None:
        for name, verb in verbs(options.make_parser()).items():
            wanted = {o for o in names(verb) if o.startswith("--")}
            found = completed(made, "-v", name, "/path", "--")
            assert set(found) == wanted | {"--help"}, name

    def test_files(self, made: Path) -> None:
        """Bash's own, where nothing is proposed."""
        assert completed(made, "verify", "") == []
        assert completed(made, "verify", "--cacert", "") == []

    @pytest.mark.parametrize(
        "words, proposed",
        [
            (("init", "d", "--type", "p"), ["posixfs"]),
            (("init", "d", "--version", ""), ["4", "5"]),
        ],
    )
    def test_choices(
        self, made: Path, words: tuple[str, ...], proposed: list[str]
    ) -> None:
        assert completed(made, *words) == proposed


def test_no_option_is_left_out() -> None:
    """The helpers above see what parsers have."""

    def all_of() -> Iterator[str]:
        for _, _, make in PAGES:
            parser = make()
            yield from names(parser)
            for verb in verbs(parser).values():
                yield from names(verb)

    assert {"--host", "--quick", "--conf-dir", "--once"} <= set(all_of())
