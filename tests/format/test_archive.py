# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The archive: made, checked piece by piece, and refused."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import json
import lzma
import shutil
import subprocess
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import member, pax, tarheader
from vdsm_ovfstore.format.archive import ArchiveChecker
from vdsm_ovfstore.format.archive_writer import engine_members, write_archive
from vdsm_ovfstore.format.member import Member

DOMAIN = "b7c64b97-0c98-47c4-a81e-2955e781e384"
DISK = "69a2b8c2-8d1c-4014-8f75-a85c16bc5b71"
VM = "eccb9cb6-affd-4806-8200-708370581227"
VM_2 = "50e59bbd-f829-4761-ba1b-6db1a6acc3b8"
WHEN = 1593603787
END = bytes(1024)

TAR = shutil.which("tar")
needs_tar = pytest.mark.skipif(TAR is None, reason="no tar on this host")

TYPED = (
    errors.NotAnArchive,
    errors.MemberRefused,
    errors.OvfRefused,
    errors.ArchiveTruncated,
)


def make_ovf(name: str = "vm-1", padding: int = 0, inner: str = "") -> bytes:
    return (
        '<?xml version="1.0" encoding="UTF-8"?><ovf:Envelope '
        'xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1/">'
        f'<References><File ovf:href="{DISK}/{VM}"/></References>'
        f"<Content><Name>{name}</Name>{inner}</Content>{' ' * padding}"
        "</ovf:Envelope>"
    ).encode()


def make(*members: tuple[str, bytes]) -> bytes:
    """An archive of these members, well or not."""
    data = b""
    for name, content in members:
        data += header(name, len(content)) + block(content)
    return data + END


def header(
    name: str, size: int = 0, type_: bytes = b"0", **at: bytes
) -> bytes:
    """Any header; at124=b"..." writes there before it is summed up."""
    raw = bytearray(tarheader.make(name, size, WHEN))
    raw[156:157] = type_
    for offset, value in at.items():
        start = int(offset[2:])
        raw[start : start + len(value)] = value
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw)
    return bytes(raw)


def block(content: bytes) -> bytes:
    return content + bytes(-len(content) % 512)


def pax_header(type_: bytes = b"x", **records: str) -> bytes:
    data = b""
    for key, value in records.items():
        body = f" {key.replace('_', '.')}={value}\n".encode()
        length = len(body) + 2
        data += str(length + (length > 99)).encode() + body
    return header("PaxHeader", len(data), type_) + block(data)


def check(
    data: bytes, strict: bool = True, size: int = 0, **known: Any
) -> list[Member]:
    """Feed data in pieces of a size (0: at once)."""
    checker = ArchiveChecker(strict, **known)
    found = []
    size = size or len(data) or 1
    for begin in range(0, len(data), size):
        found += checker.feed(data[begin : begin + size])
    checker.close()
    assert checker.length == len(data)
    assert checker.entities == sum(m.kind in member.ENTITIES for m in found)
    return found


OVF = make_ovf()
OVF_2 = make_ovf("vm-2", 2000)
GOOD = make(
    ("info.json", b"{}"),
    (f"{VM}.ovf", OVF),
    (f"{VM_2}.ovf", OVF_2),
    ("metadata.json", b'{"VM Status": {}}'),
)


def test_members() -> None:
    template = make_ovf("t", inner="<TemplateType>TEMPLATE</TemplateType>")
    data = make(
        ("info.json", b"{}"),
        (f"{VM}.ovf", OVF),
        (f"{VM_2}.ovf", template),
        ("manifest.json", b"{}"),
        ("metadata.json", b"{}"),
    )
    found = check(data)
    assert [(m.name, m.kind, m.entity) for m in found] == [
        ("info.json", "info", ""),
        (f"{VM}.ovf", "vm", "vm-1"),
        (f"{VM_2}.ovf", "template", "t"),
        ("manifest.json", "manifest", ""),
        ("metadata.json", "metadata", ""),
    ]
    assert found[1].disks == (DISK,)
    assert found[0].disks == ()
    for m in found:
        content = data[m.offset : m.offset + m.length]
        assert hashlib.sha256(content).hexdigest() == m.sha256
        assert m.end % 512 == 0
    assert data[found[1].offset : found[1].offset + len(OVF)] == OVF
    assert found[-1].end == len(data) - 1024
    assert [m.offset for m in found[1:]] == [m.end + 512 for m in found[:-1]]


