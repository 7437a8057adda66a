# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Documents: what a store says of itself, as JSON types.

One builder for each, whoever asks: a verb answers with the document, and
`ovfstore VERB --json` prints it. schema/verbs.json and schema/cli.json
describe the fields. They are made where the storage is read: in an errand of
the host, or in the process of the command. What verify finds is in
verdict.py, errors are in faults.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Optional, Union

from vdsm_ovfstore import errors
from vdsm_ovfstore.format import record
from vdsm_ovfstore.format.member import ENTITIES, INVALID
from vdsm_ovfstore.format.segment import IndexEntry
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store.entities import entity_id, members
from vdsm_ovfstore.store.forecast import FATES, forecast
from vdsm_ovfstore.store.reader import (
    UNSEALED,
    Generation,
    GenerationReader,
    Reader,
)
from vdsm_ovfstore.store.retention import Settings

if TYPE_CHECKING:
    from vdsm_ovfstore.store.verify import CopyReport, Progress, Report

# An OVF that is longer is not part of a document: as the engine writes them
# they have 10 to 20 KiB, and what asks for one VM should not have to expect
# more than that in one answer. A download gives any.
MAX_OVF = 1024**2  # bytes

# A generation: None (the newest), 12, "12", "12:<digest prefix>", or opened.
Wanted = Union[None, int, str, GenerationReader]


# -- one for each verb --------------------------------------------------------


def info(reader: Reader) -> dict[str, Any]:
    """The state of a store and of its copies, by records and heads only."""
    report = _look(reader)
    return {
        **_store_fields(reader.domain, report),
        "generations": len(report.generations),
        "copies": [copy_fields(c) for c in report.copies],
        "problems": report.problems,
        "notes": report.notes,
    }


def summary(reader: Reader) -> dict[str, Any]:
    """The state of a store, in short: one of the list of stores."""
    report = _look(reader)
    fields = _store_fields(reader.domain, report)
    return {**fields, "copies": len(report.copies)}


def history(reader: Reader) -> dict[str, Any]:
    """The generations of a store, newest first."""
    generations = reader.generations()
    return {
        **_domain_fields(reader),
        "generations": [generation_fields(g) for g in generations],
        "copies": len(reader.copies) + len(reader.problems),
    }


def preview(reader: Reader, settings: Settings) -> dict[str, Any]:
    """history(), and what becomes of each of them with the next upload."""
    found = [forecast(copy, settings) for copy in reader.copies]
    document = history(reader)
    for fields in document["generations"]:
        identity = fields["number"], fields["sha256"]
        fates = [f.fate(identity) for f in found if f.knows(identity)]
        # As long as a copy keeps it it can be had.
        fields["next"] = min(fates, key=FATES.index, default=FATES[0])
    return document


def vms(
    reader: Reader,
    generation: Wanted = None,
    first: int = 0,
    count: Optional[int] = None,
) -> dict[str, Any]:
    """
    The VMs and templates of a generation, by name.

    Arguments:
        generation: which one; the newest by default.
        first: the place of the first one that is wanted, from 0.
        count: how many at most; None for all. As many names are told of
            members that are no valid OVFs.

    Raises errors.StoreEmpty, GenerationNotFound, GenerationAmbiguous,
    Damaged.
    """
    opened = _open(reader, generation)
    listed = members(opened)
    found = [e for e in listed if e.kind in ENTITIES]
    found.sort(key=lambda e: (e.entity, e.name))
    invalid = [e.name for e in listed if e.kind == INVALID]
    end = None if count is None else first + count
    return {
        **_domain_fields(reader),
        "generation": generation_fields(opened.generation),
        "entities": [entity_fields(e) for e in found[first:end]],
        "invalid": invalid[:count],
        "first": first,
        "total": len(found),
    }


