# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
File storage domains: NFS, POSIX, Gluster and LocalFS, mounted somewhere.

VDSM mounts them below /rhev/data-center/mnt; `reference` of the layout is
VDSM's fileSD.py. What lies below the root is drawn in `tree` and
`filevolume`.
"""

from __future__ import annotations

import errno
import logging
import os
from typing import Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format.ids import is_uuid
from vdsm_ovfstore.format.sdmeta import DomainMetadata
from vdsm_ovfstore.format.volmeta import VolumeMetadata
from vdsm_ovfstore.storage import create
from vdsm_ovfstore.storage.discovery import domains_below, domains_in
from vdsm_ovfstore.storage.filevolume import FileVolume
from vdsm_ovfstore.storage.images import Images
from vdsm_ovfstore.storage.leftlogs import LeftLogs
from vdsm_ovfstore.storage.system import System
from vdsm_ovfstore.storage.tree import DOM_MD, IMAGES, STORE, Tree
from vdsm_ovfstore.storage.volumefiles import LOG_SUFFIX, META_SUFFIX

log = logging.getLogger("ovfstore.storage")

CAPACITY = 128 * 1024**2  # bytes, as the engine makes its stores

WRITABLE_VERSIONS = (4, 5)
FILE_TYPES = ("NFS", "LOCALFS", "POSIXFS", "GLUSTERFS", "CEPHFS")


class FileDomain:
    """A file domain, as its metadata says it is. See `open`."""

    def __init__(self, tree: Tree, metadata: DomainMetadata) -> None:
        self.metadata = metadata
        self.path = tree.path
        """The domain's directory, without symbolic links."""
        self.id: str = metadata.uuid
        self.version: int = metadata.version
        self.type: str = metadata.type
        self.block_size: int = metadata.block_size
        """Sector size in bytes, 512 or 4096."""
        self.alignment: int = metadata.alignment
        """Size of a sanlock lease in bytes."""
        self.problems: list[errors.Error] = []
        """What `volumes` could not read, of its last call."""
        self.buffered = tree.buffered
        self._tree = tree

    @classmethod
    def open(
        cls,
        path: str,
        system: Optional[System] = None,
        buffered: bool = False,
    ) -> FileDomain:
        """
        Read the domain at `path`; nothing stays open.

        Arguments:
            path (str): the domain's directory, or one that has exactly one
                domain in it, such as the mount point.
            buffered (bool): for development, on file systems without
                O_DIRECT.

        Raises:
            errors.DomainNotFound: there is none, or more than one.
            errors.DomainIdMismatch: the directory has another name.
            errors.DomainMetadataInvalid: it is damaged.
            errors.BlockDomainUnsupported: it is a block domain.
            errors.StorageFailed: I/O error, or a symbolic link.
        """
        system = system or System()
        real = os.path.realpath(path)
        try:
            return cls._open_root(real, system, buffered)
        except errors.StorageFailed as e:
            if e.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
        found = domains_in(real) if os.path.isdir(real) else []
        if len(found) == 1:
            return cls._open_root(found[0], system, buffered)
        reason = "no dom_md/metadata there, nor one level below"
        if found:
            reason = f"it has {len(found)} of them; give the path of one"
        elif not os.path.isdir(real):
            reason = "no such directory"
        raise errors.DomainNotFound(path=path, reason=reason)

    @classmethod
    def _open_root(
        cls, path: str, system: System, buffered: bool
    ) -> FileDomain:
        tree = Tree(system, path, buffered)
        where = tree.where(DOM_MD, "metadata")
        with tree.directory(DOM_MD) as fd:
            try:
                data = tree.read_small("metadata", fd, where)
            except errors.StorageFailed as e:
                if e.errno == errno.ELOOP and _is_device(tree, fd):
                    raise errors.BlockDomainUnsupported(
                        id=os.path.basename(path), type="block", path=path
                    ) from e
                raise
        metadata = DomainMetadata.parse(data, where)
        if metadata.type not in FILE_TYPES:
            raise errors.BlockDomainUnsupported(
                id=metadata.uuid, type=metadata.type, path=path
            )
        if metadata.uuid != os.path.basename(path):
            raise errors.DomainIdMismatch(path=path, id=metadata.uuid)
        return cls(tree, metadata)

    def __repr__(self) -> str:
        return f"<FileDomain {self.id} at {self.path}>"

    @property
    def lock_kind(self) -> str:
        """`flock` if VDSM gives this domain no leases, else `sanlock`."""
        return "flock" if self.type == "LOCALFS" else "sanlock"

    def writable(self) -> None:
        """
        Raises:
            errors.DomainVersionUnsupported: only versions 4 and 5 are
                written.
        """
        if self.version not in WRITABLE_VERSIONS:
            raise errors.DomainVersionUnsupported(
                id=self.id, version=self.version, path=self.path
            )

    # -- volumes

    def volumes(self) -> list[FileVolume]:
        """
        The OVF_STORE volumes, sorted by id; those whose DISKTYPE says so.

        A volume whose metadata cannot be read may be one too: it is not
        returned, but its error stands in `problems`.

        Raises:
            errors.StorageFailed: the images cannot be listed at all.
        """
        self.problems = []
        found = []
        with self._tree.directory(IMAGES) as images:
            names = self._tree.names(images, self._tree.where(IMAGES))
            for image in filter(is_uuid, names):
                try:
                    found += self._volumes_of(image, images)
                except errors.StorageFailed as e:
                    # An image that was deleted since is none.
                    if e.errno != errno.ENOENT:
                        log.warning("Cannot read image=%s: %s", image, e)
                        self.problems.append(e)
        return sorted(found, key=lambda volume: volume.id)

    def volume_of(self, image: str) -> Optional[FileVolume]:
        """
        The OVF_STORE volume of an image; None if it has another one, or more
        than one.

        Raises:
            errors.StorageFailed: the image cannot be read, or is not there.
        """
        if not is_uuid(image):
            return None
        self.problems = []
        with self._tree.directory(IMAGES) as images:
            where = self._tree.where(IMAGES, image)
            with self._tree.below(image, images, where) as fd:
                names = self._tree.names(fd, where)
            if sum(name.endswith(META_SUFFIX) for name in names) != 1:
                return None
            found = self._volumes_of(image, images)
        return found[0] if found else None

    def _volumes_of(self, image: str, images: int) -> list[FileVolume]:
        found = []
        where = self._tree.where(IMAGES, image)
        with self._tree.below(image, images, where) as fd:
            for name in self._tree.names(fd, where):
                volume = name[: -len(META_SUFFIX)]
                if not name.endswith(META_SUFFIX) or not is_uuid(volume):
                    continue
                path = self._tree.where(IMAGES, image, name)
                try:
                    data = self._tree.read_small(name, fd, path)
                    metadata = VolumeMetadata.parse(data, volume, path)
                except errors.Error as e:
                    log.warning("Cannot read metadata path=%s: %s", path, e)
                    self.problems.append(e)
                    continue
                if metadata.is_store():
                    found.append(
                        self._volume(image, volume, metadata.capacity)
                    )
        return found

    def volume(self, image: str, volume: str) -> Optional[FileVolume]:
        """
        The OVF_STORE volume of these ids, or None if there is none.

        Raises:
            errors.VolumeMetadataUnreadable: its metadata is damaged.
            errors.StorageFailed: I/O error.
        """
        name = volume + META_SUFFIX
        path = self._tree.where(IMAGES, image, name)
        try:
            with self._tree.directory(IMAGES, image) as fd:
                data = self._tree.read_small(name, fd, path)
        except errors.StorageFailed as e:
            if e.errno != errno.ENOENT:
                raise
            return None
        metadata = VolumeMetadata.parse(data, volume, path)
        if not metadata.is_store():
            return None
        return self._volume(image, volume, metadata.capacity)

    def _volume(self, image: str, volume: str, capacity: int) -> FileVolume:
        return FileVolume(
            self._tree, self.id, image, volume, capacity, self.version
        )

    def create_volume(
        self,
        capacity: int = CAPACITY,
        format_lease: Optional[create.FormatLease] = None,
    ) -> FileVolume:
        """
        Make an empty OVF_STORE volume; see `create.build_volume`.

        Arguments:
            capacity (int): bytes, rounded up to 4096.
            format_lease: writes the sanlock lease of the volume; None only
                for a domain without leases.

        Raises:
            errors.DomainVersionUnsupported: see `writable`.
            errors.StorageFailed: or one of its kinds; nothing is left.
        """
        self.writable()
        if self.lock_kind == "sanlock" and format_lease is None:
            raise ValueError(f"{self!r} has leases: format_lease is needed")
        if self.lock_kind != "sanlock":
            format_lease = None
        new = create.build_volume(
            self._tree, self.metadata, capacity, format_lease
        )
        return self._volume(new.image, new.volume, new.capacity)

    def images(self) -> Images:
        """All images, not the OVF_STORE volumes only."""
        return Images(self._tree)

    # -- our directory

    def logs(self) -> list[str]:
        """
        Ids of the volumes that have a log, also of those that are gone.

        Raises:
            errors.StorageFailed: I/O error.
        """
        try:
            with self._tree.directory(STORE) as fd:
                names = self._tree.names(fd, self._tree.where(STORE))
        except errors.StorageFailed as e:
            if e.errno != errno.ENOENT:
                raise
            return []
        ids = (n[: -len(LOG_SUFFIX)] for n in names if n.endswith(LOG_SUFFIX))
        return [i for i in ids if is_uuid(i)]

    def left_logs(self) -> LeftLogs:
        """The logs that no volume uses."""
        return LeftLogs(self._tree)

    def log_end(self, volume: str, length: int) -> bytes:
        """
        The last bytes of the log of a volume, whether that is there or not.

        Raises:
            errors.StorageFailed: ENOENT if there is no log; or of its kinds.
        """
        name = volume + LOG_SUFFIX
        path = self._tree.where(STORE, name)
        with self._tree.directory(STORE) as fd:
            file = self._tree.open(name, fd, path)
        try:
            return file.read(max(0, file.size() - length), length)
        finally:
            file.close()

    def store_directory(self, create: bool = False) -> int:
        """
        Descriptor of ovf_store; the caller closes it.

        Raises:
            errors.StorageFailed: ENOENT if there is none and it is not to
                be made; or one of its kinds.
        """
        return self._tree.open_store(create)