def test_no_entity() -> None:
    checker = ArchiveChecker(strict=False)
    assert checker.feed(END) == []
    checker.close()
    assert checker.end == 1024
    assert checker.entities == 0


def test_members_are_given_when_complete() -> None:
    checker = ArchiveChecker()
    complete = 512 + len(block(b"{}"))
    assert checker.feed(GOOD[: complete - 1]) == []
    (info,) = checker.feed(GOOD[complete - 1 : complete])
    assert info.kind == "info"


# -- round trip ---------------------------------------------------------------

LENGTHS = st.integers(0, 1100)
UUIDS = st.uuids(version=4).map(str)


@given(
    st.dictionaries(UUIDS, LENGTHS, max_size=6),
    st.dictionaries(UUIDS, st.integers(-1, 16), max_size=3),
    st.lists(st.integers(1, 3000), max_size=20),
    st.integers(1, 700),
    st.integers(-1, 2**35),
)
def test_round_trip_in_any_pieces(
    paddings: dict[str, int],
    statuses: dict[str, int],
    sizes: list[int],
    chunk: int,
    mtime: int,
) -> None:
    texts = {vm: make_ovf(vm, p) for vm, p in paddings.items()}
    ovfs = [
        (vm, len(t), [t[i : i + chunk] for i in range(0, len(t), chunk)])
        for vm, t in texts.items()
    ]
    listed = engine_members(DOMAIN, ovfs, WHEN, statuses)
    data = b"".join(write_archive(listed, mtime))
    assert len(data) % 512 == 0

    checker = ArchiveChecker()
    found = []
    at = 0
    for size in [*sizes, len(data)]:
        found += checker.feed(memoryview(data)[at : at + size])
        at += size
    checker.close()
    assert checker.end == checker.length == len(data)
    assert checker.entities == len(texts)
    assert [m.name for m in found] == [
        "info.json",
        *(f"{vm}.ovf" for vm in texts),
        "metadata.json",
    ]
    for m in found[1:-1]:
        vm = m.name[:-4]
        assert data[m.offset : m.offset + m.length] == texts[vm]
        assert (m.kind, m.entity) == ("vm", vm)

    # The standard library sees the same archive.
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        infos = tar.getmembers()
        assert [(i.name, i.size, i.offset_data) for i in infos] == [
            (m.name, m.length, m.offset) for m in found
        ]
        assert all(i.isreg() and i.mode == 0o644 for i in infos)
        status = tar.extractfile("metadata.json")
        assert status is not None
        assert json.load(status) == {
            "VM Status": {k: v for k, v in statuses.items() if v != 0}
        }


@pytest.mark.parametrize("size", [1, 7, 511, 512, 513, 1024, 4096])
def test_pieces_of(size: int) -> None:
    assert check(GOOD, size=size) == check(GOOD)


def test_unregistered_and_manifest() -> None:
    """After what the engine has registered, as it writes them; ours last."""
    other = VM[:-1] + ("0" if VM[-1] != "0" else "1")
    members = engine_members(
        *(DOMAIN, [(VM, len(OVF), [OVF])], WHEN, {}),
        [(other, len(OVF), [OVF])],
        {"format": 1, "entities": {}},
    )
    tar = b"".join(write_archive(members, WHEN))
    checker = ArchiveChecker()
    found = checker.feed(tar)
    checker.close()
    assert [(m.name, m.kind) for m in found] == [
        ("info.json", "info"),
        (f"{VM}.ovf", "vm"),
        ("metadata.json", "metadata"),
        (f"{other}.ovf", "vm"),
        ("manifest.json", "manifest"),
    ]
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        file = opened.extractfile("manifest.json")
        assert file is not None
        assert json.load(file) == {"format": 1, "entities": {}}


def test_engine_members() -> None:
    found = {
        name: b"".join(chunks)
        for name, _, chunks in engine_members(
            DOMAIN, [(VM, 3, [b"abc"])], WHEN, {VM: 1, VM_2: 0}
        )
    }
    assert list(found) == ["info.json", f"{VM}.ovf", "metadata.json"]
    assert json.loads(found["info.json"]) == {
        "Last Updated": "Wed Jul 01 11:43:07 UTC 2020",
        "Storage Domains": [{"uuid": DOMAIN}],
    }
    assert json.loads(found["metadata.json"]) == {"VM Status": {VM: 1}}


