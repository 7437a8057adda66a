# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The types of the documents that hosts answer with.

schema/verbs.json says what the fields mean. For type checkers only: nothing
imports this at run time, and a host of a later version may send more.
"""

from __future__ import annotations

from typing import Any, Literal, Optional, TypedDict, Union

Verdict = Literal["ok", "damaged", "empty", "lost"]
TransferState = Literal[
    "waiting",
    "receiving",
    "preparing",
    "sending",
    "queued",
    "writing",
    "done",
    "failed",
    "aborted",
    "expired",
]
JobStatus = Literal[
    "pending", "running", "done", "aborting", "aborted", "failed"
]


class Fault(TypedDict):
    """An error, as documents hold it."""

    type: str
    code: int
    message: str
    next_step: str
    fields: dict[str, Any]


class Generation(TypedDict):
    number: int
    sha256: str
    length: int
    time: Optional[str]
    entities: int
    kind: Literal["generation", "unproven", "unsealed"]
    pinned: str
    copies: list[str]


class Entity(TypedDict):
    """A VM or template."""

    id: str
    name: str
    kind: Literal["vm", "template", "invalid"]
    disks: list[str]
    length: int
    sha256: str


class Copy(TypedDict):
    """One OVF_STORE volume."""

    volume: str
    image: str
    path: str
    member: bool
    excluded: str
    verdict: str
    reason: str
    head: str
    generation: Optional[int]
    description_updated: Optional[bool]
    description_size: Optional[int]
    last_updated: Optional[str]
    legality: str
    capacity: int
    log_used: int
    log_size: int


class Degraded(TypedDict):
    """A copy that was not written."""

    volume: str
    code: int
    reason: str


class Ping(TypedDict):
    version: str
    api: int
    host: str


class Domain(TypedDict):
    """One that a host serves, or would if it could."""

    domain: str
    path: str
    type: str
    domain_version: int
    lock: str
    state: Literal["ready", "joining", "failed"]
    problem: str


class Status(TypedDict):
    """Of getInfo."""

    domain: str
    path: str
    type: str
    domain_version: int
    lock: Literal["flock", "sanlock"]
    buffered: bool
    verdict: Verdict
    newest: Optional[Generation]
    age: Optional[int]
    generations: int
    copies: list[Copy]
    problems: list[str]
    notes: list[str]


class History(TypedDict):
    domain: str
    path: str
    generations: list[Generation]
    copies: int


class Vms(TypedDict):
    """A page of listVms."""

    domain: str
    path: str
    generation: Generation
    entities: list[Entity]
    invalid: list[str]
    first: int
    total: int


class Change(TypedDict):
    """The fields of the new one, unless it was removed."""

    change: Literal["removed", "added", "changed"]
    id: str
    name: str
    kind: Literal["vm", "template", "invalid"]
    disks: list[str]
    length: int
    sha256: str
    old_name: Optional[str]
    old_length: Optional[int]
    old_sha256: Optional[str]
    disks_added: list[str]
    disks_removed: list[str]


class Diff(TypedDict):
    """A page of diff."""

    domain: str
    path: str
    old: Generation
    new: Generation
    removed: int
    added: int
    changed: int
    same: int
    changes: list[Change]
    first: int


class Vm(TypedDict):
    """ovf is None where it is too large for an answer, or no UTF-8."""

    domain: str
    path: str
    generation: Generation
    entity: Entity
    ovf: Optional[str]


class Uploaded(TypedDict):
    """Of an upload that was committed."""

    domain: str
    path: str
    generation: int
    sha256: str
    length: int
    entities: int
    time: str
    unchanged: bool
    copies: list[str]
    degraded: list[Degraded]
    healed: list[str]
    lease_seconds: float


class Restored(Uploaded):
    """Of the job restore; restored is the number of the older one."""

    restored: int


class _Locked(TypedDict, total=False):
    """There if the store was locked."""

    degraded: list[Degraded]
    healed: list[str]
    lease_seconds: float


class Created(_Locked):
    """Of the job create."""

    domain: str
    path: str
    created: list[str]
    joined: list[str]
    copies: list[str]


class Repaired(TypedDict):
    """Of the job repair. Both are None where there is no generation."""

    domain: str
    path: str
    generation: Optional[int]
    sha256: Optional[str]
    copies: list[str]
    degraded: list[Degraded]
    healed: list[str]
    lease_seconds: float


class Pinned(TypedDict):
    """Of the jobs pin and unpin."""

    domain: str
    path: str
    generation: int
    sha256: str
    pinned: bool
    copies: list[str]
    degraded: list[Degraded]
    healed: list[str]
    lease_seconds: float


class CheckedGeneration(Generation):
    verdict: Literal["ok", "damaged", "lost"]
    whole: bool
    damaged_on: list[str]
    recoverable_entities: int
    lost: list[str]


class Segment(TypedDict):
    """One generation, or suspect, on one copy."""

    generation: int
    sha256: str
    verdict: Literal["ok", "damaged"]
    reason: str
    entities: list[str]


class CheckedCopy(Copy):
    segments: list[Segment]


class Checked(TypedDict):
    """Of the job verify."""

    domain: str
    path: str
    quick: bool
    verdict: Verdict
    newest: Optional[Generation]
    generations: list[CheckedGeneration]
    recoverable: int
    copies: list[CheckedCopy]
    problems: list[str]
    notes: list[str]


class Transfer(TypedDict):
    """result is that of an upload."""

    transferID: str
    kind: Literal["upload", "download"]
    storagedomainID: str
    state: TransferState
    size: int
    transferred: int
    step: str
    expires: str
    result: Optional[Uploaded]
    error: Optional[Fault]


class Job(TypedDict):
    jobID: str
    verb: Literal["create", "verify", "repair", "restore", "pin", "unpin"]
    storagedomainID: str
    status: JobStatus
    progress: float
    step: str
    started: str
    result: Union[Created, Checked, Repaired, None]
    error: Optional[Fault]


class Aborted(TypedDict):
    aborted: bool
    state: Union[TransferState, JobStatus]
