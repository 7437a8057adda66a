# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The engine's description of an OVF_STORE volume."""

from __future__ import annotations

import json
import locale
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import description

DOMAIN = "b7c64b97-0c98-47c4-a81e-2955e781e384"

# Written by an engine.
SAMPLE = (
    '{"Updated":true,"Size":22528,'
    '"Last Updated":"Wed Jul 01 11:43:07 IDT 2020",'
    '"Storage Domains":[{"uuid":"b7c64b97-0c98-47c4-a81e-2955e781e384"}],'
    '"Disk Description":"OVF_STORE"}'
)
WHEN = 1593603787  # Wed Jul 01 11:43:07 UTC 2020

# Java's years have at least four digits.
TIMES = st.integers(0, 253402300799)


def make(**changes: Any) -> str:
    found = json.loads(SAMPLE)
    found.update(changes)
    return json.dumps(found)


def test_parse_sample() -> None:
    assert description.parse(SAMPLE, DOMAIN) == description.Description(
        updated=True, size=22528, last_updated=WHEN, raw=SAMPLE
    )


def test_build_is_the_engines() -> None:
    expected = SAMPLE.replace("IDT", "UTC")
    assert description.build(DOMAIN, 22528, WHEN) == expected


def test_before_an_upload() -> None:
    text = make(Updated=False, **{"Last Updated": None})
    found = json.loads(text)
    del found["Size"]
    text = json.dumps(found)
    assert description.parse(text, DOMAIN) == description.Description(
        updated=False, size=None, last_updated=None, raw=text
    )


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(SAMPLE[:-1], id="cut"),
        pytest.param("[]", id="list"),
        pytest.param("1" * 4000, id="number"),
        pytest.param("[" * 4000, id="deep"),
        pytest.param("[" * 400000, id="deeper"),
        pytest.param('{"a":"' + "x" * 5000 + '"}', id="long"),
        pytest.param('{"DiskAlias":"OVF_STORE"}', id="new-disk"),
        pytest.param(make(**{"Disk Description": "disk"}), id="other-disk"),
        pytest.param(make(**{"Storage Domains": []}), id="no-domain"),
        pytest.param(make(**{"Storage Domains": DOMAIN}), id="string"),
        pytest.param(make(**{"Storage Domains": [DOMAIN]}), id="strings"),
        pytest.param(
            make(**{"Storage Domains": [{"uuid": "x"}]}), id="other-domain"
        ),
        pytest.param("\ud800", id="surrogate"),
    ],
)
def test_not_a_description(text: str) -> None:
    assert description.parse(text, DOMAIN) is None


@pytest.mark.parametrize(
    ("value", "size"),
    [
        pytest.param(0, 0, id="zero"),
        pytest.param(-1, None, id="negative"),
        pytest.param(True, None, id="bool"),
        pytest.param(1.5, None, id="float"),
        pytest.param("22528", None, id="string"),
        pytest.param(2**63, None, id="too-large"),
        pytest.param(None, None, id="null"),
    ],
)
def test_size(value: Any, size: Optional[int]) -> None:
    found = description.parse(make(Size=value), DOMAIN)
    assert found is not None
    assert found.size == size


@pytest.mark.parametrize("value", ["true", 1, None, [True]])
def test_updated_is_true_or_not(value: Any) -> None:
    found = description.parse(make(Updated=value), DOMAIN)
    assert found is not None
    assert found.updated is False


@given(st.text() | st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda c: st.lists(c) | st.dictionaries(
        st.sampled_from(list(json.loads(SAMPLE))), c
    ),
).map(json.dumps))  # fmt: skip
def test_parse_never_raises(text: str) -> None:
    description.parse(text, DOMAIN)


@given(st.integers(0, 2**40), TIMES)
def test_build_and_parse(size: int, when: int) -> None:
    text = description.build(DOMAIN, size, when)
    assert len(text.encode()) <= description.MAX_DESCRIPTION
    assert text[0] == "{"
    assert text[-1] == "}"
    found = description.parse(text, DOMAIN)
    assert found is not None
    assert found == (True, size, when, text)


@given(TIMES)
def test_dates_against_the_c_library(when: int) -> None:
    # In the locale "C", which tests run in unless they set another.
    assert locale.setlocale(locale.LC_TIME, "C") == "C"
    expected = time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(when))
    assert description.format_date(when) == expected
    assert description.parse_date(expected) == when