@pytest.mark.parametrize(
    ("members", "error"),
    [
        pytest.param([("a.txt", 0, [])], errors.MemberRefused, id="name"),
        pytest.param([("../x", 0, [])], errors.MemberRefused, id="path"),
        pytest.param(
            [("info.json", 2, [b"{}"])] * 2, errors.MemberRefused, id="twice"
        ),
        pytest.param(
            [("info.json", member.MAX_JSON + 1, [])],
            errors.MemberRefused,
            id="too-large",
        ),
        pytest.param(
            [("info.json", -1, [])], errors.MemberRefused, id="negative"
        ),
        pytest.param(
            [("info.json", 2, [b"{"])], errors.ArchiveMismatch, id="shorter"
        ),
        pytest.param(
            [("info.json", 2, [b"{", b"}", b" "])],
            errors.ArchiveMismatch,
            id="longer",
        ),
    ],
)
def test_writer_refuses(members: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        list(write_archive(members, WHEN))


def test_writer_never_writes_more_than_announced() -> None:
    written = []
    with pytest.raises(errors.ArchiveMismatch):
        for chunk in write_archive([("info.json", 1, [b"{", b"}"])], 0):
            written.append(chunk)
    assert b"".join(written)[512:] == b"{"


# -- other programs -----------------------------------------------------------


@pytest.mark.parametrize(
    "format_",
    [
        pytest.param(tarfile.USTAR_FORMAT, id="ustar"),
        pytest.param(tarfile.GNU_FORMAT, id="gnu"),
        pytest.param(tarfile.PAX_FORMAT, id="pax"),
    ],
)
@pytest.mark.parametrize("mtime", [0, WHEN + 0.25])
def test_archives_of_the_standard_library(format_: int, mtime: float) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=format_) as tar:
        for name, content in (("info.json", b"{}"), (f"{VM}.ovf", OVF)):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            info.mtime = mtime
            info.uname = "d\u00e9veloppeur"
            if format_ != tarfile.USTAR_FORMAT:
                info.uid = 2**31
            tar.addfile(info, io.BytesIO(content))
    found = check(out.getvalue())
    assert [m.kind for m in found] == ["info", "vm"]


@needs_tar
@pytest.mark.parametrize("format_", ["v7", "ustar", "oldgnu", "gnu", "pax"])
def test_archives_of_tar(format_: str, tmp_path: Path) -> None:
    for name, content in (("info.json", b"{}"), (f"{VM}.ovf", OVF)):
        (tmp_path / name).write_bytes(content)
    command = ["tar", f"--format={format_}", "-cf", "-", "-C", str(tmp_path)]
    out = subprocess.run(
        [*command, "info.json", f"{VM}.ovf"],
        stdout=subprocess.PIPE,
        check=True,
    )
    found = check(out.stdout)
    assert [m.kind for m in found] == ["info", "vm"]
    assert found[1].sha256 == hashlib.sha256(OVF).hexdigest()


