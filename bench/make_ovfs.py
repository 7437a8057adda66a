# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Made-up OVFs in the structure and of the sizes that the engine writes.

Everything is drawn from a seeded generator, so that the same seed gives the
same bytes on every Python. Sizes are spread (log-normal) around a mean, as
in a data center: most VMs are small, some drag a tail of snapshots, each
with its own configuration in base64.

    python -m bench.make_ovfs DIRECTORY --count 100
    python -m bench.make_ovfs DIRECTORY --mib 64 --seed 7
"""

from __future__ import annotations

import argparse
import base64
import itertools
import math
import os
import random
import re
import sys
from collections.abc import Iterator
from xml.sax.saxutils import escape

# Mean length of an OVF in bytes, and how far lengths spread around it.
MEAN = 9 * 1024
_SPREAD = 0.45

# Below this an OVF of this structure cannot go.
SMALLEST = 2560

# One entity in so many is a template.
_TEMPLATE_EVERY = 20

_BLANK = "00000000-0000-0000-0000-000000000000"
_POOL = "5f3c1a52-7c1e-11ee-9a41-525400d1c0de"
_DOMAINS = (
    "0b6a4b0e-3f0d-4b07-8f6e-0a3d4a9e51c1",
    "7d21c2a4-9d4e-4a57-b1b0-6c86d2f0a9e2",
    "c94f53d8-02b7-4d0a-a7e5-f1f5d3b8c7f3",
)
_ROLES = (
    "web proxy mail db cache queue build git ldap dns print backup metrics "
    "shop wiki crm files vpn jump mirror données 検索 архив"
).split()
_SITES = "ber oslo lyon brno riga porto gent turku".split()
_SYSTEMS = (
    "rhel_9x64 rhel_8x64 rhel_7x64 debian_11 ubuntu_22_04 windows_2022 "
    "windows_2019x64 windows_10x64 other_linux sles_15"
).split()
_NETWORKS = "ovirtmgmt frontend backend storage-a dmz lab vlan-117".split()
_CLUSTERS = "Default production staging edge-2".split()
_WORDS = (
    "keeps the invoices of all branches until they are archived; owner is "
    "the platform team, ask before rebooting & mind the <quorum>"
).split()
_PACKAGES = (
    "kernel glibc openssl systemd bash qemu-guest-agent python3 cloud-init "
    "postgresql-server nginx chrony rsyslog audit sudo openssh-server tuned "
    "selinux-policy firewalld NetworkManager lvm2 dracut grub2 tzdata"
).split()

_HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?><ovf:Envelope '
    'xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1/" '
    'xmlns:rasd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/'
    'CIM_ResourceAllocationSettingData" '
    'xmlns:vssd="http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/'
    'CIM_VirtualSystemSettingData" '
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'ovf:version="4.5.0.0">'
)
_GENERATION = re.compile(rb"<Generation>(\d+)</Generation>")


def ovf(rng: random.Random, index: int, size: int = MEAN) -> tuple[str, bytes]:
    """
    The next entity: its id, and its OVF of `size` bytes on the average.

    `index` goes into the name, and decides whether it is a template.
    """
    spread = rng.lognormvariate(-_SPREAD * _SPREAD / 2, _SPREAD)
    entity = _uuid(rng)
    target = max(SMALLEST, int(size * spread))
    return entity, _entity(rng, entity, index, target).encode()


def archive_ovfs(
    mib: float, seed: int = 1, size: int = MEAN
) -> Iterator[tuple[str, bytes]]:
    """
    Entities until their tar members (header and padded data) fill `mib` MiB.
    """
    room = int(mib * 1024 * 1024)
    rng = random.Random(seed)
    for index in itertools.count():
        if room <= 0:
            return
        entity, data = ovf(rng, index, size)
        yield entity, data
        room -= 512 + -(-len(data) // 512) * 512


def some_ovfs(
    count: int, seed: int = 1, size: int = MEAN
) -> Iterator[tuple[str, bytes]]:
    """`count` entities."""
    rng = random.Random(seed)
    for index in range(count):
        yield ovf(rng, index, size)


def edited(data: bytes) -> bytes:
    """The OVF after one more change in the engine: its Generation is up."""
    return _GENERATION.sub(
        lambda m: b"<Generation>%d</Generation>" % (int(m[1]) + 1), data, 1
    )


# -- the parts of an OVF ------------------------------------------------------


def _entity(rng: random.Random, entity: str, index: int, target: int) -> str:
    """An OVF that is near `target` characters long."""
    template = index % _TEMPLATE_EVERY == _TEMPLATE_EVERY - 1
    name = f"{rng.choice(_ROLES)}-{rng.choice(_SITES)}-{index:05d}"
    # A disk takes about 1600 bytes in its three places, a NIC about 850.
    spare = max(0, target - SMALLEST)
    disks = [
        (_uuid(rng), _uuid(rng), rng.choice((10, 20, 40, 100, 250, 500)))
        for _ in range(min(spare // 1800, rng.choice((1, 1, 1, 2, 2, 3, 4))))
    ]
    spare -= 1600 * len(disks)
    networks = rng.sample(
        _NETWORKS, min(spare // 900, rng.choice((1, 1, 1, 2, 3)))
    )
    spare -= 850 * len(networks)
    devices = min(spare // 520, rng.randrange(4, 11))
    active = _uuid(rng)
    domain = rng.choice(_DOMAINS)
    made = _date(rng)

    cpus = rng.choice((1, 2, 2, 4, 4, 8, 16))
    memory = 1024 * rng.choice((1, 2, 4, 4, 8, 16, 32, 64))
    head = "".join(
        (
            _HEAD,
            "<References>",
            *(_file(rng, disk) for disk in disks),
            "</References><NetworkSection><Info>List of networks</Info>",
            *(f'<Network ovf:name="{net}"></Network>' for net in networks),
            '</NetworkSection><Section xsi:type="ovf:DiskSection_Type">'
            "<Info>List of Virtual Disks</Info>",
            *(_disk(rng, d, n, name, active) for n, d in enumerate(disks, 1)),
            '</Section><Content ovf:id="out" '
            'xsi:type="ovf:VirtualSystem_Type">',
            f"<Name>{escape(name)}</Name>",
        )
    )
    tail = "".join(
        (
            _general(rng, made, memory),
            _origin(rng, entity, template),
            f'<Section ovf:id="{entity}" ovf:required="false" '
            'xsi:type="ovf:OperatingSystemSection_Type">'
            "<Info>Guest Operating System</Info>"
            f"<Description>{rng.choice(_SYSTEMS)}</Description></Section>"
            '<Section xsi:type="ovf:VirtualHardwareSection_Type">'
            f"<Info>{cpus} CPU, {memory} Memory</Info><System>"
            "<vssd:VirtualSystemType>ENGINE 4.5.0.0</vssd:VirtualSystemType>"
            "</System>",
            _cpu_and_memory(cpus, memory),
            *(
                _drive(disk, n, name, domain, made)
                for n, disk in enumerate(disks, 1)
            ),
            *(_nic(rng, net, n) for n, net in enumerate(networks, 1)),
            *itertools.islice(_devices(rng), devices),
            "</Section>",
        )
    )
    end = "</Content></ovf:Envelope>"
    spare = target - len(head) - len(tail) - len(end)
    snapshots = "" if template else _snapshots(rng, active, made, spare)
    spare -= len(snapshots)
    return head + _notes(rng, spare, template) + tail + snapshots + end


def _file(rng: random.Random, disk: tuple[str, str, int]) -> str:
    image, volume, gib = disk
    actual = rng.randrange(1, gib) * 2**30 + rng.randrange(2**21) * 512
    return (
        f'<File ovf:href="{image}/{volume}" ovf:id="{volume}" '
        f'ovf:size="{actual}" ovf:description="Active VM" '
        'ovf:disk_storage_type="IMAGE" ovf:cinder_volume_type=""></File>'
    )


def _disk(
    rng: random.Random,
    disk: tuple[str, str, int],
    number: int,
    name: str,
    snapshot: str,
) -> str:
    image, volume, gib = disk
    kind = rng.choice(("RAW", "RAW", "COW"))
    allocation = "Sparse" if kind == "COW" else "Preallocated"
    interface = rng.choice(("VirtIO", "VirtIO_SCSI", "VirtIO_SCSI"))
    boot = "true" if number == 1 else "false"
    return (
        f'<Disk ovf:diskId="{volume}" ovf:size="{gib}" '
        f'ovf:actual_size="{rng.randrange(1, gib + 1)}" '
        f'ovf:vm_snapshot_id="{snapshot}" ovf:parentRef="" '
        f'ovf:fileRef="{image}/{volume}" ovf:format="http://www.vmware.com/'
        'specifications/vmdk.html#sparse" '
        f'ovf:volume-format="{kind}" ovf:volume-type="{allocation}" '
        f'ovf:disk-interface="{interface}" ovf:read-only="false" '
        f'ovf:shareable="false" ovf:boot="{boot}" ovf:pass-discard="false" '
        'ovf:incremental-backup="false" '
        f'ovf:disk-alias="{escape(name)}_Disk{number}" '
        'ovf:disk-description="" ovf:wipe-after-delete="false"></Disk>'
    )


def _notes(rng: random.Random, room: int, template: bool) -> str:
    """Description, comment and list of installed packages, in `room`."""
    rest = room - 70
    words: list[str] = []
    while rest > 0 and len(words) < 40:
        word = escape(rng.choice(_WORDS))
        words.append(word)
        rest -= len(word) + 1
    text = f"<Description>{' '.join(words)}</Description><Comment></Comment>"
    if template or rest <= 0:
        return text
    packages: list[str] = []
    while rest > 0:
        package = (
            f"{rng.choice(_PACKAGES)}-{rng.randrange(1, 9)}."
            f"{rng.randrange(40)}.{rng.randrange(30)}-"
            f"{rng.randrange(1, 99)}.el9"
        )
        packages.append(package)
        rest -= len(package) + 1
    return f"{text}<app_list>{','.join(packages)}</app_list>"


def _general(rng: random.Random, made: str, memory: int) -> str:
    return (
        f"<CreationDate>{made}</CreationDate>"
        f"<ExportDate>{_date(rng)}</ExportDate>"
        "<DeleteProtected>false</DeleteProtected>"
        "<SsoMethod>guest_agent</SsoMethod>"
        "<IsSmartcardEnabled>false</IsSmartcardEnabled>"
        "<NumOfIoThreads>1</NumOfIoThreads><TimeZone>Etc/GMT</TimeZone>"
        "<default_boot_sequence>0</default_boot_sequence>"
        f"<Generation>{rng.randrange(1, 400)}</Generation>"
        "<ClusterCompatibilityVersion>4.7</ClusterCompatibilityVersion>"
        f"<VmType>{rng.randrange(3)}</VmType>"
        "<ResumeBehavior>AUTO_RESUME</ResumeBehavior>"
        f"<MinAllocatedMem>{memory}</MinAllocatedMem>"
        "<IsStateless>false</IsStateless>"
        "<IsRunAndPause>false</IsRunAndPause>"
        "<AutoStartup>false</AutoStartup><Priority>1</Priority>"
        f"<BiosType>{rng.randrange(1, 5)}</BiosType>"
        f"<MaxMemorySizeMb>{memory * 4}</MaxMemorySizeMb>"
        "<MultiQueuesEnabled>true</MultiQueuesEnabled>"
        f"<ClusterName>{rng.choice(_CLUSTERS)}</ClusterName>"
    )


def _origin(rng: random.Random, entity: str, template: bool) -> str:
    if template:
        return (
            f"<TemplateId>{entity}</TemplateId><Origin>3</Origin>"
            "<default_display_type>2</default_display_type>"
            "<IsDisabled>false</IsDisabled>"
            "<TemplateType>TEMPLATE</TemplateType>"
            f"<BaseTemplateId>{entity}</BaseTemplateId>"
            "<TemplateVersionNumber>1</TemplateVersionNumber>"
            "<TemplateVersionName>base version</TemplateVersionName>"
        )
    return (
        f"<TemplateId>{_BLANK}</TemplateId>"
        "<TemplateName>Blank</TemplateName>"
        "<IsInitilized>true</IsInitilized><Origin>3</Origin>"
        "<DefaultDisplayType>2</DefaultDisplayType>"
        "<TrustedService>false</TrustedService>"
        "<UseLatestVersion>false</UseLatestVersion>"
        f"<StopTime>{_date(rng)}</StopTime>"
    )


def _cpu_and_memory(cpus: int, memory: int) -> str:
    return (
        f"<Item><rasd:Caption>{cpus} virtual cpu</rasd:Caption>"
        "<rasd:Description>Number of virtual CPU</rasd:Description>"
        "<rasd:InstanceId>1</rasd:InstanceId>"
        "<rasd:ResourceType>3</rasd:ResourceType>"
        f"<rasd:num_of_sockets>{cpus}</rasd:num_of_sockets>"
        "<rasd:cpu_per_socket>1</rasd:cpu_per_socket>"
        "<rasd:threads_per_cpu>1</rasd:threads_per_cpu>"
        f"<rasd:VirtualQuantity>{cpus}</rasd:VirtualQuantity></Item>"
        f"<Item><rasd:Caption>{memory} MB of memory</rasd:Caption>"
        "<rasd:Description>Memory Size</rasd:Description>"
        "<rasd:InstanceId>2</rasd:InstanceId>"
        "<rasd:ResourceType>4</rasd:ResourceType>"
        "<rasd:AllocationUnits>MegaBytes</rasd:AllocationUnits>"
        f"<rasd:VirtualQuantity>{memory}</rasd:VirtualQuantity></Item>"
    )


def _drive(
    disk: tuple[str, str, int],
    number: int,
    name: str,
    domain: str,
    made: str,
) -> str:
    image, volume, _ = disk
    alias = f"{escape(name)}_Disk{number}"
    return (
        f"<Item><rasd:Caption>{alias}</rasd:Caption>"
        f"<rasd:InstanceId>{volume}</rasd:InstanceId>"
        "<rasd:ResourceType>17</rasd:ResourceType>"
        f"<rasd:HostResource>{image}/{volume}</rasd:HostResource>"
        f"<rasd:Parent>{_BLANK}</rasd:Parent>"
        f"<rasd:Template>{_BLANK}</rasd:Template>"
        "<rasd:ApplicationList></rasd:ApplicationList>"
        f"<rasd:StorageId>{domain}</rasd:StorageId>"
        f"<rasd:StoragePoolId>{_POOL}</rasd:StoragePoolId>"
        f"<rasd:CreationDate>{made}</rasd:CreationDate>"
        f"<rasd:LastModified>{made}</rasd:LastModified>"
        "<Type>disk</Type><Device>disk</Device><rasd:Address>"
        f"{{type=drive, bus=0, controller=0, target=0, unit={number - 1}}}"
        f"</rasd:Address><BootOrder>{number}</BootOrder>"
        "<IsPlugged>true</IsPlugged><IsReadOnly>false</IsReadOnly>"
        f"<Alias>ua-{image}</Alias></Item>"
    )


def _nic(rng: random.Random, network: str, number: int) -> str:
    nic = _uuid(rng)
    mac = ":".join(f"{rng.randrange(256):02x}" for _ in range(3))
    return (
        f"<Item><rasd:Caption>Ethernet adapter on {network}</rasd:Caption>"
        f"<rasd:InstanceId>{nic}</rasd:InstanceId>"
        "<rasd:ResourceType>10</rasd:ResourceType>"
        f"<rasd:OtherResourceType>{network}</rasd:OtherResourceType>"
        "<rasd:ResourceSubType>3</rasd:ResourceSubType>"
        f"<rasd:Connection>{network}</rasd:Connection>"
        "<rasd:Linked>true</rasd:Linked>"
        f"<rasd:Name>nic{number}</rasd:Name>"
        "<rasd:ElementName>nic</rasd:ElementName>"
        f"<rasd:MACAddress>56:6f:1a:{mac}</rasd:MACAddress>"
        "<rasd:speed>10000</rasd:speed><Type>interface</Type>"
        "<Device>bridge</Device><rasd:Address>{type=pci, slot=0x00, "
        f"bus=0x{number:02x}, domain=0x0000, function=0x0}}</rasd:Address>"
        "<BootOrder>0</BootOrder><IsPlugged>true</IsPlugged>"
        f"<IsReadOnly>false</IsReadOnly><Alias>ua-{nic}</Alias></Item>"
    )


def _devices(rng: random.Random) -> Iterator[str]:
    for number, (kind, device, code) in enumerate(
        (
            ("graphics", "vnc", 26),
            ("video", "vga", 20),
            ("controller", "virtio-scsi", 0),
            ("controller", "virtio-serial", 0),
            ("channel", "unix", 0),
            ("controller", "usb", 0),
            ("rng", "virtio", 0),
            ("balloon", "memballoon", 0),
            ("sound", "ich9", 0),
            ("tpm", "tpm", 0),
        )
    ):
        yield (
            f"<Item><rasd:ResourceType>{code}</rasd:ResourceType>"
            f"<rasd:InstanceId>{_uuid(rng)}</rasd:InstanceId>"
            f"<Type>{kind}</Type><Device>{device}</Device>"
            f"<rasd:Address>{{type=pci, slot=0x{number:02x}, bus=0x00, "
            "domain=0x0000, function=0x0}</rasd:Address>"
            "<BootOrder>0</BootOrder><IsPlugged>true</IsPlugged>"
            "<IsReadOnly>false</IsReadOnly>"
            f"<Alias>{device}{number}</Alias><SpecParams>"
            f"<index>{number}</index></SpecParams></Item>"
        )


def _snapshots(rng: random.Random, active: str, made: str, room: int) -> str:
    """The section of the snapshots, with as many of them as `room` takes."""
    parts = [
        '<Section xsi:type="ovf:SnapshotsSection_Type">',
        f'<Snapshot ovf:id="{active}"><Type>ACTIVE</Type>'
        "<Description>Active VM</Description>"
        f"<CreationDate>{made}</CreationDate></Snapshot>",
    ]
    room -= sum(map(len, parts)) + 400
    number = 1
    # A configuration is an OVF too; base64 makes three bytes into four.
    while room > SMALLEST * 4 // 3 and number <= 12:
        length = min(room * 3 // 4, rng.randrange(SMALLEST, 3 * SMALLEST))
        config = _entity(rng, _uuid(rng), 0, length).encode()
        part = (
            f'<Snapshot ovf:id="{_uuid(rng)}"><Type>REGULAR</Type>'
            f"<Description>before update {number}</Description>"
            f"<CreationDate>{_date(rng)}</CreationDate><VmConfiguration>"
            f"{base64.b64encode(config).decode()}"
            "</VmConfiguration></Snapshot>"
        )
        parts.append(part)
        room -= len(part)
        number += 1
    parts.append("</Section>")
    return "".join(parts)


def _uuid(rng: random.Random) -> str:
    """A random UUID (version 4) as the engine writes them."""
    bits = rng.getrandbits(128)
    bits = bits & ~(0xF << 76) | 4 << 76
    bits = bits & ~(0x3 << 62) | 2 << 62
    h = f"{bits:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def _date(rng: random.Random) -> str:
    return (
        f"{rng.randrange(2019, 2026)}/{rng.randrange(1, 13):02d}/"
        f"{rng.randrange(1, 29):02d} {rng.randrange(24):02d}:"
        f"{rng.randrange(60):02d}:{rng.randrange(60):02d}"
    )


# -- as a command -------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="bench.make_ovfs",
        description="Write made-up OVFs as <id>.ovf into a directory.",
    )
    parser.add_argument("directory", help="made when it is missing")
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--count", type=int, help="how many")
    amount.add_argument(
        "--mib", type=float, help="enough for an archive of so many MiB"
    )
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument(
        "--size",
        type=int,
        default=MEAN,
        help=f"mean length of an OVF in bytes (default: {MEAN})",
    )
    args = parser.parse_args()
    if args.mib is None:
        entities = some_ovfs(args.count, args.seed, args.size)
    elif math.isfinite(args.mib):
        entities = archive_ovfs(args.mib, args.seed, args.size)
    else:
        parser.error("--mib: not a finite number")
    os.makedirs(args.directory, exist_ok=True)
    count = total = 0
    for entity, data in entities:
        path = os.path.join(args.directory, entity + ".ovf")
        with open(path, "wb") as f:
            f.write(data)
        count += 1
        total += len(data)
    print(f"{count} OVFs, {total} bytes in {args.directory}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
