# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Domains and volumes whose leases a real sanlock writes and takes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sanlockd import SanlockHost, join, missing
from vdsm_ovfstore.storage.filedomain import FileDomain

pytestmark = [
    pytest.mark.sanlock,
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

CREATE = """
import sys
from vdsm_ovfstore.lease.format import format_lease, format_lockspace
from vdsm_ovfstore.storage.filedomain import create_domain
path, block_size = sys.argv[1], int(sys.argv[2])
domain = create_domain(
    path,
    "GLUSTERFS",
    block_size=block_size,
    format_lockspace=format_lockspace,
    format_lease=format_lease,
)
for _ in range(2):
    domain.create_volume(format_lease=format_lease)
"""

TAKE = """
import sys, sanlock
lockspace, sector = sys.argv[1].encode(), int(sys.argv[2])
fd = sanlock.register()
for lease in sys.argv[3:]:
    resource, path, offset = lease.split("|")
    disks = [(path, int(offset))]
    sanlock.acquire(lockspace, resource.encode(), disks, slkfd=fd)
    read = sanlock.read_resource(path, int(offset), sector=sector)
    print(read["resource"].decode(), len(
        sanlock.read_resource_owners(
            lockspace, resource.encode(), disks, sector=sector)))
"""


@pytest.fixture(scope="module")
def host() -> Iterator[SanlockHost]:
    with SanlockHost(1) as host:
        yield host


@pytest.mark.parametrize(
    "block_size", [pytest.param(512, id="512"), pytest.param(4096, id="4k")]
)
def test_leases_can_be_taken(
    host: SanlockHost, tmp_path: Path, block_size: int
) -> None:
    host.python("-c", CREATE, str(tmp_path), str(block_size))
    domain = FileDomain.open(str(tmp_path))
    volumes = domain.volumes()
    assert len(volumes) == 2
    assert domain.lock_kind == "sanlock"
    ids = os.path.join(domain.path, "dom_md/ids")
    join([host], domain.id, ids)
    leases = os.path.join(domain.path, "dom_md/leases")
    wanted = [f"SDM|{leases}|{domain.alignment}"]
    wanted += [f"{v.id}|{v.lease.path}|{v.lease.offset}" for v in volumes]
    done = host.python("-c", TAKE, domain.id, str(block_size), *wanted)
    expected = [f"{w.split('|')[0]} 1" for w in wanted]
    assert done.stdout.splitlines() == expected