@needs_tar
def test_tar_reads_ours(tmp_path: Path) -> None:
    path = tmp_path / "store"
    listed = engine_members(DOMAIN, [(VM, len(OVF), [OVF])], WHEN, {VM: 1})
    path.write_bytes(b"".join(write_archive(listed, WHEN)))
    out = subprocess.run(
        ["tar", "-tvf", str(path)],
        capture_output=True,
        check=True,
        text=True,
        env={"TZ": "UTC", "PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )
    assert out.stderr == ""
    assert [line.split() for line in out.stdout.splitlines()][1] == [
        "-rw-r--r--",
        "0/0",
        str(len(OVF)),
        "2020-07-01",
        "11:43",
        f"{VM}.ovf",
    ]
    # As hosted-engine does.
    out_2 = subprocess.run(
        f"dd if='{path}' bs=4k status=none | tar -xOf - {VM}.ovf",
        shell=True,
        capture_output=True,
        check=True,
    )
    assert out_2.stdout == OVF


# -- refused ------------------------------------------------------------------


def member_of(type_: bytes, size: int = 0) -> bytes:
    return header("info.json", size, type_) + block(b"x" * size) + END


BAD_MEMBERS = [
    pytest.param(make((name, OVF)), reason, id=name or "no-name")
    for name, reason in (
        ("a/b", "path"),
        (f"./{VM}.ovf", "path"),
        (f"../{VM}.ovf", "path"),
        (f"/{VM}.ovf", "path"),
        ("..", "unknown name"),
        ("", "unknown name"),
        ("README", "unknown name"),
        ("x.ovf", "not <uuid>.ovf"),
        (f"{VM.upper()}.ovf", "not <uuid>.ovf"),
        (f"{VM}.OVF", "not <uuid>.ovf"),
        (f"{VM}.ovf.ovf", "not <uuid>.ovf"),
        (f"{{{VM}}}.ovf", "not <uuid>.ovf"),
        (f"{VM}.ovf\n", "unknown name"),
    )
] + [
    pytest.param(
        make(("info.json", b"{}"), ("info.json", b"{}")),
        "duplicate",
        id="duplicate",
    ),
    pytest.param(
        header(f"{VM}.ovf", at345=b"dir") + END, "path", id="ustar-prefix"
    ),
    pytest.param(member_of(b"1"), "hard link", id="hard-link"),
    pytest.param(member_of(b"2"), "symbolic link", id="symbolic-link"),
    pytest.param(member_of(b"3"), "character device", id="character-device"),
    pytest.param(member_of(b"4"), "block device", id="block-device"),
    pytest.param(member_of(b"5"), "directory", id="directory"),
    pytest.param(member_of(b"6"), "fifo", id="fifo"),
    pytest.param(member_of(b"7", 9), "type b'7'", id="contiguous"),
    pytest.param(member_of(b"L", 9), "GNU long name", id="gnu-long-name"),
    pytest.param(member_of(b"K", 9), "GNU long name", id="gnu-long-link"),
    pytest.param(member_of(b"V", 0), "type b'V'", id="gnu-volume"),
    pytest.param(
        make(("info.json", b"")), "not JSON", id="empty-json"
    ),
    pytest.param(make(("info.json", b"[]")), "JSON object", id="json-list"),
    pytest.param(make(("info.json", b"{")), "not JSON", id="json-cut"),
    pytest.param(
        make(("info.json", b'{"a": "\xff"}')), "not JSON", id="json-latin-1"
    ),
    pytest.param(
        make(("info.json", b'{"a": NaN}')), "not JSON", id="json-nan"
    ),
    pytest.param(
        make(("info.json", b'{"a":' * 200000)), "not JSON", id="json-deep"
    ),
    pytest.param(
        make(("info.json", b'{"a": %s' % (b"1" * 8000000))),
        "not JSON",
        id="json-huge-number",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("data", "reason"), BAD_MEMBERS)
def test_bad_member(data: bytes, reason: str) -> None:
    with pytest.raises(errors.MemberRefused) as e:
        check(data)
    assert reason in e.value.fields()["reason"]
    if data[156:157] in b"LK":
        return  # test_renamed_member_is_not_ours
    # Lenient: the tar is sound, so that the others can be read.
    *before, bad = check(data, strict=False)
    assert bad.kind == "invalid"
    assert all(m.kind == "info" for m in before)
    follows = data[:-1024] + make((f"{VM_2}.ovf", OVF_2))
    *_, last = check(follows, strict=False)
    assert (last.kind, last.entity) == ("vm", "vm-2")


def test_huge_number_in_json() -> None:
    # Converting it would take Python 3.9 hours.
    (found,) = check(make(("info.json", b'{"a": %s}' % (b"1" * 8000000))))
    assert found.kind == "info"


def test_bad_ovf() -> None:
    data = make((f"{VM}.ovf", b"<a/>"), (f"{VM_2}.ovf", OVF_2))
    with pytest.raises(errors.OvfRefused) as e:
        check(data)
    assert e.value.fields()["name"] == f"{VM}.ovf"
    bad, good = check(data, strict=False)
    assert (bad.kind, bad.length) == ("invalid", 4)
    assert bad.sha256 == hashlib.sha256(b"<a/>").hexdigest()
    assert good.kind == "vm"


def test_empty_ovf() -> None:
    with pytest.raises(errors.OvfRefused):
        check(make((f"{VM}.ovf", b"")))
    (bad,) = check(make((f"{VM}.ovf", b"")), strict=False)
    assert (bad.kind, bad.length, bad.offset) == ("invalid", 0, 512)


@pytest.mark.parametrize(
    "name", [f"{VM}.ovf", "info.json", "foreign.bin"], ids=lambda n: n[-8:]
)
def test_too_large(name: str) -> None:
    size = 17 * 1024**2 + 3
    begin = header(name, size)
    with pytest.raises(errors.MemberRefused):
        ArchiveChecker().feed(begin)
    content = b"x" * size
    data = begin + block(content) + make((f"{VM_2}.ovf", OVF_2))
    bad, good = check(data, strict=False, size=1000003)
    assert (bad.kind, bad.offset, bad.length) == ("invalid", 512, size)
    assert bad.sha256 == hashlib.sha256(content).hexdigest()
    assert good.kind == "vm"


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(member_of(b"1", 9), id="link-with-data"),
        pytest.param(member_of(b"5", 9), id="directory-with-data"),
        pytest.param(member_of(b"S", 9), id="sparse"),
        pytest.param(pax_header(size="1") + GOOD, id="pax-size"),
        pytest.param(pax_header(GNU_sparse_major="1") + GOOD, id="pax-sparse"),
        pytest.param(pax_header(b"g", size="1") + GOOD, id="pax-global"),
        pytest.param(pax_header(unknown="1") + GOOD, id="pax-unknown"),
    ],
)
@pytest.mark.parametrize("strict", [True, False])
def test_unclear_structure(data: bytes, strict: bool) -> None:
    with pytest.raises(errors.MemberRefused):
        check(data, strict)


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(pax_header(path="x.ovf"), id="pax-path"),
        pytest.param(pax_header(linkpath="x"), id="pax-linkpath"),
        pytest.param(pax_header(b"g", path="x.ovf"), id="pax-global-path"),
        pytest.param(
            header("././@LongLink", 6, b"L") + block(b"x.ovf\0"), id="gnu"
        ),
    ],
)
def test_renamed_member_is_not_ours(extra: bytes) -> None:
    # Its own header has a good name; the one before it has another.
    data = extra + GOOD
    with pytest.raises(errors.MemberRefused):
        check(data)
    found = [m for m in check(data, strict=False) if m.name == "info.json"]
    assert [m.kind for m in found] == ["invalid"]


