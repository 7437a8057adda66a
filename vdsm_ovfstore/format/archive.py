# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The check of an archive while it streams by.

    +--------------+----------------+---------+     +-------+-------+
    | header (512) | data           | padding | ... | zeros | zeros |
    +--------------+----------------+---------+     +-------+-------+
                    padded to 512 bytes              the end marker

A plain tar, read by three programs that must see the same in it: the engine
(commons-compress), hosted-engine (`dd | tar -xO <uuid>.ovf`) and ourselves.
So only what all take for plain files is accepted, each name once. Names are
compared with the known ones and never used as paths. One member at a time is
in memory, bounded by MAX_OVF, whatever the length of the archive.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import NoReturn, Optional, Union

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import member, ovf, pax, tarheader
from vdsm_ovfstore.format.member import ENTITIES, INVALID, VM, Facts, Member
from vdsm_ovfstore.format.tarheader import BLOCK, padded

# What people send by mistake. No known member name begins like these.
_MAGICS = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x04\x22\x4d\x18", "lz4"),
    (b"7z\xbc\xaf\x27\x1c", "7-Zip"),
    (b"PK\x03\x04", "zip"),
    (b"QFI\xfb", "qcow2"),
    (b"KDMV", "VMDK"),
    (b"<?xml", "XML"),
)

# What tar pads its archives to, by default; the engine pads to 512. In bytes.
RECORD = 10240

_ZEROS = bytes(128 * 1024)


