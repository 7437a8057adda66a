# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The engine's own uploads on a file system that is full: the old generation
stays, and VDSM's own code is let write only where it finds room.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.test_stock import Bed
from tests.conftest import MakeFilesystem
from tests.store import builders
from tests.store.builders import MIB, archive, archives, head
from vdsm_ovfstore import errors
from vdsm_ovfstore.storage.filedomain import FileDomain

pytestmark = pytest.mark.root


class Full:
    """A store of one generation on a file system of its own."""

    def __init__(self, tmp_path: Path, mounted: Path) -> None:
        self.bed = Bed(tmp_path, mounted)
        self._filler = mounted / "filler"

    @property
    def domain(self) -> FileDomain:
        return self.bed.domain

    def tar(self, name: str, mib: int) -> bytes:
        return archive(
            self.domain, {name: builders.incompressible(mib * MIB)}
        )

    def fill(self, leave: int) -> None:
        """Take all the room there is but for so many bytes."""
        os.sync()
        with self._filler.open("ab", buffering=0) as file:
            for size in (MIB, 4096):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(size))
            # The file system needs some of it for itself.
            os.fsync(file.fileno())
            file.truncate(max(0, file.tell() - leave))
        os.sync()

    def store(self, tar: bytes) -> None:
        """On both volumes, as long as there is room."""
        for number in (0, 1):
            self.bed.put(number, tar)

    def put(self, tar: bytes) -> str:
        """Returns why it is left to VDSM, which would write it then."""
        with contextlib.closing(self.bed.receive(0, tar)) as upload:
            answer = upload.commit(30)
            assert bool(answer) != bool(upload.fallback)
            if upload.fallback:
                with upload.reader() as file:
                    builders.dd_write(self.bed.volumes[0], file.read())
            return upload.fallback


@pytest.fixture
def full(filesystem: MakeFilesystem, tmp_path: Path) -> Iterator[Full]:
    full = Full(tmp_path, filesystem(size=96 * MIB))
    yield full
    assert full.bed.spool.used == 0
    full.bed.runner.close()


def test_not_even_vdsm_has_room(full: Full) -> None:
    """The segment does not fit, nor would what dd writes."""
    old = full.tar("old", 1)
    full.store(old)
    full.fill(leave=512 * 1024)
    with pytest.raises(errors.StorageFull):
        full.put(full.tar("new", 3))
    assert head(full.bed.volumes[0], len(old)) == old
    assert archives(full.domain)[1] == old


def test_as_long_as_the_old_one(full: Full) -> None:
    """The old head's blocks alone are not to be relied on."""
    old = full.tar("old", 3)
    full.store(old)
    full.fill(leave=512 * 1024)
    with pytest.raises(errors.StorageFull):
        full.put(full.tar("new", 3))
    assert head(full.bed.volumes[0], len(old)) == old
    assert archives(full.domain)[1] == old


def test_in_the_middle_of_a_commit(full: Full) -> None:
    """The segment is sealed; the head does not fit beside the old one."""
    old, new = full.tar("old", 4), full.tar("new", 4)
    full.store(old)
    # Such a text takes 60 % of its length in the log.
    full.fill(leave=4 * MIB)
    assert "No space left" in full.put(new)
    assert head(full.bed.volumes[0], len(new)) == new
    assert set(archives(full.domain).values()) >= {old}
    # VDSM wrote what the newest seal names: the next tenure just says so.
    builders.repair(full.domain)
    assert set(archives(full.domain).values()) == {old, new}


def test_what_is_kept_nowhere_else_stays(full: Full) -> None:
    """A stock host wrote it, and the log has no room for it any more."""
    theirs = full.tar("theirs", 3)
    builders.stock_write(full.bed.volumes[0], theirs, updated=False)
    full.fill(leave=512 * 1024)
    with pytest.raises(errors.StorageFull):
        full.put(full.tar("new", 2))
    assert head(full.bed.volumes[0]) == theirs


def test_no_archive(full: Full) -> None:
    """It is VDSM's to write, unless it cannot."""
    old = full.tar("old", 1)
    full.store(old)
    full.fill(leave=512 * 1024)
    with pytest.raises(errors.StorageFull):
        full.put(b"x" * 3 * MIB)
    assert head(full.bed.volumes[0], len(old)) == old
    assert full.put(b"x" * MIB) != ""
    assert head(full.bed.volumes[0], MIB) == b"x" * MIB
