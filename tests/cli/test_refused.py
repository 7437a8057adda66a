# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Archives that are refused: the code, one line, and nothing written."""

from __future__ import annotations

import base64
import gzip
import io
import os
import random
import tarfile
from pathlib import Path
from typing import Optional

import pytest

from tests.cli.harness import IDS, OVF, SAMPLES, Store, archive, tar

GOOD = OVF.format(name="vm")
NAME = f"{IDS[0]}.ovf"


def member(
    name: str = NAME, type: bytes = tarfile.REGTYPE, link: str = ""
) -> bytes:
    """A tar of one member that is not as it should be."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT
    ) as file:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = type, link
        data = b""
        if type == tarfile.REGTYPE:
            data = GOOD.encode()
        info.size = len(data)
        file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def without_end() -> bytes:
    data = archive("vm")
    return data[: 512 + -(-len(GOOD) // 512) * 512]


BAD = {
    "empty": (3513, b""),
    "not-a-tar": (3511, b"hello " * 200),
    "gzip": (3511, gzip.compress(archive("vm"))),
    "qcow2": (3511, b"QFI\xfb" + bytes(2000)),
    "path": (3512, member(f"a/{NAME}")),
    "dot-path": (3512, member(f"./{NAME}")),
    "parent-path": (3512, member(f"../{NAME}")),
    "absolute-path": (3512, member(f"/{NAME}")),
    "symbolic-link": (3512, member(type=tarfile.SYMTYPE, link="/etc/x")),
    "hard-link": (3512, member(type=tarfile.LNKTYPE, link="info.json")),
    "device": (3512, member(type=tarfile.BLKTYPE)),
    "directory": (3512, member(type=tarfile.DIRTYPE)),
    "duplicate": (3512, tar((NAME, GOOD), (NAME, GOOD))),
    "foreign-ovf": (3512, tar(("notes.ovf", GOOD))),
    "upper-case": (3512, tar(("ABCDEF00" + NAME[8:], GOOD))),
    "unknown-name": (3512, tar(("readme.txt", "x"))),
    "no-end-blocks": (3513, without_end()),
    "cut": (3513, archive("a", "b")[:900]),
    "data-after-end": (3511, archive("vm") + b"x"),
    "not-well-formed": (3514, tar((NAME, GOOD[:-5]))),
    "dtd": (3514, tar((NAME, GOOD.replace("?>", "?><!DOCTYPE a>")))),
    "no-name": (3514, tar((NAME, GOOD.replace("<Name>vm</Name>", "")))),
    "json-is-none": (3512, tar(("info.json", "[]"))),
}


def not_utf8() -> bytes:
    data = archive("vmvm")
    return data.replace(b"vmvm", b"v\xff\xfem")


BAD["not-utf-8"] = (3514, not_utf8())


@pytest.mark.parametrize("name", BAD)
def test_refused_before_anything_is_written(store: Store, name: str) -> None:
    code, data = BAD[name]
    before = store.contents()
    result = store.cli("upload", store.path, "-", data=data)
    result.is_error(code)
    assert result.out == b""
    assert store.contents() == before
    assert store.ok("download").out == archive("web", "db")


def test_named_in_json(store: Store) -> None:
    error = store.cli.error("upload", store.path, "-", data=member("a/b"))
    assert error["code"] == 3512
    assert error["fields"]["name"] == "a/b"
    assert error["next_step"].startswith("Nothing was written")


# -- size ---------------------------------------------------------------------


def big(seed: int, size: int) -> bytes:
    """An archive of about that size that compresses little."""
    noise = random.Random(seed)
    members = []
    left = size
    for entity in IDS:
        length = min(left, 1 << 20)
        if length <= 0:
            break
        left -= length
        text = base64.b64encode(noise.randbytes(length * 3 // 4)).decode()
        ovf = OVF.format(name="big").replace(
            "<References/>", f"<References/><!--{text}-->"
        )
        members.append((f"{entity}.ovf", ovf))
    return tar(*members)


@pytest.mark.parametrize("through", ["file", "stdin"])
def test_larger_than_the_copies(
    store: Store, tmp_path: Path, through: str
) -> None:
    data = big(1, 9 << 20)
    before = store.contents()
    if through == "file":
        (tmp_path / "a.tar").write_bytes(data)
        result = store.cli("upload", store.path, tmp_path / "a.tar")
    else:
        result = store.cli("upload", store.path, "-", data=data)
    message = result.is_error(3510)
    assert str(8 << 20) in message
    if through == "file":
        assert str(len(data)) in message
    assert f"ovfstore create {store.path} --copies 4" in result.err
    assert store.contents() == before


def test_no_room_in_the_logs(store: Store) -> None:
    """Beside the two newest generations; the way out that is told works."""
    store.json("upload", "-", data=big(1, 4 << 20))
    store.json("upload", "-", data=big(2, 4 << 20))
    before = store.contents()
    result = store.cli("upload", store.path, "-", data=big(3, 4 << 20))
    assert "logs" in result.is_error(3510)
    assert store.contents() == before

    words = result.err.split("ovfstore create ")[1].split()
    store.ok("create", *words[1:])
    answer = store.json("upload", "-", data=big(3, 4 << 20))
    assert answer["generation"] == 4
    assert len(answer["copies"]) == 2
    assert {d["code"] for d in answer["degraded"]} <= {3535}


def test_large_file_that_is_no_archive(store: Store, tmp_path: Path) -> None:
    with (tmp_path / "disk").open("wb") as file:
        file.write(b"QFI\xfb")
        file.truncate(1 << 30)
    result = store.cli("upload", store.path, tmp_path / "disk")
    assert "qcow2" in result.is_error(3511)


# -- sources ------------------------------------------------------------------


def test_no_such_source(store: Store) -> None:
    result = store.cli("upload", store.path, "none.tar")
    assert "No such file" in result.is_error(3516)


class TestDirectory:
    def check(
        self, store: Store, source: Path, code: int, text: str
    ) -> Optional[str]:
        before = store.contents()
        result = store.cli("upload", store.path, source)
        message = result.is_error(code)
        assert text in message
        assert store.contents() == before
        return message

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        path = tmp_path / "ovfs"
        path.mkdir()
        return path

    def test_without_ovfs(self, store: Store, source: Path) -> None:
        (source / "readme").touch()
        self.check(store, source, 3516, "no *.ovf or *.xml")

    def test_without_id(self, store: Store, source: Path) -> None:
        (source / "web.ovf").write_text(GOOD)
        self.check(store, source, 3514, "id")

    def test_same_entity_twice(self, store: Store, source: Path) -> None:
        sample = next(SAMPLES.glob("*.ovf"))
        (source / sample.name).write_bytes(sample.read_bytes())
        (source / "copy.ovf").write_bytes(sample.read_bytes())
        self.check(store, source, 3514, "of the same entity")

    def test_bad_ovf(self, store: Store, source: Path) -> None:
        (source / NAME).write_text("<a>")
        (source / "web.ovf").write_text("<b>")
        self.check(store, source, 3514, "web.ovf")

    def test_pipe_in_place_of_ovf(self, store: Store, source: Path) -> None:
        os.mkfifo(source / NAME)
        self.check(store, source, 3516, "not a file")
