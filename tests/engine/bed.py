# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A data center in a directory: OVFs, storage domains, hosts, one updater.

    bed.vm("web", bed.a, bed.b)          its OVF appears in the directory
    bed.once()                           a run of the updater, in this process
    bed.names(bed.a)                     what the store holds then
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from tests.engine.ovfs import Disk, ident, make_ovf
from tests.store.builders import stock_write
from vdsm_ovfstore.client import Client
from vdsm_ovfstore.engine import decisions, entities, marks, report
from vdsm_ovfstore.engine.config import Config
from vdsm_ovfstore.engine.directory import Directory
from vdsm_ovfstore.engine.look import Look
from vdsm_ovfstore.engine.running import updating
from vdsm_ovfstore.engine.source import Source
from vdsm_ovfstore.engine.state import State
from vdsm_ovfstore.engine.survey import Limits
from vdsm_ovfstore.format import archive_writer
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.storage.filevolume import FileVolume

SIZE = 8 * 2**20  # of a volume, in bytes


class Bed:
    """
    domains are those that the updater may use; hosts may serve others. ids:
    instead of domains, where no host is needed.

    conf: section={key: value}, of engine.config.
    """

    def __init__(
        self,
        tmp_path: Path,
        addresses: Sequence[str],
        domains: Sequence[FileDomain],
        ids: Sequence[str] = (),
        **conf: Mapping[str, Any],
    ) -> None:
        self.ovfs = tmp_path / "ovfs"
        self.ovfs.mkdir()
        self.state_path = str(tmp_path / "state.db")
        self.domains = {domain.id: domain for domain in domains}
        self.ids = [*(domain.id for domain in domains), *ids]
        self.source: Source = Directory(str(self.ovfs))
        self.conf = Config()
        self.set(
            source={"directory": str(self.ovfs)},
            hosts={"addresses": tuple(addresses), "lease_timeout": 1.0},
            domains={"stores": False, "size": SIZE},
            updates={"stop": 20.0},
            state={"path": self.state_path},
        )
        self.set(**conf)
        self.client = Client(addresses[0])
        self.state = State(self.state_path)
        with self.state.connect() as connection:
            for domain in self.ids:
                decisions.choose(connection, domain, marks.ON)

    @property
    def a(self) -> str:
        return self.ids[0]

    @property
    def b(self) -> str:
        return self.ids[1]

    def set(self, **conf: Mapping[str, Any]) -> None:
        for section, values in conf.items():
            old = getattr(self.conf, section)
            new = dataclasses.replace(old, **values)
            self.conf = dataclasses.replace(self.conf, **{section: new})

    def fresh_state(self) -> None:
        """As on another machine, or after the loss of this one's disk."""
        for name in os.listdir(os.path.dirname(self.state_path)):
            if name.startswith("state.db"):
                os.unlink(Path(self.state_path).with_name(name))
        self.state = State(self.state_path)
        with self.state.connect() as connection:
            for domain in self.ids:
                decisions.choose(connection, domain, marks.ON)

    # -- the source -----------------------------------------------------------

    def vm(self, name: str, *domains: str, **options: Any) -> str:
        """Write the OVF of a VM with a disk on each domain; returns its id."""
        disks = [Disk(domain) for domain in domains]
        return self.write(name, make_ovf(name, disks, **options))

    def write(self, name: str, data: bytes) -> str:
        path = self.ovfs / f"{ident(name)}.ovf"
        temporary = path.with_suffix(".new")
        temporary.write_bytes(data)
        temporary.rename(path)
        return ident(name)

    def remove(self, name: str) -> None:
        (self.ovfs / f"{ident(name)}.ovf").unlink()

    def statuses(self, **names: int) -> None:
        found = {ident(name): status for name, status in names.items()}
        path = self.ovfs / "metadata.json"
        path.write_text(json.dumps({"VM Status": found}))

    # -- the updater ----------------------------------------------------------

    def once(self, accept_removals: bool = False) -> Any:
        """Returns the report."""
        with updating(
            self.conf, self.state, self.source, accept_removals
        ) as loop:
            loop.once()
        return self.report()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """An updater that runs until the end of the block."""
        with updating(self.conf, self.state, self.source) as loop:
            thread = threading.Thread(target=loop.run)
            thread.start()
            try:
                yield
            finally:
                loop.stop()
                thread.join(60)
                assert not thread.is_alive()

    def look(self) -> Any:
        """As once(), but no host is asked for anything."""
        updates = self.conf.updates
        limits = Limits(updates.batch, updates.locked_wait, updates.removals)
        Look(self.state, self.source, limits).run()
        return self.report()

    def placed(self, domain: str) -> list[str]:
        """Names of what belongs into a store and has an OVF, by the state."""
        where, values = entities.of_domain(domain)
        return [
            row["name"]
            for row in self.query(
                f"SELECT name FROM {where} ORDER BY 1", *values
            )
        ]

    def query(self, sql: str, *values: Any) -> list[Any]:
        with self.state.connect() as connection:
            return connection.execute(sql, values).fetchall()

    def marks(self) -> dict[str, int]:
        return {
            r["id"]: r["mark"] for r in self.query("SELECT * FROM domains")
        }

    def report(self) -> Any:
        with self.state.connect() as connection:
            return report.document(
                connection, self.conf.domains.stores, unregistered=True
            )

    def row(self, domain: str, found: Any = None) -> Any:
        """What a report says of a domain."""
        listed = (found or self.report())["domains"]
        (row,) = (d for d in listed if d["domain"] == domain)
        return row

    # -- the stores -----------------------------------------------------------

    def archive(self, domain: str, generation: Optional[int] = None) -> bytes:
        data = self.client.download(domain, generation=generation).data
        assert data is not None
        return data

    def members(
        self, domain: str, generation: Optional[int] = None
    ) -> dict[str, bytes]:
        """In their order."""
        return dict(unpacked(self.archive(domain, generation)))

    def names(self, domain: str) -> list[str]:
        """Of all VMs that the store holds."""
        listed = self.client.all_vms(domain)["entities"]
        return sorted(entity["name"] for entity in listed)

    def manifest(self, domain: str) -> Any:
        return json.loads(self.members(domain)["manifest.json"])

    def generation(self, domain: str) -> Any:
        newest = self.client.get_info(domain)["newest"]
        return None if newest is None else newest["number"]

    def upload(self, domain: str, tar: bytes) -> None:
        """As an engine does through the plugin, or a person."""
        self.client.upload(domain, tar, force=True)

    def stock_write(
        self, domain: str, tar: bytes, volume: Optional[FileVolume] = None
    ) -> None:
        """As an engine and a host without us do; to the first copy."""
        if volume is None:
            volume = self.domains[domain].volumes()[0]
        stock_write(volume, tar, when=int(time.time()))


def unpacked(tar: bytes) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for entry in archive:
            file = archive.extractfile(entry)
            assert file is not None
            yield entry.name, file.read()


def engine_archive(
    domain: str,
    ovfs: Mapping[str, bytes],
    statuses: Optional[Mapping[str, int]] = None,
) -> bytes:
    """The archive that an engine makes of these OVFs, by name."""
    when = int(time.time())
    members = archive_writer.engine_members(
        domain,
        ((ident(name), len(ovf), [ovf]) for name, ovf in ovfs.items()),
        when,
        statuses or {},
    )
    return b"".join(archive_writer.write_archive(members, when))