@pytest.mark.parametrize("type_", [b"x", b"g"])
def test_harmless_pax(type_: bytes) -> None:
    extra = pax_header(type_, mtime="1.5", comment="a=b\nc", uid="4294967294")
    assert [m.kind for m in check(extra + GOOD)] == [
        m.kind for m in check(GOOD)
    ]


def test_pax_keys() -> None:
    data = b"30 mtime=1350244992.0239604\n\n11 size=1 \n"
    with pytest.raises(ValueError, match="record"):
        pax.keys(data)
    with pytest.raises(ValueError, match="record"):
        pax.keys(b"99 size=1\n")
    assert pax.keys(b"30 mtime=1350244992.023960408\n10 size=1\n") == {
        "mtime",
        "size",
    }


@given(st.binary(max_size=60))
def test_pax_keys_of_anything(data: bytes) -> None:
    try:
        found = pax.keys(data)
    except ValueError:
        return
    assert bool(found) == bool(data)


ONE = header("info.json", 2) + block(b"{}")


def damaged(offset: int, value: bytes) -> bytes:
    return GOOD[:offset] + value + GOOD[offset + len(value) :]


NOT_ARCHIVES = [
    pytest.param(gzip.compress(GOOD), "gzip", id="gzip"),
    pytest.param(bz2.compress(GOOD), "bzip2", id="bzip2"),
    pytest.param(lzma.compress(GOOD), "xz", id="xz"),
    pytest.param(b"\x28\xb5\x2f\xfd" + GOOD, "zstd", id="zstd"),
    pytest.param(b"PK\x03\x04" + GOOD, "zip", id="zip"),
    pytest.param(b"QFI\xfb\0\0\0\3" + GOOD, "qcow2", id="qcow2"),
    pytest.param(b"<?xml?>" + GOOD, "XML", id="xml"),
    pytest.param(b"\xff" * 2048, "byte 0", id="noise"),
    pytest.param(GOOD[1:], "byte 0", id="shifted"),
    pytest.param(damaged(0, b"x"), "checksum", id="checksum"),
    pytest.param(damaged(1024, b"x"), "byte 1024", id="second-header"),
    pytest.param(damaged(148, b"x" * 8), "checksum", id="no-checksum"),
    pytest.param(ONE + bytes(512) + GOOD, "single zero", id="single-zero"),
    pytest.param(pax_header(mtime="1") + END, "without", id="pax-at-end"),
    pytest.param(header("x", 0, b"x") + GOOD, "0 bytes", id="pax-empty"),
    pytest.param(header("x", 70000, b"x"), "70000", id="pax-too-large"),
    pytest.param(
        header("x", 5, b"x") + block(b"abcde") + GOOD, "record", id="pax-text"
    ),
] + [
    pytest.param(header("info.json", 2, **at) + GOOD[512:], "bad", id=name)
    for name, at in (
        ("size-empty", {"at124": bytes(12)}),
        ("size-negative", {"at124": b"-0000000002\0"}),
        ("size-underscore", {"at124": b"0000000_002\0"}),
        ("size-prefix", {"at124": b"0o000000002\0"}),
        ("size-decimal", {"at124": b"00000000009\0"}),
        ("size-base-256", {"at124": b"\x80" + bytes(10) + b"\x02"}),
        ("size-after-nul", {"at124": b"2\x00000000000\0"}),
        ("mtime-text", {"at136": b"yesterday\0\0\0"}),
        ("mode-text", {"at100": b"rw-r--r-"}),
    )
]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(("data", "reason"), NOT_ARCHIVES)
def test_not_an_archive(data: bytes, reason: str, strict: bool) -> None:
    with pytest.raises(errors.NotAnArchive) as e:
        check(data, strict)
    assert reason in e.value.fields()["reason"]
    with pytest.raises(errors.NotAnArchive):
        check(data, strict, size=100)


