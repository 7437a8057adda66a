# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Seals: their bytes, and what is not believed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsm_ovfstore.format import record, seal
from vdsm_ovfstore.format.seal import Entry, Head, Member, Seal

DOMAIN = "5ba1c94e-9b3c-4b3a-8c8f-0c6ecb3a8f11"
IMAGE = "d524a172-f012-48a3-8190-78e6f3f79d00"
VOLUME = "0d2b1f22-d0bf-49de-8577-483913cb45e4"
IMAGE_2 = "7aa5ecbb-61d0-46c3-b8f7-ec44f2b5ba76"
VOLUME_2 = "c3b45fd1-26ac-4c65-9b2c-e1b8f24ecf52"
SHA = "ab" * 32
SHA_2 = "cd" * 32

SEAL = Seal(
    sequence=(3, 2),
    domain=DOMAIN,
    image=IMAGE,
    volume=VOLUME,
    members=(Member(VOLUME, IMAGE), Member(VOLUME_2, IMAGE_2, "error 3530")),
    kind=seal.REPLACING,
    introduces=(2, SHA_2),
    head=Head(2, 7680, SHA_2),
    previous=Head(1, 6144, SHA),
    description='{"Updated":true}',
    entries=(
        Entry(
            1, seal.GENERATION, 4096, 8192, 6144, SHA, 1593603787, 2, "user"
        ),
        Entry(2, seal.UNPROVEN, 12288, 8192, 7680, SHA_2, 1593603788, 3),
    ),
    host="host-1",
    tool="vdsm-ovfstore 1.0",
    time=1593603789,
)

# As it lies in the slot, without the line breaks.
TEXT = (
    '{"magic":"OVFSTORE-SEAL","version":1,"sequence":[3,2],'
    '"domain":"5ba1c94e-9b3c-4b3a-8c8f-0c6ecb3a8f11",'
    '"image":"d524a172-f012-48a3-8190-78e6f3f79d00",'
    '"volume":"0d2b1f22-d0bf-49de-8577-483913cb45e4",'
    '"members":[["0d2b1f22-d0bf-49de-8577-483913cb45e4",'
    '"d524a172-f012-48a3-8190-78e6f3f79d00",""],'
    '["c3b45fd1-26ac-4c65-9b2c-e1b8f24ecf52",'
    '"7aa5ecbb-61d0-46c3-b8f7-ec44f2b5ba76","error 3530"]],'
    f'"kind":"replacing","introduces":[2,"{SHA_2}"],'
    f'"head":{{"generation":2,"length":7680,"sha256":"{SHA_2}"}},'
    f'"previous":{{"generation":1,"length":6144,"sha256":"{SHA}"}},'
    '"description":"{\\"Updated\\":true}",'
    '"segments":[{"generation":1,"kind":"generation","offset":4096,'
    f'"stored":8192,"length":6144,"sha256":"{SHA}",'
    '"time":"2020-07-01T11:43:07Z","entities":2,"pinned":"user"},'
    '{"generation":2,"kind":"unproven","offset":12288,'
    f'"stored":8192,"length":7680,"sha256":"{SHA_2}",'
    '"time":"2020-07-01T11:43:08Z","entities":3,"pinned":""}],'
    '"host":"host-1","tool":"vdsm-ovfstore 1.0",'
    '"time":"2020-07-01T11:43:09Z"}'
)


def with_fields(**more: Any) -> bytes:
    """A slot with a right digest but other fields."""
    fields = {**json.loads(TEXT), **more}
    fields = {k: v for k, v in fields.items() if v is not ...}
    return record.pack(fields, seal.SLOT_SIZE)


def test_places() -> None:
    assert (seal.SLOT_SIZE, seal.SLOTS, seal.RING_SIZE) == (2**16, 16, 2**20)


