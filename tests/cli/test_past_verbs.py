# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""restore, pin, unpin on the command line."""

from __future__ import annotations

import pytest

from tests.cli.harness import Store


@pytest.fixture
def changed(store: Store) -> Store:
    """Generation 1 has web and db, generation 2 web and mail."""
    store.upload("web", "mail")
    return store


def test_without_yes_nothing_is_written(changed: Store) -> None:
    before = changed.contents()
    text = changed.ok("restore", 1).text
    assert "changed  db    " in text
    assert "was mail" in text
    assert text.endswith(
        "\nFrom generation 2 to 1: 0 added, 0 removed, 1 changed, 1 as before"
        "\nNothing was written\n"
        f"Next: ovfstore restore {changed.path} 1 --yes\n"
    )
    answer = changed.json("restore", 1)
    assert answer["dry_run"] is True
    assert answer["next_step"].endswith("restore DOMAIN 1 --yes") or (
        answer["next_step"].endswith(f"{changed.path} 1 --yes")
    )
    assert changed.contents() == before


def test_with_yes(changed: Store) -> None:
    text = changed.ok("restore", 1, "--yes").text
    assert text == (
        "Generation 3 is what generation 1 was: 2 entities, on 2 copies\n"
        f"Next: ovfstore history {changed.path}\n"
    )
    assert changed.names() == ["db", "web"]
    answer = changed.json("restore", 2, "--yes")
    assert (answer["dry_run"], answer["restored"]) == (False, 2)
    assert answer["generation"] == 4
    assert changed.names() == ["mail", "web"]
    changed.ok("verify")


def test_what_is_the_newest_already(changed: Store) -> None:
    words = "Generation 2 is what the newest one is already\n"
    assert changed.ok("restore", 2).text.startswith(words)
    assert changed.ok("restore", 2, "--yes").text.startswith(words)
    assert len(changed.json("history")["generations"]) == 2


def test_pin_and_unpin(changed: Store) -> None:
    def pinned() -> list[str]:
        found = changed.json("history")["generations"]
        return [g["pinned"] for g in found]

    assert pinned() == ["", ""]
    text = changed.ok("pin", 2).text
    assert text.startswith("Generation 2 is kept, on 2 copies\n")
    assert pinned() == ["user", ""]
    text = changed.ok("unpin", 2).text
    assert text.startswith("Generation 2 goes in its time, on 2 copies\n")
    assert pinned() == ["", ""]
    assert changed.json("pin", 1)["pinned"] is True
    assert changed.json("unpin", 1)["pinned"] is False


@pytest.mark.parametrize("verb", ["restore", "pin", "unpin"])
def test_refused(changed: Store, verb: str) -> None:
    before = changed.contents()
    assert changed.cli.error(verb, changed.path, 7)["code"] == 3541
    for args in ((), ("x",), ("1", "2"), ("1", "--timeout", "x")):
        assert changed.cli(verb, changed.path, *args).status == 2
    assert changed.contents() == before


def test_restore_in_an_empty_store(empty: Store) -> None:
    for args in ((), ("--yes",)):
        code = empty.cli.error("restore", empty.path, 1, *args)["code"]
        assert code == 3541
