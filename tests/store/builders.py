# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Small stores for the tests, on real files.

    domain = make_domain(tmp_path)                a LocalFS domain, two volumes
    tar = archive(domain, ["web", "db"])          an archive of two VMs
    upload(domain, tar)                           through store.job.Job
    stock_write(domain.volumes()[0], tar)         as the engine and stock VDSM
    contents(domain)                              what a reader sees

Nothing here starts a process but `dd`, the one that VDSM itself starts.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from vdsm_ovfstore.format import archive_writer, description
from vdsm_ovfstore.format.seal import Entry
from vdsm_ovfstore.storage.filedomain import FileDomain, create_domain
from vdsm_ovfstore.storage.filevolume import FileVolume
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.job import Job
from vdsm_ovfstore.store.prepare import Prepared, prepare
from vdsm_ovfstore.store.reader import Reader

MIB = 1024**2
CAPACITY = 8 * MIB  # of a volume here: 7 MiB of segments and the ring

# The time of the archives: a real one, so that dates look like dates.
EPOCH = 1_593_603_787  # Wed Jul 01 11:43:07 UTC 2020

_NAMESPACE = uuid.UUID("6ba7b812-9dad-11d1-80b4-00c04fd430c8")
_DISK_NAMESPACE = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")


# -- making


def make_domain(
    directory: Path, copies: int = 2, capacity: int = CAPACITY
) -> FileDomain:
    """A new LocalFS domain below directory, with empty volumes."""
    domain = create_domain(str(directory), "LOCALFS")
    for _ in range(copies):
        domain.create_volume(capacity)
    return domain


def vm_id(name: str) -> str:
    """The id that the entity of that name always gets."""
    return str(uuid.uuid5(_NAMESPACE, name))


def disk_id(name: str) -> str:
    """The image of the one disk of that entity."""
    return str(uuid.uuid5(_DISK_NAMESPACE, name))


def ovf(name: str, notes: str = "", template: bool = False) -> bytes:
    """An OVF as small as the engine accepts; notes makes it larger."""
    kind = "<TemplateType>BASE</TemplateType>" if template else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        "<ovf:Envelope "
        'xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1/" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">'
        f'<References><File ovf:href="{disk_id(name)}/{vm_id(name)}"></File>'
        "</References>"
        '<Content ovf:id="out" xsi:type="ovf:VirtualSystem_Type">'
        f"<Name>{name}</Name><Description>{notes}</Description>{kind}"
        f'<Section ovf:id="{vm_id(name)}" ovf:required="false" '
        'xsi:type="ovf:OperatingSystemSection_Type"><Info>Guest</Info>'
        "</Section></Content></ovf:Envelope>"
    ).encode()