def test_golden() -> None:
    data = seal.pack(SEAL)
    assert data[: len(TEXT)].decode("ascii") == TEXT
    assert data[len(TEXT) : -32] == bytes(65536 - 32 - len(TEXT))
    assert data[-32:] == hashlib.sha256(data[:-32]).digest()
    assert len(data) == 65536
    assert hashlib.sha256(data).hexdigest() == (
        "4d420e8a541f361d6c62679f11e833c20f4a6baf5f3436e30b4471136102dc81"
    )
    assert seal.unpack(data) == SEAL


def test_golden_without_options() -> None:
    first = SEAL._replace(
        members=(), introduces=None, head=None, previous=None, entries=()
    )
    data = seal.pack(first)
    assert (
        b'"members":[],"kind":"replacing","introduces":null,"head":null,'
        b'"previous":null,"description":"{\\"Updated\\":true}","segments":[],'
    ) in data
    assert seal.unpack(data) == first


def test_empty_head_is_the_digest_of_nothing() -> None:
    empty = hashlib.sha256(b"").hexdigest()
    assert tuple(seal.EMPTY_HEAD) == (0, 0, empty)


def test_fullest_seal_fits() -> None:
    most = SEAL._replace(
        sequence=(2**63 - 1, 2**63 - 1),
        members=tuple(
            Member(VOLUME, IMAGE, "x" * 64) for _ in range(seal.MAX_MEMBERS)
        ),
        description="x" * 512,  # what a metadata slot holds
        entries=tuple(
            Entry(2**63 - 1, seal.GENERATION, 2**40, 2**40, 2**40, SHA,
                  253402300799, 65536, "returned")
            for _ in range(seal.MAX_SEGMENTS)
        ),
        host="h" * 64,
    )  # fmt: skip
    assert seal.unpack(seal.pack(most)) == most


@pytest.mark.parametrize(
    "change",
    [
        {"entries": SEAL.entries[:1] * (seal.MAX_SEGMENTS + 1)},
        {"members": SEAL.members[:1] * (seal.MAX_MEMBERS + 1)},
        {"host": "x" * 65536},
    ],
    ids=["segments", "members", "text"],
)
def test_too_much_is_not_written(change: dict[str, Any]) -> None:
    with pytest.raises(record.RecordOverflow):
        seal.pack(SEAL._replace(**change))


# -- damage


def test_every_flipped_bit_of_the_text_is_detected() -> None:
    data = bytearray(seal.pack(SEAL))
    for at in [*range(len(TEXT) + 16), *range(65536 - 32, 65536)]:
        bit = 1 << at % 8
        data[at] ^= bit
        assert seal.unpack(bytes(data)) is None, at
        data[at] ^= bit
    assert seal.unpack(bytes(data)) == SEAL


