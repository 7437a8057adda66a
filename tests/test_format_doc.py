# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
docs/format.md is right: its reader and its commands work on a real store.

The reader is written after the document and uses nothing of the package, so
it tells when the format drifts away from what is written down.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.store import builders
from tests.store.builders import EPOCH
from vdsm_ovfstore.format import description, record, seal, segment
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.copy import Copy

DOCUMENT = Path(__file__).parents[1] / "docs" / "format.md"


def blocks(language: str) -> list[str]:
    """The code blocks of that language, in order."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)


@pytest.fixture
def domain(tmp_path: Path) -> FileDomain:
    return builders.make_domain(tmp_path / "domains")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path) -> None:
    (tmp_path / "domains").mkdir()


@pytest.fixture
def reader(tmp_path: Path) -> Path:
    (code,) = blocks("python")
    path = tmp_path / "reader.py"
    path.write_text(code, encoding="utf-8")
    return path


def run(
    reader: Path, domain: FileDomain, *args: str
) -> subprocess.CompletedProcess[bytes]:
    """In a Python that sees neither this checkout nor other packages."""
    command = [sys.executable, "-I", "-S", str(reader), domain.path, *args]
    return subprocess.run(command, cwd=reader.parent, capture_output=True)


def output(reader: Path, domain: FileDomain, *args: str) -> bytes:
    done = run(reader, domain, *args)
    assert done.returncode == 0, done.stderr
    return done.stdout


def large_archive(domain: FileDomain) -> bytes:
    """Of several frames."""
    noise = builders.incompressible(700_000)
    return builders.archive(domain, dict.fromkeys("abcd", noise), EPOCH + 9)


def test_reader_stands_alone() -> None:
    (code,) = blocks("python")
    assert "ovfstore " not in code and "vdsm" not in code
    assert len(code.splitlines()) <= 60
    imports = re.findall(r"^(?:import|from) .*$", code, re.M)
    assert imports == ["import hashlib, json, os, struct, sys, zlib"]


def test_reader_gets_the_ovf(reader: Path, domain: FileDomain) -> None:
    tar = builders.upload_names(domain, ["web", "db", "ü"])
    found = output(reader, domain)
    assert found == tar
    with tarfile.open(fileobj=io.BytesIO(found)) as archive:
        member = archive.extractfile(f"{builders.vm_id('ü')}.ovf")
        assert member is not None
        assert member.read() == builders.ovf("ü")


def test_reader_gets_each_generation(reader: Path, domain: FileDomain) -> None:
    tars = [builders.archive(domain, "abc"[: n + 1]) for n in range(3)]
    tars.append(large_archive(domain))
    for tar in tars:
        builders.upload(domain, tar)
    for number, tar in enumerate(tars, 1):
        assert output(reader, domain, str(number)) == tar
    assert output(reader, domain) == tars[-1]
    assert run(reader, domain, "9").returncode == 1


def test_reader_shows_nothing_that_was_only_introduced(
    reader: Path, domain: FileDomain, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    def die(*args: object) -> None:
        raise Crash

    tar = builders.upload_names(domain, ["a"])
    with monkeypatch.context() as patched:
        patched.setattr(Copy, "write_head", die)
        with pytest.raises(Crash):
            builders.upload_names(domain, ["a", "b"], EPOCH + 60)
    assert output(reader, domain) == tar


def test_reader_takes_the_sound_copy(reader: Path, domain: FileDomain) -> None:
    builders.upload_names(domain, ["a"])
    tar = large_archive(domain)
    builders.upload(domain, tar)
    one, two = domain.volumes()
    newest = max(builders.entries(domain))
    for place in (100, 4100, newest.stored // 2, newest.stored - 8000):
        builders.flip(one.log_path, newest.offset + place)
        assert output(reader, domain) == tar
        builders.flip(one.log_path, newest.offset + place)
    # On both copies: nothing, and not an older one instead.
    for volume in (one, two):
        builders.flip(volume.log_path, newest.offset + 5000)
        builders.flip(volume.log_path, newest.offset + 4100)
    done = run(reader, domain)
    assert (done.returncode, done.stdout) == (1, b"")


def test_reader_ignores_suspects_and_heads(
    reader: Path, domain: FileDomain
) -> None:
    tar = builders.upload_names(domain, ["a"])
    volume = domain.volumes()[0]
    other = builders.archive(domain, ["x"], EPOCH + 60)
    builders.stock_write(volume, other, updated=False)
    builders.repair(domain)
    assert "suspect" in {e.kind for e in builders.entries(domain)}
    builders.dd_write(volume, b"")
    assert output(reader, domain) == tar


def test_reader_after_a_fork(reader: Path, domain: FileDomain) -> None:
    builders.upload_names(domain, ["a"])
    images = [Path(v.path).parent for v in domain.volumes()]
    for away, names in ((images[0], ["a", "b"]), (images[1], ["a", "c"])):
        hidden = away.with_name("away")
        away.rename(hidden)
        builders.upload_names(domain, names)
        hidden.rename(away)
    newest = builders.contents(domain, None)
    with tarfile.open(fileobj=io.BytesIO(output(reader, domain))) as archive:
        names = archive.getnames()
    assert f"{builders.vm_id(newest[1])}.ovf" in names


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_commands(domain: FileDomain) -> None:
    """Those of the worked example, on a store with the same history."""
    old = builders.upload_names(domain, ["web", "db"])
    new = builders.upload_names(domain, ["web", "db", "mail"])
    volume = domain.volumes()[0]
    done = subprocess.run(
        ["bash", "-eu", "-c", "\n".join(blocks("sh"))],
        env={
            **os.environ,
            "DOMAIN": domain.path,
            "VOLUME": volume.id,
            "LC_ALL": "C",
        },
        capture_output=True,
        encoding="utf-8",
        # What `dd` shows of a frame is zlib data.
        errors="replace",
    )
    lines = done.stdout.splitlines()
    assert lines[:5] == [
        'slot 0 {"magic":"OVFSTORE-SEAL","version":1,"sequence":[2,1]',
        'slot 1 {"magic":"OVFSTORE-SEAL","version":1,"sequence":[1,1]',
        'slot 2 {"magic":"OVFSTORE-SEAL","version":1,"sequence":[2,2]',
        'slot 3 {"magic":"OVFSTORE-SEAL","version":1,"sequence":[1,2]',
        'slot 4 {"magic":"OVFSTORE-SEAL","version":1,"sequence":[2,3]',
    ]
    assert lines[5].split()[0] == lines[6]
    assert f'    "volume": "{volume.id}",' in lines
    assert '    "sequence": [' in lines
    assert any(n.startswith('{"magic":"OVFSTORE-SEGMENT"') for n in lines)
    assert any(n.startswith("OVFSTORE-FRAME 1 ") for n in lines)
    with tarfile.open(fileobj=io.BytesIO(new)) as archive:
        names = archive.getnames()
    assert lines[-10:] == names * 2
    assert len(old) < len(new)
    assert done.stderr == ""


def test_documented_numbers() -> None:
    """The constants that are written out in the text."""
    text = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    for value in (
        f"a record of {seal.SLOT_SIZE} bytes",
        f"at most {seal.MAX_MEMBERS} `[volume, image, reason]`",
        f"| `segments` | at most {seal.MAX_SEGMENTS}, as below",
        f"its first {seal.MAX_DESCRIPTION} characters",
        f"length in the archive, 1 to {segment.FRAME_TAR}",
        f"{segment.TABLE_ENTRY} × frames | frame table",
        f"a head of {segment.FRAME_HEAD} bytes",
        f"how many, at most {128 * 1024}",
        f"multiples of {record.BLOCK} bytes",
        f"`{description.created()}`",
    ):
        assert value in text, value
    for name in (
        "sequence domain image volume members kind introduces head previous "
        "description segments host tool time generation offset stored length "
        "sha256 entities pinned frames table index"
    ).split():
        assert f"`{name}" in text, name