class ArchiveChecker:
    """
    Checks an archive piece by piece and lists its members.

    Arguments:
        strict: Refuse everything that should not be there (an upload). If
            false (content that another host wrote), the tar must be sound
            and complete, but a member that is not as it should be becomes
            one of kind "invalid", and what follows the end marker is ignored.
        known: Facts of OVFs that were checked before, by the SHA-256 of
            their text: these are not parsed again.

    Attributes:
        length: Bytes fed.
        end: Where the end marker ends, in bytes; 0 until it was seen.
        entities: Number of members of kind vm and template.
        completed: The members of the last call of feed(), also when that
            call has failed: what can still be saved of a damaged archive.
    """

    def __init__(
        self, strict: bool = True, known: Optional[Mapping[str, Facts]] = None
    ) -> None:
        self.length = 0
        self.end = 0
        self.entities = 0
        self.completed: list[Member] = []
        self._strict = strict
        self._known = known if known is not None else {}
        self._names: set[str] = set()
        self._error: Optional[errors.Error] = None
        self._at = 0  # offset of the unit that is being read
        self._need = BLOCK  # length of that unit: a header or padded data
        self._buffer = bytearray()  # its part from earlier pieces
        self._step: Callable[[memoryview], None] = self._header
        self._skip = 0  # bytes of an invalid member still to come
        self._zero_blocks = 0
        self._taint = ""  # what a header says about the member after it
        self._extended = False  # whether such a header came last
        # The member whose data is being read.
        self._name = ""
        self._kind = INVALID
        self._size = 0
        self._digest = hashlib.sha256()

    def feed(self, data: Union[bytes, memoryview]) -> list[Member]:
        """
        Take the next piece of the archive, of any length.

        Returns:
            The members completed by it, in order.

        Raises:
            errors.NotAnArchive, errors.MemberRefused, errors.OvfRefused:
                The same error is raised by every later call.
        """
        if self._error is not None:
            raise self._error
        self.completed = []
        try:
            self._feed(memoryview(data))
        except errors.Error as e:
            self._error = e
            raise
        return self.completed

    def close(self) -> None:
        """
        Check that the archive was complete.

        Raises:
            errors.ArchiveTruncated: No end marker.
            errors.NotAnArchive: Too short for a header, but clearly the
                beginning of something else; or nothing but an end marker,
                if strict: the engine's archive of no VMs has an info.json,
                what is all zeros is the hole of a file.
        """
        if self._error is not None:
            raise self._error
        if self.end:
            if self._strict and not self._names:
                raise errors.NotAnArchive(reason="it has no members")
            return
        if self._at == 0:
            self._check_magic(self._buffer)
        reason = "it has no end marker (two blocks of zeros)"
        if self.length == 0:
            reason = "it is empty"
        elif self._step == self._body or self._skip:
            reason = f"it ends at byte {self.length}, within {self._name!r}"
        elif self._buffer:
            reason = f"it ends at byte {self.length}, within a header"
        raise errors.ArchiveTruncated(reason=reason)

    # -- the units -------------------------------------------------------

    def _feed(self, view: memoryview) -> None:
        position = 0
        self.length += len(view)
        while position < len(view):
            rest = view[position:]
            if self.end:
                self._trailer(rest)
                return
            if self._skip:
                position += self._skipped(rest)
                continue
            missing = self._need - len(self._buffer)
            position += min(missing, len(rest))
            if len(rest) < missing:
                self._buffer += rest
                return
            unit = rest[:missing]
            if self._buffer:
                self._buffer += unit
                unit = memoryview(self._buffer)
                self._buffer = bytearray()
            self._at += self._need
            self._need = BLOCK
            self._step(unit)

    def _trailer(self, rest: memoryview) -> None:
        if not self._strict:
            return
        for begin in range(0, len(rest), len(_ZEROS)):
            piece = bytes(rest[begin : begin + len(_ZEROS)])
            if piece != _ZEROS[: len(piece)]:
                self._fail("there is data after the end marker")

    def _header(self, block: memoryview) -> None:
        raw = bytes(block)
        if raw == _ZEROS[:BLOCK]:
            self._zero_block()
            return
        if self._at == BLOCK:
            self._check_magic(raw)
        if self._zero_blocks:
            self._fail(f"a single zero block before byte {self._at - BLOCK}")
        try:
            header = tarheader.parse(raw)
        except ValueError as e:
            self._fail(f"header at byte {self._at - BLOCK}: {e}")
        self._start(header)

    def _zero_block(self) -> None:
        if self._extended:
            self._fail("an extended header without a member")
        self._zero_blocks += 1
        if self._zero_blocks == 2:
            self.end = self._at

    def _start(self, header: tarheader.Header) -> None:
        """Begin the member that a header announces."""
        name, size = header.name, header.size
        self._name, self._size = name, size
        if header.type in tarheader.EXTENDED:
            if not 0 < size <= pax.MAX_HEADER:
                self._fail(f"an extended header of {size} bytes")
            self._need, self._step = padded(size), self._pax_body
            return
        problem = member.problem(header, self._names)
        problem = self._taint or problem
        self._taint, self._extended = "", False
        if problem and self._strict:
            raise errors.MemberRefused(name=name, reason=problem)
        if header.type in tarheader.LONG_NAME:
            # The name that counts is in the data of this header; in the next
            # one it is cut. Neither is a member of ours.
            self._taint, self._extended = "GNU long name", True
        else:
            self._names.add(name)
        if problem:
            self._kind = INVALID
            self._digest = hashlib.sha256()
            self._skip = padded(size)
            if size == 0:
                self._found(self._at, self._digest.hexdigest())
            return
        self._kind = member.member_kind(name)
        self._need, self._step = padded(size), self._body
        if size == 0:
            self._need = BLOCK
            self._body(memoryview(b""))

    def _pax_body(self, unit: memoryview) -> None:
        self._step = self._header
        self._extended = True
        try:
            keys = pax.keys(bytes(unit[: self._size]))
        except ValueError as e:
            self._fail(f"extended header before byte {self._at}: {e}")
        unknown = keys - pax.HARMLESS
        if not unknown:
            return
        reason = f"extended header with {sorted(unknown)[0]!r}"
        if self._strict or unknown - pax.NAMING:
            # It may say where the data is: the rest cannot be trusted.
            raise errors.MemberRefused(name=self._name, reason=reason)
        self._taint = reason

    def _body(self, unit: memoryview) -> None:
        self._step = self._header
        data = bytes(unit[: self._size])
        digest = hashlib.sha256(data).hexdigest()
        entity, disks = "", ()  # type: tuple[str, tuple[str, ...]]
        try:
            if self._kind == VM:
                self._kind, entity, disks = self._facts(digest, data)
            else:
                member.check_json(self._name, data)
        except (errors.OvfRefused, errors.MemberRefused):
            if self._strict:
                raise
            self._kind = INVALID
        if self._kind in ENTITIES:
            self.entities += 1
        self._found(self._at - padded(self._size), digest, entity, disks)

    def _facts(self, digest: str, data: bytes) -> Facts:
        known = self._known.get(digest)
        if known is not None and known[0] in ENTITIES:
            return known
        facts = ovf.check_ovf(data, self._name)
        return facts.kind, facts.name, facts.disks

    def _skipped(self, rest: memoryview) -> int:
        """Go past the data of an invalid member, however large it is."""
        taken = min(self._skip, len(rest))
        padding = -self._size % BLOCK
        self._digest.update(rest[: min(taken, max(0, self._skip - padding))])
        self._skip -= taken
        self._at += taken
        if self._skip == 0:
            offset = self._at - padded(self._size)
            self._found(offset, self._digest.hexdigest())
        return taken

    def _found(
        self,
        offset: int,
        digest: str,
        entity: str = "",
        disks: tuple[str, ...] = (),
    ) -> None:
        head = (self._name, self._kind, entity, offset, self._size)
        self.completed.append(Member(*head, digest, disks))

    # -- errors ----------------------------------------------------------

    def _check_magic(self, begin: Union[bytes, bytearray]) -> None:
        for magic, name in _MAGICS:
            if begin.startswith(magic):
                self._fail(f"it is {name} data")

    def _fail(self, reason: str) -> NoReturn:
        raise errors.NotAnArchive(reason=reason)
