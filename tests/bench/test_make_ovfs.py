# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""The made-up OVFs: sound, varied, and the same on every Python."""

from __future__ import annotations

import base64
import hashlib
import random
import statistics
import uuid
import xml.etree.ElementTree as ElementTree

import pytest

from bench import make_ovfs

OVF_ID = "{http://schemas.dmtf.org/ovf/envelope/1/}id"


@pytest.fixture(scope="module")
def hundred() -> list[tuple[str, bytes]]:
    return list(make_ovfs.some_ovfs(100))


def test_same_seed_gives_same_bytes_on_every_python(
    hundred: list[tuple[str, bytes]],
) -> None:
    content = b"".join(data for _, data in hundred)
    assert hashlib.sha256(content).hexdigest()[:16] == "7d95bfbe20f9118b"


def test_another_seed_gives_others(hundred: list[tuple[str, bytes]]) -> None:
    others = dict(make_ovfs.some_ovfs(100, seed=2))
    assert others.keys().isdisjoint(dict(hundred))


def test_entities_are_sound(hundred: list[tuple[str, bytes]]) -> None:
    for entity, data in hundred:
        root = ElementTree.fromstring(data)
        assert str(uuid.UUID(entity)) == entity
        assert entity in [s.get(OVF_ID) for s in root.iter("Section")]
        assert root.findtext("Content/Name")


def test_entities_vary(hundred: list[tuple[str, bytes]]) -> None:
    roots = [ElementTree.fromstring(data) for _, data in hundred]
    names = {root.findtext("Content/Name") for root in roots}
    disks = {len(root.findall("References/File")) for root in roots}
    assert len(names) == 100
    assert len(disks) >= 3
    assert sum(b"<TemplateType>" in data for _, data in hundred) == 5
    assert any(b"<VmConfiguration>" in data for _, data in hundred)


def test_configurations_of_snapshots_are_ovfs(
    hundred: list[tuple[str, bytes]],
) -> None:
    for _, data in hundred:
        for node in ElementTree.fromstring(data).iter("VmConfiguration"):
            config = base64.b64decode(node.text or "", validate=True)
            assert ElementTree.fromstring(config).findtext("Content/Name")


@pytest.mark.parametrize("size", [4096, make_ovfs.MEAN, 64 * 1024])
def test_mean_length(size: int) -> None:
    lengths = [len(data) for _, data in make_ovfs.some_ovfs(150, size=size)]
    assert statistics.mean(lengths) == pytest.approx(size, rel=0.15)


def test_archive_is_filled() -> None:
    members = [
        512 + -(-len(data) // 512) * 512
        for _, data in make_ovfs.archive_ovfs(1)
    ]
    assert sum(members[:-1]) < 1024 * 1024 <= sum(members)


def test_edit_raises_the_generation_only() -> None:
    _, data = make_ovfs.ovf(random.Random(5), 0)
    before = ElementTree.fromstring(data)
    after = ElementTree.fromstring(make_ovfs.edited(data))
    old, new = (
        int(root.findtext("Content/Generation") or 0)
        for root in (before, after)
    )
    assert new == old + 1
    for root in (before, after):
        generation = root.find("Content/Generation")
        assert generation is not None
        generation.text = "0"
    assert ElementTree.tostring(before) == ElementTree.tostring(after)