def test_short_gzip_is_named() -> None:
    checker = ArchiveChecker()
    checker.feed(gzip.compress(b""))
    with pytest.raises(errors.NotAnArchive, match="gzip"):
        checker.close()


@pytest.mark.parametrize("strict", [True, False])
def test_every_cut_is_found(strict: bool) -> None:
    for length in range(0, len(GOOD), 128):
        checker = ArchiveChecker(strict)
        checker.feed(GOOD[:length])
        with pytest.raises(errors.ArchiveTruncated):
            checker.close()
        assert checker.end == 0


@pytest.mark.parametrize(
    ("length", "reason"),
    [
        pytest.param(0, "empty", id="nothing"),
        pytest.param(100, "within a header", id="header"),
        pytest.param(515, "within 'info.json'", id="data"),
        pytest.param(512, "within 'info.json'", id="no-data"),
        pytest.param(1024, "end marker", id="members"),
        pytest.param(len(GOOD) - 512, "end marker", id="half-marker"),
    ],
)
def test_cut(length: int, reason: str) -> None:
    with pytest.raises(errors.ArchiveTruncated, match=reason):
        check(GOOD[:length])


def test_after_the_end() -> None:
    padded = GOOD + bytes(300000)
    assert check(padded) == check(GOOD)
    assert check(GOOD + b"\0") == check(GOOD)
    for junk in (b"x", bytes(1000) + b"\1", bytes(300000) + b"x", GOOD):
        with pytest.raises(errors.NotAnArchive, match="after the end"):
            check(GOOD + junk)
        # A block volume holds the rest of a longer archive there.
        assert check(GOOD + junk, strict=False) == check(GOOD)
    checker = ArchiveChecker(strict=False)
    checker.feed(padded)
    assert checker.end == len(GOOD)


def test_error_stays() -> None:
    checker = ArchiveChecker()
    data = ONE + b"x" * 512
    with pytest.raises(errors.NotAnArchive) as e:
        checker.feed(data)
    assert [m.name for m in checker.completed] == ["info.json"]
    with pytest.raises(errors.NotAnArchive) as e_2:
        checker.feed(END)
    assert e_2.value is e.value
    with pytest.raises(errors.NotAnArchive):
        checker.close()


# -- known --------------------------------------------------------------------


def known_facts(data: bytes, kind: str = "vm") -> dict[str, Any]:
    digest = hashlib.sha256(data).hexdigest()
    return {digest: (kind, "known", ("d",))}


def test_known_is_not_parsed_again() -> None:
    # Not XML at all: it would be refused if it were looked at.
    text = b"not XML"
    (found,) = check(make((f"{VM}.ovf", text)), known=known_facts(text))
    assert (found.kind, found.entity, found.disks) == ("vm", "known", ("d",))


def test_known_must_be_an_entity() -> None:
    text = b"{}"
    with pytest.raises(errors.OvfRefused):
        check(make((f"{VM}.ovf", text)), known=known_facts(text, "info"))


def test_known_never_makes_json_an_entity() -> None:
    text = b"{}"
    (found,) = check(make(("info.json", text)), known=known_facts(text))
    assert (found.kind, found.entity) == ("info", "")


