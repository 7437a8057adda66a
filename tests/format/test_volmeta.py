# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Volume metadata: byte for byte what VDSM writes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import description, volmeta
from vdsm_ovfstore.format.volmeta import VolumeMetadata

DOMAIN = "fd44fb22-a759-4034-bbe6-46a8bc05f493"
IMAGE = "9a8d91ff-b1c4-40df-83dd-a478997a6b95"
VOLUME = "72d0e430-a1f9-48a6-b38f-e4a97d8babf1"

DESCRIPTION = (
    '{"Updated":true,"Size":10240,'
    '"Last Updated":"Sun Nov 22 12:08:21 UTC 2026",'
    f'"Storage Domains":[{{"uuid":"{DOMAIN}"}}],'
    '"Disk Description":"OVF_STORE"}'
)

# Written by VDSM.
V5 = f"""\
CAP=134217728
CTIME=1795349301
DESCRIPTION={DESCRIPTION}
DISKTYPE=OVFS
DOMAIN={DOMAIN}
FORMAT=RAW
GEN=0
IMAGE={IMAGE}
LEGALITY=LEGAL
PUUID=00000000-0000-0000-0000-000000000000
SEQ=0
TYPE=SPARSE
VOLTYPE=LEAF
EOF
""".encode()

V4 = f"""\
CTIME=1795349301
DESCRIPTION={DESCRIPTION}
DISKTYPE=OVFS
DOMAIN={DOMAIN}
FORMAT=RAW
GEN=0
IMAGE={IMAGE}
LEGALITY=LEGAL
MTIME=0
PUUID=00000000-0000-0000-0000-000000000000
SIZE=262144
TYPE=SPARSE
VOLTYPE=LEAF
EOF
""".encode()

EXPECTED = VolumeMetadata(
    domain=DOMAIN,
    image=IMAGE,
    capacity=128 * 1024**2,
    ctime=1795349301,
    description=DESCRIPTION,
)


def parse(data: bytes) -> VolumeMetadata:
    return VolumeMetadata.parse(data, VOLUME, "/mnt/x.meta")


@pytest.mark.parametrize(
    ("version", "golden"),
    [
        pytest.param(3, V4, id="v3"),
        pytest.param(4, V4, id="v4"),
        pytest.param(5, V5, id="v5"),
    ],
)
def test_golden(version: int, golden: bytes) -> None:
    assert parse(golden) == EXPECTED
    assert EXPECTED.text(version) == golden


def test_all_keys() -> None:
    data = b"".join(
        b"%s=%s\n" % item
        for item in {
            b"CAP": b"1",
            b"CTIME": b"2",
            b"DESCRIPTION": b"a=b",
            b"DISKTYPE": b"DATA",
            b"DOMAIN": b"d",
            b"FORMAT": b"COW",
            b"GEN": b"998",
            b"IMAGE": b"i",
            b"LEGALITY": b"ILLEGAL",
            b"PUUID": b"p",
            b"SEQ": b"4294967295",
            b"TYPE": b"PREALLOCATED",
            b"VOLTYPE": b"INTERNAL",
        }.items()
    )
    found = parse(data + b"EOF\n")
    assert found == VolumeMetadata(
        domain="d",
        image="i",
        capacity=1,
        ctime=2,
        description="a=b",
        disktype="DATA",
        format="COW",
        type="PREALLOCATED",
        voltype="INTERNAL",
        puuid="p",
        legality="ILLEGAL",
        generation=998,
        sequence=2**32 - 1,
    )
    assert found.text(5) == data + b"EOF\n"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(V5 + b"\0" * (4096 - len(V5)), id="padded"),
        pytest.param(V5 + b"\0" * 8192, id="padded-more"),
        pytest.param(V5 + b"CAP=1\n", id="after-eof"),
        pytest.param(V5.replace(b"GEN=0\n", b""), id="no-generation"),
        pytest.param(V5.replace(b"SEQ=0\n", b""), id="no-sequence"),
        pytest.param(b"FUTURE=1\n" + V5, id="unknown-key"),
        pytest.param(b"no key\n" + V5, id="no-key"),
        pytest.param(V5.replace(b"=RAW", b" = RAW "), id="white-space"),
        pytest.param(b"SIZE=1\n" + V5, id="cap-before-size"),
        pytest.param(V5.replace(b"EOF\n", b""), id="no-eof"),
    ],
)
def test_parse_as_vdsm_does(data: bytes) -> None:
    assert parse(data) == EXPECTED


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(b"", "no DOMAIN", id="empty"),
        pytest.param(b"\0" * 512, "no DOMAIN", id="zeros"),
        pytest.param(
            b"NONE=" + b"#" * 502 + b"\nEOF\n", "clear", id="cleared"
        ),
        pytest.param(V5[:100], "no DOMAIN", id="cut"),
        pytest.param(V5.replace(b"CAP", b"CAPA"), "no CAP", id="no-capacity"),
        pytest.param(V5.replace(b"GEN=0", b"GEN=x"), "GEN is 'x'", id="text"),
        pytest.param(V5.replace(b"GEN=0", b"GEN=-1"), "GEN", id="negative"),
        pytest.param(V5.replace(b"GEN=0", b"GEN=1_0"), "GEN", id="underscore"),
        pytest.param(
            V5.replace(b"GEN=0", "GEN=\u0663".encode()), "GEN", id="arabic"
        ),
        pytest.param(
            V5.replace(b"GEN=0", b"GEN=" + b"1" * 3000), "GEN", id="huge"
        ),
        pytest.param(V4.replace(b"SIZE=2", b"SIZE=x"), "SIZE", id="size"),
        pytest.param(V5.replace(b"RAW", b"\xff"), "UTF-8", id="latin-1"),
        pytest.param(b"A=" + b"x" * 5000 + b"\n" + V5, "takes", id="long"),
    ],
)
def test_unreadable(data: bytes, reason: str) -> None:
    with pytest.raises(errors.VolumeMetadataUnreadable) as e:
        parse(data)
    assert reason in e.value.fields()["reason"]
    assert e.value.fields()["volume"] == VOLUME
    assert e.value.fields()["path"] == "/mnt/x.meta"


