# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What speaks against an archive, compared with the newest generation.

An engine with half a database, a backup of last year that is sent to the
wrong domain: both make good archives, and the store would look as healthy as
before. Who uploads by our verbs is asked whether that is meant. The engine's
own upload cannot be refused; what it follows is pinned.
"""

from __future__ import annotations

import json
from typing import NamedTuple, Optional

from vdsm_ovfstore.format import description, tarheader
from vdsm_ovfstore.format.record import isotime
from vdsm_ovfstore.store.content import Content, entity_ids

# Per cent of the VMs and templates, and how many at least: below it an
# operator has removed them, one by one.
DROP = 50
_FEW = 2

INFO = "info.json"

# The engine's has 150 bytes, and an uuid more for each domain.
_INFO_MAX = 64 * 1024


class Info(NamedTuple):
    """
    What an archive says of itself; when in Unix seconds, None and () if it
    does not.
    """

    when: Optional[int]
    domains: tuple[str, ...]


def info(content: Content) -> Info:
    """From info.json, which comes first."""
    data = next(iter(content.tar()), b"")
    if len(data) < tarheader.BLOCK:
        return Info(None, ())
    try:
        header = tarheader.parse(data[: tarheader.BLOCK])
        if header.name != INFO or header.size > _INFO_MAX:
            return Info(None, ())
        end = tarheader.BLOCK + header.size
        fields = json.loads(data[tarheader.BLOCK : end])
        if not isinstance(fields, dict):
            return Info(None, ())
    except (ValueError, RecursionError):
        return Info(None, ())
    return Info(
        description.parse_date(fields.get("Last Updated")),
        tuple(description.domain_ids(fields.get("Storage Domains"))),
    )


def objections(
    before: Content, after: Content, domain: str, drop: int = DROP
) -> list[str]:
    """
    What speaks against `after` where `before` is the newest generation.

    Arguments:
        domain: the id of the storage domain.
        drop: per cent of the VMs and templates that may not be missing.
    """
    found = []
    old, new = entity_ids(before), entity_ids(after)
    gone = len(old - new)
    many = gone >= _FEW and gone * 100 >= len(old) * drop
    if gone and (many or gone == len(old)):
        found.append(f"it lacks {gone} of {len(old)} VMs and templates")
    return found + doubts(before, after, domain)


def doubts(before: Content, after: Content, domain: str) -> list[str]:
    """Those that the archives themselves say."""
    found = []
    was, now = info(before), info(after)
    if was.when is not None and now.when is not None and now.when < was.when:
        found.append(
            f"it was made at {isotime(now.when)}, that at {isotime(was.when)}"
        )
    if now.domains and domain not in now.domains:
        found.append(f"it is of storage domain {now.domains[0]}")
    return found
