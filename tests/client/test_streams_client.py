# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Uploads and downloads: against a peer that misbehaves."""

from __future__ import annotations

import hashlib
import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.client.peer import (
    DOMAIN,
    TRANSFER,
    URL,
    Cut,
    Link,
    Peer,
    Request,
    Told,
    running,
)
from vdsm_ovfstore import errors
from vdsm_ovfstore.client import Client, digests, downloads

# More than all buffers between two sockets hold.
LARGE = os.urandom(1 << 20) * 16
SMALL = b"an archive" * 100


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def refused(reason: str) -> dict[str, Any]:
    return {
        "type": "NotAnArchive",
        "code": 3511,
        "fields": {"reason": reason},
    }


def uploaded(data: bytes) -> dict[str, Any]:
    return {"generation": 7, "length": len(data), "sha256": sha256(data)}


@pytest.fixture
def peer() -> Iterator[Peer]:
    with running() as found:
        yield found


@pytest.fixture
def host(peer: Peer) -> Iterator[Client]:
    with Client(peer.url, timeout=5) as found:
        yield found


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is looked more often at what a host is doing."""
    monkeypatch.setattr("vdsm_ovfstore.client.transfer._LOOK_MAX", 0.05)


def accept(link: Link, request: Request) -> bytes:
    """Take the whole body."""
    link.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    return link.read(request.length)


def commit(link: Link, request: Request) -> None:
    link.json(200, uploaded(accept(link, request)))


def states(*documents: dict[str, Any]) -> Callable[[Any], Any]:
    """getTransfer: one after the other, the last one for ever."""
    left = list(documents)
    return lambda params: left.pop(0) if len(left) > 1 else left[0]


# -- upload -------------------------------------------------------------------


class Endless(io.RawIOBase):
    """A file object that is no file, and gives less than asked for."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(333, len(self._data))
        buffer[:count] = self._data[:count]
        self._data = self._data[count:]
        return count


@pytest.mark.parametrize(
    ("make", "size"),
    [
        pytest.param(lambda data, path: data, None, id="bytes"),
        pytest.param(
            lambda data, path: memoryview(bytearray(data)), None, id="view"
        ),
        pytest.param(lambda data, path: path, None, id="path"),
        pytest.param(lambda data, path: str(path), None, id="str"),
        pytest.param(lambda data, path: path.open("rb"), None, id="file"),
        pytest.param(lambda data, path: io.BytesIO(data), None, id="BytesIO"),
        pytest.param(
            lambda data, path: Endless(data), len(SMALL), id="stream"
        ),
        pytest.param(
            lambda data, path: iter([data[:7], b"", data[7:]]),
            len(SMALL),
            id="iterator",
        ),
    ],
)
def test_sources(
    host: Client, peer: Peer, tmp_path: Path, make: Any, size: int | None
) -> None:
    heard: list[tuple[str, int, int]] = []
    peer.put = commit
    (tmp_path / "a").write_bytes(SMALL)
    result = host.upload(
        DOMAIN,
        make(SMALL, tmp_path / "a"),
        size,
        progress=lambda *a: heard.append(a),
    )
    assert result["generation"] == 7
    assert heard[-1] == ("sending", len(SMALL), len(SMALL))
    assert peer.params[0]["size"] == len(SMALL)
    assert peer.connections == 1


def test_file_is_sent_from_where_it_stands(host: Client, peer: Peer) -> None:
    file = io.BytesIO(SMALL)
    file.seek(10)
    peer.put = commit
    assert host.upload(DOMAIN, file)["length"] == len(SMALL) - 10


