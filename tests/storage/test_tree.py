# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

from __future__ import annotations

import uuid

import pytest

from vdsm_ovfstore.format.ids import is_uuid
from vdsm_ovfstore.storage.tree import random_id


def test_random_id() -> None:
    ids = {random_id() for _ in range(1000)}
    assert len(ids) == 1000
    for id_ in ids:
        parsed = uuid.UUID(id_)
        assert str(parsed) == id_
        assert (parsed.version, parsed.variant) == (4, uuid.RFC_4122)
        assert is_uuid(id_)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "0d2b1f22-d0bf-49de-8577-483913cb45e",
        "0d2b1f22-d0bf-49de-8577-483913cb45e4\n",
        "0D2B1F22-D0BF-49DE-8577-483913CB45E4",
        "0d2b1f22d0bf49de8577483913cb45e4",
        "_remove_me_0d2b1f22-d0bf-49de-8577-483913cb45e4",
        "٠d2b1f22-d0bf-49de-8577-483913cb45e4",
    ],
)
def test_is_no_uuid(name: str) -> None:
    assert not is_uuid(name)
