# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""New leases and lockspaces, written by a real sanlock daemon."""

from __future__ import annotations

import json
import os
import struct
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.sanlockd import SanlockHost, make_leases, make_lockspace, missing
from vdsm_ovfstore import errors
from vdsm_ovfstore.lease.address import LeaseAddress
from vdsm_ovfstore.lease.format import (
    domain_lease,
    format_lease,
    format_lockspace,
)

MIB = 1024**2
DOMAIN = str(uuid.uuid4())
VOLUME = str(uuid.uuid4())

needs_sanlock = [
    pytest.mark.sanlock,
    pytest.mark.skipif(bool(missing()), reason=missing() or "-"),
]

READ = """
import json, sys, sanlock
kind, path, offset, align, sector = sys.argv[1:]
read = getattr(sanlock, "read_" + kind)
found = read(path, int(offset), align=int(align), sector=int(sector))
print(json.dumps({k: v.decode() if isinstance(v, bytes) else v
                  for k, v in found.items()}))
"""

FORMAT = """
import json, sys
from vdsm_ovfstore import errors
from vdsm_ovfstore.lease.format import format_lease, format_lockspace
function, *args = json.loads(sys.argv[1])
try:
    globals()[function](*args)
except errors.Error as e:
    print(type(e).__name__, e)
"""


@pytest.fixture(scope="module")
def host() -> Iterator[SanlockHost]:
    with SanlockHost(1) as host:
        yield host


def read(host: SanlockHost, *args: object) -> Any:
    return json.loads(host.python("-c", READ, *map(str, args)).stdout)


def format_as(host: SanlockHost, *args: object) -> str:
    return host.python("-c", FORMAT, json.dumps(args)).stdout


SIZES = pytest.mark.parametrize(
    "sector,align",
    [
        pytest.param(512, MIB, id="512-1m"),
        pytest.param(4096, MIB, id="4096-1m"),
        pytest.param(4096, 8 * MIB, id="4096-8m"),
    ],
)


class TestWithDaemon:
    pytestmark = needs_sanlock

    @SIZES
    def test_lease(
        self, host: SanlockHost, tmp_path: Path, sector: int, align: int
    ) -> None:
        path = str(tmp_path / "leases")
        lease = LeaseAddress(DOMAIN, VOLUME, path, align)
        make_leases(host, [lease], sector, align)
        found = read(host, "resource", path, align, align, sector)
        assert found["lockspace"] == DOMAIN
        assert found["resource"] == VOLUME
        # Nothing before its offset.
        assert not Path(path).read_bytes()[:align].strip(b"\0")

    @SIZES
    def test_lockspace(
        self, host: SanlockHost, tmp_path: Path, sector: int, align: int
    ) -> None:
        path = str(tmp_path / "ids")
        make_lockspace(host, DOMAIN, path, sector, align)
        found = read(host, "lockspace", path, 0, align, sector)
        assert found["lockspace"] == DOMAIN
        magic, _, _, size = struct.unpack_from("<4I", Path(path).read_bytes())
        assert (magic, size) == (0x12212010, sector)

    @pytest.mark.parametrize(
        "function,args",
        [
            ("format_lease", [DOMAIN, VOLUME, "PATH", 0, MIB, 512]),
            ("format_lockspace", [DOMAIN, "PATH", MIB, 512]),
        ],
        ids=["lease", "lockspace"],
    )
    def test_missing_file(
        self,
        host: SanlockHost,
        tmp_path: Path,
        function: str,
        args: list[Any],
    ) -> None:
        path = str(tmp_path / "none")
        args = [path if a == "PATH" else a for a in args]
        answer = format_as(host, function, *args)
        assert answer.startswith("LeaseFailed")
        assert not os.path.exists(path)

    def test_bad_sector(self, host: SanlockHost, tmp_path: Path) -> None:
        path = tmp_path / "lease"
        path.write_bytes(bytes(MIB))
        args = (DOMAIN, VOLUME, str(path), 0, MIB, 1000)
        assert "LeaseFailed" in format_as(host, "format_lease", *args)

    def test_without_daemon(self, tmp_path: Path) -> None:
        path = tmp_path / "lease"
        path.write_bytes(b"")
        host = SanlockHost(9)
        host.run_dir = str(tmp_path / "run")
        os.mkdir(host.run_dir)
        args = (DOMAIN, VOLUME, str(path), 0)
        answer = format_as(host, "format_lease", *args)
        assert answer.startswith("SanlockUnavailable")
        assert "does not run" in answer


def test_without_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sanlock", None)
    with pytest.raises(errors.SanlockUnavailable):
        format_lease(DOMAIN, VOLUME, "/nowhere", 0)
    with pytest.raises(errors.SanlockUnavailable):
        format_lockspace(DOMAIN, "/nowhere")


class FakeDomain(NamedTuple):
    id: str
    path: str
    alignment: int


def test_domain_lease() -> None:
    lease = domain_lease(FakeDomain(DOMAIN, "/mnt/d", 8 * MIB))
    assert lease == (DOMAIN, "SDM", "/mnt/d/dom_md/leases", 8 * MIB)
