# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The seal ring of one copy: finding the newest seal, writing the next."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import record, seal
from vdsm_ovfstore.format.seal import (
    RING_SIZE,
    SLOT_SIZE,
    SLOTS,
    Seal,
    Sketch,
)
from vdsm_ovfstore.storage.filevolume import FileVolume

log = logging.getLogger("ovfstore.store")


class Ring:
    """
    The last 1 MiB of a log.

    Only seals of this very volume count: the identity inside each seal keeps
    a copied or misdirected one from being believed.
    """

    def __init__(self, volume: FileVolume) -> None:
        self._volume = volume
        self._slots: list[Optional[Sketch]] = [None] * SLOTS
        # The bytes of each slot, as last read: before every seal the ring is
        # read again, and nearly always it is what it was.
        self._bytes: list[bytes] = [b""] * SLOTS
        self.newest: Optional[Seal] = None
        self.unreadable: list[int] = []  # slots that could not be read

    @property
    def offset(self) -> int:
        return self._volume.log_size - RING_SIZE

    def seals(self) -> list[Seal]:
        """All sound seals, newest first."""
        return list(self._sound())

    def unsound(self) -> list[int]:
        """
        The slots that hold something, and no sound seal of this volume.

        A crash while a seal was written leaves one, and so does damage.
        """
        return [
            number
            for number, slot in enumerate(self._slots)
            if number in self.unreadable
            or slot is None
            and self._bytes[number].strip(b"\0")
        ]

    def clear(self, number: int) -> None:
        """
        Write zeros over a slot that holds no sound seal.

        One of the parity of our epoch: a late write to another could hit what
        our successor has written. Durable and read back when this returns.
        Raises errors.StorageFailed.
        """
        log.info("CLEAR volume=%s slot=%d", self._volume.id, number)
        self._put(number, bytes(SLOT_SIZE))
        self._slots[number] = None

    def read(self, tolerant: bool = False) -> Optional[Seal]:
        """
        Read the ring; return the newest seal, or None.

        A slot that cannot be read may hold the newest seal. A reader makes
        the best of the others (tolerant); a writer must not.
        Raises errors.StorageFailed, errors.FormatUnknown.
        """
        self.unreadable = []
        if self.offset < 0:
            self._slots, self.newest = [None] * SLOTS, None
            self._bytes = [b""] * SLOTS
            return None
        try:
            data = self._volume.log_read(self.offset, RING_SIZE)
        except errors.StorageFailed:
            if not tolerant:
                raise
            data = self._read_slotwise()
        changed = False
        for number in range(SLOTS):
            at = number * SLOT_SIZE
            slot = data[at : at + SLOT_SIZE]
            if slot != self._bytes[number]:
                self._slots[number] = self._sketch(slot, tolerant)
                self._bytes[number] = slot
                changed = True
        if changed:
            self.newest = next(self._sound(), None)
        return self.newest

    def write(self, new: Seal) -> None:
        """
        Write a seal over the oldest of the slots of its epoch's parity.

        Durable and read back when this returns. Raises errors.StorageFailed.
        """
        number = self._next_slot(new.sequence[0])
        log.info(
            "SEAL volume=%s slot=%d sequence=%d.%d kind=%s head=%s "
            "segments=%d",
            new.volume,
            number,
            *new.sequence,
            new.kind,
            new.head.generation if new.head else None,
            len(new.entries),
        )
        data = self._packed(new)
        self._put(number, data)
        self._slots[number] = seal.sketch(data)
        self.newest = new

    def _put(self, number: int, data: bytes) -> None:
        offset = self.offset + number * SLOT_SIZE
        self._volume.log_write(offset, data)
        self._volume.log_flush()
        if self._volume.log_read(offset, SLOT_SIZE) != data:
            raise errors.StorageFailed(
                operation="read back",
                path=self._volume.log_path,
                reason=f"slot {number} of the seal ring is not what was "
                "written",
            )
        self._bytes[number] = data

    @staticmethod
    def _packed(new: Seal) -> bytes:
        try:
            data = seal.pack(new)
        except record.RecordOverflow as e:
            raise errors.Error(
                reason=f"The seal of volume {new.volume} is too large: {e}"
            ) from None
        # A field that we write but would not read costs the whole store.
        if seal.unpack(data) != new:
            raise errors.Error(
                reason=f"The seal of volume {new.volume} cannot be read back"
            )
        return data

    def _by_sequence(self) -> list[Sketch]:
        found = [s for s in self._slots if s is not None]
        return sorted(found, key=lambda s: s.sequence, reverse=True)

    def _sound(self) -> Iterator[Seal]:
        for found in self._by_sequence():
            sound = found.seal()
            if sound is not None:
                yield sound

    def _next_slot(self, epoch: int) -> int:
        def age(number: int) -> seal.Sequence:
            held = self._slots[number]
            return held.sequence if held else (-1, 0)

        return min(range(epoch % 2, SLOTS, 2), key=age)

    def _sketch(self, data: bytes, tolerant: bool) -> Optional[Sketch]:
        try:
            found = seal.sketch(data)
        except record.UnknownVersion as e:
            if tolerant:
                return None
            raise errors.FormatUnknown(
                volume=self._volume.id, version=str(e)
            ) from None
        volume = self._volume
        mine = (volume.domain, volume.image, volume.id)
        return found if found and found.identity == mine else None

    def _read_slotwise(self) -> bytes:
        data = bytearray()
        for number in range(SLOTS):
            offset = self.offset + number * SLOT_SIZE
            try:
                data += self._volume.log_read(offset, SLOT_SIZE)
            except errors.StorageFailed:
                self.unreadable.append(number)
                data += bytes(SLOT_SIZE)
        return bytes(data)
