# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What is uploaded: bytes, a file, or pieces that come one after the other."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
from collections.abc import Iterable, Iterator
from typing import IO, Any, Optional, Union

from vdsm_ovfstore import errors

Data = Union[
    bytes, bytearray, memoryview, str, "os.PathLike[str]", IO[bytes],
    Iterable[bytes],
]  # fmt: skip

_CHUNK = 256 * 1024


class Source:
    """
    An archive of known size, as pieces.

    size is in bytes; sha256 is None where only the end will tell. name is
    for errors.
    """

    def __init__(
        self,
        size: int,
        chunks: Iterator[bytes],
        sha256: Optional[str] = None,
        name: str = "the source",
    ) -> None:
        self.size = size
        self.sha256 = sha256
        self._chunks = chunks
        self._name = name

    def chunks(self) -> Iterator[bytes]:
        """
        Exactly `size` bytes.

        Its last piece comes only when the source has ended: the host begins
        to write when it has the last byte. Raises errors.SourceUnreadable.
        """
        done, last = 0, b""
        try:
            for data in self._chunks:
                if not data:
                    continue
                done += len(data)
                if done > self.size:
                    raise self._unreadable(
                        f"it gives more than the {self.size} bytes announced"
                    )
                if last:
                    yield last
                last = data
        except OSError as e:
            raise self._unreadable(e.strerror or str(e)) from None
        if done < self.size:
            raise self._unreadable(
                f"it ended after {done} of {self.size} bytes"
            )
        yield last

    def _unreadable(self, reason: str) -> errors.SourceUnreadable:
        return errors.SourceUnreadable(path=self._name, reason=reason)


@contextlib.contextmanager
def open_source(
    data: Data, size: Optional[int] = None, sha256: Optional[str] = None
) -> Iterator[Source]:
    """
    Open what is to be sent.

    data: bytes, a path, a file object, or an iterable of bytes.
    size: bytes; needed where data does not tell it.

    Raises errors.SourceUnreadable.
    """
    if isinstance(data, (bytes, bytearray, memoryview)):
        view = memoryview(data).cast("B")
        sha256 = sha256 or hashlib.sha256(view).hexdigest()
        chunks = (
            bytes(view[at : at + _CHUNK]) for at in range(0, len(view), _CHUNK)
        )
        yield Source(_known(len(view), size), chunks, sha256)
    elif isinstance(data, (str, os.PathLike)):
        path = os.fspath(data)
        with _open(path) as file:
            yield _file(file, size, sha256, path)
    elif hasattr(data, "read"):
        name = getattr(data, "name", None)
        name = name if isinstance(name, str) else "the source"
        yield _file(data, size, sha256, name)
    else:
        yield Source(_known(None, size), iter(data), sha256)


def _file(
    file: Any, size: Optional[int], sha256: Optional[str], name: str
) -> Source:
    def pieces() -> Iterator[bytes]:
        while data := file.read(_CHUNK):
            yield data

    length = _left(file) if size is None else size
    return Source(_known(length, size, name), pieces(), sha256, name)


def _left(file: Any) -> Optional[int]:
    """Bytes from here to the end of a file; None if that is not known."""
    try:
        status = os.fstat(file.fileno())
        if stat.S_ISREG(status.st_mode):
            return int(status.st_size - file.tell())
        return None
    except (OSError, AttributeError, io.UnsupportedOperation):
        pass
    try:
        here = file.tell()
        end = file.seek(0, os.SEEK_END)
        file.seek(here)
        return int(end - here)
    except (OSError, AttributeError, io.UnsupportedOperation):
        return None


def _known(
    found: Optional[int], size: Optional[int], name: str = "the source"
) -> int:
    length = found if size is None else size
    if length is None:
        raise errors.SourceUnreadable(
            path=name, reason="its size is not known; say it"
        )
    return length


def _open(path: str) -> IO[bytes]:
    try:
        # Not buffered: it is read in large pieces.
        return open(path, "rb", buffering=0)
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise errors.SourceUnreadable(path=path, reason=reason) from None
