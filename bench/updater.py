# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Measure the updater over a simulated data center; prints a table in Markdown.

    python -m bench.updater [DIRECTORY] [--vms 1000 3000 10000]
        [--domains 20] [--changed 3]

A directory of OVFs is the source, a real daemon serves LocalFS domains of two
copies over TLS. A first update of all, one in which nothing has changed, and
one in which 1 % of the VMs have, all on a few of the domains; each is a
process of its own, `ovfstore-updater run --once`. After each of them every
store is read back and compared with the directory: the OVFs, by their
digests, and which stores have got a new generation.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench import hosting, make_ovfs, peak, stores
from bench.run import say, work
from bench.table import MIB
from vdsm_ovfstore.client import Client
from vdsm_ovfstore.storage.filedomain import create_domain

# What the updater's memory has to stay below, in bytes.
LIMIT = 128 * MIB

_COMMAND = (
    "import sys; from vdsm_ovfstore.engine.command import main; "
    "sys.exit(main())"
)
_STORAGE = re.compile(rb"(<rasd:StorageId>)[^<]*(<)")
_CONFIGURATION = """\
[source]
directory = {ovfs}
[hosts]
addresses = {url}
ca = {ca}
cert = {cert}
key = {key}
updates = 2
[state]
path = {state}
"""

# One VM in so many has no disk, and so lies on every domain.
_DISKLESS = 200

_LOOK = 0.01  # seconds between two looks at the memory


class Phase(NamedTuple):
    """
    One run.

    seconds: from start to end; cpu: seconds of the updater's; memory: its
    peak in bytes; sent: bytes; stores: how many it has sent to.
    """

    what: str
    seconds: float
    cpu: float
    memory: int
    sent: int
    stores: int


