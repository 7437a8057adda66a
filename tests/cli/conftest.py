# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Stores for the tests of the command; see harness.py."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.harness import Cli, Store, make_store


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    return Cli(tmp_path)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one generation: web and db."""
    path = tmp_path_factory.mktemp("model")
    store = make_store(Cli(path), path)
    store.upload("web", "db")
    return store.path


@pytest.fixture
def store(model: Path, cli: Cli, tmp_path: Path) -> Iterator[Store]:
    """A store of its own for each test, with one generation: web and db."""
    target = tmp_path / "domains"
    target.mkdir()
    subprocess.run(
        ["cp", "-a", "--sparse=always", str(model), str(target)], check=True
    )
    yield Store(target / model.name, cli)
    shutil.rmtree(target, ignore_errors=True)


@pytest.fixture
def empty(cli: Cli, tmp_path: Path) -> Store:
    """A store that was never written."""
    target = tmp_path / "empty"
    target.mkdir()
    return make_store(cli, target)
