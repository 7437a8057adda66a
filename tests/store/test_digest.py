# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Hashing beside reading gives what hashing after reading gives."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator

import pytest

from vdsm_ovfstore.store.digest import sha256_of

CHUNKS = [bytes([n]) * 300_000 for n in range(7)]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_digest(count: int) -> None:
    expected = hashlib.sha256(b"".join(CHUNKS[:count])).hexdigest()
    assert sha256_of(CHUNKS[:count]) == expected


def test_without_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    assert sha256_of(CHUNKS) == hashlib.sha256(b"".join(CHUNKS)).hexdigest()


def test_reading_fails() -> None:
    def chunks() -> Iterator[bytes]:
        yield CHUNKS[1]
        raise OSError("no more")

    before = threading.active_count()
    with pytest.raises(OSError, match="no more"):
        sha256_of(chunks())
    assert threading.active_count() == before