def test_digest_of_bytes_is_announced(host: Client, peer: Peer) -> None:
    seen: list[Request] = []

    def put(link: Link, request: Request) -> None:
        seen.append(request)
        commit(link, request)

    peer.put = put
    host.upload(DOMAIN, SMALL)
    assert peer.params[0]["sha256"] == sha256(SMALL)
    header = seen[0].headers["repr-digest"]
    assert digests.sha256(header) == sha256(SMALL)
    assert seen[0].headers["expect"] == "100-continue"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        pytest.param(
            [b"x" * 500], "it ended after 500 of 1000 bytes", id="early"
        ),
        pytest.param([], "it ended after 0 of 1000 bytes", id="empty"),
        pytest.param(
            [b"x" * 1000, b"y"], "more than the 1000 bytes", id="late"
        ),
        pytest.param([b"x" * 1001], "more than the 1000 bytes", id="large"),
    ],
)
def test_source_that_is_not_as_announced(
    host: Client, peer: Peer, source: list[bytes], reason: str
) -> None:
    received: list[bytes] = []
    done = threading.Event()

    def put(link: Link, request: Request) -> None:
        received.append(accept(link, request))
        done.set()

    peer.put = put
    with pytest.raises(errors.SourceUnreadable, match=reason):
        host.upload(DOMAIN, iter(source), 1000)
    assert done.wait(5)
    # The host must never have had enough to begin.
    assert len(received[0]) < 1000
    assert peer.calls == ["upload", "abort"]
    assert peer.params[1] == {"transferID": TRANSFER}


def test_source_that_fails(host: Client, peer: Peer) -> None:
    def broken() -> Iterator[bytes]:
        yield b"x" * 10
        raise OSError(5, "Input/output error")

    def wrong() -> Iterator[bytes]:
        yield b"x" * 10
        raise KeyError("a bug")

    peer.put = commit
    with pytest.raises(errors.SourceUnreadable, match="Input/output error"):
        host.upload(DOMAIN, broken(), 1000)
    with pytest.raises(KeyError):
        host.upload(DOMAIN, wrong(), 1000)
    assert peer.calls == ["upload", "abort"] * 2


def test_source_that_is_not_there(host: Client, peer: Peer) -> None:
    with pytest.raises(errors.SourceUnreadable, match="No such file"):
        host.upload(DOMAIN, "/none")
    with pytest.raises(errors.SourceUnreadable, match="size is not known"):
        host.upload(DOMAIN, iter([b"x"]))
    assert peer.calls == []


def test_refused_before_the_body(host: Client, peer: Peer) -> None:
    def put(link: Link, request: Request) -> None:
        link.json(409, {"error": refused("used before")})
        raise Cut

    asked: list[int] = []

    def source() -> Iterator[bytes]:
        asked.append(1)
        yield b"12345"

    peer.put = put
    with pytest.raises(errors.NotAnArchive, match="used before"):
        host.upload(DOMAIN, source(), 5)
    assert asked == []


@pytest.mark.parametrize("read", [0, 100_000, 10_000_000])
def test_refused_within_the_body(host: Client, peer: Peer, read: int) -> None:
    """With unread data the kernel resets the connection after the answer."""

    def put(link: Link, request: Request) -> None:
        link.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        link.read(read)
        link.json(422, {"error": refused("no header")})
        raise Cut

    peer.put = put
    peer.verbs["getTransfer"] = states(
        {"state": "failed", "error": refused("no header")}
    )
    with pytest.raises(errors.NotAnArchive, match="no header"):
        host.upload(DOMAIN, LARGE)


def test_cut_within_the_body(host: Client, peer: Peer) -> None:
    """The host has said why, but not here."""

    def put(link: Link, request: Request) -> None:
        link.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        link.read(100_000)
        raise Cut

    peer.put = put
    peer.verbs["getTransfer"] = states(
        {"state": "receiving"},
        {"state": "failed", "error": refused("byte 7")},
    )
    with pytest.raises(errors.NotAnArchive, match="byte 7"):
        host.upload(DOMAIN, LARGE)


def test_cut_that_the_host_did_not_notice(peer: Peer) -> None:
    def put(link: Link, request: Request) -> None:
        link.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        link.read(100_000)
        raise Cut

    peer.put = put
    peer.verbs["getTransfer"] = states({"state": "receiving"})
    with Client(peer.url, timeout=0.3) as host:
        with pytest.raises(errors.HostUnreachable) as caught:
            host.upload(DOMAIN, LARGE)
    assert caught.value.fields()["kind"] == "lost"
    assert peer.calls[-1] == "abort"


def cut_at_the_end(link: Link, request: Request) -> None:
    accept(link, request)
    raise Cut


