# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What status and verify make of a report."""

from __future__ import annotations

from typing import Any

from vdsm_ovfstore import errors
from vdsm_ovfstore.cli.text import isotime
from vdsm_ovfstore.store import verify as verdicts
from vdsm_ovfstore.store.verify import CopyReport, Report

HEAL = "ovfstore repair DOMAIN"


def exit_status(report: Report) -> int:
    if report.verdict in (verdicts.OK, verdicts.EMPTY):
        return errors.EXIT_OK
    if report.verdict == verdicts.LOST:
        return errors.EXIT_LOST
    return errors.EXIT_DAMAGED


def next_after_status(report: Report) -> str:
    """The command to type next."""
    if report.verdict == verdicts.EMPTY:
        return "ovfstore upload DOMAIN SOURCE"
    if report.verdict == verdicts.OK:
        return "ovfstore vms DOMAIN"
    return "ovfstore verify DOMAIN"


def copy_fields(copy: CopyReport) -> dict[str, Any]:
    """A copy for machines; what was found in its segments is left out."""
    fields = copy._asdict()
    del fields["segments"]
    fields["last_updated"] = isotime(copy.last_updated)
    return fields
