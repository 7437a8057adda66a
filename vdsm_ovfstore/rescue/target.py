# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Where OVFs are written to, and where they must not be.

What is rescued from is never written to: not the file or device itself, not
the domain it lies in, and not a file system that lies on it, mounted
somewhere: each of its writes may hit what is still to be rescued.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from vdsm_ovfstore import errors
from vdsm_ovfstore.rescue.source import Source
from vdsm_ovfstore.rescue.sources import domain_of

_BLOCK_DEVICES = "/sys/dev/block"
_MAX_DEPTH = 16  # devices on one another


class TargetInSource(errors.TargetRefused):
    msg = (
        "Will not write to {self.path}: it lies on {self.source}, which is "
        "rescued from"
    )
    hint = "Give a directory on other storage"


def check_target(
    target: str, paths: Sequence[str], sources: Sequence[Source]
) -> None:
    """
    Arguments:
        target: directory, there or not.
        paths: what was named.
        sources: what they mean.

    Raises TargetInSource.
    """
    real = os.path.realpath(target)
    for path in paths:
        domain = domain_of(path)
        if domain and _is_within(real, domain):
            raise TargetInSource(path=target, source=path)
    below = list(_devices_below(real))
    for source in sources:
        itself = os.path.realpath(source.path)
        if real == itself or itself in _images(below):
            raise TargetInSource(path=target, source=source.path)
        if source.device and _name(source.device) in below:
            raise TargetInSource(path=target, source=source.path)


def _is_within(path: str, directory: str) -> bool:
    return os.path.commonpath((path, directory)) == directory


def _devices_below(target: str) -> Iterator[str]:
    """
    The devices that a directory's file system lies on, as "major:minor".

    That of the file system, those that it is made of, their disks.
    """
    there = target
    while not os.path.lexists(there) and os.path.dirname(there) != there:
        there = os.path.dirname(there)
    try:
        level = [_name(os.stat(there).st_dev)]
    except OSError:
        return
    for _ in range(_MAX_DEPTH):
        yield from level
        level = [n for device in level for n in _made_of(device)]


def _made_of(device: str) -> Iterator[str]:
    directory = os.path.realpath(os.path.join(_BLOCK_DEVICES, device))
    if os.path.exists(os.path.join(directory, "partition")):
        yield from _number(os.path.dirname(directory))
    try:
        names = os.listdir(os.path.join(directory, "slaves"))
    except OSError:
        return
    for name in names:
        yield from _number(os.path.join(directory, "slaves", name))


def _number(directory: str) -> Iterator[str]:
    try:
        with open(os.path.join(directory, "dev"), encoding="ascii") as file:
            yield file.read(32).strip()
    except (OSError, ValueError):
        return


def _images(devices: Sequence[str]) -> Iterator[str]:
    """The files behind those of the devices that are loops."""
    for device in devices:
        path = os.path.join(_BLOCK_DEVICES, device, "loop/backing_file")
        try:
            with open(path, encoding="utf-8") as file:
                yield os.path.realpath(file.read(4096).rstrip("\n"))
        except (OSError, ValueError):
            continue


def _name(device: int) -> str:
    return f"{os.major(device)}:{os.minor(device)}"