def vm(
    reader: Reader, wanted: str, generation: Wanted = None
) -> dict[str, Any]:
    """
    One VM or template, by id or name.

    "ovf" is its text, verified; None when it is longer than MAX_OVF or not
    UTF-8.

    Raises errors.EntityNotFound, EntityAmbiguous, Damaged, and those of
    vms().
    """
    opened = _open(reader, generation)
    entry = opened.find(wanted)
    return {
        **_domain_fields(reader),
        "generation": generation_fields(opened.generation),
        "entity": entity_fields(entry),
        "ovf": _text(opened, entry),
    }


def archive(
    reader: Reader, generation: Wanted = None
) -> tuple[dict[str, Any], Iterator[bytes]]:
    """
    A whole archive: its document (domain, path, generation), and its bytes.

    The iterator raises errors.Damaged, at its end too: what was yielded is
    right only when it ended without an error.
    """
    opened = _open(reader, generation)
    document = {
        **_domain_fields(reader),
        "generation": generation_fields(opened.generation),
    }
    return document, _verified(opened)


def check(
    reader: Reader,
    quick: bool = False,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """What verify finds; see verdict.py."""
    # Imported here: most documents can do without it.
    from vdsm_ovfstore.api import verdict

    return verdict.check(reader, quick, progress)


def _open(reader: Reader, generation: Wanted) -> GenerationReader:
    if isinstance(generation, GenerationReader):
        return generation
    wanted = None if generation is None else str(generation)
    return reader.open(reader.find(wanted))


def _look(reader: Reader) -> Report:
    from vdsm_ovfstore.store.verify import verify

    return verify(reader, segments=False)


def _text(opened: GenerationReader, entry: IndexEntry) -> Optional[str]:
    if entry.length > MAX_OVF:
        return None
    try:
        return opened.read(entry).decode()
    except UnicodeDecodeError:
        return None


def _verified(opened: GenerationReader) -> Iterator[bytes]:
    import hashlib

    generation = opened.generation
    digest, done = hashlib.sha256(), 0
    for data in opened.tar():
        digest.update(data)
        done += len(data)
        yield data
    if done != generation.length or digest.hexdigest() != generation.sha256:
        unsealed = generation.kind == UNSEALED
        raise errors.Damaged(
            what=f"Generation {UNSEALED if unsealed else generation.number}",
            reason="the archive does not match its digest",
        )


# -- what they are made of ----------------------------------------------------


def _domain_fields(reader: Reader) -> dict[str, Any]:
    return {"domain": reader.domain.id, "path": reader.domain.path}


def _store_fields(domain: FileDomain, report: Report) -> dict[str, Any]:
    return {
        "domain": domain.id,
        "path": domain.path,
        "type": domain.type,
        "domain_version": domain.version,
        "lock": domain.lock_kind,
        "buffered": domain.buffered,
        "verdict": report.verdict,
        "newest": generation_fields(report.newest),
        "age": _age(report.newest),
    }


def generation_fields(generation: Optional[Generation]) -> Any:
    """A generation as JSON types; None for none."""
    if generation is None:
        return None
    fields = generation._asdict()
    fields["time"] = isotime(generation.time)
    fields["copies"] = list(generation.copies)
    return fields


def entity_fields(entry: IndexEntry) -> dict[str, Any]:
    """A VM or template as JSON types."""
    return {
        "id": entity_id(entry),
        "name": entry.entity,
        "kind": entry.kind,
        "disks": list(entry.disks),
        "length": entry.length,
        "sha256": entry.sha256,
    }


def copy_fields(copy: CopyReport) -> dict[str, Any]:
    """A copy as JSON types; what was found in its segments is left out."""
    fields = copy._asdict()
    del fields["segments"]
    fields["last_updated"] = isotime(copy.last_updated)
    return fields


def _age(generation: Optional[Generation]) -> Optional[int]:
    """In seconds; None when it is not known."""
    if generation is None or not generation.time:
        return None
    # The clocks of two hosts may differ.
    return max(0, int(time.time()) - generation.time)


def isotime(when: Optional[int]) -> Optional[str]:
    """ISO 8601 in UTC; None for a time that is not known."""
    return record.isotime(when) if when else None
