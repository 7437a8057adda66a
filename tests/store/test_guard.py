# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Archives that are doubted: refused, or taken with a pin before them."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Optional

import pytest

from tests.store import builders
from tests.store.builders import EPOCH, archive, archives
from vdsm_ovfstore import errors
from vdsm_ovfstore.storage.filedomain import FileDomain
from vdsm_ovfstore.store import guard
from vdsm_ovfstore.store.job import Job
from vdsm_ovfstore.store.reader import Reader

OTHER = "7d0d7c0e-3f5e-4b1a-9f0e-2c8f6d1b4a55"


@pytest.fixture
def domain(tmp_path: Path) -> FileDomain:
    domain = builders.make_domain(tmp_path)
    builders.upload_names(domain, "abcdef", EPOCH)
    return domain


def upload(
    domain: FileDomain, tar: bytes, drop: Optional[int] = guard.DROP
) -> Any:
    content = builders.prepared(tar)
    try:
        return Job(domain.path).upload(content, drop)
    finally:
        content.close()


@pytest.mark.parametrize(
    "names, drop, refused",
    [
        pytest.param("abcdef", 50, "", id="all there"),
        pytest.param("abcdefgh", 50, "", id="more"),
        pytest.param("abcd", 50, "", id="a third gone"),
        pytest.param("abc", 50, "lacks 3 of 6 VMs", id="a half gone"),
        pytest.param("", 50, "lacks 6 of 6 VMs", id="all gone"),
        pytest.param("ghijkl", 50, "lacks 6 of 6 VMs", id="all others"),
        pytest.param("abcde", 1, "", id="one is not many"),
        pytest.param("abcd", 33, "lacks 2 of 6 VMs", id="stricter"),
        pytest.param("a", 100, "", id="laxer"),
        pytest.param("", 100, "lacks 6 of 6 VMs", id="all, and laxer"),
    ],
)
def test_what_is_missing(
    domain: FileDomain, names: str, drop: int, refused: str
) -> None:
    tar = archive(domain, names, EPOCH + 1)
    before = archives(domain)
    if not refused:
        assert upload(domain, tar, drop)["generation"] == 2
        return
    with pytest.raises(errors.UploadDoubtful, match=refused) as caught:
        upload(domain, tar, drop)
    assert caught.value.fields()["generation"] == 1
    assert "--force" in (caught.value.next_step or "")
    assert archives(domain) == before
    # Insisted on.
    assert upload(domain, tar, None)["generation"] == 2


def test_the_only_one(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path)
    builders.upload_names(domain, "a", EPOCH)
    with pytest.raises(errors.UploadDoubtful, match="1 of 1"):
        upload(domain, archive(domain, "b", EPOCH + 1))


def test_the_first_one_has_nothing_before_it(tmp_path: Path) -> None:
    domain = builders.make_domain(tmp_path)
    assert upload(domain, archive(domain, ""))["generation"] == 1


def test_an_older_one(domain: FileDomain) -> None:
    tar = archive(domain, "abcdef", EPOCH - 60)
    with pytest.raises(errors.UploadDoubtful) as caught:
        upload(domain, tar)
    made = "it was made at 2001-09-09T01:45:40Z, that at 2001-09-09T01:46:40Z"
    assert made in str(caught.value) or "it was made at" in str(caught.value)
    # The same moment is no older one.
    assert upload(domain, archive(domain, "abcdefg", EPOCH))["generation"] == 2


def test_of_another_domain(domain: FileDomain) -> None:
    tar = archive(OTHER, "abcdef", EPOCH + 1)
    with pytest.raises(errors.UploadDoubtful, match=f"domain {OTHER}"):
        upload(domain, tar)


def test_all_at_once(domain: FileDomain) -> None:
    with pytest.raises(errors.UploadDoubtful) as caught:
        upload(domain, archive(OTHER, "a", EPOCH - 60))
    for words in ("lacks 5 of 6", "it was made at", f"domain {OTHER}"):
        assert words in str(caught.value)


def test_the_same_is_never_doubted(tmp_path: Path) -> None:
    """It came from elsewhere once, and that was insisted on."""
    domain = builders.make_domain(tmp_path)
    tar = archive(OTHER, "a", EPOCH)
    upload(domain, tar)
    assert upload(domain, tar)["unchanged"]


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"no json",
        b"[]",
        b"[" * 60000,
        b'{"Last Updated": 7, "Storage Domains": 7}',
        b'{"Last Updated": "yesterday", "Storage Domains": [7, {}]}',
        b"\xff",
        b" " * 65537,
    ],
    ids=[
        *("empty", "no json", "list", "deep", "types", "words", "bytes"),
        "long",
    ],
)
def test_what_says_nothing_is_not_doubted(text: bytes) -> None:
    class Content:
        def tar(self) -> Any:
            from vdsm_ovfstore.format import tarheader

            yield tarheader.make("info.json", len(text), 0) + text

    assert guard.info(Content()) == guard.Info(None, ())  # type: ignore[arg-type]


def test_the_engine_is_not_refused(
    domain: FileDomain, caplog: pytest.LogCaptureFixture
) -> None:
    """What it overwrites is pinned, and the log tells why."""
    tar = archive(domain, "abcdef", EPOCH - 60)
    volume = domain.volumes()[0]
    content = builders.prepared(tar)
    caplog.set_level(logging.WARNING, "ovfstore.store")
    try:
        answer = Job(domain.path).stock(
            volume.id, content, content.sha256, content.fds()[0]
        )
    finally:
        content.close()
    assert answer["generation"] == 2
    assert any("DOUBT" in r.getMessage() for r in caplog.records)
    with Reader(FileDomain.open(domain.path)) as reader:
        pins = {g.number: g.pinned for g in reader.generations()}
    assert pins == {2: "", 1: "doubt"}