def test_lost_answer_of_a_commit(host: Client, peer: Peer) -> None:
    heard: list[tuple[str, int, int]] = []
    peer.put = cut_at_the_end
    peer.verbs["getTransfer"] = states(
        {"state": "writing", "step": "waiting for the lease"},
        {"state": "writing", "step": "writing copy 1"},
        {"state": "done", "result": uploaded(SMALL), "error": None},
    )
    result = host.upload(DOMAIN, SMALL, progress=lambda *a: heard.append(a))
    assert result == uploaded(SMALL)
    assert [h[0] for h in heard[-2:]] == [
        "waiting for the lease",
        "writing copy 1",
    ]


def test_lost_answer_of_a_failure(host: Client, peer: Peer) -> None:
    peer.put = cut_at_the_end
    peer.verbs["getTransfer"] = states(
        {"state": "failed", "result": None, "error": refused("too late")}
    )
    with pytest.raises(errors.NotAnArchive, match="too late"):
        host.upload(DOMAIN, SMALL)


def test_lost_answer_of_a_host_that_started_again(
    host: Client, peer: Peer
) -> None:
    def forgotten(params: Any) -> Any:
        raise Told(type="TransferNotFound", code=3508)

    peer.put = cut_at_the_end
    peer.verbs["getTransfer"] = forgotten
    with pytest.raises(errors.HostUnreachable, match="can be sent again"):
        host.upload(DOMAIN, SMALL)
    assert peer.calls.count("upload") == 1


@pytest.mark.parametrize("what", ["gone", "busy"])
def test_lost_answer_of_a_host_that_cannot_be_asked(
    peer: Peer, what: str
) -> None:
    def busy(params: Any) -> Any:
        raise Told(type="HostBusy", fields={"reason": "r", "retry_after": 9})

    def put(link: Link, request: Request) -> None:
        accept(link, request)
        if what == "gone":
            peer.stop()
        raise Cut

    peer.put = put
    peer.verbs["getTransfer"] = busy
    with Client(peer.url, timeout=0.2, total=0.2) as host:
        with pytest.raises(errors.HostUnreachable) as caught:
            host.upload(DOMAIN, SMALL)
    assert "may have been written or not" in str(caught.value)
    assert caught.value.kind == "lost"
    assert caught.value.next_step == "Run: ovfstore history DOMAIN"


def test_long_commit_shows_its_steps(
    host: Client, peer: Peer, often: None
) -> None:
    looked = threading.Event()
    heard: list[str] = []

    def look(params: Any) -> Any:
        looked.set()
        return {"state": "writing", "step": "waiting for the lease"}

    def put(link: Link, request: Request) -> None:
        data = accept(link, request)
        assert looked.wait(5)
        link.json(200, uploaded(data))

    peer.put = put
    peer.verbs["getTransfer"] = look
    host.upload(DOMAIN, SMALL, progress=lambda *a: heard.append(a[0]))
    assert heard == ["sending", "waiting for the lease"]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        pytest.param({"sha256": "0" * 64}, "committed 000", id="digest"),
        pytest.param({"length": 1}, "the host committed 1", id="length"),
    ],
)
def test_other_content_was_committed(
    host: Client, peer: Peer, changed: dict[str, Any], reason: str
) -> None:
    def put(link: Link, request: Request) -> None:
        link.json(200, {**uploaded(accept(link, request)), **changed})

    peer.put = put
    with pytest.raises(errors.Damaged, match=reason):
        host.upload(DOMAIN, io.BytesIO(SMALL))


def test_host_that_does_not_read(peer: Peer) -> None:
    release = threading.Event()

    def put(link: Link, request: Request) -> None:
        link.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        release.wait(10)
        raise Cut

    peer.put = put
    peer.verbs["getTransfer"] = states({"state": "receiving"})
    with Client(peer.url, timeout=0.3) as host:
        with pytest.raises(errors.HostUnreachable, match="silent for 0.3"):
            host.upload(DOMAIN, LARGE)
    release.set()


# -- download -----------------------------------------------------------------