def incompressible(length: int, seed: int = 0) -> str:
    """Text that zlib cannot make much smaller; the same on each Python."""
    data = b"".join(
        uuid.uuid5(_NAMESPACE, f"{seed}.{n}").hex.encode("ascii")
        for n in range(-(-length // 32))
    )
    return data[:length].decode("ascii")


def archive(
    domain: FileDomain | str,
    names: Iterable[str] | Mapping[str, str],
    when: int = EPOCH,
) -> bytes:
    """
    The archive that the engine makes of these VMs.

    names may map each name to its notes. Another `when` makes another
    archive: it stands in info.json and in every header.
    """
    notes = names if isinstance(names, Mapping) else dict.fromkeys(names, "")
    ovfs = [(vm_id(n), ovf(n, text)) for n, text in notes.items()]
    members = archive_writer.engine_members(
        domain if isinstance(domain, str) else domain.id,
        ((i, len(data), (data,)) for i, data in ovfs),
        when,
        {},
    )
    return b"".join(archive_writer.write_archive(members, when))


# -- writing


def prepared(tar: bytes, chunk: int = 65536, **options: Any) -> Prepared:
    """tar, prepared for an upload; the caller closes it."""
    pieces = (tar[i : i + chunk] for i in range(0, len(tar), chunk))
    return prepare(pieces, **options)


def upload(domain: FileDomain, tar: bytes, **options: Any) -> dict[str, Any]:
    """Upload in this process; returns the answer. Options are Job's."""
    content = prepared(tar)
    try:
        return Job(domain.path, **options).upload(content)
    finally:
        content.close()


def upload_names(
    domain: FileDomain, names: Iterable[str], when: int = EPOCH
) -> bytes:
    """Upload the archive of these VMs; returns the archive."""
    tar = archive(domain, names, when)
    upload(domain, tar)
    return tar


def repair(domain: FileDomain) -> list[str]:
    """A tenure without an upload: adopts and heals. What it did, in words."""
    job = Job(domain.path)
    with job._tenure() as tenure:
        return list(tenure.healed)


def stock_write(
    volume: FileVolume,
    tar: bytes,
    updated: bool = True,
    when: int = EPOCH,
    dd: Iterable[str] = (),
) -> None:
    """
    Write as the engine does through a VDSM without us.

    DESCRIPTION becomes Updated:false, dd truncates and writes the volume,
    DESCRIPTION becomes Updated:true with Size. updated=False stops before
    the last step. More arguments for dd may be given, such as count=1.
    """
    set_description(volume, unfinished(volume.domain))
    dd_write(volume, tar, *dd)
    if updated:
        text = description.build(volume.domain, len(tar), when)
        set_description(volume, text)


def unfinished(domain: str) -> str:
    """The DESCRIPTION that the engine sets before it sends an archive."""
    return json.dumps(
        {
            "Updated": False,
            "Last Updated": description.format_date(EPOCH),
            "Storage Domains": [{"uuid": domain}],
            "Disk Description": "OVF_STORE",
        },
        separators=(",", ":"),
    )


def dd_write(volume: FileVolume, data: bytes, *more: str) -> None:
    """dd as VDSM calls it for a PUT; it truncates the volume."""
    subprocess.run(
        ["dd", f"of={volume.path}", "bs=1M", "conv=fsync", *more],
        input=data,
        check=True,
        capture_output=True,
    )


def set_description(volume: FileVolume, text: str) -> None:
    """What Volume.setDescription does: one metadata write, GEN as it is."""
    metadata = volume.read_metadata()._replace(description=text)
    new = f"{volume.metadata_path}.new"
    Path(new).write_bytes(metadata.text(volume.domain_version))
    os.rename(new, volume.metadata_path)


def patch(path: str, offset: int, data: bytes) -> None:
    """Overwrite some bytes of a file: damage, or a write that went astray."""
    fd = os.open(path, os.O_WRONLY)
    try:
        os.pwrite(fd, data, offset)
    finally:
        os.close(fd)


def flip(path: str, offset: int, mask: int = 1) -> None:
    """Flip bits of one byte of a file."""
    with open(path, "rb") as f:
        f.seek(offset)
        (byte,) = f.read(1)
    patch(path, offset, bytes([byte ^ mask]))


# -- reading


@contextlib.contextmanager
def opened(domain: FileDomain, write: bool = False) -> Iterator[list[Copy]]:
    """The copies of a domain, loaded."""
    copies = [Copy(volume) for volume in domain.volumes()]
    try:
        for copy in copies:
            copy.load(write=write)
        yield copies
    finally:
        for copy in copies:
            copy.close()


def entries(domain: FileDomain, number: int = 0) -> tuple[Entry, ...]:
    """The segments that the newest seal of a copy names."""
    with opened(domain) as copies:
        return copies[number].entries()


def head(volume: FileVolume, length: Optional[int] = None) -> bytes:
    """The volume's bytes, as any other program reads them."""
    return Path(volume.path).read_bytes()[:length]


def archives(domain: FileDomain) -> dict[int, bytes]:
    """The archive of every generation that a reader sees, by number."""
    with Reader(FileDomain.open(domain.path)) as reader:
        return {
            g.number: b"".join(reader.open(g).tar())
            for g in reader.generations()
        }


def contents(domain: FileDomain, wanted: Optional[str] = None) -> list[str]:
    """The names of the entities of a generation (the newest), in order."""
    with Reader(FileDomain.open(domain.path)) as reader:
        generation = reader.open(reader.find(wanted))
        return [e.entity for e in generation.index() if e.entity]
