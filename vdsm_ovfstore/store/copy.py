# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""One copy of the store: a head and a log, and what may be done to them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import description, seal
from vdsm_ovfstore.format.description import Description
from vdsm_ovfstore.format.seal import Entry, Head, Seal
from vdsm_ovfstore.storage.filevolume import FileVolume
from vdsm_ovfstore.store.content import CHUNK, Writable
from vdsm_ovfstore.store.digest import sha256_of
from vdsm_ovfstore.store.ring import Ring
from vdsm_ovfstore.store.stored import StoredSegment

log = logging.getLogger("ovfstore.store")


class Copy:
    """
    A volume seen as a copy of the store.

    load() reads what is there and is enough for readers; the methods below
    "writing" belong to a tenure that holds the leases.
    """

    def __init__(self, volume: FileVolume) -> None:
        self.volume = volume
        self.ring: Optional[Ring] = None
        # Read while the leases were held already, and nothing written since.
        self._just_read = False
        self.seal: Optional[Seal] = None
        # What the head was found to show; a Copy lives for one tenure.
        self._shown: Optional[Head] = None
        # The log that it had, if that was of no use; see storage/leftlogs.py.
        self.set_aside: Optional[str] = None
        # A segment that is durable but that no seal names yet.
        self.pending: Optional[Entry] = None

    @property
    def id(self) -> str:
        return self.volume.id

    def load(self, write: bool = False) -> None:
        """Open the volume and read its ring. Raises errors.Error."""
        self.volume.open(write=write)
        if self.volume.has_log():
            self.ring = Ring(self.volume)
            self.seal = self.ring.read(tolerant=not write)
            self._just_read = write

    def close(self) -> None:
        self.volume.close()

    # -- reading --------------------------------------------------------------

    def entries(self) -> tuple[Entry, ...]:
        return self.seal.entries if self.seal else ()

    def find(self, identity: seal.Identity) -> Optional[Entry]:
        return self.seal.find(identity) if self.seal else None

    def segment(self, entry: Entry) -> StoredSegment:
        return StoredSegment(self.volume, self.volume.domain, entry)

    def description(self) -> tuple[str, Optional[Description]]:
        """
        DESCRIPTION as it stands, raw and understood.

        Raw as far as a seal has room for it, which is more than VDSM writes.
        """
        raw = self.volume.read_metadata().description
        return (
            raw[: seal.MAX_DESCRIPTION],
            description.parse(raw, self.volume.domain),
        )

    def head_chunks(self, length: int) -> Iterator[bytes]:
        """The first length bytes of the head, fewer when it is shorter."""
        offset = 0
        while offset < length:
            data = self.volume.head_read(offset, min(CHUNK, length - offset))
            if not data:
                break
            offset += len(data)
            yield data

    def head_sha256(self, length: int) -> str:
        return sha256_of(self.head_chunks(length))

    def shows(self, head: Head) -> bool:
        """True when the head holds exactly the archive that head names."""
        if self._shown is not None:
            # Known since it was last read or written: not read once more.
            shown = self._shown.length, self._shown.sha256
            return shown == (head.length, head.sha256)
        if self.volume.head_size() < head.length:
            return False
        if self.head_sha256(head.length) != head.sha256:
            return False
        self._shown = head
        return True

    # -- writing --------------------------------------------------------------

    def flush(self) -> None:
        """Make durable what was read: it may only be in a cache."""
        if self.volume.has_log():
            self.volume.log_flush()
        self.volume.head_flush()

    def set_aside_log(self) -> None:
        """Keep the log under another name; the copy has none then."""
        name = self.volume.set_aside_log()
        log.warning("ASIDE volume=%s name=%s", self.id, name)
        self.set_aside = name
        self.ring, self.seal, self._just_read = None, None, False

    def prepare_log(self) -> None:
        """Make the log, when there is none yet."""
        if self.ring is not None:
            return
        log.info(
            "CREATE log=%s size=%d",
            self.volume.log_path,
            self.volume.capacity,
        )
        self.volume.create_log()
        self.ring = Ring(self.volume)
        self.ring.read()

    def put_seal(self, base: Seal, epoch: int, **changes: Any) -> None:
        """
        Write the successor of the newest seal; changes are fields of Seal.

        Raises errors.Fenced when another worker wrote since: its epoch is
        higher, or its seal is not the one that we know. Not asked before the
        claim: what comes late until then has a lower epoch than it.
        """
        newest = self._check_ours()
        assert self.ring is not None
        last = newest.sequence if newest else (0, 0)
        counter = last[1] + 1 if last[0] == epoch else 1
        new = base._replace(sequence=(epoch, counter), **changes)
        self.ring.write(new)
        self.seal = new

    def clear_slots(self) -> int:
        """
        Empty the slots of our epoch that hold no sound seal; returns how many.

        After the claim only. Raises errors.Fenced as put_seal().
        """
        if self.ring is None or self.seal is None:
            return 0
        epoch = self.seal.sequence[0]
        unsound = [n for n in self.ring.unsound() if n % 2 == epoch % 2]
        if unsound:
            self._check_ours()
        for number in unsound:
            self.ring.clear(number)
        return len(unsound)

    def _check_ours(self) -> Optional[Seal]:
        """Nobody has sealed since; returns the newest seal."""
        assert self.ring is not None
        newest = self.ring.newest if self._just_read else self.ring.read()
        self._just_read = False
        if newest != self.seal:
            raise errors.Fenced(
                domain=self.volume.domain,
                reason=f"volume {self.id} has a seal that is not ours",
            )
        return newest

    def write_segment(self, segment: Writable, offset: int) -> None:
        """Write, flush and read back a segment. Raises errors.Error."""
        end = offset + segment.size
        log.info(
            "SEGMENT volume=%s offset=%d size=%d",
            self.id,
            offset,
            segment.size,
        )
        at = offset
        for data in segment.chunks():
            self.volume.log_write(at, data)
            at += len(data)
        assert at == end, "segment is not as long as announced"
        self.volume.log_flush()
        at = offset
        for data in segment.chunks():
            if self.volume.log_read(at, len(data)) != data:
                raise errors.StorageFailed(
                    operation="read back",
                    path=self.volume.log_path,
                    reason=f"segment at {at} is not what was written",
                )
            at += len(data)

    def write_head(self, chunks: Iterator[bytes], head: Head) -> None:
        """Replace the head, flush it and read it back."""
        log.info(
            "HEAD volume=%s generation=%d length=%d sha256=%s",
            self.id,
            head.generation,
            head.length,
            head.sha256,
        )
        self._shown = None
        self.volume.head_replace(chunks, head.length)
        self.volume.head_flush()
        if not self.shows(head):
            raise errors.StorageFailed(
                operation="read back",
                path=self.volume.path,
                reason="the head is not what was written",
            )

    def write_description(self, length: int, when: int) -> None:
        """One metadata write: GEN + 1 and the engine's JSON."""
        text = description.build(self.volume.domain, length, when)
        log.info("DESCRIPTION volume=%s text=%s", self.id, text)
        metadata = self.volume.read_metadata()
        self.volume.write_metadata(metadata.updated(text))

    def segment_room(self) -> tuple[int, int]:
        """The offsets [from, to) between which segments may lie."""
        assert self.ring is not None
        return 0, self.ring.offset
