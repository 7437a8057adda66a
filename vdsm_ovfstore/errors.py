# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Every error a user can meet, with its stable code.

Codes 3500-3549 are ours; where VDSM has a code with the same meaning
(lib/vdsm/storage/exception.py) that one is used. An error carries fields and
formats late: code catches types, people read `msg` and then `hint`, the next
step to take.
"""

from __future__ import annotations

from typing import Any, Optional

# Exit statuses of the command line. 3 and above let a monitor tell a damaged
# store from a failed call.
EXIT_OK = 0
EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_DAMAGED = 3  # damaged, but everything is still recoverable
EXIT_LOST = 4  # nothing recoverable
EXIT_BUSY = 5  # locked by another host or process
EXIT_STALE = 6  # older than asked for


class Error(Exception):
    """
    Base of all expected errors.

    Arguments become attributes; `msg` and `hint` are formatted with them.
    """

    code = 3500
    exit_status = EXIT_ERROR
    msg = "{self.reason}"
    hint = ""

    def __init__(self, **fields: Any) -> None:
        super().__init__()
        self.__dict__.update(fields)

    def __str__(self) -> str:
        return self.msg.format(self=self)

    @property
    def next_step(self) -> str:
        """The next step in words, or an empty string."""
        return self.hint.format(self=self)

    @classmethod
    def public_name(cls) -> str:
        """The class that others know: the nearest one of this module."""
        return next(
            k for k in cls.__mro__ if k.__module__ == __name__
        ).__name__

    def fields(self) -> dict[str, Any]:
        """The fields as JSON types, for machine readers."""
        plain = (str, int, float, bool, type(None), list, dict)
        return {k: v for k, v in self.__dict__.items() if isinstance(v, plain)}


# -- the domain and its volumes ----------------------------------------------


class DomainNotFound(Error):
    code = 358  # VDSM: StorageDomainDoesNotExist
    msg = "No storage domain at {self.path}: {self.reason}"
    hint = "Give the directory that holds dom_md and images"


class DomainIdMismatch(Error):
    code = 3501
    msg = (
        "The storage domain in {self.path} says it is {self.id}, but its "
        "directory is named otherwise"
    )
    hint = "Give the path of the domain itself, not of a copy of its files"


class DomainMetadataInvalid(Error):
    code = 751  # VDSM: InvalidMetadata
    msg = "Domain metadata {self.path} is damaged: {self.reason}"
    hint = "Restore the domain metadata before writing to this domain"


class DomainVersionUnsupported(Error):
    code = 3502
    msg = (
        "Storage domain {self.id} has version {self.version}; its stores can "
        "be read, but only versions 4 and 5 are written"
    )
    hint = "Upgrade the storage domain in the engine"


class BlockDomainUnsupported(Error):
    code = 3503
    msg = "Storage domain {self.id} is of type {self.type}, not a file domain"
    hint = "Use a host on which the domain is a mounted file system"


class VolumeNotFound(Error):
    code = 201  # VDSM: VolumeDoesNotExist
    msg = "Storage domain {self.domain} has no OVF_STORE volume{self.what}"
    hint = "Run: ovfstore create DOMAIN"


class VolumeRefused(Error):
    code = 3504
    msg = (
        "Volume {self.volume} is not a valid OVF_STORE: {self.key} is "
        "{self.found}, expected {self.expected}"
    )
    hint = "Nothing was written; check the volume in the engine"


class VolumeMetadataUnreadable(Error):
    code = 207  # VDSM: VolumeMetadataReadError
    msg = "Cannot read the metadata of volume {self.volume}: {self.reason}"
    hint = "Nothing was written; check {self.path}"


class DescriptionInvalid(Error):
    code = 3505
    msg = "Volume description refused: {self.reason}"


class MetadataOverflow(Error):
    code = 756  # VDSM: MetadataOverflowError
    msg = "Volume metadata takes {self.size} bytes, the limit is {self.limit}"


# -- the archive --------------------------------------------------------------


class ArchiveTooLarge(Error):
    code = 3510
    msg = (
        "The archive is too large for {self.what}: it needs {self.size} "
        "bytes, {self.limit} are available"
    )
    hint = "{self.way_out}"


class NotAnArchive(Error):
    code = 3511
    msg = "Not a plain tar archive: {self.reason}"
    hint = "Send an uncompressed tar of <uuid>.ovf files"


class MemberRefused(Error):
    code = 3512
    msg = "Archive member {self.name!r} refused: {self.reason}"
    hint = "Nothing was written; make the archive again without it"


class ArchiveTruncated(Error):
    code = 3513
    msg = "The archive is not complete: {self.reason}"
    hint = "Nothing was written; send the whole archive again"


class OvfRefused(Error):
    code = 3514
    msg = "OVF {self.name!r} refused: {self.reason}"
    hint = "Nothing was written; mend this OVF or leave it out"


class ArchiveMismatch(Error):
    code = 3515
    msg = "The archive is not the one announced: {self.reason}"
    hint = "Nothing was written; send the archive again"


class SourceUnreadable(Error):
    code = 3516
    msg = "Cannot read {self.path}: {self.reason}"
    hint = "Nothing was written"


# -- locks --------------------------------------------------------------------


class LeaseBusy(Error):
    code = 651  # VDSM: AcquireLockFailure
    exit_status = EXIT_BUSY
    msg = (
        "The store of domain {self.domain} is in use by {self.owner}; waited "
        "{self.waited:.1f} seconds"
    )
    hint = "Try again later, or wait longer with --timeout"


class LockspaceMissing(Error):
    """The next step is another one where a daemon joins by itself."""

    way_out = "Activate the storage domain on this host first"

    code = 661  # VDSM: AcquireHostIdFailure
    msg = (
        "This host has not joined the sanlock lockspace of domain "
        "{self.domain}: {self.reason}"
    )
    hint = "{self.way_out}"


class LeaseFailed(Error):
    resource: str  # the volume's id

    code = 3520
    msg = "Cannot take the lease {self.resource}: {self.reason}"
    hint = "Nothing was written; check sanlock's log and {self.path}"


class Fenced(Error):
    code = 3521
    exit_status = EXIT_BUSY
    msg = (
        "Another host has taken over the store of domain {self.domain}: "
        "{self.reason}"
    )
    hint = "Run: ovfstore status DOMAIN"


class SanlockUnavailable(Error):
    code = 3523
    msg = "Sanlock cannot be used on this host: {self.reason}"
    hint = (
        "Nothing was written; install python3-sanlock, start sanlock, and "
        "run as a member of its group"
    )


class WorkerFailed(Error):
    code = 3522
    msg = "The worker ended without an answer: {self.reason}"
    hint = "No generation is lost; run: ovfstore status DOMAIN"


# -- storage ------------------------------------------------------------------


class StorageFailed(Error):
    operation: str
    path: str
    reason: str
    errno: Optional[int] = None  # of the system call, if one failed

    code = 3530
    msg = "Storage error in {self.operation} of {self.path}: {self.reason}"
    hint = "Check the storage, then run: ovfstore verify DOMAIN"


class StorageReadOnly(StorageFailed):
    code = 3531
    msg = "Cannot write {self.path}: {self.reason}"
    hint = "Nothing was changed; make the file system writable for this user"


class StorageFull(StorageFailed):
    code = 3532
    msg = "No space left on the file system of {self.path}"
    hint = "The last generation is intact; free space, then upload again"


class StorageDenied(StorageFailed):
    code = 3536
    msg = "No right to read {self.path}"
    hint = "Run as root, or as the user of VDSM: sudo -u vdsm ovfstore"


class DirectIOUnsupported(StorageFailed):
    code = 3533
    msg = "The file system of {self.path} does not support direct I/O"
    hint = "Use other storage; for development only: --allow-buffered-io"


class NoCopyWritten(Error):
    code = 3534
    exit_status = EXIT_DAMAGED
    msg = "No copy of the store took the archive: {self.reason}"
    hint = "Run: ovfstore verify DOMAIN"


class NoRoom(Error):
    code = 3535
    msg = (
        "The log of volume {self.volume} has no room for {self.size} bytes "
        "beside the generations that must stay"
    )
    hint = "Add larger copies: ovfstore create DOMAIN --copies 4 --size 256"


# -- what was asked for is not there ------------------------------------------


class Damaged(Error):
    reason: str

    code = 3540
    exit_status = EXIT_DAMAGED
    msg = "{self.what} is damaged: {self.reason}"
    hint = "Run: ovfstore verify DOMAIN"


class GenerationNotFound(Error):
    code = 3541
    msg = "There is no generation {self.generation} in this store"
    hint = "Run: ovfstore history DOMAIN"


class GenerationAmbiguous(Error):
    code = 3542
    msg = (
        "Generation {self.generation} exists with different content: "
        "{self.digests}"
    )
    hint = "Give one as {self.generation}:DIGEST"


class EntityNotFound(Error):
    code = 3543
    msg = "Generation {self.generation} holds no VM or template {self.name!r}"
    hint = "Run: ovfstore vms DOMAIN"


class EntityAmbiguous(Error):
    code = 3544
    msg = "{self.name!r} is the name of several entities: {self.ids}"
    hint = "Give the id"


class StoreEmpty(Error):
    code = 3545
    exit_status = EXIT_LOST
    msg = "The store of domain {self.domain} holds no readable generation"
    hint = "Run: ovfstore verify DOMAIN"


class TargetRefused(Error):
    code = 3546
    msg = "Cannot write {self.path}: {self.reason}"
    hint = "Give another target"


class FormatUnknown(Error):
    code = 3547
    msg = (
        "Volume {self.volume} was written by a newer version of this "
        "program: format version {self.version}"
    )
    hint = "Nothing was written; use that version"


# -- a host and its clients ---------------------------------------------------


class DomainNotServed(Error):
    code = 358  # VDSM: StorageDomainDoesNotExist
    msg = "This host does not serve storage domain {self.domain}"
    hint = "The verb list says which it serves"


class NotSpm(Error):
    code = 654  # VDSM: SpmStatusError
    msg = (
        "This host is not the SPM of storage pool {self.pool}; no other "
        "writes to its domains"
    )
    hint = "Ask the SPM; StoragePool.getSpmStatus says which host that is"


class VdsmRefused(Error):
    """VDSM itself could not do what a verb needs; reason has its code."""

    code = 3536
    msg = "VDSM did not {self.what}: {self.reason}"
    hint = "vdsm.log of this host tells more"


class PoolMismatch(Error):
    code = 3537
    msg = (
        "Storage domain {self.domain} belongs to storage pool {self.found}, "
        "not to {self.asked}"
    )
    hint = "Give the right storagepoolID, or leave it out"


class RequestInvalid(Error):
    """A request that no verb can be asked with: HTTP, JSON-RPC."""

    code = 3506
    msg = "Invalid request: {self.reason}"
    hint = "docs/verbs.md shows a valid one for each verb"


class ParametersInvalid(Error):
    code = 3507
    msg = "{self.verb}: {self.reason}"
    hint = "docs/verbs.md says which parameters it takes"


class TransferNotFound(Error):
    code = 3508
    msg = "There is no such transfer on this host"
    hint = (
        "A host that was started again has forgotten its transfers; ask for "
        "a new one with upload or download"
    )


class TransferRefused(Error):
    """
    A transfer that is there but cannot be used so.

    gone tells that it never will be again.
    """

    gone: bool

    code = 3509
    msg = "Transfer {self.transfer}: {self.reason}"
    hint = "Ask for a new one with upload or download"


class TransferIncomplete(Error):
    """stalled tells a silent peer from one that went away."""

    stalled: bool

    code = 3517
    msg = (
        "The transfer ended after {self.done} of {self.length} bytes: "
        "{self.reason}"
    )
    hint = "Nothing was written; send it again, to a new transfer"


class HostBusy(Error):
    """retry_after is in seconds."""

    retry_after: int

    code = 3518
    exit_status = EXIT_BUSY
    msg = "The host is busy: {self.reason}"
    hint = "Try again in {self.retry_after} seconds"


class SpoolFull(Error):
    code = 3539
    msg = "No space left for the spool files"
    hint = (
        "Nothing was written; free space in the spool directory, or use "
        "another one: [limits] spool of a host, TMPDIR of a command"
    )


class AbortRefused(Error):
    code = 3519
    exit_status = EXIT_BUSY
    msg = "Cannot abort {self.what}: {self.reason}"
    hint = "Wait for its end; getTransfer and getJobs tell how far it is"


class Aborted(Error):
    code = 3524
    msg = "Aborted: {self.what}"
    hint = "Nothing was written"


class JobNotFound(Error):
    code = 3525
    msg = "There is no job {self.job} on this host"
    hint = "Jobs are forgotten an hour after their end, or with the host"


class HostUnreachable(Error):
    """kind is one of client/failure.py; way_out is what to do about it."""

    reason: str
    kind: str

    code = 3526
    msg = "Cannot reach the host {self.address}: {self.reason}"
    hint = "{self.way_out}"


class ConfigInvalid(Error):
    """
    path is that of a file; "" for what no file says. example is the one that
    has every key.
    """

    path: str
    example: str = "ovfstored.conf"

    code = 3527
    exit_status = EXIT_USAGE
    msg = "Configuration{self._of_file}: {self.reason}"
    hint = (
        "Correct it; packaging/{self.example} (installed in "
        "share/vdsm-ovfstore) has every key"
    )

    @property
    def _of_file(self) -> str:
        return f" {self.path}" if self.path else ""


class AddressUnavailable(Error):
    """
    key names the section and the keys that it was set with.

    A next try may do better: it may come late at boot, or become free.
    """

    key: str

    code = 3528
    msg = "Cannot listen on {self.address}: {self.reason}"
    hint = "Free it, or set another one: {self.key}"


class CertificateInvalid(Error):
    """A certificate of a host, its key or its CA."""

    path: str

    code = 3529
    exit_status = EXIT_USAGE
    msg = "Cannot use {self.path}: {self.reason}"
    hint = "Put the right file there, or set another directory: [tls] pki"


class PackageMissing(Error):
    exit_status = EXIT_USAGE
    msg = "{self.python} has no {self.module}"
    hint = "Install {self.package}"


class PinRefused(Error):
    """left and needed are bytes of the log."""

    code = 3560
    msg = (
        "Generation {self.generation} cannot be pinned: {self.left} bytes of "
        "the log of copy {self.volume} would be left for uploads, "
        "{self.needed} are needed"
    )
    hint = "Unpin another one, or keep it elsewhere: ovfstore download DOMAIN"


class UploadDoubtful(Error):
    """See store/guard.py."""

    reason: str
    generation: int

    code = 3561
    msg = (
        "The archive is not taken: {self.reason}, compared with generation "
        "{self.generation}"
    )
    hint = (
        "If that is meant: ovfstore upload DOMAIN SOURCE --force; what is "
        "there stays in the history"
    )


class NotReached(Error):
    code = 3562
    msg = (
        "{self.what} did not come within {self.seconds:g} s; the newest is "
        "{self.newest}"
    )
    hint = "Run: ovfstore status DOMAIN"


# -- the updater -------------------------------------------------------------
#
# All of 3500-3549 are taken; 3550-3558 are told by no host. What hosts tell
# goes on with 3560, above all codes of VDSM as well.


class SourceFailed(Error):
    """way_out is what to do; retry_after, in seconds, what the source asks."""

    reason: str
    retry_after: float = 0

    code = 3550
    msg = "Cannot read the VMs from {self.source}: {self.reason}"
    hint = "{self.way_out}"


class SourceShrunk(Error):
    """removed of known entities are gone, more than may go at once."""

    removed: int

    code = 3551
    msg = (
        "The source lacks {self.removed} of the {self.known} VMs and "
        "templates that it had: none of them is removed from any store"
    )
    hint = (
        "If they were removed on purpose, run: ovfstore-updater run --once "
        "--accept-removals"
    )


class StoreContested(Error):
    """who: in words, who else writes the store."""

    who: str

    code = 3552
    msg = "The store of domain {self.domain} is also written by {self.who}"
    hint = "{self.way_out}"


class StateUnusable(Error):
    code = 3553
    msg = "Cannot use the updater's state {self.path}: {self.reason}"
    hint = "{self.way_out}"


class UpdaterRunning(Error):
    pid: str

    code = 3554
    exit_status = EXIT_BUSY
    msg = "Another updater, with PID {self.pid}, uses {self.path}"
    hint = "Leave it to that one, or stop it: systemctl stop ovfstore-updater"


class NoHost(Error):
    """No host could be asked to write the store."""

    code = 3555
    msg = "No host serves storage domain {self.domain}: {self.reason}"
    hint = "Activate it on a host, or name that host: [hosts] addresses"


class NotUnregistered(Error):
    code = 3556
    exit_status = EXIT_USAGE
    msg = (
        "{self.entity} is not carried as unregistered in domain {self.domain}"
    )
    hint = "Run: ovfstore-updater status --unregistered"


class DomainUnknown(Error):
    code = 3557
    exit_status = EXIT_USAGE
    msg = "The updater knows no storage domain {self.domain}"
    hint = "Run: ovfstore-updater status"


class EntityChanging(Error):
    """Its OVF is being written; a later look will do. data: what was read."""

    data: bytes

    code = 3558
    msg = "The OVF of {self.entity} changes while it is read"
    hint = "It is read again with the next run"


# -- the command line ---------------------------------------------------------


class Interrupted(Error):
    exit_status: int  # 128 + the signal's number, as a shell has it

    code = 3538
    msg = "Interrupted by {self.signal}"
    hint = "No generation is lost; run: ovfstore status DOMAIN"


class UsageError(Error):
    code = 3548
    exit_status = EXIT_USAGE
    msg = "{self.reason}"


class Unexpected(Error):
    code = 3549
    msg = "Unexpected {self.kind}: {self.reason}"
    hint = "Run the same again with --debug, and report what it shows"