def test_dates_do_not_follow_the_locale(tmp_path: Path) -> None:
    name = "de_DE.UTF-8"
    made = subprocess.run(
        ["localedef", "-i", "de_DE", "-f", "UTF-8", str(tmp_path / name)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode not in (0, 1):  # 1: made, with warnings
        pytest.skip(f"cannot make a locale here: {made.stderr.strip()}")
    code = (
        "import locale, time\n"
        "from vdsm_ovfstore.format import description\n"
        "locale.setlocale(locale.LC_ALL, '')\n"
        f"print(time.strftime('%a', time.gmtime({WHEN})))\n"
        f"print(description.format_date({WHEN}))\n"
    )
    env = {**os.environ, "LOCPATH": str(tmp_path), "LC_ALL": name}
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=env,
        cwd=Path(__file__).parents[2],
        check=True,
    )
    assert done.stdout.splitlines() == ["Mi", "Wed Jul 01 11:43:07 UTC 2020"]


@pytest.mark.parametrize(
    ("zone", "ahead"),
    [
        pytest.param("UTC", 0, id="utc"),
        pytest.param("GMT", 0, id="gmt"),
        pytest.param("Z", 0, id="z"),
        pytest.param("GMT+05:30", 19800, id="india"),
        pytest.param("GMT-03:00", -10800, id="brazil"),
        pytest.param("+0200", 7200, id="rfc822"),
        pytest.param("IST", 0, id="ambiguous"),
        pytest.param("CEST", 0, id="abbreviation"),
    ],
)
def test_zones(zone: str, ahead: int) -> None:
    text = f"Wed Jul 01 11:43:07 {zone} 2020"
    assert description.parse_date(text) == WHEN - ahead


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param("Mi Jul 01 11:43:07 UTC 2020", id="german"),
        pytest.param("Wed Jux 01 11:43:07 UTC 2020", id="month"),
        pytest.param("Wed Jun 31 11:43:07 UTC 2020", id="31-june"),
        pytest.param("Wed Feb 29 11:43:07 UTC 2021", id="29-february"),
        pytest.param("Wed Jul 00 11:43:07 UTC 2020", id="day-0"),
        pytest.param("Wed Jul 01 24:43:07 UTC 2020", id="hour-24"),
        pytest.param("Wed Jul 01 11:60:07 UTC 2020", id="minute-60"),
        pytest.param("Wed Jul 01 11:43:61 UTC 2020", id="second-61"),
        pytest.param("Wed Jul 01 11:43:07 UTC 20200", id="year"),
        pytest.param("Wed Jul 01 11:43:07 UTC 2020 ", id="more"),
        pytest.param("2020-07-01T11:43:07Z", id="iso"),
        pytest.param(WHEN, id="number"),
        pytest.param(None, id="null"),
    ],
)
def test_not_a_date(text: Any) -> None:
    assert description.parse_date(text) is None


@pytest.mark.parametrize(
    "when",
    [
        pytest.param("Mon Feb 29 00:00:00 UTC 2016", id="leap-year"),
        pytest.param("Tue Feb 29 23:59:59 UTC 2000", id="leap-century"),
        pytest.param("Sun Dec 31 23:59:59 UTC 2023", id="end-of-year"),
        pytest.param("Thu Jan 01 00:00:00 UTC 1970", id="epoch"),
        pytest.param("Mon Jan 01 00:00:00 UTC 2035", id="no-overflow"),
    ],
)
def test_dates_round_trip(when: str) -> None:
    seconds = description.parse_date(when)
    assert seconds is not None
    assert description.format_date(seconds) == when


def test_created() -> None:
    text = description.created()
    description.check(text)
    assert json.loads(text) == {
        "DiskAlias": "OVF_STORE",
        "DiskDescription": "OVF_STORE",
    }


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x" * 211, id="too-long"),
        pytest.param("a\nLEGALITY=LEGAL\nEOF", id="line-feed"),
        pytest.param("a\rb", id="carriage-return"),
        pytest.param("a\0b", id="nul"),
        pytest.param("a\tb", id="tab"),
        pytest.param("a\x7fb", id="delete"),
        pytest.param("\u20ac", id="euro"),
        pytest.param("\u2028", id="line-separator"),
    ],
)
def test_check_refuses(text: str) -> None:
    with pytest.raises(errors.DescriptionInvalid):
        description.check(text)


@pytest.mark.parametrize("text", ["", "x" * 210, SAMPLE, " ~"])
def test_check_accepts(text: str) -> None:
    description.check(text)


def test_build_too_long() -> None:
    with pytest.raises(errors.DescriptionInvalid):
        description.build("x" * 100, 1, WHEN)
