# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Domain metadata: byte for byte what VDSM writes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.sdmeta import DomainMetadata

# Written by VDSM.
V5 = b"""\
ALIGNMENT=1048576
BLOCK_SIZE=4096
CLASS=Data
DESCRIPTION=data
IOOPTIMEOUTSEC=10
LEASERETRIES=3
LEASETIMESEC=60
LOCKPOLICY=
LOCKRENEWALINTERVALSEC=5
POOL_UUID=993dbe92-6e2b-4565-b929-b77607ac5204
REMOTE_PATH=server.example.com:/export/localfs-v5-4k
ROLE=Regular
SDUUID=a588e40d-20e3-4298-8041-943bb1516269
TYPE=LOCALFS
VERSION=5
_SHA_CKSUM=186435a6a929c53499053ca74ccddf05599df973
"""

V4 = b"""\
CLASS=Data
DESCRIPTION=data
IOOPTIMEOUTSEC=10
LEASERETRIES=3
LEASETIMESEC=60
LOCKPOLICY=
LOCKRENEWALINTERVALSEC=5
POOL_UUID=973281d1-01e1-4beb-b1a2-5d7c347ab225
REMOTE_PATH=server.example.com:/export/nfs-v4
ROLE=Regular
SDUUID=4eccf6ce-15e1-4496-8a6b-9ece094deffb
TYPE=NFS
VERSION=4
_SHA_CKSUM=51446c52d11367d2ea9f3d7ed8e525219508d775
"""

PATH = "/mnt/dom_md/metadata"


def parse(data: bytes) -> DomainMetadata:
    return DomainMetadata.parse(data, PATH)


def sealed(data: bytes, **changes: Any) -> bytes:
    """V5 with changes and a new checksum."""
    return parse(data)._replace(**changes).text()


@pytest.mark.parametrize(
    "golden", [pytest.param(V4, id="v4"), pytest.param(V5, id="v5")]
)
def test_golden(golden: bytes) -> None:
    assert parse(golden).text() == golden


def test_fields_v5() -> None:
    found = parse(V5)
    assert found._replace(other={}) == DomainMetadata(
        uuid="a588e40d-20e3-4298-8041-943bb1516269",
        version=5,
        type="LOCALFS",
        block_size=4096,
        alignment=1024**2,
        pool="993dbe92-6e2b-4565-b929-b77607ac5204",
        role="Regular",
        class_="Data",
        description="data",
        other={},
    )
    assert found.other["REMOTE_PATH"].endswith("localfs-v5-4k")


def test_defaults_v4() -> None:
    found = parse(V4)
    assert found.version == 4
    assert found.block_size == 512
    assert found.alignment == 1024**2


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(V5 + b"\0" * 3000, id="padded"),
        pytest.param(b"".join(reversed(V5.splitlines(True))), id="unsorted"),
        pytest.param(V5 + b"no key\n", id="no-key"),
    ],
)
def test_parse_as_vdsm_does(data: bytes) -> None:
    assert parse(data) == parse(V5)


def test_description_is_not_ascii() -> None:
    # The checksum is that of VDSM's lib/vdsm/storage/persistent.py.
    data = sealed(
        V5, description="\u017dlu\u0165ou\u010dk\u00fd k\u016f\u0148"
    )
    assert "DESCRIPTION=\u017dlu\u0165".encode() in data
    assert data.endswith(
        b"_SHA_CKSUM=4a861f1509a0fc742cc6428aaab57ebde6d0fd8c\n"
    )
    assert parse(data).description.startswith("\u017dlu")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "empty", id="empty"),
        pytest.param(b"\0" * 4096, "empty", id="zeros"),
        pytest.param(V5[:-60], "no checksum", id="cut"),
        pytest.param(V5.replace(b"=data", b"=Data"), "checksum", id="changed"),
        pytest.param(V5.replace(b"186", b"187"), "checksum", id="checksum"),
        pytest.param(V5.replace(b"data", b"\xff"), "UTF-8", id="latin-1"),
        pytest.param(V5 + b"x" * 70000, "takes", id="long"),
        pytest.param(sealed(V5, uuid="x"), "not a UUID", id="uuid"),
        pytest.param(sealed(V5, version=-1), "VERSION is '-1'", id="version"),
        pytest.param(sealed(V5, block_size=-1), "BLOCK_SIZE", id="block-size"),
        pytest.param(
            b"A=1\n_SHA_CKSUM=68c2c79351bbe3c6bcc6ed4ed29532c3bda26667\n",
            "no SDUUID",
            id="other",
        ),
    ],
)
def test_invalid(data: bytes, reason: str) -> None:
    with pytest.raises(errors.DomainMetadataInvalid) as e:
        parse(data)
    assert reason in e.value.fields()["reason"]
    assert e.value.fields()["path"] == PATH


@pytest.mark.parametrize("separator", ["\n", "\r", "\x0b", "\u2028"])
def test_no_key_is_injected(separator: str) -> None:
    evil = parse(V5)._replace(description=f"a{separator}POOL_UUID=")
    with pytest.raises(errors.DomainMetadataInvalid):
        evil.text()


@given(st.binary(max_size=30), st.integers(0, len(V5)), st.integers(0, 30))
def test_every_corruption_is_found(
    junk: bytes, position: int, removed: int
) -> None:
    data = V5[:position] + junk + V5[position + removed :]
    try:
        found = parse(data)
    except errors.DomainMetadataInvalid as e:
        assert str(e)
    else:
        assert found == parse(V5)


def test_new_domain() -> None:
    new = DomainMetadata(
        uuid="a588e40d-20e3-4298-8041-943bb1516269", version=5, type="LOCALFS"
    )
    assert parse(new.text()) == new
