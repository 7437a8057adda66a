# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What a salvage found, as JSON types; see schema/cli.json."""

from __future__ import annotations

from typing import Any, Optional

from vdsm_ovfstore.format import record
from vdsm_ovfstore.format.seal import GENERATION
from vdsm_ovfstore.rescue.generation import Recovered
from vdsm_ovfstore.rescue.salvage import Lost, Report
from vdsm_ovfstore.rescue.versions import (
    PARTIAL,
    UNVERIFIED,
    VERIFIED,
    Version,
)

Document = dict[str, Any]


def document(report: Report) -> Document:
    """All but what became of the OVFs."""
    versions = report.versions
    best = sorted(
        versions.best.values(), key=lambda v: (v.text.name, v.entity)
    )
    findings = report.findings
    return {
        "sources": [
            {
                "path": source.path,
                "size": source.size,
                "device": bool(source.device),
                "unreadable": source.unreadable,
            }
            for source in report.sources
        ],
        "scanned": report.scanned,
        "seals": findings.seals,
        "generations": [_generation(one) for one in report.generations],
        "entities": [
            {
                **version_fields(report, version),
                "versions": versions.counts[version.entity],
                "others": [
                    version_fields(report, other)
                    for other in versions.others(version.entity)
                ],
            }
            for version in best
        ],
        "lost": [_lost(one) for one in report.lost],
        "notes": _notes(report),
    }


def version_fields(report: Report, version: Version) -> Document:
    text, origin = version.text, version.origin
    return {
        "id": version.entity,
        "name": text.name,
        "kind": text.kind,
        "disks": list(text.disks),
        "grade": version.grade,
        "proof": version.proof,
        "domain": origin.domain,
        "generation": origin.key.number if origin.key else None,
        "time": _time(origin.time),
        "sha256": version.sha256,
        "length": version.length,
        "size": version.size,
        "source": report.sources[version.place.source].path,
        "offset": version.place.offset,
        "file": None,
    }


def _generation(one: Recovered) -> Document:
    return {
        "domain": one.key.domain,
        "generation": one.key.number,
        "sha256": one.key.sha256,
        "time": _time(one.known.time) if one.known else None,
        "kind": one.known.kind if one.known else GENERATION,
        "recorded": one.known is not None,
        "newest": one.is_newest,
        "entities": one.entities,
        "verified": one.count(VERIFIED),
        "unverified": one.count(UNVERIFIED),
        "partial": one.count(PARTIAL),
        "lost": one.lost,
    }


def _lost(one: Lost) -> Document:
    return {
        "id": one.entity,
        "name": one.name,
        "domain": one.domain,
        "generation": one.number or None,
    }


def _notes(report: Report) -> list[str]:
    found = []
    for source in report.sources:
        if source.unreadable:
            found.append(
                f"{source.unreadable} bytes of {source.path} cannot be read"
            )
    findings = report.findings
    if findings.left_out:
        found.append(
            f"{findings.left_out} structures beyond the limits were not "
            "looked at; give parts of this storage, or --domain"
        )
    if findings.newer_formats:
        found.append(
            f"{findings.newer_formats} records are of a newer version of "
            "this program; use that one"
        )
    return found


def _time(when: int) -> Optional[str]:
    return record.isotime(when) if when else None
