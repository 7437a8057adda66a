# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What the values of the configuration may be, and how they are written."""

from __future__ import annotations

import dataclasses
import ipaddress
import os
import re
from typing import Any, Callable, NamedTuple, TypeVar


class Kind(NamedTuple):
    """
    One kind of value.

    expected: said to who gave another one; read: the value of a text, raises
    ValueError.
    """

    expected: str
    read: Callable[[str], Any]


def option(kind: Kind, default: Any) -> Any:
    """A field of a section; its default is used where no file names it."""
    return dataclasses.field(default=default, metadata={"kind": kind})


SIZES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
TIMES = {"ms": 0.001, "s": 1, "min": 60, "h": 3600, "d": 86400}


def whole(low: int, high: int) -> Kind:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]+", text):
            raise ValueError(text)
        return _within(int(text), low, high)

    return Kind(f"a whole number from {low} to {high}", read)


def size(low: str, high: str) -> Kind:
    """Bytes: "64 MiB"; a bare number is bytes."""

    def read(text: str) -> int:
        return _within(_size(text), _size(low), _size(high))

    units = ", ".join(SIZES)
    return Kind(f"a size from {low} to {high}, in {units}", read)


def duration(low: str, high: str) -> Kind:
    """Seconds, as a float: "2 min"; a bare number is seconds."""

    def read(text: str) -> float:
        return _within(_time(text), _time(low), _time(high))

    units = ", ".join(TIMES)
    return Kind(f"a time from {low} to {high}, in {units}", read)


def choice(*known: str) -> Kind:
    def read(text: str) -> str:
        if text not in known:
            raise ValueError(text)
        return text

    return Kind("one of " + ", ".join(known), read)


def _yes_no(text: str) -> bool:
    return {"yes": True, "no": False}[text]


def _path(text: str) -> str:
    if not os.path.isabs(text) or "\0" in text:
        raise ValueError(text)
    return os.path.normpath(text)


def _paths(text: str) -> tuple[str, ...]:
    paths = tuple(_path(line) for line in text.splitlines() if line)
    if not paths:
        raise ValueError(text)
    return paths


def _address(text: str) -> str:
    return str(ipaddress.ip_address(text)) if text else ""


def _name(text: str) -> str:
    # As POSIX has it for users and groups.
    if text and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9._-]*", text):
        raise ValueError(text)
    return text


YES_NO = Kind("yes or no", _yes_no)
PATH = Kind("an absolute path", _path)
PATHS = Kind("absolute paths, each on a line of its own", _paths)
ADDRESS = Kind("an IP address, or nothing", _address)
NAME = Kind("a name, or nothing", _name)


_Number = TypeVar("_Number", int, float)


def _within(value: _Number, low: _Number, high: _Number) -> _Number:
    if not low <= value <= high:
        raise ValueError(value)
    return value


def _size(text: str) -> int:
    number, unit = _split(text)
    return int(number * SIZES[unit or "B"])


def _time(text: str) -> float:
    number, unit = _split(text)
    return number * TIMES[unit or "s"]


def _split(text: str) -> tuple[float, str]:
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)", text)
    if found is None:
        raise ValueError(text)
    return float(found[1]), found[2]
