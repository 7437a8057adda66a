# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Real domains and real file systems for the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest

DATA = Path(__file__).parent / "data"

# The domains in data/domain-trees.tar.gz, made by VDSM's own code.
TREES = ("nfs-v4", "nfs-v5", "localfs-v5", "localfs-v5-4k")


class MakeTree(Protocol):
    def __call__(self, name: str, parent: Path | None = None) -> Path: ...


class MakeFilesystem(Protocol):
    def __call__(self, sector: int = 512, size: int = 48 << 20) -> Path: ...


@pytest.fixture
def domain_tree(tmp_path: Path) -> MakeTree:
    """
    Unpacks one of TREES and returns the domain's directory.

    As root, the files belong to 36:36 as on a host.
    """

    def make(name: str, parent: Path | None = None) -> Path:
        assert name in TREES
        target = parent or tmp_path
        _unpack(name, target)
        (domain,) = (target / name).iterdir()
        return domain

    return make


@pytest.fixture
def filesystem(tmp_path: Path) -> Iterator[MakeFilesystem]:
    """
    Makes an ext4 on a loop device with sectors of 512 or 4096 bytes.

    Returns the directory it is mounted at. Skips when this host cannot.
    """
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system")
    for tool in ("losetup", "mkfs.ext4", "mount"):
        if shutil.which(tool) is None:
            pytest.skip(f"there is no {tool} on this host")
    count = 0
    with ExitStack() as stack:

        def make(sector: int = 512, size: int = 48 << 20) -> Path:
            nonlocal count
            count += 1
            image = tmp_path / f"disk{count}"
            with image.open("wb") as f:
                f.truncate(size)
            device = _loop(image, sector)
            stack.callback(run, "losetup", "--detach", device)
            # Blocks of 4 KiB also on a small disk; no space kept for root.
            run("mkfs.ext4", "-q", "-b", "4096", "-m", "0", device)
            mounted = tmp_path / f"mnt{count}"
            mounted.mkdir()
            run("mount", device, str(mounted))
            stack.callback(run, "umount", "--lazy", str(mounted))
            return mounted

        yield make


def _loop(image: Path, sector: int) -> str:
    find = ("losetup", "--find", "--show", "--sector-size", str(sector))
    try:
        return run(*find, str(image))
    except subprocess.CalledProcessError as e:
        pytest.skip(f"no loop device here: {e.stderr.strip()}")


def run(*args: str) -> str:
    done = subprocess.run(args, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def _unpack(name: str, target: Path) -> None:
    options: dict[str, Any] = {"numeric_owner": True}
    if hasattr(tarfile, "fully_trusted_filter"):
        options["filter"] = "fully_trusted"  # it keeps mode and owner
    with tarfile.open(DATA / "domain-trees.tar.gz") as tar:
        members = [m for m in tar if m.name.split("/")[0] == name]
        tar.extractall(target, members, **options)
