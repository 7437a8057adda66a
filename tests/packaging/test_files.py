# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What is installed fits together: paths, names, users.

That it installs, is used and removed is proved by scripts/check-rpm.
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
from pathlib import Path

from tests.packaging.conftest import PROJECT
from vdsm_ovfstore.cli import here, way
from vdsm_ovfstore.plugin import config, state

PACKAGING = PROJECT / "packaging"
SPEC = (PACKAGING / "vdsm-ovfstore.spec.in").read_text()
LAUNCHER = "/usr/libexec/vdsm_ovfstore/vdsmd"

# As VDSM's unit starts its own script, which the drop-in must do as well:
# static/usr/lib/systemd/system/vdsmd.service.in in VDSM fd4b0df20.
STOCK = (
    "/usr/libexec/vdsm/daemonAdapter -0 /dev/null -1 /dev/null -2 /dev/null "
    '"/usr/libexec/vdsm/vdsmd"'
)


def lines(name: str) -> list[str]:
    """Without comments and what is empty."""
    text = (PACKAGING / name).read_text()
    return [n for n in text.splitlines() if n and not n.startswith("#")]


def scriptlet(name: str) -> str:
    """The text of a scriptlet of the spec."""
    match = re.search(rf"^%{name}\n(.*?)(?=^%)", SPEC, re.M | re.S)
    assert match is not None, name
    return match[1]


def test_the_drop_in_changes_the_launcher_only() -> None:
    ours = STOCK.replace("/usr/libexec/vdsm/vdsmd", LAUNCHER)
    assert lines("vdsmd.service.d.conf") == [
        "[Service]",
        "ExecStart=",
        f"ExecStart={ours}",
    ]


def test_the_launcher() -> None:
    launcher = PACKAGING / "vdsmd"
    assert os.access(launcher, os.X_OK)
    assert launcher.read_text().startswith("#!/usr/bin/python3\n")
    assert "%global launcher %{_libexecdir}/vdsm_ovfstore/vdsmd\n" in SPEC
    assert here.LAUNCHER == LAUNCHER


def test_the_state_is_where_it_is_looked_for() -> None:
    path = f"{state.DIRECTORY}/{state.FILE}"
    assert path == here.STATE
    assert f'"{path}"' in (PACKAGING / "vdsmd").read_text()
    assert config.Config().local.socket == way.SOCKETS[0]
    assert lines("vdsm-ovfstore.tmpfiles") == [
        f"d {state.DIRECTORY} 0755 vdsm kvm -"
    ]


def test_configuration_directories_are_packed() -> None:
    for directory in config.DIRECTORIES[:2]:
        below = directory.replace("/usr/lib", "%{_prefix}/lib")
        below = below.replace("/etc", "%{_sysconfdir}")
        assert f"\n%dir {below}\n" in SPEC


def test_the_spec_installs_what_setup_cfg_does() -> None:
    setup = configparser.ConfigParser()
    setup.read(PROJECT / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"]
    for line in scripts.strip().splitlines():
        name, target = line.split(" = ")
        module = target.partition(":")[0]
        assert target == f"{module}:main"
        assert f"\ncommand {name} {module}\n" in SPEC
        assert f"\n%{{_bindir}}/{name}\n" in SPEC
    examples = setup["options.data_files"]["share/vdsm-ovfstore"]
    (loop,) = re.findall(r"^for example in (.*); do$", SPEC, re.M)
    assert {Path(n).stem for n in examples.split()} == set(loop.split())


def test_users_are_those_of_sysusers() -> None:
    """%pre makes them where nobody reads sysusers.d in time."""
    for name, who in (("ovfstored", "vdsm"), ("ovfstore-updater", "ovfstore")):
        users = [shlex.split(n) for n in lines(f"{name}.sysusers")]
        (user,) = (u for u in users if u[0] == "u")
        assert user[1] == who
        pre = scriptlet(f"pre -n {name}")
        assert f'-c "{user[3]}" {who}' in pre
        uid = user[2].partition(":")[0]
        assert uid == "-" or f"useradd -u {uid} " in pre
        unit = configparser.ConfigParser(strict=False, interpolation=None)
        unit.optionxform = str  # type: ignore[assignment, method-assign]
        unit.read_string("\n".join(lines(f"{name}.service")))
        assert unit["Service"]["User"] == who


def test_scriptlets_never_fail() -> None:
    """Each command that may fail is followed by || :."""
    names = re.findall(
        r"^%((?:pre|post|preun|postun|posttrans|triggerin)\b.*)$", SPEC, re.M
    )
    assert len(names) == 15, names
    for name in names:
        text = re.sub(r"\\\n", " ", scriptlet(re.escape(name)))
        for line in map(str.strip, text.splitlines()):
            if re.match(
                r"(if|fi|else|for|done|break|echo|#|$|\[ -e .* \|\| break)",
                line,
            ):
                continue
            assert line.endswith("|| :") or line.startswith("rm -f "), line


def test_an_update_of_vdsm_does_not_wait_for_us() -> None:
    assert "Requires:       vdsm >= %{vdsm_version}\n" in SPEC
    assert "Conflicts" not in SPEC
    trigger = scriptlet("triggerin -- vdsm")
    assert " -m vdsm_ovfstore.plugin.contract || :\n" in trigger