class Store:
    """
    Downloads of one content.

    cuts: after how many bytes each GET is cut, in order; None sends all.
    """

    def __init__(self, peer: Peer, content: bytes, *cuts: int | None) -> None:
        self.content = content
        self.cuts = list(cuts)
        self.gets: list[Request] = []
        self.announced = sha256(content)
        self.ranges = True
        self.headers: dict[str, object] = {}
        peer.get = self.get
        peer.verbs["download"] = self.verb

    def verb(self, params: Any) -> dict[str, Any]:
        return {
            "transferID": TRANSFER,
            "url": URL,
            "size": len(self.content),
            "sha256": self.announced,
            "generation": {"number": 3, "sha256": "ab"},
            "entity": None,
        }

    def get(self, link: Link, request: Request) -> None:
        self.gets.append(request)
        first, status, headers = 0, 200, dict(self.headers)
        wanted = request.headers.get("range")
        if wanted is not None and self.ranges:
            first, status = int(wanted[len("bytes=") : -1]), 206
            end = len(self.content)
            headers["Content_Range"] = f"bytes {first}-{end - 1}/{end}"
        body = self.content[first:]
        lines = [f"{k.replace('_', '-')}: {v}\r\n" for k, v in headers.items()]
        link.send(
            f"HTTP/1.1 {status} Any\r\n{''.join(lines)}"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
        )
        limit = self.cuts.pop(0) if self.cuts else None
        link.send(body[:limit])
        if limit is not None:
            raise Cut


def test_download(host: Client, peer: Peer, tmp_path: Path) -> None:
    store = Store(peer, SMALL)
    store.headers["Repr_Digest"] = digests.header(sha256(SMALL))
    assert host.download(DOMAIN).data == SMALL
    result = host.download(DOMAIN, tmp_path / "a.tar", 3)
    assert result.path == str(tmp_path / "a.tar")
    assert result.data is None
    assert (tmp_path / "a.tar").read_bytes() == SMALL
    assert (tmp_path / "a.tar").stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["a.tar"]
    stream = io.BytesIO()
    host.download(DOMAIN, stream)
    assert stream.getvalue() == SMALL
    assert peer.connections == 1


