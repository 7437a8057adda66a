# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Archives in local files, before any lock."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.held import held
from tests.store import builders
from tests.store.builders import MIB
from vdsm_ovfstore import errors
from vdsm_ovfstore.format import segment
from vdsm_ovfstore.store.content import Segment
from vdsm_ovfstore.store.prepare import Prepared, Preparer, prepare

DOMAIN = "5ba1c94e-9b3c-4b3a-8c8f-0c6ecb3a8f11"


def vms(*kib: int) -> bytes:
    """An archive of VMs whose OVFs take about so many KiB, never less."""
    noise = builders.incompressible(4096)
    return builders.archive(
        DOMAIN, {f"vm-{n}": noise * (k // 4) for n, k in enumerate(kib)}
    )


SMALL = vms(*[40] * 8)
LARGE = vms(600, 300, 400, 2500, 100, *[90] * 30, 1000)


def state(found: Prepared) -> dict[str, Any]:
    """All that makes up the prepared archive; it is closed."""
    try:
        return {
            **found.facts(),
            "tar": hashlib.sha256(b"".join(found.tar())).digest(),
            "body": [found.payload(n) for n in range(len(found.parts))],
            "index": found.index_data(),
            "segment": hashlib.sha256(
                b"".join(Segment(found, DOMAIN, 3, 99).chunks())
            ).digest(),
        }
    finally:
        found.close()


def whole(tar: bytes, **options: Any) -> dict[str, Any]:
    return state(prepare(iter([tar]), **options))


@pytest.fixture(scope="module")
def large() -> dict[str, Any]:
    return whole(LARGE)


def member_ends(tar: bytes) -> list[int]:
    with Preparer() as preparer:
        preparer.feed(tar)
        found = preparer.finish()
    try:
        lines = zlib.decompress(found.index_data())
        index = segment.Index(lines)
        return [e.offset + e.length + -e.length % 512 for e in index]
    finally:
        found.close()


def test_facts(large: dict[str, Any]) -> None:
    assert large["length"] == len(LARGE)
    assert large["sha256"] == hashlib.sha256(LARGE).hexdigest()
    assert large["tar"] == hashlib.sha256(LARGE).digest()
    assert large["entities"] == 36


def test_frames_hold_the_archive(large: dict[str, Any]) -> None:
    offset = 0
    for part, body in zip(large["parts"], large["body"]):
        assert part[0] == offset and 0 < part[1] <= MIB
        assert zlib.decompress(body) == LARGE[offset : offset + part[1]]
        assert part[2] == len(body)
        offset += part[1]
    assert offset == len(LARGE)


def test_frames_are_cut_at_member_boundaries(large: dict[str, Any]) -> None:
    """But where a member is longer than a frame; and never much too early."""
    ends = set(member_ends(LARGE))
    parts = large["parts"]
    for start, length, _ in parts[:-1]:
        end = start + length
        if end in ends:
            nearest = max(e for e in ends if e <= start + MIB)
            assert end == nearest
        else:
            assert length == MIB
            assert not any(start < e <= end for e in ends)
    # 2500 KiB in one member: two cuts in it, no more.
    assert sum(s + n not in ends for s, n, _ in parts[:-1]) == 2


def test_small_archive_is_one_frame() -> None:
    assert [tuple(p)[:2] for p in whole(SMALL)["parts"]] == [(0, len(SMALL))]


@pytest.mark.parametrize("over", [-512, 0, 512])
def test_around_one_frame(over: int) -> None:
    """An archive of exactly 1 MiB, and a block more or less."""
    empty = len(builders.archive(DOMAIN, {"a": ""}))
    tar = builders.archive(DOMAIN, {"a": "x" * (MIB - empty + over)})
    assert len(tar) == MIB + over
    found = whole(tar)
    assert sum(p[1] for p in found["parts"]) == len(tar)
    assert found == whole_in(tar, 512)


def whole_in(tar: bytes, step: int, **options: Any) -> dict[str, Any]:
    pieces = (tar[i : i + step] for i in range(0, len(tar), step))
    return state(prepare(pieces, **options))


@pytest.mark.parametrize("step", [1000, 4096, 65536, MIB - 1, MIB, 3 * MIB])
def test_any_chunk_size_prepares_the_same(
    large: dict[str, Any], step: int
) -> None:
    assert whole_in(LARGE, step) == large


@given(cuts=st.lists(st.integers(0, len(LARGE)), max_size=12))
@settings(max_examples=12, deadline=None)
def test_any_chunking_prepares_the_same(
    large: dict[str, Any], cuts: list[int]
) -> None:
    places = [0, *sorted(cuts), len(LARGE)]
    pieces = (LARGE[a:b] for a, b in zip(places, places[1:]))
    assert state(prepare(pieces)) == large


@pytest.mark.parametrize("piece", [bytes, bytearray, memoryview])
def test_any_bytes_like(piece: Any) -> None:
    assert state(prepare(iter([piece(SMALL)]))) == whole(SMALL)


def test_segment_size_is_known_before_it_is_made() -> None:
    found = builders.prepared(SMALL)
    made = Segment(found, DOMAIN, 1, 0)
    data = b"".join(made.chunks())
    assert found.segment_size == made.size == len(data)
    assert len(data) % 4096 == 0
    found.close()


def test_segment_is_deterministic() -> None:
    """Also across calls, and it depends on domain, generation and time."""
    found = builders.prepared(SMALL)
    made = {
        args: b"".join(Segment(found, *args).chunks())
        for args in [(DOMAIN, 1, 5), (DOMAIN, 2, 5), (DOMAIN, 1, 6),
                     (DOMAIN.replace("5", "6"), 1, 5)]
    }  # fmt: skip
    assert len(set(made.values())) == len(made)
    for args, data in made.items():
        assert b"".join(Segment(found, *args).chunks()) == data
    found.close()


def test_index_finds_every_vm() -> None:
    found = builders.prepared(SMALL)
    lines = zlib.decompress(found.index_data())
    assert len(lines) == found.index_length
    index = segment.Index(lines)
    assert [e.name for e in index] == [
        "info.json",
        *(f"{builders.vm_id(f'vm-{n}')}.ovf" for n in range(8)),
        "metadata.json",
    ]
    for entry in index:
        data = SMALL[entry.offset : entry.offset + entry.length]
        assert hashlib.sha256(data).hexdigest() == entry.sha256
    found.close()


# -- handed to another process


def test_fds_and_facts_are_enough() -> None:
    found = builders.prepared(LARGE)
    fds = [os.dup(fd) for fd in found.fds()]
    again = Prepared(fds[0], fds[1], found.facts())
    assert state(again) == state(found)


def test_facts_are_plain_json() -> None:
    found = builders.prepared(SMALL)
    assert json.loads(json.dumps(found.facts())) == found.facts()
    found.close()


def test_in_another_process() -> None:
    found = builders.prepared(SMALL)
    script = (
        "import sys, hashlib; "
        "from vdsm_ovfstore.store.prepare import Prepared; "
        f"p = Prepared(*{found.fds()!r}, {found.facts()!r}); "
        "tar = b''.join(p.tar()); "
        "assert hashlib.sha256(tar).hexdigest() == p.sha256; "
        "print(hashlib.sha256(p.payload(0) + p.index_data()).hexdigest())"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script],
        pass_fds=found.fds(),
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=True,
        capture_output=True,
        text=True,
    )
    expected = hashlib.sha256(found.payload(0) + found.index_data())
    assert done.stdout.strip() == expected.hexdigest()
    found.close()


def test_spool_that_was_cut_is_noticed() -> None:
    found = builders.prepared(SMALL)
    os.truncate(found.fds()[0], 1000)
    with pytest.raises(errors.SourceUnreadable):
        list(found.tar())
    found.close()


# -- what is refused, and what is left


@pytest.mark.parametrize(
    "tar, error",
    [
        (b"", errors.ArchiveTruncated),
        (SMALL[:-1024], errors.ArchiveTruncated),
        (SMALL[:5000], errors.ArchiveTruncated),
        (b"\x1f\x8b" + bytes(600), errors.NotAnArchive),
        (SMALL + b"x", errors.NotAnArchive),
    ],
    ids=["empty", "no end marker", "cut", "gzip", "trailing data"],
)
def test_refused(tar: bytes, error: type[errors.Error]) -> None:
    before = held()
    with pytest.raises(error):
        whole(tar)
    assert held() - before == set()


def test_limit() -> None:
    before = held()
    assert whole(SMALL, limit=len(SMALL))["length"] == len(SMALL)
    with pytest.raises(errors.ArchiveTooLarge) as caught:
        whole_in(SMALL, 4096, limit=len(SMALL) - 1, way_out="extend it")
    assert caught.value.fields()["limit"] == len(SMALL) - 1
    assert caught.value.next_step == "extend it"
    assert held() - before == set()


def test_limit_stops_an_endless_stream() -> None:
    def endless() -> Iterator[bytes]:
        sent = 0
        yield SMALL[:-1024]
        while True:
            sent += 1
            assert sent < 100, "it reads on"
            yield bytes(65536)

    with pytest.raises(errors.Error):
        prepare(endless(), limit=2 * len(SMALL))


def test_raw_takes_anything() -> None:
    junk = os.urandom(3 * MIB + 17)
    found = whole_in(junk, 65536, raw=True)
    assert found["length"] == len(junk) and found["entities"] == 0
    assert found["sha256"] == hashlib.sha256(junk).hexdigest()
    assert found["index_length"] == 0
    assert [p[1] for p in found["parts"]] == [MIB, MIB, MIB, 17]
    assert max(p[2] for p in found["parts"]) <= (
        segment.MAX_FRAME_STORED - segment.FRAME_HEAD
    )
    assert found == whole(junk, raw=True)
    assert whole(b"", raw=True)["parts"] == []


def test_lenient_takes_what_stock_hosts_write() -> None:
    bad = SMALL.replace(b"<Name>vm-3</Name>", b"<Nome>vm-3</Nome>")
    with pytest.raises(errors.OvfRefused):
        whole(bad)
    found = builders.prepared(bad, strict=False)
    assert found.entities == 7
    index = segment.Index(zlib.decompress(found.index_data()))
    entry = index.find(f"{builders.vm_id('vm-3')}.ovf")
    assert entry is not None and entry.kind == "invalid"
    found.close()


def test_known_members_skip_the_xml_check() -> None:
    bad = SMALL.replace(b"<Name>vm-3</Name>", b"<Nome>vm-3</Nome>")
    name = f"{builders.vm_id('vm-3')}.ovf"
    start = bad.index(name.encode()) + 512
    size = int(bad[start - 512 + 124 : start - 512 + 135], 8)
    digest = hashlib.sha256(bad[start : start + size]).hexdigest()
    found = builders.prepared(bad, known={digest: ("vm", "known", ())})
    index = segment.Index(zlib.decompress(found.index_data()))
    entry = index.find(name)
    assert entry is not None and entry.entity == "known"
    assert found.entities == 8
    found.close()


def test_spool_leaves_no_file(tmp_path: Path) -> None:
    with Preparer(spool=str(tmp_path)) as preparer:
        preparer.feed(SMALL)
        assert os.listdir(tmp_path) == []
        preparer.finish().close()


def test_spool_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(errors.TargetRefused) as caught:
        Preparer(spool=str(tmp_path / "missing"))
    assert caught.value.fields()["path"] == str(tmp_path / "missing")


def test_spool_is_full() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    with Preparer() as preparer:
        os.dup2(fd, preparer._tar)
        with pytest.raises(errors.SpoolFull, match="No space"):
            preparer.feed(SMALL)
    os.close(fd)
