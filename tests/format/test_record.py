# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Records: their bytes, and what is not believed."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsm_ovfstore.format import record

MAGIC = "OVFSTORE-TEST"
SIZE = 256
FIELDS: dict[str, Any] = {"magic": MAGIC, "version": 1, "answer": 42}


def sealed(body: bytes, size: int = SIZE) -> bytes:
    """Any bytes as a record with the right digest."""
    padded = body.ljust(size - 32, b"\0")
    assert len(padded) == size - 32
    return padded + hashlib.sha256(padded).digest()


def with_fields(**more: Any) -> bytes:
    """A sound record with other fields, also such as pack() cannot make."""
    return sealed(
        json.dumps({**FIELDS, **more}, separators=(",", ":")).encode()
    )


def test_golden() -> None:
    data = record.pack(FIELDS, SIZE)
    text = b'{"magic":"OVFSTORE-TEST","version":1,"answer":42}'
    assert data[:49] == text
    assert data[49:224] == bytes(175)
    assert data[224:].hex() == (
        "01a3983f4262c4ffcc1c052ca3bb9b300d284aab58802e2da6cef803ad0e42d9"
    )
    assert record.unpack(data, MAGIC) == FIELDS


def test_non_ascii_is_escaped() -> None:
    data = record.pack({**FIELDS, "host": "zürich 😀"}, SIZE)
    assert rb'"host":"z\u00fcrich \ud83d\ude00"}' in data
    assert record.unpack(data, MAGIC) == {**FIELDS, "host": "zürich 😀"}


def test_fills_the_block_to_the_last_byte() -> None:
    room = (
        SIZE - 32 - len(json.dumps({**FIELDS, "x": ""}, separators=(",", ":")))
    )
    full = {**FIELDS, "x": "y" * room}
    data = record.pack(full, SIZE)
    assert len(data) == SIZE and b"\0" not in data[:-32]
    assert record.unpack(data, MAGIC) == full
    with pytest.raises(record.RecordOverflow):
        record.pack({**FIELDS, "x": "y" * (room + 1)}, SIZE)