class Center:
    """A data center: where its VMs lie, and their OVFs by digest."""

    def __init__(self, directory: str, domains: list[str]) -> None:
        self.directory = directory
        self.domains = domains
        self.bytes = 0
        self._digests: dict[str, str] = {}
        self._places: dict[str, set[str]] = {}
        os.mkdir(directory)

    def fill(self, count: int) -> None:
        """Make VMs, about as many on each domain."""
        rng = random.Random(7)
        made = make_ovfs.some_ovfs(2 * count, seed=7)
        while len(self._places) < count:
            entity, data = next(made)
            diskless = b"<rasd:StorageId>" not in data
            if diskless and len(self._places) % _DISKLESS:
                continue
            where = set(self.domains)
            if not diskless:
                domain = rng.choice(self.domains)
                where = {domain}
                data = _STORAGE.sub(rb"\g<1>%s\2" % domain.encode(), data)
            self._places[entity] = where
            self._write(entity, data)

    def change(self, count: int, domains: list[str]) -> None:
        """Change so many VMs, all of these domains."""
        wanted = [
            entity
            for entity, where in sorted(self._places.items())
            if len(where) == 1 and where <= set(domains)
        ]
        for entity in wanted[:: max(1, len(wanted) // count)][:count]:
            data = Path(self.directory, f"{entity}.ovf").read_bytes()
            self._write(entity, make_ovfs.edited(data))

    def _write(self, entity: str, data: bytes) -> None:
        path = Path(self.directory, f"{entity}.ovf")
        path.with_suffix(".new").write_bytes(data)
        path.with_suffix(".new").rename(path)
        self._digests[entity] = hashlib.sha256(data).hexdigest()
        self.bytes += len(data)

    def check(self, client: Client) -> dict[str, int]:
        """
        Compare all stores; returns the number of each one's generation.

        Raises AssertionError.
        """
        found = {}
        for domain in self.domains:
            listed = client.all_vms(domain)
            held = {e["id"]: e["sha256"] for e in listed["entities"]}
            wanted = {
                entity: self._digests[entity]
                for entity, where in self._places.items()
                if domain in where
            }
            assert held == wanted, f"the store of {domain} differs"
            found[domain] = listed["generation"]["number"]
        return found


def measure(
    count: int, domains: int, changed: int, directory: str
) -> list[Phase]:
    """The phases with so many VMs, each checked."""
    pki = hosting.make_pki(directory)
    made = [
        create_domain(_made(directory, f"d{n}"), "LOCALFS")
        for n in range(domains)
    ]
    ids = [domain.id for domain in made]
    center = Center(os.path.join(directory, "ovfs"), ids)
    center.fill(count)
    say(f"{count} VMs, {center.bytes / MIB:.0f} MiB")
    with contextlib.ExitStack() as stack:
        paths = [domain.path for domain in made]
        host = stack.enter_context(hosting.hosting(directory, pki, paths))
        client = stack.enter_context(host.client())
        run = _Runs(directory, center, host)
        phases = [run("first update")]
        before = center.check(client)
        phases.append(run("nothing has changed"))
        assert center.check(client) == before, "it has sent what was there"
        center.change(max(1, count // 100), ids[:changed])
        phases.append(run(f"1 % changed, on {changed} domains"))
        after = center.check(client)
        new = {domain for domain in ids if after[domain] != before[domain]}
        assert new == set(ids[:changed]), "it has sent to others"
    assert [phase.stores for phase in phases] == [domains, 0, changed]
    return phases


class _Runs:
    """Runs the updater, and watches it."""

    def __init__(
        self, directory: str, center: Center, host: hosting.Host
    ) -> None:
        self._host = host
        self._env = stores.environment(directory)
        conf = _made(directory, "updater.conf.d")
        access = host.access
        Path(conf, "bench.conf").write_text(
            _CONFIGURATION.format(
                ovfs=center.directory,
                state=os.path.join(directory, "state.db"),
                **access._asdict(),
            )
        )
        self._command = [sys.executable, "-c", _COMMAND]
        self._command += ["--conf-dir", conf, "run", "--once"]
        self._log = os.path.join(directory, "updater.log")

    def __call__(self, what: str) -> Phase:
        self._host.wait_for_spares()
        say(f"  {what}")
        begin = time.monotonic()
        with open(self._log, "wb") as log:
            process = subprocess.Popen(
                self._command,
                env=self._env,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
            memory = 0
            while True:
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    break
                memory = max(memory, peak.high_water(process.pid) or 0)
                time.sleep(_LOOK)
        seconds = time.monotonic() - begin
        text = Path(self._log).read_text()
        if status:
            raise RuntimeError(f"it ended with {status}: {text[-2000:]}")
        sent = re.findall(r" SEND .* size=(\d+) ", text)
        cpu = usage.ru_utime + usage.ru_stime
        total = sum(map(int, sent))
        return Phase(what, seconds, cpu, memory, total, len(sent))


def table(found: dict[int, list[Phase]]) -> Iterator[str]:
    yield (
        "| VMs | | wall, s | sent to | sent, MiB | CPU of the updater, s | "
        "its peak memory, MiB |"
    )
    yield "|---:|---|---:|---:|---:|---:|---:|"
    for count, phases in found.items():
        for phase in phases:
            yield (
                f"| {count:,} | {phase.what} | {phase.seconds:.1f} | "
                f"{phase.stores} | {phase.sent / MIB:.1f} | {phase.cpu:.1f} | "
                f"{phase.memory / MIB:.0f} |"
            )
    most = max(p.memory for phases in found.values() for p in phases)
    verdict = "met" if most < LIMIT else "missed"
    yield f"\nMemory below {LIMIT // MIB} MiB: {verdict}"


def _made(directory: str, name: str) -> str:
    path = os.path.join(directory, name)
    os.mkdir(path)
    return path


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench.updater", description=__doc__.split("\n\n")[0]
    )
    parser.add_argument("directory", nargs="?", default=None)
    parser.add_argument(
        "--vms", type=int, nargs="+", default=[1000, 3000, 10000]
    )
    parser.add_argument("--domains", type=int, default=20)
    parser.add_argument("--changed", type=int, default=3)
    args = parser.parse_args()
    found = {}
    for count in args.vms:
        with work(args.directory) as directory:
            found[count] = measure(
                count, args.domains, args.changed, directory
            )
    print("\n".join(table(found)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