@given(st.integers(0, 65535), st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_any_changed_byte_is_detected(at: int, mask: int) -> None:
    data = bytearray(seal.pack(SEAL))
    data[at] ^= mask
    assert seal.unpack(bytes(data)) is None


@pytest.mark.parametrize("sector", range(0, 65536, 4096))
def test_torn_between_two_seals(sector: int) -> None:
    """Some sectors of the new seal, the others of the old one."""
    old, new = seal.pack(SEAL._replace(sequence=(3, 1))), seal.pack(SEAL)
    torn = new[:sector] + old[sector:]
    assert seal.unpack(torn) == (
        None if sector else SEAL._replace(sequence=(3, 1))
    )


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    assert seal.unpack(data) is None
    assert seal.unpack(data.ljust(seal.SLOT_SIZE, b"\0")) is None


@pytest.mark.parametrize("version", [0, 2, True, "1", None], ids=repr)
def test_other_version(version: Any) -> None:
    with pytest.raises(record.UnknownVersion):
        seal.unpack(with_fields(version=version))


# -- a right digest, but hostile fields

WRONG: list[Any] = [
    None, True, -1, 2**63, 1.5, "x", "", [], [1], [None] * 3, ["x"], [[]],
    {}, {"x": 1}, [{}], [{"generation": 1}], "[1,2]", [1, 2, 3], [-1, 0],
    [0, True], [2**64, 0], [["a", "b", "c"]], [[VOLUME, IMAGE]],
    [[VOLUME, IMAGE, None]], [[VOLUME, IMAGE, "x" * 1025]], 10**40,
    float("nan"), float("inf"), "x" * 1025, ["abc"], {"a": 1, "b": 2, "c": 3},
    [["abc"] * 400],
]  # fmt: skip

# What is right for a field and stands among the wrong ones.
FINE: dict[str, list[Any]] = {
    "introduces": [None],
    "head": [None],
    "previous": [None],
    "members": [[]],
    "segments": [[]],
    "description": ["x", "", "[1,2]"],
    "host": ["x", "", "[1,2]"],
    "tool": ["x", "", "[1,2]"],
}


@pytest.mark.parametrize(
    "key", [k for k in json.loads(TEXT) if k not in ("magic", "version")]
)
def test_wrong_value(key: str) -> None:
    for value in [..., *WRONG]:
        fine = value in FINE.get(key, [])
        found = seal.unpack(with_fields(**{key: value}))
        assert (found is not None) == fine, value


@pytest.mark.parametrize("key", ["generation", "length", "sha256"])
@pytest.mark.parametrize("head", ["head", "previous"])
def test_wrong_value_in_head(head: str, key: str) -> None:
    fields = json.loads(TEXT)[head]
    for value in WRONG:
        changed = with_fields(**{head: {**fields, key: value}})
        assert seal.unpack(changed) is None, value
    del fields[key]
    assert seal.unpack(with_fields(**{head: fields})) is None


@pytest.mark.parametrize("key", SEAL.entries[0]._asdict())
def test_wrong_value_in_segment(key: str) -> None:
    fields = json.loads(TEXT)["segments"][0]
    for value in WRONG:
        fine = key == "pinned" and value in ("", "x", "[1,2]")
        found = seal.unpack(with_fields(segments=[{**fields, key: value}]))
        assert (found is not None) == fine, value
    del fields[key]
    assert seal.unpack(with_fields(segments=[fields])) is None


@pytest.mark.parametrize("key", ["offset", "stored"])
def test_segments_are_whole_blocks(key: str) -> None:
    fields = {**json.loads(TEXT)["segments"][0], key: 4097}
    assert seal.unpack(with_fields(segments=[fields])) is None


def test_too_many_are_not_read() -> None:
    segment = json.loads(TEXT)["segments"][0]
    member = [VOLUME, IMAGE, ""]
    assert seal.unpack(with_fields(segments=[segment] * 128)) is not None
    assert seal.unpack(with_fields(segments=[segment] * 129)) is None
    assert seal.unpack(with_fields(members=[member] * 16)) is not None
    assert seal.unpack(with_fields(members=[member] * 17)) is None


def test_unknown_fields_are_ignored() -> None:
    assert seal.unpack(with_fields(colour="red")) == SEAL


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(st.sampled_from(list(json.loads(TEXT))[2:]), JSON)
@settings(max_examples=150, deadline=None)
def test_any_value(key: str, value: Any) -> None:
    found = seal.unpack(with_fields(**{key: value}))
    assert found is None or isinstance(found, Seal)


# -- what a seal says


def test_find_shows_no_suspects() -> None:
    suspect = Entry(0, seal.SUSPECT, 0, 4096, 5, SHA, 0, 0)
    found = SEAL._replace(entries=(suspect, *SEAL.entries))
    assert found.find((0, SHA)) is None
    assert found.find((1, SHA)) == SEAL.entries[0]
    assert found.find((1, SHA_2)) is None
    assert found.generations() == SEAL.entries
    assert seal.unpack(seal.pack(found)) == found


def test_members() -> None:
    assert SEAL.member_ids() == {VOLUME, VOLUME_2}
    assert SEAL.excluded_ids() == {VOLUME_2}
    assert SEAL.replacing
    assert not SEAL._replace(previous=None).replacing
