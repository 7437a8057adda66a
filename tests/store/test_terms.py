# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What a store can take, told before it is sent."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.cli.harness import (
    OVF,
    Cli,
    Store,
    archive,
    damage,
    make_store,
)
from vdsm_ovfstore import errors
from vdsm_ovfstore.format.seal import RING_SIZE
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.reader import Reader
from vdsm_ovfstore.store.terms import (
    Terms,
    check_room,
    check_size,
    terms,
    way_out,
)

MIB = 1024**2
TERMS = Terms(limit=8 * MIB, room=3 * MIB, newest="ab", known={}, copies=2)


def read(store: Store) -> Terms:
    with Reader(FileDomain.open(str(store.path))) as reader:
        return terms(reader)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    parent = tmp_path_factory.mktemp("terms")
    return make_store(Cli(parent), parent)


def test_of_a_store(store: Store) -> None:
    empty = read(store)
    assert empty.limit == 8 * MIB
    assert empty.room <= 8 * MIB - RING_SIZE
    assert (empty.newest, empty.known, empty.copies) == ("", {}, 2)

    answer = store.upload("web", "db")
    found = read(store)
    assert found.newest == answer["sha256"]
    digest = hashlib.sha256(OVF.format(name="web").encode()).hexdigest()
    assert found.known[digest] == ("vm", "web", ())
    assert len(found.known) == 2

    # Nothing is known then; what can be taken is.
    for copy, status in enumerate(store.copies()):
        damage(Path(status["path"]), 148)
        damage(store.log(copy), 0, 7 * MIB)
    damaged = read(store)
    assert damaged.known == {}
    assert damaged.limit == 8 * MIB
    assert store.upload("web", "db", "new")["entities"] == 3
    assert store.ok("download").out == archive("web", "db", "new")


def test_size() -> None:
    check_size(8 * MIB, TERMS)
    with pytest.raises(errors.ArchiveTooLarge) as e:
        check_size(8 * MIB + 1, TERMS)
    assert e.value.fields()["size"] == 8 * MIB + 1
    assert "--copies 4 --size 32" in e.value.next_step


def test_room() -> None:
    check_room(3 * MIB, "cd", TERMS)
    check_room(9 * MIB, "ab", TERMS)  # it is there already
    with pytest.raises(errors.ArchiveTooLarge, match="the logs of this"):
        check_room(3 * MIB + 1, "cd", TERMS)


@pytest.mark.parametrize(
    "wanted,size",
    [
        pytest.param(0, 32, id="twice-the-limit"),
        pytest.param(16 * MIB - 1, 32, id="less"),
        pytest.param(40 * MIB, 64, id="more"),
    ],
)
def test_way_out(wanted: int, size: int) -> None:
    assert way_out(TERMS, wanted).endswith(f"--copies 4 --size {size}")
