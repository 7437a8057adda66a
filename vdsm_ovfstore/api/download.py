# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A download: read and verified into the spool, then sent.

Nothing is sent before its last byte was verified. The spool file stays until
the peer has the whole, or does not come back: a cut transfer is continued.
"""

from __future__ import annotations

from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.faults import unexpected
from vdsm_ovfstore.api.runner import SCAN, Runner
from vdsm_ovfstore.api.spool import Reservation
from vdsm_ovfstore.api.transfers import (
    DONE,
    ENDED,
    PREPARING,
    SENDING,
    WAITING,
    Transfer,
)

TAR = "application/x-tar"
OVF = "application/xml"


class Download(Transfer):
    """
    Arguments:
        path: the domain's directory.
        found: the answer of the errand "locate".
    """

    kind = "download"

    def __init__(
        self,
        runner: Runner,
        domain: str,
        path: str,
        found: dict[str, Any],
        room: Reservation,
        expires: float,
    ) -> None:
        super().__init__(domain, found["size"], room, expires)
        self._runner = runner
        self._path = path
        self.found = found
        self.sha256: str = found["sha256"]
        self.fd = -1
        """The spool file, after begin()."""
        self._spooled = False

    @property
    def content_type(self) -> str:
        return TAR if self.found["entity"] is None else OVF

    @property
    def filename(self) -> str:
        """A name for who keeps it; of known characters only."""
        entity: Optional[dict[str, Any]] = self.found["entity"]
        if entity is not None:
            return f"{entity['id']}.ovf"
        return f"{self.domain}-{self.found['generation']['number']}.tar"

    def begin(self) -> None:
        """
        A peer asks for it; returns when it is verified.

        Raises errors.TransferRefused; what the errand met.
        """
        self.enter()
        try:
            if not self._spooled:
                self._spool()
            self.state = SENDING
        except errors.HostBusy:
            # It is as it was, and who comes again may have more luck.
            self.close()
            raise
        except errors.Error as e:
            error = self.failed(e)
            self.leave()
            raise error from None
        except BaseException as e:
            self.failed(unexpected(e))
            self.leave()
            raise

    def sent(self, end: int) -> None:
        """
        The peer has been sent all bytes of a range that ends there.

        Raises errors.Aborted when it is to get no more.
        """
        self.transferred = max(self.transferred, end)
        if end == self.size:
            self.end(DONE)
        else:
            self.check()

    def close(self) -> None:
        """The peer's request is over; it may come again for the rest."""
        if self.state not in ENDED:
            self.state = WAITING
        self.extend()
        self.leave()

    def _spool(self) -> None:
        self.state = PREPARING
        if self.fd < 0:
            self.fd = self.room.file()
        generation = self.found["generation"]
        entity = self.found["entity"]
        request = {
            "verb": "fetch",
            "path": self._path,
            "generation": f"{generation['number']}:{generation['sha256']}",
            "wanted": entity["id"] if entity else None,
            "size": self.size,
            "sha256": self.sha256,
        }
        self._runner.run(self, request, (self.fd,), SCAN)
        self._spooled = True
