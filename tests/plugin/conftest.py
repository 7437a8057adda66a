# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.plugin.bed import Bed

STANDIN = str(Path(__file__).parent / "standin")


@contextlib.contextmanager
def importing(path: str) -> Iterator[None]:
    """The package vdsm comes from there, fresh, and is gone afterwards."""

    def forget() -> None:
        for name in list(sys.modules):
            if name == "vdsm" or name.startswith("vdsm."):
                del sys.modules[name]

    forget()
    sys.path.insert(0, path)
    try:
        yield
    finally:
        sys.path.remove(path)
        forget()


@pytest.fixture
def standin() -> Iterator[None]:
    """VDSM as the contract pins it."""
    log = logging.getLogger("ovfstore")
    level = log.level
    with importing(STANDIN):
        yield
    # As the configuration of the plugin has set it.
    log.setLevel(level)


@pytest.fixture
def bed(
    tmp_path: Path, standin: None, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bed]:
    """A vdsmd that is SPM of a pool with one domain, and the plugin in it."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with contextlib.closing(Bed(tmp_path)) as bed:
        yield bed
    assert os.listdir(tmp_path / "spool") == []
