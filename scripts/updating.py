# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The loop of the updater, step by step, over a directory of OVFs.

    WORK/updater/domains    two LocalFS domains
    WORK/updater/ovfs       the source: the OVFs, as if their disks lay there
    WORK/updater/conf.d     the configuration of ovfstore-updater
    WORK/updater/state.db   what it remembers

All of it is made anew by each run.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from scripts.processes import Failure, say, shown
from vdsm_ovfstore import errors
from vdsm_ovfstore.engine.source import IMAGE_LOCKED
from vdsm_ovfstore.format.ids import UUID, is_uuid
from vdsm_ovfstore.format.ovf import check_ovf

_UPDATER = os.path.join(os.path.dirname(sys.executable), "ovfstore-updater")

_STORAGE = re.compile(rf"(:StorageId>)({UUID})(<)")
_GENERATION = re.compile(r"(<Generation>)(\d+)(<)")

# Shows a command, runs it, and shows its output; raises Failure.
Step = Callable[..., None]


class Loop:
    """ovfs: the directory that make run was given."""

    def __init__(self, ovfs: str, work: str, ovfstore: str) -> None:
        self._root = Path(work, "updater")
        shutil.rmtree(self._root, ignore_errors=True)
        self.domains = self._root / "domains"
        self._ovfs = self._root / "ovfs"
        for path in (self.domains, self._ovfs, self._root / "conf.d"):
            path.mkdir(parents=True)
        command = [ovfstore, "init", str(self.domains), "--type", "localfs"]
        for _ in range(2):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        self._take(ovfs, sorted(os.listdir(self.domains)))

    def show(self, socket: str, step: Step) -> None:
        """Raises Failure."""
        conf = self._root / "conf.d"
        conf.joinpath("50-run.conf").write_text(
            f"[source]\ndirectory = {self._ovfs}\n"
            f"[hosts]\naddresses = {socket}\n"
            f"[state]\npath = {self._root / 'state.db'}\n"
            # The first domain of this run stays as it is.
            "[domains]\nstores = no\n[log]\nlevel = warning\n"
        )
        tool = (shown(_UPDATER), "--conf-dir", shown(str(conf)))

        def update(what: str) -> None:
            say(f"\n# {what}")
            step(*tool, "run", "--once")

        say("\n# The updater, with stores on two domains")
        for domain in sorted(os.listdir(self.domains)):
            step(*tool, "enable", domain)
        names = sorted(path.name for path in self._ovfs.glob("*.ovf"))
        where = shown(str(self._ovfs))
        update(f"All VMs of {where}, for the first time")
        self._change(names[0])
        update(f"{names[0]} has changed")
        if len(names) > 1:
            (self._ovfs / names[-1]).unlink()
            update(f"{names[-1]} was removed")
        self._change(names[0])
        self._lock(names[0])
        update(f"{names[0]} has changed again, and is locked: it waits")
        (self._ovfs / "metadata.json").unlink()
        update("It is unlocked")
        say("\n# What lies in the stores now, and when nothing has changed")
        step(*tool, "status")

    def _take(self, directory: str, domains: Sequence[str]) -> None:
        """
        The OVFs of a directory, on these domains.

        Each domain that they name becomes one of ours.
        """
        known: dict[str, str] = {}

        def ours(found: re.Match[str]) -> str:
            ident = known.setdefault(found[2], domains[len(known) % 2])
            return f"{found[1]}{ident}{found[3]}"

        for name in sorted(os.listdir(directory)):
            if not name.endswith((".ovf", ".xml")):
                continue
            path = Path(directory, name)
            try:
                entity = check_ovf(path.read_bytes(), name).entity_id
            except (errors.Error, OSError) as e:
                say(f"{name} is left out: {e}")
                continue
            entity = entity or path.stem
            if is_uuid(entity):
                text = path.read_text(encoding="utf-8")
                target = self._ovfs / f"{entity}.ovf"
                target.write_text(_STORAGE.sub(ours, text), encoding="utf-8")
        if not any(self._ovfs.iterdir()):
            raise Failure(f"{directory} has no OVF that could be stored")

    def _change(self, name: str) -> None:
        path = self._ovfs / name
        text = path.read_text(encoding="utf-8")

        def next_one(found: re.Match[str]) -> str:
            return f"{found[1]}{int(found[2]) + 1}{found[3]}"

        changed = _GENERATION.sub(next_one, text, count=1)
        # Replaced, as a source should be.
        new = path.with_suffix(".new")
        new.write_text(changed, encoding="utf-8")
        new.rename(path)

    def _lock(self, name: str) -> None:
        status = {"VM Status": {name[: -len(".ovf")]: IMAGE_LOCKED}}
        (self._ovfs / "metadata.json").write_text(json.dumps(status))
