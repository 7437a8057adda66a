# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Files that appear when they are whole, or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from vdsm_ovfstore import errors
from vdsm_ovfstore.client.targets import TargetExists, file_behind, new_file


def write(path: Path, replace: bool = False) -> None:
    with new_file(str(path), replace) as put:
        put(b"new")
        # Nobody takes a half for the whole.
        assert not path.exists() or path.read_bytes() == b"old"


def test_new(tmp_path: Path) -> None:
    write(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["a"]


@pytest.fixture(params=["links", "no-links"])
def links(request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a file has one name only."""

    def refuse(*args: object, **options: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if request.param == "no-links":
        monkeypatch.setattr(os, "link", refuse)


def test_taken(tmp_path: Path, links: None) -> None:
    write(tmp_path / "b")
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(TargetExists, match="a: it exists"):
        write(tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_taken_by_a_link(tmp_path: Path, links: None) -> None:
    (tmp_path / "a").symlink_to("nowhere")
    with pytest.raises(TargetExists):
        write(tmp_path / "a")
    assert os.listdir(tmp_path) == ["a"]


def test_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    write(tmp_path / "a", replace=True)
    assert (tmp_path / "a").read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_link_is_replaced_or_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "a").symlink_to("file")
    with file_behind(str(tmp_path / "a")) as put:
        put(b"behind")
    assert (tmp_path / "a").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"behind"
    with new_file(str(tmp_path / "a"), replace=True) as put:
        put(b"new")
    assert not (tmp_path / "a").is_symlink()
    assert (tmp_path / "file").read_bytes() == b"behind"


@pytest.mark.parametrize("kind", [KeyboardInterrupt, errors.Damaged])
def test_nothing_is_left(tmp_path: Path, kind: type[BaseException]) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(kind):
        with new_file(str(tmp_path / "a"), replace=True) as put:
            put(b"new")
            raise kind
    assert (tmp_path / "a").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_interrupt_after_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def late(*args: Any) -> None:
        rename(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a", replace=True)
    assert os.listdir(tmp_path) == ["a"]