def create_domain(
    path: str,
    type: str,
    version: int = 5,
    block_size: int = 512,
    alignment: int = 1024**2,
    domain: Optional[str] = None,
    format_lockspace: Optional[create.FormatLockspace] = None,
    format_lease: Optional[create.FormatLease] = None,
    system: Optional[System] = None,
    buffered: bool = False,
) -> FileDomain:
    """
    Make a domain in the directory `path`, for hosts without VDSM.

    Arguments:
        path (str): existing directory; the domain gets one in it.
        type (str): one of `FILE_TYPES`.
        domain (str): its id; by default a random one.
        format_lockspace, format_lease: write the lockspace and the domain's
            own lease; needed unless `type` is LOCALFS.

    Raises:
        ValueError: a combination that VDSM does not have.
        errors.StorageFailed: or one of its kinds.
    """
    if type not in FILE_TYPES or version not in WRITABLE_VERSIONS:
        raise ValueError(f"no file domain of type {type} version {version}")
    if type == "LOCALFS":
        format_lockspace = format_lease = None
    elif format_lockspace is None or format_lease is None:
        raise ValueError(f"a domain of type {type} has leases to be written")
    metadata = create.new_domain_metadata(
        path, type, version, block_size, alignment, domain
    )
    tree = Tree(system or System(), os.path.realpath(path), buffered)
    create.build_domain(tree, metadata, format_lockspace, format_lease)
    return FileDomain.open(os.path.join(path, metadata.uuid), system, buffered)


def find_domains(
    path: str,
    depth: int = 4,
    system: Optional[System] = None,
    buffered: bool = False,
    problems: Optional[list[errors.Error]] = None,
) -> list[FileDomain]:
    """
    All file domains below `path`, such as /rhev/data-center/mnt.

    Symbolic links are followed above the domains (VDSM's entry for a
    LocalFS domain is one). A block domain is passed over.

    Arguments:
        depth (int): how many directories deep a domain may lie.
        problems: takes the errors of what cannot be read; they are logged
            in any case.

    Returns:
        The domains, sorted by path, each once.
    """
    failed: list[errors.Error] = []
    found = []
    for directory in domains_below(path, depth, failed):
        try:
            found.append(FileDomain.open(directory, system, buffered))
        except errors.BlockDomainUnsupported:
            log.debug("Passing over block domain path=%s", directory)
        except errors.Error as e:
            failed.append(e)
    for error in failed:
        log.warning("Cannot read domain below path=%s: %s", path, error)
    if problems is not None:
        problems += failed
    return found


def _is_device(tree: Tree, dom_md_fd: int) -> bool:
    try:
        target = tree.system.readlink("metadata", dom_md_fd)
    except OSError:
        return False
    return target.startswith("/dev/")
