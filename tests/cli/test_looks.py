# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""How names, sizes, times and tables look."""

from __future__ import annotations

import io

import pytest

from vdsm_ovfstore.api.documents import isotime
from vdsm_ovfstore.cli import text
from vdsm_ovfstore.cli.progress import Progress
from vdsm_ovfstore.cli.table import table


@pytest.mark.parametrize(
    "raw,shown",
    [
        pytest.param("web-01 größe 倉庫", "web-01 größe 倉庫", id="plain"),
        pytest.param("\x1b[31m", "\\x1b[31m", id="escape"),
        pytest.param("a\nb\tc\r", "a\\x0ab\\x09c\\x0d", id="lines"),
        pytest.param("\x9b\x7f", "\\x9b\\x7f", id="c1"),
        pytest.param("\u202eabc", "\\u202eabc", id="direction"),
        pytest.param("\udcff", "\\udcff", id="surrogate"),
        pytest.param("\U000e0001", "\\U000e0001", id="tag"),
    ],
)
def test_escaped(raw: str, shown: str) -> None:
    assert text.escaped(raw) == shown


@pytest.mark.parametrize(
    "count,shown",
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1024 * 999, "999.0 KiB"),
        (1024 * 1023, "1.0 MiB"),
        (128 << 20, "128.0 MiB"),
        (5 << 40, "5.0 TiB"),
        (5 << 70, "5242880.0 PiB"),
    ],
)
def test_size(count: int, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    "seconds,shown",
    [
        (-5, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3 * 3600 + 59, "3 h"),
        (47 * 3600, "47 h"),
        (48 * 3600, "2 d"),
    ],
)
def test_age(seconds: int, shown: str) -> None:
    assert text.age(seconds) == shown


def test_isotime() -> None:
    assert isotime(1593603487) == "2020-07-01T11:38:07Z"
    assert isotime(0) is isotime(None) is None


@pytest.mark.parametrize(
    "number,what,shown",
    [
        (1, "copy", "1 copy"),
        (2, "copy", "2 copies"),
        (0, "OVF", "0 OVFs"),
    ],
)
def test_count(number: int, what: str, shown: str) -> None:
    assert text.count(number, what) == shown


def test_table() -> None:
    rows = [("web", 5), ("a\nb", None), ("c", 100)]
    assert table(["NAME", "SIZE"], rows, "SIZE") == [
        "NAME    SIZE",
        "web        5",
        "a\\x0ab     -",
        "c        100",
    ]


def test_table_aligns_wide_characters() -> None:
    lines = table(["N", "X"], [("倉庫", "a"), ("abcd", "b")])
    assert lines == ["N     X", "倉庫  a", "abcd  b"]


def test_empty_table() -> None:
    assert table(["A", "B"], []) == ["A  B"]


def test_paint_does_not_move_columns() -> None:
    lines = table(
        ["A", "B"], [("ok", "x")], paint=lambda cell, padded: f"<{padded}>"
    )
    assert lines == ["A   B", "<ok>  <x>"]


class TestProgress:
    def test_disabled(self) -> None:
        stream = io.StringIO()
        progress = Progress(stream, False)
        progress.step("x")
        progress.data("x", 1, 2)
        progress.part("x", 1, 2)
        progress.clear()
        assert stream.getvalue() == ""

    def test_shown(self) -> None:
        stream = Stream()
        progress = Progress(stream, True)
        progress.part("verifying", 0, 4)
        progress.part("verifying", 1, 4)  # too early to be shown
        progress.part("verifying", 4, 4)
        progress.clear()
        shown = stream.getvalue().split("\r\x1b[K")
        assert shown == [
            "",
            f"verifying [{'-' * 20}] 0 of 4",
            f"verifying [{'#' * 20}] 4 of 4",
            "",
        ]

    def test_length_not_known(self) -> None:
        stream = Stream()
        Progress(stream, True).data("reading", 2048, None)
        assert stream.getvalue().endswith("reading 2.0 KiB")


class Stream(io.StringIO):
    def fileno(self) -> int:
        raise OSError("not a terminal")
