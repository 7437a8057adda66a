# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The configuration of the plugin."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from vdsm_ovfstore import errors
from vdsm_ovfstore.plugin.config import PROGRAM, Config, load

EXAMPLE = (
    Path(__file__).parents[2] / "packaging" / "vdsm-ovfstore.conf"
).read_text()

KEYS = [
    (section.name, key.name)
    for section in dataclasses.fields(Config)
    for key in dataclasses.fields(getattr(Config(), section.name))
]


def written(directory: Path, text: str) -> Path:
    path = directory / "50-local.conf"
    path.write_text(text)
    return path


def test_the_example_has_every_key_with_its_default(tmp_path: Path) -> None:
    lines = re.sub(r"^#(\[|\w+ =)", r"\1", EXAMPLE, flags=re.M)
    written(tmp_path, lines)
    loaded = load([str(tmp_path)])
    assert loaded.config == Config()
    assert sorted(loaded.sources) == sorted(KEYS)


OTHERS = {
    "enable": ("no", False),
    "uploads": ("no", False),
    "downloads": ("no", False),
    "timeout": ("30 s", 30.0),
    "pause": ("1 min", 60.0),
    "interval": ("2 d", 172800.0),
    "transfers": ("3", 3),
    "transfer_expires": ("1 min", 60.0),
    "spool": ("/srv/spool", "/srv/spool"),
    "spool_bytes": ("1 GiB", 2**30),
    "readers": ("2", 2),
    "read_timeout": ("5 s", 5.0),
    "scan_timeout": ("1 h", 3600.0),
    "jobs": ("5", 5),
    "remember": ("2 h", 7200.0),
    "deadline": ("5 min", 300.0),
    "verbs": ("2", 2),
    "stop": ("2 s", 2.0),
    "newest": ("2", 2),
    "hourly": ("0", 0),
    "daily": ("7", 7),
    "monthly": ("18", 18),
    "drop": ("100", 100),
    "socket": ("/run/other", "/run/other"),
    "group": ("wheel", "wheel"),
    "level": ("debug", "debug"),
}


@pytest.mark.parametrize("section, key", KEYS)
def test_each_can_be_set(tmp_path: Path, section: str, key: str) -> None:
    text, value = OTHERS[key]
    written(tmp_path, f"[{section}]\n{key} = {text}\n")
    config = load([str(tmp_path)]).config
    found = getattr(getattr(config, section), key)
    assert (found, found == getattr(getattr(Config(), section), key)) == (
        value,
        False,
    )


def test_the_service_gets_what_was_set(tmp_path: Path) -> None:
    written(
        tmp_path,
        "[limits]\njobs = 5\nspool = /srv/spool\n[log]\nlevel = debug\n",
    )
    settings = load([str(tmp_path)]).config.settings()
    assert (settings.jobs, settings.spool) == (5, "/srv/spool")
    assert settings.log_level == 10
    written(tmp_path, "[history]\nnewest = 3\n[guard]\ndrop = 9\n")
    settings = load([str(tmp_path)]).config.settings()
    assert (settings.history.newest, settings.guard_drop) == (3, 9)


@pytest.mark.parametrize(
    "text, words",
    [
        ("[limits]\nverbs = 8\n", "a whole number from 1 to 6"),
        ("[limits]\nread_timeout = 2 min\n", "1 min"),
        ("[stock]\nupload = no\n", "[stock] has no key upload"),
        ("[host]\nport = 1\n", "there is no section [host]"),
    ],
    ids=["too many", "too long", "key", "section of the daemon"],
)
def test_refused(tmp_path: Path, text: str, words: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(errors.ConfigInvalid, match=re.escape(words)) as e:
        load([str(tmp_path)])
    assert str(path) in str(e.value)
    assert PROGRAM.example in (e.value.next_step or "")
