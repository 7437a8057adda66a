# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Hosts on a simulated storage (simfs.py), and what must hold on it."""

from __future__ import annotations

import itertools
import stat
from functools import partial
from typing import Callable, Optional

from tests.simfs import Crash, SimFS, SimSystem
from vdsm_ovfstore import errors
from vdsm_ovfstore.format import archive_writer, description
from vdsm_ovfstore.storage.filedomain import FileDomain, create_domain
from vdsm_ovfstore.storage.filevolume import FileVolume
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.prepare import prepare
from vdsm_ovfstore.store.reader import Reader
from vdsm_ovfstore.store.stock import StockTenure
from vdsm_ovfstore.store.tenure import Absent, Outcome, Tenure
from vdsm_ovfstore.store.verify import OK, Report, verify

DOMAIN = "5ba1c94e-9b3c-4b3a-8c8f-0c6ecb3a8f11"
CAPACITY = 4 * 1024**2

OVF = (
    b'<?xml version="1.0" encoding="UTF-8"?><ovf:Envelope xmlns:ovf='
    b'"http://schemas.dmtf.org/ovf/envelope/1/"><References/><Content>'
    b"<Name>%s</Name><Description>%s</Description></Content></ovf:Envelope>"
)

_clock = itertools.count(1_800_000_000)


def now() -> int:
    return next(_clock)


def archive(*names: str, size: int = 600) -> bytes:
    """An archive as the engine makes it, of VMs of that size."""
    ovfs = []
    for number, name in enumerate(names):
        # Not to be compressed away: a segment has several blocks.
        filling = b"".join(
            b"%x" % (hash((name, i)) & 0xFFFFFFFF) for i in range(size // 8)
        )
        ovf = OVF % (name.encode(), filling)
        vm = f"00000000-0000-4000-8000-{number:012d}"
        ovfs.append((vm, len(ovf), [ovf]))
    when = now()
    members = archive_writer.engine_members(DOMAIN, ovfs, when, {})
    return b"".join(archive_writer.write_archive(members, when))


def new_fs(copies: int) -> SimFS:
    """A storage with a domain of empty volumes, all of it durable."""
    fs = SimFS()
    host = SimSystem(fs)
    host._new(fs.ROOT, "sim", stat.S_IFDIR | 0o755)
    domain = create_domain("/sim", "LOCALFS", domain=DOMAIN, system=host)
    for _ in range(copies):
        domain.create_volume(CAPACITY)
    fs.sync()
    return fs


def sealed(copies: int, newest: bytes) -> SimFS:
    """A storage with two generations, all of it durable."""
    fs = new_fs(copies)
    work(SimSystem(fs), archive("alpha"))
    work(SimSystem(fs), newest)
    fs.sync()
    return fs


def open_domain(host: SimSystem) -> FileDomain:
    return FileDomain.open(f"/sim/{DOMAIN}", system=host)


def work(
    host: SimSystem,
    data: Optional[bytes] = None,
    stock: Optional[int] = None,
) -> Optional[Outcome]:
    """
    One tenure of a host: heal, and upload data if there is any.

    stock: to that volume only, as the engine's own uploads go.
    Raises Crash where the host was told to; errors.Error as a job would.
    """
    domain = open_domain(host)
    copies, absent = [], {}
    for volume in domain.volumes():
        copy = Copy(volume)
        try:
            copy.load(write=True)
        except errors.Error as e:
            absent[volume.id] = Absent(volume.image, e)
            continue
        copies.append(copy)
    content = prepare(iter([data])) if data is not None else None
    try:
        make: Callable[..., Tenure] = Tenure
        if stock is not None:
            target = domain.volumes()[stock].id
            assert content is not None
            make = partial(StockTenure, target, content.sha256)
        tenure = make(DOMAIN, copies, "host", absent, now=now)
        tenure.begin()
        return tenure.upload(content) if content else None
    finally:
        if content:
            content.close()


def crashes(
    host: SimSystem,
    at: int,
    data: Optional[bytes],
    stock: Optional[int] = None,
) -> bool:
    """Run a tenure that crashes before its at-th change; False if it ends."""
    host.crash_at = at
    try:
        work(host, data, stock)
    except Crash:
        return True
    return False


def read(fs: SimFS) -> tuple[int, bytes]:
    """What a reader without lock gets: number and archive."""
    with Reader(open_domain(SimSystem(fs))) as reader:
        newest = reader.newest()
        return newest.number, b"".join(reader.open(newest).tar())


def history(fs: SimFS) -> list[tuple[int, bytes]]:
    """All generations, newest first; a fork's number comes twice."""
    with Reader(open_domain(SimSystem(fs))) as reader:
        return [
            (g.number, b"".join(reader.open(g).tar()))
            for g in reader.generations()
        ]


def suspects(fs: SimFS) -> list[bytes]:
    """What is kept aside, without the zeros at its end."""
    with Reader(open_domain(SimSystem(fs))) as reader:
        return [
            b"".join(copy.segment(entry).tar()).rstrip(b"\0")
            for copy in reader.copies
            for entry in copy.entries()
            if not entry.shown
        ]


def check(fs: SimFS) -> Report:
    with Reader(open_domain(SimSystem(fs))) as reader:
        return verify(reader)


def assert_sound(fs: SimFS, data: bytes) -> None:
    """Every copy is complete and shows data, under its description."""
    report = check(fs)
    assert report.verdict == OK, report.problems
    domain = open_domain(SimSystem(fs))
    for volume in domain.volumes():
        raw = volume.read_metadata().description
        described = description.parse(raw, DOMAIN)
        assert described is not None and described.updated
        assert described.size == len(data)
        volume.open()
        head = volume.head_read(0, volume.head_size())
        volume.close()
        assert head[: len(data)] == data
        assert not head[len(data) :].strip(b"\0")


def stock_write(
    fs: SimFS,
    number: int,
    data: bytes,
    stamp: bool = True,
    torn: Optional[int] = None,
) -> None:
    """
    What engine and stock VDSM do to one copy: Updated:false, dd in place,
    Updated:true. torn: dd stops after that many bytes (but see stamp).
    """
    broken, fs.broken = fs.broken, set()
    volume = open_domain(SimSystem(fs)).volumes()[number]
    text = description.build(DOMAIN, len(data), now())
    false = text.replace('"Updated":true', '"Updated":false')
    describe(fs, volume, false)
    _overwrite(fs, volume.path, data if torn is None else data[:torn])
    if stamp:
        describe(fs, volume, text)
    fs.broken = broken


def engine_describes(
    fs: SimFS, number: int, data: bytes, updated: bool
) -> None:
    """What the engine does before an upload to one copy, or after it."""
    text = description.build(DOMAIN, len(data), now())
    if not updated:
        text = text.replace('"Updated":true', '"Updated":false')
    volume = open_domain(SimSystem(fs)).volumes()[number]
    describe(fs, volume, text)


def describe(fs: SimFS, volume: FileVolume, text: str) -> None:
    """What Volume.setDescription of a stock host does."""
    metadata = volume.read_metadata()._replace(description=text)
    _overwrite(fs, volume.metadata_path, metadata.text(5))


def _overwrite(fs: SimFS, path: str, data: bytes) -> None:
    fs.sync()
    inode = fs.lookup(path)
    inode.truncate(0)
    inode.write(0, data)
    fs.durable[inode.number] = inode.clone()
