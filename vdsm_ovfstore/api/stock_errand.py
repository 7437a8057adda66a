# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The errands of the unchanged engine's own uploads and downloads.

The engine names a volume where our verbs name a domain, and a length where
they name a generation.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.api import documents
from vdsm_ovfstore.api.opened import open_store
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store import classify
from vdsm_ovfstore.store.copy import Copy
from vdsm_ovfstore.store.prepare import write_spool
from vdsm_ovfstore.store.reader import Generation, Reader
from vdsm_ovfstore.store.sources import Sources

log = logging.getLogger("ovfstore.api")

Request = dict[str, Any]
Answer = dict[str, Any]


def volumes(domain: FileDomain) -> Answer:
    """The OVF_STORE volumes of a domain, and their images."""
    return {
        "volumes": [
            {"volume": v.id, "image": v.image} for v in domain.volumes()
        ]
    }


def volume(request: Request) -> Answer:
    """
    The volume of an image, if it is ours: "volume" is None if not.

    Not ours are volumes of another kind, images with several, and all of
    what we do not write to: VDSM does that by itself. newest is the digest
    of the newest generation, length its length; "" and 0 for none.
    """
    none: Answer = {"volume": None, "newest": "", "length": 0}
    try:
        domain = FileDomain.open(request["path"], buffered=request["buffered"])
        domain.writable()
        found = domain.volume_of(request["image"])
    except errors.Error as e:
        log.info("NOT OURS image=%s: %s", request["image"], e)
        return none
    if found is None or request["volume"] not in (None, found.id):
        return none
    answer = {**none, "volume": found.id}
    try:
        with open_store(domain) as reader:
            newest = reader.newest()
            answer.update(newest=newest.sha256, length=newest.length)
    except errors.Error as e:
        # A store of which nothing can be read can still be written.
        log.info("NO NEWEST domain=%s: %s", domain.id, e)
    return answer


def read(reader: Reader, request: Request) -> Answer:
    """
    What a GET of `length` bytes of a volume gets, written to a spool file.

    That is what a host without us wrote to the volume since, if it wrote so
    many bytes; else the newest generation of exactly that length; else the
    newest, if it is shorter: the rest are zeros, as in the volume.

    Raises errors.StoreEmpty, GenerationNotFound; Damaged when no copy has
    it.
    """
    length, fd = request["length"], request["fds"][0]
    digest, done = hashlib.sha256(), 0
    for piece in _wanted(reader, request["volume"], length):
        write_spool(fd, piece)
        digest.update(piece)
        done += len(piece)
    return {"length": done, "sha256": digest.hexdigest()}


def room(reader: Reader, request: Request) -> Answer:
    """
    Could VDSM write `length` bytes over a volume?

    fits: there is room for them on its file system; kept: what the volume
    shows now is in a log.
    """
    for copy in reader.copies:
        if copy.id == request["volume"]:
            return {
                "fits": copy.volume.head_fits(request["length"]),
                "kept": _is_kept(reader, copy),
            }
    raise errors.VolumeNotFound(
        domain=reader.domain.id,
        what=" " + request["volume"],
        path=reader.domain.path,
    )


def _is_kept(reader: Reader, copy: Copy) -> bool:
    if copy.volume.head_is_empty():
        return True
    sources = Sources(reader.copies)
    seal = copy.seal
    if seal is None or seal.head is None:
        return False
    return any(
        head.length and copy.shows(head) and sources.find_head(head)
        for head in (seal.head, seal.previous)
        if head is not None
    )


def _wanted(reader: Reader, volume: str, length: int) -> Iterator[bytes]:
    sources = Sources(reader.copies)
    for copy in reader.copies:
        if copy.id == volume:
            verdict = classify.classify(copy, sources.find_head)
            if verdict == classify.Verdict(classify.ADOPT, length):
                log.info("FOREIGN volume=%s length=%d", volume, length)
                return copy.head_chunks(length)
    generation = _fitting(reader, length)
    log.info(
        "GIVE volume=%s generation=%d length=%d",
        *(volume, generation.number, generation.length),
    )
    _, data = documents.archive(reader, reader.open(generation))
    return data


def _fitting(reader: Reader, length: int) -> Generation:
    generations = reader.generations()
    if not generations:
        raise errors.StoreEmpty(domain=reader.domain.id)
    for generation in generations:
        if generation.length == length:
            return generation
    if generations[0].length < length:
        return generations[0]
    raise errors.GenerationNotFound(generation=f"of {length} bytes")
