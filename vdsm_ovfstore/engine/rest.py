# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
A running engine as the source, by its REST API.

Through `ovirt-engine-sdk-python` (ovirtsdk4), which is needed nowhere else:

    GET vms?all_content=true&search=sortby name page N&max=COUNT
    GET templates, datacenters, datacenters/ID/storagedomains, clusters,
        disks?search=status=locked, hosts

`all_content` makes the engine write the OVF of each VM of a page, from its
database of that moment. There is no such thing for templates: they are listed
as what they are, VMs without an OVF, and keep the one that a store has.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from typing import Any, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.client import address
from vdsm_ovfstore.engine import config
from vdsm_ovfstore.engine.session import Session
from vdsm_ovfstore.engine.source import (
    DOWN,
    IMAGE_LOCKED,
    NOT_GIVEN,
    DataDomain,
    Item,
)
from vdsm_ovfstore.format import ovf
from vdsm_ovfstore.format.ids import is_uuid

# The engine's VMStatus, by the API's names. Of a migration it tells no side.
_STATUSES = {
    "unassigned": -1,
    "down": DOWN,
    "up": 1,
    "powering_up": 2,
    "paused": 4,
    "migrating": 5,
    "unknown": 7,
    "not_responding": 8,
    "wait_for_launch": 9,
    "reboot_in_progress": 10,
    "saving_state": 11,
    "restoring_state": 12,
    "suspended": 13,
    "image_locked": IMAGE_LOCKED,
    "powering_down": 16,
}

# In every data center, and in no store.
_BLANK = "00000000-0000-0000-0000-000000000000"

_MAX_PAGES = 100_000

_NO_TEMPLATES = (
    NOT_GIVEN
    + ": the engine's API has none of templates; what is stored stays"
)


class Engine:
    """
    The source.

    port: of VDSM, or of a host of ours; None if hosts are not to be asked
    for.

    Raises errors.PackageMissing, where the SDK is not installed.
    """

    is_engine = True

    def __init__(self, conf: config.Source, port: Optional[int]) -> None:
        self.name = f"engine {conf.url}"
        self._conf = conf
        self._port = port
        self._session = Session(conf, self.name)

    def pages(self, count: int) -> Iterator[Sequence[Item]]:
        with self._session.failing():
            system = self._session.system()
            pools = {
                cluster.id: cluster.data_center.id
                for cluster in system.clusters_service().list()
                if cluster.data_center is not None
            }
            locked = [
                disk.id.encode()
                for disk in system.disks_service().list(search="status=locked")
            ]
            templates = [
                Item(template.id, "", data=None)
                for template in system.templates_service().list()
                if template.id != _BLANK and is_uuid(template.id)
            ]
        yield from self._vms(min(count, self._conf.page), pools, locked)
        yield templates

    def read(self, item: Item) -> bytes:
        raise errors.SourceUnreadable(
            path=f"template {item.id}", reason=_NO_TEMPLATES
        )

    def is_gone(self, entity: str) -> bool:
        with self._session.failing():
            system = self._session.system()
            for service in (
                system.vms_service().vm_service(entity),
                system.templates_service().template_service(entity),
            ):
                with contextlib.suppress(self._session.sdk.NotFoundError):
                    service.get()
                    return False
        return True

    def domains(self) -> Optional[Sequence[DataDomain]]:
        found: dict[str, DataDomain] = {}
        with self._session.failing():
            centers = self._session.system().data_centers_service()
            for center in centers.list():
                service = centers.data_center_service(center.id)
                for domain in service.storage_domains_service().list():
                    if not is_uuid(domain.id) or _value(domain.type) != "data":
                        continue
                    found[domain.id] = DataDomain(
                        domain.id,
                        str(domain.name or ""),
                        _value(domain.status) == "active",
                        center.id,
                    )
        return list(found.values())

    def hosts(self) -> Sequence[str]:
        if self._port is None:
            return ()
        with self._session.failing():
            hosts = self._session.system().hosts_service().list()
        up = [host for host in hosts if _value(host.status) == "up"]
        # The SPM first: elsewhere VDSM writes nothing.
        up.sort(key=lambda h: _value(h.spm and h.spm.status) != "spm")
        found = []
        for host in up:
            url = f"https://{_bracketed(str(host.address))}:{self._port}"
            with contextlib.suppress(errors.UsageError):
                address.parse(url)
                found.append(url)
        return found

    def close(self) -> None:
        self._session.close()

    # -- pages ----------------------------------------------------------------

    def _vms(
        self, count: int, pools: dict[str, str], locked: list[bytes]
    ) -> Iterator[list[Item]]:
        seen: set[str] = set()
        for number in range(1, _MAX_PAGES):
            with self._session.failing():
                vms = (
                    self._session.system()
                    .vms_service()
                    .list(
                        search=f"sortby name page {number}",
                        max=count,
                        all_content=True,
                    )
                )
            items = [
                self._item(vm, pools, locked)
                for vm in vms
                if is_uuid(str(vm.id)) and vm.id not in seen
            ]
            seen.update(item.id for item in items)
            if items:
                yield items
            if len(vms) < count or not items:
                return

    def _item(
        self, vm: Any, pools: dict[str, str], locked: list[bytes]
    ) -> Item:
        data = _ovf(vm)
        status = _STATUSES.get(_value(vm.status), DOWN)
        reason = ""
        if status == IMAGE_LOCKED:
            reason = "it is locked"
        elif any(disk in data for disk in locked):
            reason = "one of its disks is locked"
        return Item(
            vm.id,
            hashlib.sha256(data).hexdigest(),
            status,
            reason,
            data,
            pools.get(vm.cluster.id if vm.cluster else "", ""),
        )


def _ovf(vm: Any) -> bytes:
    """The OVF in a VM; empty, and so refused, if there is none."""
    initialization = vm.initialization
    configuration = initialization and initialization.configuration
    text = (configuration and configuration.data) or ""
    return str(text).encode("utf-8", "replace")[: ovf.MAX_OVF + 1]


def _value(member: Any) -> str:
    """Of an enumeration of the SDK."""
    return str(getattr(member, "value", "") or "")


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
