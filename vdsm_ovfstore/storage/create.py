# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Making volumes and domains as VDSM makes them.

What makes the rest count is made last: a volume's .meta and a domain's
metadata, each complete under its name from the first instant. A crash before
that leaves

* an image directory without .meta. It has no volume for VDSM, the engine
  and us, and holds no space; VDSM's own creation leaves the same.
* a directory named by a UUID without dom_md/metadata: no domain.
* a file `<volume>.meta.<hex>` in ovf_store, of a volume that never was.

After an error, all of it is removed again as far as the storage allows.
"""

from __future__ import annotations

import logging
import time
from typing import NamedTuple, Optional, Protocol

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import description
from vdsm_ovfstore.format.ids import is_uuid
from vdsm_ovfstore.format.sdmeta import LEASE_PARAMETERS, DomainMetadata
from vdsm_ovfstore.format.volmeta import VolumeMetadata
from vdsm_ovfstore.lease.address import SDM_LEASE_NAME, SDM_LEASE_SLOT
from vdsm_ovfstore.storage.directio import round_up
from vdsm_ovfstore.storage.failure import translated
from vdsm_ovfstore.storage.replace import Place, replace_small
from vdsm_ovfstore.storage.tree import (
    DOM_MD,
    IMAGES,
    METADATA_MODE,
    Tree,
    random_id,
)

log = logging.getLogger("ovfstore.storage")

MAILBOX_SIZE = 16 * 1024**2  # bytes; VDSM's mailbox, 4 KiB for each host
ALIGNMENTS = tuple(n * 1024**2 for n in (1, 2, 4, 8))  # sanlock's, bytes


class FormatLease(Protocol):
    """Writes an empty sanlock lease."""

    def __call__(
        self,
        *,
        lockspace: str,
        resource: str,
        path: str,
        offset: int,
        align: int,
        sector: int,
    ) -> None: ...


class FormatLockspace(Protocol):
    """Writes an empty sanlock lockspace at the start of a file."""

    def __call__(
        self, *, lockspace: str, path: str, align: int, sector: int
    ) -> None: ...


class NewVolume(NamedTuple):
    """What `build_volume` made."""

    image: str
    volume: str
    capacity: int


def build_volume(
    tree: Tree,
    domain: DomainMetadata,
    capacity: int,
    format_lease: Optional[FormatLease],
) -> NewVolume:
    """
    Make an image with one empty OVF_STORE volume, durable.

    Its metadata, and with it the volume, appears with the DESCRIPTION by
    which the engine knows a store that was never written.

    Arguments:
        tree (Tree): the domain's directories.
        capacity (int): bytes, rounded up to 4096 as VDSM does.
        format_lease: None for a domain without leases.

    Raises:
        errors.StorageFailed: or one of its kinds, or what `format_lease`
            raises; nothing is left but what cannot be removed.
    """
    if capacity <= 0:
        raise ValueError(f"capacity {capacity}")
    new = NewVolume(random_id(), random_id(), round_up(capacity))
    log.info(
        "Creating volume domain=%s image=%s volume=%s capacity=%s",
        domain.uuid,
        new.image,
        new.volume,
        new.capacity,
    )
    metadata = VolumeMetadata(
        capacity=new.capacity,
        ctime=int(time.time()),
        description=description.created(),
        domain=domain.uuid,
        image=new.image,
    )
    text = metadata.text(domain.version)
    store_fd = tree.open_store(create=True)
    try:
        with tree.directory(IMAGES) as images:
            path = tree.where(IMAGES, new.image)
            tree.make_directory(new.image, images, path)
        try:
            with tree.directory(IMAGES, new.image) as image_fd:
                _fill_image(tree, domain, new, image_fd, format_lease)
                place = Place(
                    new.volume,
                    new.volume + ".meta",
                    image_fd,
                    store_fd,
                    tree.where(IMAGES, new.image, new.volume + ".meta"),
                )
                replace_small(tree, place, "meta", text)
        except BaseException:
            names = [new.volume + s for s in (".meta", ".lease", "")]
            _remove(tree, (IMAGES, new.image), names)
            raise
    finally:
        tree.close(store_fd)
    return new


def _fill_image(
    tree: Tree,
    domain: DomainMetadata,
    new: NewVolume,
    image_fd: int,
    format_lease: Optional[FormatLease],
) -> None:
    path = tree.where(IMAGES, new.image, new.volume)
    tree.create_file(new.volume, image_fd, path, length=new.capacity)
    if format_lease is not None:
        name = new.volume + ".lease"
        path = tree.where(IMAGES, new.image, name)
        tree.create_file(name, image_fd, path)
        format_lease(
            lockspace=domain.uuid,
            resource=new.volume,
            path=path,
            offset=0,
            align=domain.alignment,
            sector=domain.block_size,
        )
        _flush(tree, name, image_fd, path)
    tree.sync(image_fd, path)


def new_domain_metadata(
    path: str,
    type: str,
    version: int,
    block_size: int,
    alignment: int,
    domain: Optional[str],
) -> DomainMetadata:
    """
    Metadata of a domain that belongs to no pool.

    Raises:
        ValueError: VDSM has no such domain.
    """
    if block_size not in (512, 4096) or alignment not in ALIGNMENTS:
        raise ValueError(f"block size {block_size}, alignment {alignment}")
    if block_size == 512 and alignment != 1024**2:
        raise ValueError("sectors of 512 bytes need an alignment of 1 MiB")
    if version < 5 and block_size != 512:
        raise ValueError(f"version {version} has sectors of 512 bytes only")
    if domain is not None and not is_uuid(domain):
        raise ValueError(f"{domain!r} is not the id of a domain")
    return DomainMetadata(
        uuid=domain or random_id(),
        version=version,
        type=type,
        block_size=block_size,
        alignment=alignment,
        description="ovf_store",
        other={**LEASE_PARAMETERS, "REMOTE_PATH": path},
    )


def build_domain(
    parent: Tree,
    domain: DomainMetadata,
    format_lockspace: Optional[FormatLockspace],
    format_lease: Optional[FormatLease],
) -> None:
    """
    Make the directories and files of a domain, durable.

    External leases (dom_md/xleases) are VDSM's own, and are not made.

    Arguments:
        parent (Tree): where the domain's directory is made.
        format_lockspace, format_lease: None for a domain without leases.

    Raises:
        errors.StorageFailed: or one of its kinds, or what the callbacks
            raise; nothing is left but what cannot be removed.
    """
    text = domain.text()
    log.info("Creating domain domain=%s path=%s", domain.uuid, parent.path)
    with parent.directory() as fd:
        parent.make_directory(domain.uuid, fd, parent.where(domain.uuid))
    made: list[str] = []
    try:
        with parent.directory(domain.uuid) as root:
            for name in (IMAGES, DOM_MD):
                path = parent.where(domain.uuid, name)
                parent.make_directory(name, root, path)
        with parent.directory(domain.uuid, DOM_MD) as fd:
            for name, length in (
                ("ids", 0),
                ("leases", 0),
                ("inbox", MAILBOX_SIZE),
                ("outbox", MAILBOX_SIZE),
            ):
                path = parent.where(domain.uuid, DOM_MD, name)
                parent.create_file(name, fd, path, length=length)
                made.append(name)
            _format(parent, domain, fd, format_lockspace, format_lease)
            parent.sync(fd, path)
            _commit(parent, fd, text, domain.uuid, made)
    except BaseException:
        _remove(parent, (domain.uuid, DOM_MD), made)
        _remove(parent, (domain.uuid, IMAGES), [])
        _remove(parent, (domain.uuid,), [])
        raise


def _format(
    parent: Tree,
    domain: DomainMetadata,
    dom_md_fd: int,
    format_lockspace: Optional[FormatLockspace],
    format_lease: Optional[FormatLease],
) -> None:
    if format_lockspace is not None:
        path = parent.where(domain.uuid, DOM_MD, "ids")
        format_lockspace(
            lockspace=domain.uuid,
            path=path,
            align=domain.alignment,
            sector=domain.block_size,
        )
        _flush(parent, "ids", dom_md_fd, path)
    if format_lease is not None:
        path = parent.where(domain.uuid, DOM_MD, "leases")
        format_lease(
            lockspace=domain.uuid,
            resource=SDM_LEASE_NAME,
            path=path,
            offset=SDM_LEASE_SLOT * domain.alignment,
            align=domain.alignment,
            sector=domain.block_size,
        )
        _flush(parent, "leases", dom_md_fd, path)


def _commit(
    parent: Tree, dom_md_fd: int, text: bytes, domain: str, made: list[str]
) -> None:
    path = parent.where(domain, DOM_MD, "metadata")
    new = "metadata.new"  # VDSM's name for it
    parent.create_file(new, dom_md_fd, path + ".new", METADATA_MODE, text)
    made += [new, "metadata"]
    with translated("replace", path):
        parent.system.rename(new, "metadata", dom_md_fd, dom_md_fd)
    parent.sync(dom_md_fd, path)


def _flush(tree: Tree, name: str, dir_fd: int, path: str) -> None:
    # Sanlock has written it; the file's length may not be durable.
    file = tree.open(name, dir_fd, path)
    try:
        file.flush()
    finally:
        file.close()


def _remove(tree: Tree, where: tuple[str, ...], names: list[str]) -> None:
    """Remove files and their directory; the first error stays visible."""
    try:
        with tree.directory(*where) as fd:
            for name in names:
                tree.discard(name, fd)
        with tree.directory(*where[:-1]) as fd:
            tree.discard_directory(where[-1], fd)
    except errors.StorageFailed as e:
        log.warning("Cannot remove path=%s: %s", tree.where(*where), e)
