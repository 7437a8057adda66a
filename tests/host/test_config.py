# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The configuration: where values come from, and what is refused."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.host.harness import PROJECT, command
from vdsm_ovfstore import errors
from vdsm_ovfstore.host import drop_ins
from vdsm_ovfstore.host.config import Config


def write(directory: Path, name: str, text: str) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_text(text)
    return path


def load(*directories: Path) -> drop_ins.Loaded:
    return drop_ins.load([str(d) for d in directories])


def test_defaults(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert loaded.config == Config()
    assert loaded.sources == {}


def test_a_later_name_wins_key_by_key(tmp_path: Path) -> None:
    late = write(tmp_path / "a", "90-b.conf", "[limits]\nreaders = 2\n")
    early = write(
        tmp_path / "b", "10-a.conf", "[limits]\nreaders = 7\njobs = 3\n"
    )
    loaded = load(tmp_path / "a", tmp_path / "b")
    assert loaded.config.limits.readers == 2
    assert loaded.config.limits.jobs == 3
    assert loaded.sources == {
        ("limits", "readers"): str(late),
        ("limits", "jobs"): str(early),
    }


def test_same_name_in_a_later_directory_replaces(tmp_path: Path) -> None:
    write(tmp_path / "usr", "50.conf", "[limits]\nreaders = 7\njobs = 3\n")
    write(tmp_path / "etc", "50.conf", "[limits]\nreaders = 2\n")
    limits = load(tmp_path / "usr", tmp_path / "etc").config.limits
    assert limits.readers == 2
    assert limits.jobs == Config().limits.jobs


def test_other_files_are_not_read(tmp_path: Path) -> None:
    write(tmp_path, "50.conf.rpmnew", "nonsense")
    write(tmp_path, ".50.conf", "nonsense")
    assert load(tmp_path).config == Config()


@pytest.mark.parametrize(
    "section, key, text, value",
    [
        pytest.param("tls", "enable", "no", False, id="no"),
        pytest.param("limits", "jobs", "5", 5, id="whole number"),
        pytest.param("limits", "spool_bytes", "2 GiB", 2**31, id="GiB"),
        pytest.param("limits", "spool_bytes", "1.5MiB", 1572864, id="MiB"),
        pytest.param("limits", "spool_bytes", "2097152", 2**21, id="bytes"),
        pytest.param("storage", "scan_interval", "5 min", 300.0, id="min"),
        pytest.param("limits", "idle", "1500 ms", 1.5, id="ms"),
        pytest.param("limits", "idle", "7", 7.0, id="seconds"),
        pytest.param("host", "address", "::", "::", id="IPv6"),
        pytest.param("host", "address", "", "", id="no TCP"),
        pytest.param("local", "group", "kvm", "kvm", id="group"),
        pytest.param("local", "socket", "/a/../b%s", "/b%s", id="path"),
        pytest.param(
            "storage",
            "domains",
            "/a b\n  # not yet\n  /c",
            ("/a b", "/c"),
            id="paths",
        ),
    ],
)
def test_values(
    tmp_path: Path, section: str, key: str, text: str, value: object
) -> None:
    write(tmp_path, "50.conf", f"[{section}]\n{key} = {text}\n")
    assert getattr(getattr(load(tmp_path).config, section), key) == value


@pytest.mark.parametrize(
    "text, words",
    [
        pytest.param(
            "[server]\nport = 1\n",
            "there is no section [server]; there are host, tls,",
            id="section",
        ),
        pytest.param(
            "[DEFAULT]\nport = 1\n",
            "there is no section [DEFAULT]",
            id="configparser's special section",
        ),
        pytest.param(
            "[host]\nPort = 1\n",
            "[host] has no key Port; it has address, port",
            id="key",
        ),
        pytest.param(
            "[host]\nport = http\n",
            "[host] port is 'http', expected is a whole number from 0 to",
            id="no number",
        ),
        pytest.param(
            "[limits]\nspool_bytes = 64 MB\n",
            "[limits] spool_bytes is '64 MB', expected is a size from 1 MiB "
            "to 64 TiB, in B, KiB,",
            id="no unit of ours",
        ),
        pytest.param(
            "[limits]\nidle = -1 s\n",
            "[limits] idle is '-1 s', expected is a time from 1 s to 1 h",
            id="negative",
        ),
        pytest.param(
            "[sanlock]\nhost_id = 2001\n",
            "[sanlock] host_id is '2001', expected is a whole number",
            id="out of range",
        ),
        pytest.param(
            "[tls]\nenable = perhaps\n",
            "[tls] enable is 'perhaps', expected is yes or no",
            id="no truth",
        ),
        pytest.param(
            "[host]\naddress = host1\n",
            "[host] address is 'host1', expected is an IP address",
            id="no address",
        ),
        pytest.param(
            "[storage]\ndomains = rhev\n",
            "[storage] domains is 'rhev', expected is absolute paths",
            id="relative path",
        ),
        pytest.param(
            "[storage]\ndomains =\n",
            "[storage] domains is '', expected is absolute paths",
            id="no path",
        ),
        pytest.param(
            f"[limits]\nspool_bytes = {'9' * 400}\n",
            "expected is a size from 1 MiB to 64 TiB",
            id="more than a number holds",
        ),
        pytest.param(
            f"[host]\nport = {'9' * 5000}\n",
            "expected is a whole number from 0 to 65535",
            id="more digits than Python reads",
        ),
        pytest.param(
            "[log]\nlevel = loud\n",
            "[log] level is 'loud', expected is one of debug, info,",
            id="unknown choice",
        ),
        pytest.param(
            "[sanlock]\njoin = yes\n",
            "[sanlock] host_id is '0', expected is 1 to 2000 with join = yes",
            id="join without a number",
        ),
        pytest.param(
            "[tls]\nenable = no\n[host]\naddress = 192.0.2.1\n",
            "[host] address is '192.0.2.1', expected is a loopback address "
            "with [tls] enable = no",
            id="plain for everybody",
        ),
        pytest.param(
            f"[local]\nsocket = /{'x' * 107}\n",
            "expected is at most 107 bytes",
            id="socket too long",
        ),
        pytest.param(
            "[host]\nport = 1\nport = 2\n",
            "option 'port' in section 'host' already exists",
            id="twice in a file",
        ),
        pytest.param("port = 1\n", "no section headers", id="no section"),
        pytest.param("[host]\nport\n", "[line 2]: 'port", id="no value"),
    ],
)
def test_refused(tmp_path: Path, text: str, words: str) -> None:
    write(tmp_path, "50.conf", text)
    with pytest.raises(errors.ConfigInvalid) as e:
        load(tmp_path)
    assert words in str(e.value)
    assert "\n" not in str(e.value)


def test_refusal_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "50.conf", "[host]\nport = 70000\n")
    with pytest.raises(errors.ConfigInvalid) as e:
        load(tmp_path)
    fields = e.value.fields()
    del fields["reason"]
    assert fields == {
        "path": str(path),
        "section": "host",
        "key": "port",
        "given": "70000",
        "expected": "a whole number from 0 to 65535",
    }


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[sanlock]\njoin = yes\n", id="host_id"),
        pytest.param(
            "[tls]\nenable = no\n[host]\naddress = ::\n", id="address"
        ),
    ],
)
def test_refusal_of_two_together_names_a_file(
    tmp_path: Path, text: str
) -> None:
    path = write(tmp_path, "50.conf", text)
    with pytest.raises(errors.ConfigInvalid) as e:
        load(tmp_path)
    assert str(e.value).startswith(f"Configuration {path}: [")