@pytest.mark.parametrize("ranges", [True, False], ids=["206", "200"])
def test_cut_download_goes_on(
    host: Client, peer: Peer, ranges: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_PAUSES", (0.01,) * 3)
    store = Store(peer, LARGE, 300_000, 0, 2_000_000)
    store.ranges = ranges
    assert host.download(DOMAIN).data == LARGE
    first, *others = store.gets
    assert "range" not in first.headers
    for request in others:
        assert request.headers["if-range"] == f'"{sha256(LARGE)}"'
    if ranges:
        assert [r.headers["range"] for r in others] == [
            "bytes=300000-",
            "bytes=300000-",
            "bytes=2300000-",
        ]
    assert peer.calls == ["download"]


def test_cut_at_the_very_end(host: Client, peer: Peer) -> None:
    store = Store(peer, SMALL, len(SMALL))
    assert host.download(DOMAIN).data == SMALL
    assert len(store.gets) == 1


@pytest.mark.parametrize(
    "gone",
    [
        pytest.param({"type": "TransferNotFound"}, id="forgotten"),
        pytest.param(
            {
                "type": "TransferRefused",
                "fields": {"transfer": "t", "reason": "spent", "gone": True},
            },
            id="spent",
        ),
    ],
)
def test_cut_download_whose_transfer_is_gone(
    host: Client, peer: Peer, gone: dict[str, Any]
) -> None:
    store = Store(peer, SMALL, 100)
    answers: list[Callable[[Link, Request], None]] = [
        store.get,
        lambda link, request: link.json(410, {"error": gone}),
        store.get,
    ]
    peer.get = lambda link, request: answers.pop(0)(link, request)
    assert host.download(DOMAIN, generation=3).data == SMALL
    assert peer.calls == ["download", "download"]
    # Of the same content, whatever is the newest now.
    assert peer.params[1]["generation"] == "3:ab"
    assert store.gets[1].headers["range"] == "bytes=100-"


def test_cut_download_that_the_host_did_not_notice(
    host: Client, peer: Peer
) -> None:
    in_use = {
        "type": "TransferRefused",
        "fields": {"transfer": "t", "reason": "it is in use", "gone": False},
    }
    store = Store(peer, SMALL, 100)
    answers: list[Callable[[Link, Request], None]] = [
        store.get,
        lambda link, request: link.json(409, {"error": in_use}),
        store.get,
    ]
    peer.get = lambda link, request: answers.pop(0)(link, request)
    assert host.download(DOMAIN).data == SMALL
    assert peer.calls == ["download"]


def test_download_is_not_taken_up_for_ever(
    host: Client, peer: Peer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(downloads, "_PAUSES", (0, 0, 0))
    store = Store(peer, SMALL, *[10] * 50)
    with pytest.raises(errors.HostUnreachable, match="closed the connection"):
        host.download(DOMAIN)
    assert len(store.gets) == 4
    assert peer.calls[-1] == "abort"


def test_refused_download_is_not_tried_again(host: Client, peer: Peer) -> None:
    Store(peer, SMALL)
    peer.get = lambda link, request: link.json(
        422, {"error": refused("no, never")}
    )
    with pytest.raises(errors.NotAnArchive, match="no, never"):
        host.download(DOMAIN)


def test_content_with_another_digest(
    host: Client, peer: Peer, tmp_path: Path
) -> None:
    store = Store(peer, SMALL)
    store.announced = "0" * 64
    (tmp_path / "a").write_text("older")
    with pytest.raises(errors.Damaged, match="was announced"):
        host.download(DOMAIN, tmp_path / "a")
    assert (tmp_path / "a").read_text() == "older"
    assert os.listdir(tmp_path) == ["a"]


def test_announcements_that_differ(host: Client, peer: Peer) -> None:
    store = Store(peer, SMALL)
    store.headers["Repr_Digest"] = digests.header("0" * 64)
    with pytest.raises(errors.Damaged, match="other content"):
        host.download(DOMAIN)
    store.headers.clear()
    peer.verbs["download"] = lambda params: {**store.verb(params), "size": 5}
    with pytest.raises(errors.Damaged, match="5 bytes were announced"):
        host.download(DOMAIN)


def test_other_range_than_asked_for(host: Client, peer: Peer) -> None:
    store = Store(peer, SMALL, 100)
    answers: list[Callable[[Link, Request], None]] = [
        store.get,
        lambda link, request: link.answer(
            206, SMALL[50:], Content_Range=f"bytes 50-999/{len(SMALL)}"
        ),
    ]
    peer.get = lambda link, request: answers.pop(0)(link, request)
    with pytest.raises(errors.HostUnreachable, match="another range"):
        host.download(DOMAIN)


def test_targets_that_are_refused(
    host: Client, peer: Peer, tmp_path: Path
) -> None:
    Store(peer, SMALL)
    for target, reason in (
        (tmp_path, "not a file"),
        (tmp_path / "none" / "a", "No such file"),
        (tmp_path / "a\0b", "null"),
    ):
        with pytest.raises(errors.TargetRefused, match=reason):
            host.download(DOMAIN, target)
    # Nothing was asked for in vain.
    assert peer.calls == []
    with open("/dev/full", "wb", buffering=0) as full:
        with pytest.raises(errors.TargetRefused, match="No space left"):
            host.download(DOMAIN, full)


def test_download_that_is_left_is_given_back(host: Client, peer: Peer) -> None:
    Store(peer, LARGE)
    with host.open_download(DOMAIN) as download:
        assert download.size == len(LARGE)
        assert next(iter(download))
    assert peer.calls == ["download", "abort"]


def test_verification_takes_long(
    host: Client, peer: Peer, often: None
) -> None:
    """A host sends nothing before it has verified all."""
    store = Store(peer, SMALL)
    looked = threading.Event()
    heard: list[str] = []

    def look(params: Any) -> Any:
        looked.set()
        return {"state": "preparing", "step": "reading generation 3"}

    def get(link: Link, request: Request) -> None:
        assert looked.wait(5)
        store.get(link, request)

    peer.get = get
    peer.verbs["getTransfer"] = look
    host.download(DOMAIN, progress=lambda *a: heard.append(a[0]))
    assert heard == ["reading generation 3", "receiving"]


def test_digest_field() -> None:
    text = digests.header(sha256(b"a"))
    assert digests.sha256(f"sha-512=:AA==:, {text}") == sha256(b"a")
    assert digests.sha256("sha-512=:AA==:") is None
    assert digests.sha256("sha-256=AA==") is None
    assert digests.sha256("sha-256=:A:") is None
