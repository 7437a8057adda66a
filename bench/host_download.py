# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""A download from a host, beside what it cannot do without."""

from __future__ import annotations

import hashlib
import time
import zlib
from typing import NamedTuple

from bench import stores
from bench.host_update import make_tars
from bench.hosting import beside_bare
from bench.run import Subject, median, say
from vdsm_ovfstore.client import Client
from vdsm_ovfstore.format import segment
from vdsm_ovfstore.store.compress import ZLIB_LEVEL


class Download(NamedTuple):
    """Medians of one subject. Seconds and bytes."""

    title: str
    length: int
    inflate: float
    sha: float
    send: float  # by a bare peer
    download: float
    ask: float
    first: float  # from the request to the first byte: verified by then
    rest: float

    @property
    def needed(self) -> float:
        return self.inflate + self.sha + self.send

    @property
    def ratio(self) -> float:
        return self.download / self.needed


class _Once(NamedTuple):
    ask: float
    first: float
    rest: float


def measure(
    subject: Subject, directory: str, pki: str, repeat: int
) -> Download:
    (tar,) = make_tars(subject, directory, 1)
    with open(tar, "rb") as file:
        data = file.read()
    frames = [
        zlib.compress(data[at : at + segment.FRAME_TAR], ZLIB_LEVEL)
        for at in range(0, len(data), segment.FRAME_TAR)
    ]
    domain = stores.make_store(directory)
    inflate, sha, send, once = [], [], [], []
    with beside_bare(directory, pki, [domain]) as (host, bare, client):
        client.upload(host.domains[0], tar, force=True)
        bare.take(tar)
        for number in range(repeat):
            say(f"{subject.title}: download {number + 1} of {repeat}")
            start = time.perf_counter()
            for frame in frames:
                zlib.decompress(frame)
            inflated = time.perf_counter()
            hashlib.sha256(data)
            hashed = time.perf_counter()
            bare.give(len(data))
            end = time.perf_counter()
            inflate.append(inflated - start)
            sha.append(hashed - inflated)
            send.append(end - hashed)
            host.wait_for_spares()
            once.append(_download(client, host.domains[0], len(data)))
    return Download(
        title=subject.title,
        length=len(data),
        inflate=median(inflate),
        sha=median(sha),
        send=median(send),
        download=median(sum(o) for o in once),
        ask=median(o.ask for o in once),
        first=median(o.first for o in once),
        rest=median(o.rest for o in once),
    )


def _download(client: Client, domain: str, length: int) -> _Once:
    start = time.perf_counter()
    with client.open_download(domain) as download:
        asked = time.perf_counter()
        pieces = iter(download)
        length -= len(next(pieces))
        first = time.perf_counter()
        length -= sum(map(len, pieces))
        end = time.perf_counter()
    assert not length
    return _Once(asked - start, first - asked, end - first)