# -- damage -------------------------------------------------------------------


@settings(max_examples=300)
@given(
    st.binary(min_size=1, max_size=600),
    st.integers(0, len(GOOD)),
    st.integers(0, 1200),
    st.integers(1, 5000),
    st.booleans(),
)
def test_corruption_gives_a_typed_error_or_a_sound_list(
    junk: bytes, position: int, removed: int, size: int, strict: bool
) -> None:
    data = GOOD[:position] + junk + GOOD[position + removed :]
    try:
        found = check(data, strict, size)
    except TYPED as e:
        assert str(e)
        return
    for m in found:
        content = data[m.offset : m.offset + m.length]
        assert len(content) == m.length
        assert hashlib.sha256(content).hexdigest() == m.sha256
        assert m.kind != "invalid" or not strict


@given(st.lists(st.sampled_from([
    GOOD, ONE, END, END[:512], header(f"{VM}.ovf", len(OVF)), block(OVF),
    header("x", 3, b"L"), block(b"abc"), pax_header(mtime="1"),
    pax_header(path="x"), header("d", 0, b"5"), b"x", bytes(100),
])), st.integers(1, 3000))  # fmt: skip
def test_mixtures(parts: list[bytes], size: int) -> None:
    data = b"".join(parts)
    for strict in (True, False):
        try:
            check(data, strict, size)
        except TYPED as e:
            assert str(e)


@given(st.binary(min_size=512, max_size=512))
def test_header_of_anything(data: bytes) -> None:
    with pytest.raises(ValueError, match="bad|wrong"):
        tarheader.parse(data)


@given(
    st.text("abcdef0123456789-.", min_size=1, max_size=100),
    st.integers(0, 8**11 - 1),
    st.integers(0, 8**11 - 1),
)
def test_headers_against_the_standard_library(
    name: str, size: int, mtime: int
) -> None:
    raw = tarheader.make(name, size, mtime)
    info = tarfile.TarInfo.frombuf(raw, "ascii", "strict")
    assert (info.name, info.size, info.mtime) == (name, size, mtime)
    assert (info.mode, info.uid, info.gid) == (0o644, 0, 0)
    assert info.isreg()
    theirs = tarfile.TarInfo(name)
    theirs.size = size
    theirs.mtime = mtime
    for format_ in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT):
        parsed = tarheader.parse(theirs.tobuf(format_, "ascii", "strict"))
        assert parsed == tarheader.Header(name, b"0", size)


# -- memory -------------------------------------------------------------------


def peak(entities: int, size: int) -> int:
    """Bytes used at most while an archive is made and checked."""

    def ovfs() -> Iterator[tuple[str, int, list[bytes]]]:
        for i in range(entities):
            text = make_ovf(f"vm-{i}", size)
            yield f"{i:08x}{VM[8:]}", len(text), [text]

    tracemalloc.start()
    try:
        checker = ArchiveChecker()
        for chunk in write_archive(ovfs_members(ovfs()), WHEN):
            checker.feed(chunk)
        checker.close()
        assert checker.entities == entities
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def ovfs_members(
    ovfs: Iterator[tuple[str, int, list[bytes]]],
) -> Iterator[tuple[str, int, list[bytes]]]:
    for vm, length, chunks in ovfs:
        yield f"{vm}.ovf", length, chunks


def test_memory_does_not_grow_with_the_archive() -> None:
    peak(1, 300000)  # what is made once
    few = peak(4, 300000)
    many = peak(40, 300000)
    assert many < few + 100000


@pytest.mark.parametrize(
    ("name", "kind", "limit"),
    [
        (f"{VM}.ovf", "vm", 16 * 1024**2),
        ("info.json", "info", 8 * 1024**2),
        ("x", "invalid", 0),
    ],
)
def test_kinds_and_limits(name: str, kind: str, limit: Optional[int]) -> None:
    assert member.member_kind(name) == kind
    assert member.size_limit(kind) == limit


@pytest.mark.parametrize("length", [1024, 10240], ids=["marker", "record"])
def test_nothing_but_zeros_is_no_upload(length: int) -> None:
    checker = ArchiveChecker()
    assert checker.feed(bytes(length)) == []
    with pytest.raises(errors.NotAnArchive, match="no members"):
        checker.close()
    # What a stock host wrote is judged elsewhere.
    lenient = ArchiveChecker(strict=False)
    lenient.feed(bytes(length))
    lenient.close()