@given(st.binary(max_size=30), st.integers(0, len(V5)), st.integers(0, 30))
def test_corruption_gives_a_typed_error_or_nothing(
    junk: bytes, position: int, removed: int
) -> None:
    data = V5[:position] + junk + V5[position + removed :]
    try:
        found = parse(data)
    except errors.VolumeMetadataUnreadable as e:
        assert str(e)
    else:
        assert found.capacity >= 0


def test_updated() -> None:
    text = description.build(DOMAIN, 10**9, 1795349302)
    updated = EXPECTED.updated(text)
    assert updated == EXPECTED._replace(description=text, generation=1)
    assert parse(updated.text(4)).description == text


def test_generation_wraps() -> None:
    last = EXPECTED._replace(generation=999)
    assert last.updated("").generation == 0


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("a\nLEGALITY=LEGAL", id="line-feed"),
        pytest.param("x" * 211, id="long"),
        pytest.param("\u20ac", id="euro"),
    ],
)
def test_updated_refuses(text: str) -> None:
    with pytest.raises(errors.DescriptionInvalid):
        EXPECTED.updated(text)


@pytest.mark.parametrize("separator", ["\n", "\r"])
def test_no_key_is_injected(separator: str) -> None:
    evil = EXPECTED._replace(description=f"a{separator}LEGALITY=FAKE")
    with pytest.raises(errors.DescriptionInvalid):
        evil.text(5)


def test_foreign_description_survives() -> None:
    # Another program may have set one that we would not write.
    other = EXPECTED._replace(description="\u20ac \x0b \u2028.")
    assert parse(other.text(5)) == other


def test_overflow() -> None:
    with pytest.raises(errors.MetadataOverflow) as e:
        EXPECTED._replace(description="\u20ac" * 210).text(5)
    assert e.value.fields()["limit"] == 512
    assert e.value.fields()["size"] > 512


@pytest.mark.parametrize("version", [4, 5])
def test_the_longest_fits(version: int) -> None:
    longest = EXPECTED._replace(
        capacity=2**50,
        description="x" * 210,
        generation=999,
        legality="ILLEGAL",
        sequence=2**32 - 1,
        type="PREALLOCATED",
    )
    assert len(longest.text(version)) <= 512


def test_is_store() -> None:
    assert EXPECTED.is_store()
    assert not EXPECTED._replace(disktype="DATA").is_store()


def test_enforce_accepts() -> None:
    EXPECTED.enforce(VOLUME, DOMAIN, IMAGE)


@pytest.mark.parametrize(
    ("field", "value", "key"),
    [
        pytest.param("disktype", "DATA", "DISKTYPE", id="disktype"),
        pytest.param("format", "COW", "FORMAT", id="format"),
        pytest.param("voltype", "SHARED", "VOLTYPE", id="voltype"),
        pytest.param("puuid", VOLUME, "PUUID", id="puuid"),
        pytest.param("domain", VOLUME, "DOMAIN", id="domain"),
        pytest.param("image", VOLUME, "IMAGE", id="image"),
    ],
)
def test_enforce_refuses(field: str, value: str, key: str) -> None:
    changes: dict[str, Any] = {field: value}
    wrong = EXPECTED._replace(**changes)
    with pytest.raises(errors.VolumeRefused) as e:
        wrong.enforce(VOLUME, DOMAIN, IMAGE)
    assert e.value.fields()["key"] == key
    assert e.value.fields()["found"] == value
    assert e.value.fields()["volume"] == VOLUME


def test_defaults_are_a_new_store() -> None:
    new = VolumeMetadata(
        domain=DOMAIN, image=IMAGE, capacity=volmeta.METADATA_SIZE, ctime=0
    )
    new.enforce(VOLUME, DOMAIN, IMAGE)
    assert new.legality == "LEGAL"
