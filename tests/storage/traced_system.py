# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""A System that records its calls, and fails or crashes at one of them."""

from __future__ import annotations

import os
from typing import Any, NamedTuple, Optional

from vdsm_ovfstore.storage.system import System


class Crash(BaseException):
    """The process ends here; nothing after it reaches the storage."""


class Call(NamedTuple):
    name: str
    what: str
    """Path of the file or directory, and the name in it."""


class TracedSystem(System):
    """
    Arguments:
        fail: number of the call, from 0, that raises `error`.
        error: an OSError fails that call only; a Crash stops everything.
    """

    def __init__(
        self,
        fail: Optional[int] = None,
        error: Optional[BaseException] = None,
    ) -> None:
        self.calls: list[Call] = []
        self.fail = fail
        self.error = error

    def names(self) -> list[str]:
        return [call.name for call in self.calls]

    def __getattribute__(self, name: str) -> Any:
        value = super().__getattribute__(name)
        if name.startswith("_") or not hasattr(System, name):
            return value
        if name == "geteuid":
            return value

        def call(*args: Any, **kwargs: Any) -> Any:
            n = len(self.calls)
            self.calls.append(Call(name, _what(name, args, kwargs)))
            if self._fails(n, name):
                raise self.error or Crash()
            return value(*args, **kwargs)

        return call

    def _fails(self, n: int, name: str) -> bool:
        if self.fail is None or n < self.fail:
            return False
        if isinstance(self.error, Crash):
            return name != "close"  # as the kernel does for a dead process
        return n == self.fail


def _what(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    if name == "open":
        at = kwargs.get("dir_fd")
        return str(args[0]) if at is None else f"{_path(at)}/{args[0]}"
    if name == "rename":
        src, dst, src_dir, dst_dir = args
        return f"{_path(src_dir)}/{src} {_path(dst_dir)}/{dst}"
    if isinstance(args[0], str):
        return f"{_path(args[-1])}/{args[0]}"
    return _path(args[0])


def _path(fd: int) -> str:
    return os.readlink(f"/proc/self/fd/{fd}")