def test_unreadable_files(tmp_path: Path) -> None:
    path = tmp_path / "50.conf"
    path.write_bytes(b"[host]\n# \xff\n")
    with pytest.raises(errors.ConfigInvalid, match="utf-8"):
        load(tmp_path)
    path.unlink()
    path.mkdir()
    with pytest.raises(errors.ConfigInvalid, match="Is a directory"):
        load(tmp_path)
    with pytest.raises(errors.ConfigInvalid, match="No such file"):
        load(tmp_path / "missing")


def show(directory: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(sys.executable, "--conf-dir", directory, "--show-config"),
        cwd=PROJECT,
        capture_output=True,
        text=True,
    )


def test_show_config(tmp_path: Path) -> None:
    path = write(tmp_path, "50.conf", "[storage]\ndomains = /a\n")
    done = show(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    assert shown["storage"]["domains"] == {"value": ["/a"], "from": str(path)}
    assert shown["tls"]["enable"] == {"value": True, "from": "default"}


def test_show_config_of_a_wrong_one(tmp_path: Path) -> None:
    path = write(tmp_path, "50.conf", "[host]\nport = x\n")
    done = show(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    first, second = done.stderr.splitlines()
    assert first.startswith(f"ovfstored: error 3527: Configuration {path}: ")
    # Not to --show-config, which says the same again.
    assert "packaging/ovfstored.conf" in second


def test_the_example_shows_every_key_and_its_default(tmp_path: Path) -> None:
    """Uncommented, it changes nothing and names all there is."""
    example = (PROJECT / "packaging" / "ovfstored.conf").read_text()
    lines = re.sub(r"^#(?=\[|[a-z_]+ =|    /)", "", example, flags=re.M)
    write(tmp_path, "50.conf", lines)
    loaded = load(tmp_path)
    assert loaded.config == Config()
    assert {k for s in loaded.document().values() for k in s} == {
        key for _, key in loaded.sources
    }
