# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The members of an archive that a host has sent."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable
from typing import Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.store.prepare import spool_file, write_spool


class Members:
    """
    An archive in an unlinked local file.

    Arguments:
        chunks: the archive; it is right if they end without an error.

    Raises errors.SpoolFull, TargetRefused, and what chunks raises.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._fd = spool_file()
        try:
            with open(self._fd, "w+b", closefd=False) as file:
                for data in chunks:
                    write_spool(self._fd, data)
                file.seek(0)
                with tarfile.open(fileobj=file, mode="r:") as tar:
                    found = [(m.name, m.offset_data, m.size) for m in tar]
        except OSError as e:
            self.close()
            raise errors.TargetRefused(
                path="the spool directory", reason=e.strerror or str(e)
            ) from None
        except BaseException:
            self.close()
            raise
        # Of two with one name the first counts, as in an index.
        self._places = {name: place for name, *place in reversed(found)}

    def close(self) -> None:
        os.close(self._fd)

    def read(self, name: str) -> Optional[bytes]:
        """The bytes of a member; None if there is none of that name."""
        if name not in self._places:
            return None
        offset, size = self._places[name]
        return os.pread(self._fd, size, offset)
