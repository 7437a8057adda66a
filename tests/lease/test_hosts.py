# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Host names from a lockspace, which may hold anything."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from vdsm_ovfstore.lease.hosts import MAGIC, MAX_HOSTS, host_name, parse_name


def leader(
    magic: int = MAGIC,
    owner: int = 3,
    space: bytes = b"domain",
    name: bytes = b"host-3",
) -> bytes:
    data = struct.pack(
        "<4I5Q48s48sQ",
        *(magic, 0x00030004, 0, 512),
        *(1, 2000, owner, 1, 0),
        *(space, name, 12345),
    )
    return data.ljust(512, b"\0")


def test_name() -> None:
    assert parse_name(leader(), "domain", 3) == "host-3"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(leader()[:100], id="cut"),
        pytest.param(bytes(512), id="zeros"),
        pytest.param(b"\xff" * 512, id="ones"),
        pytest.param(leader(magic=MAGIC + 1), id="magic"),
        pytest.param(leader(owner=4), id="other-host"),
        pytest.param(leader(space=b"other"), id="other-lockspace"),
    ],
)
def test_no_name(data: bytes) -> None:
    assert parse_name(data, "domain", 3) == ""


def test_control_characters() -> None:
    data = leader(name=b"\x1b[2Ja\nb\xff")
    assert parse_name(data, "domain", 3) == "?[2Ja?b\ufffd"


@pytest.mark.parametrize("sector", [512, 4096])
def test_from_file(tmp_path: Path, sector: int) -> None:
    path = tmp_path / "ids"
    path.write_bytes(bytes(2 * sector) + leader().ljust(sector, b"\0"))
    assert host_name(str(path), "domain", 3, sector) == "host-3"
    assert host_name(str(path), "domain", 2, sector) == ""
    assert host_name(str(path), "domain", 4, sector) == ""


@pytest.mark.parametrize("host_id", [-1, 0, MAX_HOSTS + 1, 2**64 - 1])
def test_impossible_host(tmp_path: Path, host_id: int) -> None:
    path = tmp_path / "ids"
    path.write_bytes(leader() * 4)
    assert host_name(str(path), "domain", host_id, 512) == ""


def test_missing_file(tmp_path: Path) -> None:
    assert host_name(str(tmp_path / "ids"), "domain", 1, 512) == ""
