# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Names of the hosts in a lockspace.

Host N keeps its delta lease in sector N - 1 of the lockspace. The sector
begins with sanlock's leader record (leader.h), little-endian:

    offset  size
         0     4  magic 0x12212010
         4     4  version
         8     4  flags
        12     4  sector size
        16     8  num_hosts
        24     8  max_hosts
        32     8  owner_id: the host id
        40     8  owner_generation
        48     8  lver
        56    48  space_name: the lockspace
       104    48  resource_name: the host's name
       152     8  timestamp of the last renewal, 0 when free

It serves messages only, so everything that goes wrong means "no name".
"""

from __future__ import annotations

import logging
import mmap
import os
import struct

log = logging.getLogger("ovfstore.lease")

MAGIC = 0x12212010
MAX_HOSTS = 2000
SECTORS = (512, 4096)
_LEADER = struct.Struct("<4I5Q48s48sQ")


def host_name(ids_path: str, lockspace: str, host_id: int, sector: int) -> str:
    """
    Return the name of a host, or "" when it cannot be read.

    Arguments:
        ids_path: the lockspace's file or device
        lockspace: its name, the domain's id
        host_id: 1 to 2000
        sector: sector size of the domain in bytes, 512 or 4096
    """
    if not 1 <= host_id <= MAX_HOSTS or sector not in SECTORS:
        return ""
    try:
        data = _read_sector(ids_path, (host_id - 1) * sector, sector)
    except OSError as e:
        log.debug("cannot read host name path=%s error=%s", ids_path, e)
        return ""
    return parse_name(data, lockspace, host_id)


def parse_name(data: bytes, lockspace: str, host_id: int) -> str:
    """Return the name in a delta lease, or "" if it is not this host's."""
    if len(data) < _LEADER.size:
        return ""
    leader = _LEADER.unpack_from(data)
    if leader[0] != MAGIC or leader[6] != host_id:
        return ""
    if _text(leader[9]) != lockspace:
        return ""
    return _text(leader[10])


def _text(field: bytes) -> str:
    text = field.split(b"\0", 1)[0].decode("ascii", "replace")
    # It ends in messages and logs: no control characters from the storage.
    return "".join(c if c.isprintable() else "?" for c in text)


def _read_sector(path: str, offset: int, sector: int) -> bytes:
    # Direct: another host wrote it, a page in our cache may be old.
    flags = os.O_RDONLY | os.O_DIRECT | os.O_CLOEXEC
    fd = os.open(path, flags)
    try:
        with mmap.mmap(-1, sector) as buffer:
            length = os.preadv(fd, [buffer], offset)
            return buffer[:length]
    finally:
        os.close(fd)