def test_every_flipped_bit_is_detected() -> None:
    data = record.pack(FIELDS, SIZE)
    for bit in range(SIZE * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert record.unpack(bytes(damaged), MAGIC) is None, bit


@pytest.mark.parametrize("length", [0, 1, 31, 32, 33, 100, SIZE - 1])
def test_cut(length: int) -> None:
    assert record.unpack(record.pack(FIELDS, SIZE)[:length], MAGIC) is None


def test_other_magic() -> None:
    assert record.unpack(record.pack(FIELDS, SIZE), "OVFSTORE-TES") is None
    assert record.unpack(record.pack(FIELDS, SIZE), "OVFSTORE-TESTS") is None


@given(st.binary(max_size=600))
def test_any_bytes(data: bytes) -> None:
    assert record.unpack(data, MAGIC) is None


@pytest.mark.parametrize(
    "version",
    [0, 2, 10**30, -1, True, 1.0, "1", None, [1], {}],
    ids=repr,
)
def test_other_version(version: Any) -> None:
    with pytest.raises(record.UnknownVersion):
        record.unpack(with_fields(version=version), MAGIC)


def test_no_version() -> None:
    data = sealed(b'{"magic":"OVFSTORE-TEST","answer":42}')
    with pytest.raises(record.UnknownVersion):
        record.unpack(data, MAGIC)


@pytest.mark.parametrize(
    "rest",
    [
        b"",
        b"}",
        b'"version":1',
        b'"version":1}]',
        b'"version":1,"x":\xff}',
        b'"version":1,"x":"\xff"}',
        b'"version":1,"x":01}',
    ],
    ids=repr,
)
def test_sound_digest_but_no_json(rest: bytes) -> None:
    data = sealed(b'{"magic":"OVFSTORE-TEST",' + rest)
    assert record.unpack(data, MAGIC) is None


def test_text_ends_at_the_first_nul() -> None:
    data = sealed(b'{"magic":"OVFSTORE-TEST","version":1}\0 {"x":')
    assert record.unpack(data, MAGIC) == {"magic": MAGIC, "version": 1}


@pytest.mark.parametrize("opening", [b"[", b'{"a":'], ids=["list", "object"])
def test_deep_json(opening: bytes) -> None:
    begin = b'{"magic":"OVFSTORE-TEST","version":1,"deep":'
    data = sealed(begin + opening * 10_000, 65536)
    assert record.unpack(data, MAGIC) is None


def test_number_with_many_digits() -> None:
    begin = b'{"magic":"OVFSTORE-TEST","version":1,"n":'
    data = sealed(begin + b"9" * 60_000 + b"}", 65536)
    found = record.unpack(data, MAGIC)
    if found is not None:  # Python before 3.11 reads it
        with pytest.raises(record.RecordInvalid):
            record.number(found, "n")


# -- fields

SHA = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
UUID = "0d2b1f22-d0bf-49de-8577-483913cb45e4"
NO_STRINGS = [None, 1, 1.0, True, b"x", [], ["x"], {}, {"x": "x"}]


def test_text() -> None:
    assert record.text({"k": ""}, "k") == ""
    assert record.text({"k": "x" * 1024}, "k") == "x" * 1024
    assert record.text({"k": "x" * 64}, "k", 64) == "x" * 64


@pytest.mark.parametrize("value", [*NO_STRINGS, "x" * 65], ids=repr)
def test_no_text(value: Any) -> None:
    with pytest.raises(record.RecordInvalid):
        record.text({"k": value}, "k", 64)


def test_number() -> None:
    assert record.number({"k": 0}, "k") == 0
    assert record.number({"k": 2**63 - 1}, "k") == 2**63 - 1
    assert record.number({"k": 7}, "k", limit=7) == 7
    assert record.number({"k": 8192}, "k", multiple=4096) == 8192
    assert record.number({"k": 0}, "k", multiple=4096) == 0


@pytest.mark.parametrize(
    "value",
    [-1, 2**63, 10**400, True, False, 1.0, float("nan"), float("inf"), "1",
     None, [1], {}],
    ids=lambda v: repr(v)[:20],
)  # fmt: skip
def test_no_number(value: Any) -> None:
    with pytest.raises(record.RecordInvalid):
        record.number({"k": value}, "k")


@pytest.mark.parametrize("value", [8, 4095, 4097, 8191])
def test_number_out_of_bounds(value: int) -> None:
    with pytest.raises(record.RecordInvalid):
        record.number({"k": value}, "k", limit=7 if value == 8 else 2**63,
                      multiple=1 if value == 8 else 4096)  # fmt: skip


@pytest.mark.parametrize(
    "value",
    [*NO_STRINGS, "", SHA[:-1], SHA + "0", SHA + "\n", SHA.upper(), " " + SHA,
     "g" + SHA[1:], "٣" + SHA[1:]],
    ids=repr,
)  # fmt: skip
def test_no_sha256(value: Any) -> None:
    assert record.sha256({"k": SHA}, "k") == SHA
    with pytest.raises(record.RecordInvalid):
        record.sha256({"k": value}, "k")


@pytest.mark.parametrize(
    "value",
    [*NO_STRINGS, "", UUID[:-1], UUID + "\n", UUID.upper(), UUID + "0",
     UUID.replace("-", ""), "../" + UUID, "{" + UUID + "}"],
    ids=repr,
)  # fmt: skip
def test_no_uuid(value: Any) -> None:
    assert record.uuid({"k": UUID}, "k") == UUID
    with pytest.raises(record.RecordInvalid):
        record.uuid({"k": value}, "k")


@pytest.mark.parametrize(
    "text, when",
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2020-02-29T12:34:56Z", 1582979696),
        ("9999-12-31T23:59:59Z", 253402300799),
    ],
)
def test_timestamp(text: str, when: int) -> None:
    assert record.timestamp({"k": text}, "k") == when
    assert record.isotime(when) == text


@pytest.mark.parametrize(
    "value",
    [*NO_STRINGS, "", "2020-01-01", "2020-01-01T00:00:00",
     "0000-01-01T00:00:00Z", "2021-02-29T00:00:00Z",
     "2020-01-01T24:00:00Z", "2020-01-01T00:00:60Z",
     "2020-01-01T00:00:00Z\n", "2020-01-01T00:00:00+00:00",
     "٢٠٢٠-01-01T00:00:00Z", "12020-01-01T00:00:00Z", "1969-12-31T23:59:59Z"],
    ids=repr,
)  # fmt: skip
def test_no_timestamp(value: Any) -> None:
    with pytest.raises(record.RecordInvalid):
        record.timestamp({"k": value}, "k")


@given(st.integers(0, 253402300799))
def test_times_come_back(when: int) -> None:
    assert record.timestamp({"k": record.isotime(when)}, "k") == when


@given(st.integers(0, 2**40))
def test_align(size: int) -> None:
    aligned = record.align(size)
    assert aligned % 4096 == 0 and 0 <= aligned - size < 4096


@pytest.mark.parametrize(
    "key", ["text", "number", "sha256", "uuid", "timestamp"]
)
def test_missing_field(key: str) -> None:
    with pytest.raises(record.RecordInvalid):
        getattr(record, key)({}, "k")
