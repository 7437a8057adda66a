# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Where a download goes: a file that appears when it is whole, or a stream."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from typing import IO, Any, Callable, Optional, Union

from vdsm_ovfstore import errors

Target = Union[str, "os.PathLike[str]", IO[bytes], None]

# OVFs may hold initial passwords of the guests.
_MODE = 0o600

# From link(), where a file system has no second names, such as FAT.
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class TargetExists(errors.TargetRefused):
    """The name is taken, and what has it was not to be replaced."""

    hint = "Give another target, or replace what is there with --force"


@contextlib.contextmanager
def file_behind(
    path: str, mode: int = _MODE
) -> Iterator[Callable[[bytes], None]]:
    """
    As new_file, for the file that a path leads to.

    Links are followed, and only a file is replaced.
    """
    with _refusing(path):
        target = os.path.realpath(path)
        _check(target, path)
    with new_file(target, True, path, mode) as write:
        yield write


@contextlib.contextmanager
def new_file(
    target: str,
    replace: bool = False,
    path: Optional[str] = None,
    mode: int = _MODE,
) -> Iterator[Callable[[bytes], None]]:
    """
    Gives a function that writes.

    The file takes its name at the end of the with statement, or is removed
    again when that ends with an exception.

    Arguments:
        replace: what has that name, be it a link.
        path: what errors call it.
        mode: of the file, less the umask.

    Raises TargetExists, errors.TargetRefused.
    """
    path = path or target
    temporary = f"{target}.{os.urandom(8).hex()}.part"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with _refusing(path):
            fd = os.open(temporary, flags, mode)
        try:
            yield lambda data: _write(fd, data, path)
            with _refusing(path):
                os.fsync(fd)
        finally:
            os.close(fd)
        with _refusing(path):
            if replace:
                os.rename(temporary, target)
            else:
                _name(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


@contextlib.contextmanager
def stream(file: Any) -> Iterator[Callable[[bytes], None]]:
    """Gives a function that writes to a file object, and leaves it open."""
    name = getattr(file, "name", None)
    path = name if isinstance(name, str) else "the target"

    def write(data: bytes) -> None:
        view = memoryview(data)
        with _refusing(path):
            while view:
                # Unbuffered files may take a part only.
                done = file.write(view)
                view = view[len(view) if done is None else done :]

    yield write


def _name(temporary: str, target: str) -> None:
    """Give a file its name, unless that is taken."""
    try:
        os.link(temporary, target, follow_symlinks=False)
    except OSError as e:
        if e.errno not in _NO_LINKS:
            raise
        # Somebody else may take the name between the two.
        if os.path.lexists(target):
            raise FileExistsError(
                errno.EEXIST, os.strerror(errno.EEXIST)
            ) from None
        os.rename(temporary, target)
    else:
        os.unlink(temporary)


def _check(target: str, path: str) -> None:
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISREG(mode):
        raise errors.TargetRefused(
            path=path, reason="it exists, and is not a file"
        )


def _write(fd: int, data: bytes, path: str) -> None:
    view = memoryview(data)
    with _refusing(path):
        while view:
            view = view[os.write(fd, view) :]


@contextlib.contextmanager
def _refusing(path: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise  # who reads our output has seen enough
    except FileExistsError:
        raise TargetExists(path=path, reason="it exists") from None
    except (OSError, ValueError) as e:
        reason = getattr(e, "strerror", None) or str(e)
        raise errors.TargetRefused(path=path, reason=reason) from None
