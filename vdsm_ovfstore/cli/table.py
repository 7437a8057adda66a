# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Tables for people, as wide as their content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Callable

from vdsm_ovfstore.cli.text import escaped

_GAP = "  "

Paint = Callable[[str, str], str]


def table(
    titles: Sequence[str],
    rows: Iterable[Sequence[object]],
    right: str = "",
    paint: Paint = lambda cell, padded: padded,
) -> list[str]:
    """
    Lay out a table; returns its lines.

    Arguments:
        right: the titles of the columns of numbers, which go to the right.
        paint: is given a cell and the same padded; adds colour to it.
    """
    cells = [list(titles)]
    cells += [["-" if c is None else escaped(str(c)) for c in r] for r in rows]
    widths = [max(map(width, column)) for column in zip(*cells)]
    to_the_right = [title in right.split() for title in titles]
    lines = []
    for number, row in enumerate(cells):
        line = []
        for cell, wanted, numeric in zip(row, widths, to_the_right):
            padding = " " * (wanted - width(cell))
            padded = padding + cell if numeric else cell + padding
            line.append(paint(cell, padded) if number else padded)
        lines.append(_GAP.join(line).rstrip())
    return lines


def width(text: str) -> int:
    """The columns that text takes on a terminal."""
    if text.isascii():
        return len(text)
    import unicodedata

    return sum(
        0
        if unicodedata.combining(c)
        else 1 + (unicodedata.east_asian_width(c) in "WF")
        for c in text
    )
