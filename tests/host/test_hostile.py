# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Uploads and downloads that go wrong, to a real daemon over TLS.

Each bad input is refused in one clear line, the generation that was there
stays whole, and nothing is left behind in the daemon.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import socket
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, NamedTuple, Optional

import pytest

from tests.host.certs import certificates
from tests.host.harness import running_daemon, wait_until
from tests.host.hostbed import TRANSFERS, HostBed, request
from tests.host.peers import Answer, Raw
from tests.store.builders import (
    EPOCH,
    MIB,
    archive,
    incompressible,
    make_domain,
    ovf,
    vm_id,
)
from vdsm_ovfstore import errors

# All of them start daemons.
pytestmark = pytest.mark.slow

UNKNOWN = "0" * 32


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HostBed]:
    tmp = tmp_path_factory.mktemp("hostile")
    domain, spool = make_domain(tmp), tmp / "spool"
    spool.mkdir()
    pki = certificates()
    with running_daemon(
        tmp,
        [domain.path],
        tls=pki.host.path,
        limits={"spool": spool, "spool_bytes": "16 MiB"},
    ) as daemon:
        bed = HostBed(daemon, domain, spool, pki.client)
        bed.start_store()
        yield bed
        bed.assert_usable()


@pytest.fixture
def bed(shared: HostBed) -> Iterator[HostBed]:
    yield shared
    try:
        shared.assert_intact()
        shared.assert_nothing_left()
    finally:
        shared.clean_up()


@pytest.fixture
def tar(shared: HostBed) -> bytes:
    """A good archive, which is not in the store."""
    return archive(shared.domain, ["web", "db", "new"], EPOCH + 1)


def assert_refused(
    answer: Answer, status: int, kind: str, *words: str
) -> dict[str, Any]:
    assert answer.status == status, answer.body
    error: dict[str, Any] = answer.error
    assert_told(error, kind, *words)
    return error


def assert_told(error: Any, kind: str, *words: str) -> None:
    """One line that says what, one that says what to do."""
    assert error["type"] == kind, error
    assert error["code"] == getattr(errors, kind).code
    for text in (error["message"], error["next_step"]):
        assert text and text.isprintable() and len(text) < 400
    for word in words:
        assert word in error["message"]


# -- an archive that is refused -----------------------------------------------


def members(*files: tuple[str, bytes], **options: Any) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as t:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for key, value in options.items():
                setattr(member, key, value)
            t.addfile(member, io.BytesIO(data))
    return out.getvalue()


def one(name: str, data: bytes) -> Callable[[bytes], bytes]:
    return lambda tar: members((name, data))


OVF = f"{vm_id('web')}.ovf"

BOMB = b"""<?xml version="1.0"?>
<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>
<x>&b;</x>"""

FILE = b"""<?xml version="1.0"?>
<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>"""

ARCHIVES: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
    "gzip": (gzip.compress, "NotAnArchive", "gzip"),
    "noise": (lambda tar: os.urandom(20_000), "NotAnArchive", ""),
    "text": (lambda tar: b"<ovf/>\n" * 3000, "NotAnArchive", ""),
    "one byte": (lambda tar: b"x", "ArchiveTruncated", ""),
    "cut in a header": (lambda tar: tar[:700], "ArchiveTruncated", ""),
    "cut in an OVF": (lambda tar: tar[:2100], "ArchiveTruncated", ""),
    "no end": (lambda tar: tar[: tar.rindex(b"}") & ~511], "Archive", ""),
    "damaged header": (
        lambda tar: tar[:1024].replace(b"info", b"infx") + tar[1024:],
        "NotAnArchive",
        "",
    ),
    "absolute": (one("/etc/cron.d/x", b"x"), "MemberRefused", "/etc/cron"),
    "parent": (one(f"../{OVF}", ovf("web")), "MemberRefused", "../"),
    "directory": (
        lambda tar: members(("dir", b""), type=tarfile.DIRTYPE),
        "MemberRefused",
        "dir",
    ),
    "link": (
        lambda tar: members(
            (OVF, b""), type=tarfile.SYMTYPE, linkname="/etc/shadow"
        ),
        "MemberRefused",
        OVF,
    ),
    "terminal": (one("\x1b[31m\n.ovf", b"x"), "MemberRefused", "31m"),
    "twice": (
        lambda tar: members((OVF, ovf("web")), (OVF, ovf("web"))),
        "MemberRefused",
        OVF,
    ),
    "entities": (one(OVF, BOMB), "OvfRefused", OVF),
    "external entity": (one(OVF, FILE), "OvfRefused", OVF),
    "no XML": (one(OVF, b"no XML"), "OvfRefused", OVF),
    "empty OVF": (one(OVF, b""), "OvfRefused", OVF),
    "deep XML": (one(OVF, b"<a>" * 100_000), "OvfRefused", OVF),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_bad_archive(bed: HostBed, tar: bytes, name: str) -> None:
    make, kind, word = ARCHIVES[name]
    bad = make(tar)
    transfer = bed.ask_upload(bad)
    answer = bed.put(transfer["url"], bad)
    assert answer.status == 422, answer.body
    if kind == "Archive":
        kind = "ArchiveTruncated"
    error = assert_refused(answer, 422, kind, word)
    assert bed.wait_for_end(transfer)["error"]["message"] == error["message"]


TOO_LARGE = {
    "for the store": (8 * MIB + 1, "this store"),
    "for the spool": (8 * MIB, "the spool of this host"),
    "for any": (2**40, "this store"),
}


@pytest.mark.parametrize("name", TOO_LARGE)
def test_too_large(bed: HostBed, name: str) -> None:
    """Before a byte of it is sent."""
    size, words = TOO_LARGE[name]
    answer = bed.verb(
        "upload", {"storagedomainID": bed.domain.id, "size": size}
    )
    assert answer.status == 413, answer.body
    error = answer.error
    assert error["data"]["type"] == "ArchiveTooLarge"
    assert error["code"] == errors.ArchiveTooLarge.code
    assert words in error["message"] and error["data"]["next_step"]


# -- what was announced, and what comes ---------------------------------------


def digest(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


class Announced(NamedTuple):
    """
    A head that does not fit.

    head makes the lines beside Host; sha256 is what the verb is told; state
    is that of the transfer afterwards.
    """

    head: Callable[[bytes], list[str]]
    status: int
    kind: str
    word: str
    state: str = "failed"
    sha256: Optional[Callable[[bytes], str]] = None


def length(more: int = 0) -> Callable[[bytes], list[str]]:
    return lambda tar: [f"Content-Length: {len(tar) + more}"]


def with_length(*lines: str) -> Callable[[bytes], list[str]]:
    return lambda tar: [f"Content-Length: {len(tar)}", *lines]


def own_digest(*others: str) -> Callable[[bytes], list[str]]:
    return lambda tar: [
        f"Content-Length: {len(tar)}",
        f"Repr-Digest: sha-256=:{digest(tar)}:",
        *others,
    ]


def wrong(tar: bytes) -> str:
    return "1" * 64


OTHER = f"sha-256=:{digest(b'other')}:"

HEADS = {
    "shorter": Announced(length(-1), 422, "ArchiveMismatch", "were announced"),
    "longer": Announced(length(1), 422, "ArchiveMismatch", "were announced"),
    "far longer": Announced(
        length(10**17), 422, "ArchiveMismatch", "were announced"
    ),
    "sha256 of the verb": Announced(
        length(), 422, "ArchiveMismatch", "its sha256 is", sha256=wrong
    ),
    "digest": Announced(
        with_length(f"Repr-Digest: {OTHER}"),
        422,
        "ArchiveMismatch",
        "its sha256 is",
    ),
    "digest and sha256": Announced(
        own_digest(),
        422,
        "ArchiveMismatch",
        "announced was 1111",
        sha256=wrong,
    ),
    "no length": Announced(
        lambda tar: [], 411, "RequestInvalid", "Content-Length", "waiting"
    ),
    "no number": Announced(
        lambda tar: ["Content-Length: ten"],
        400,
        "RequestInvalid",
        "Content-Length",
        "waiting",
    ),
    "negative": Announced(
        lambda tar: ["Content-Length: -5"],
        400,
        "RequestInvalid",
        "Content-Length",
        "waiting",
    ),
    "two lengths": Announced(
        with_length("Content-Length: 5"),
        400,
        "RequestInvalid",
        "Content-Length",
        "waiting",
    ),
    "chunked": Announced(
        lambda tar: ["Transfer-Encoding: chunked"],
        411,
        "RequestInvalid",
        "chunked",
        "waiting",
    ),
    "length and chunked": Announced(
        with_length("Transfer-Encoding: chunked"),
        400,
        "RequestInvalid",
        "one length",
        "waiting",
    ),
    "compressed": Announced(
        with_length("Content-Encoding: gzip"),
        415,
        "RequestInvalid",
        "Content-Encoding",
        "waiting",
    ),
    "a part": Announced(
        with_length("Content-Range: bytes 0-9/100"),
        400,
        "RequestInvalid",
        "ranges",
        "waiting",
    ),
    "other expectation": Announced(
        with_length("Expect: cake"), 417, "RequestInvalid", "100", "waiting"
    ),
    "a browser": Announced(
        with_length("Origin: http://evil.example.com"),
        403,
        "RequestInvalid",
        "browsers",
        "waiting",
    ),
    "digest in hex": Announced(
        with_length("Repr-Digest: sha-256=" + "0" * 64),
        400,
        "RequestInvalid",
        "Repr-Digest",
        "waiting",
    ),
    "digest of 3 bytes": Announced(
        with_length("Content-Digest: sha-256=:AAAA:"),
        400,
        "RequestInvalid",
        "Content-Digest",
        "waiting",
    ),
    "two digests": Announced(
        own_digest(f"Content-Digest: {OTHER}"),
        400,
        "RequestInvalid",
        "two different digests",
        "waiting",
    ),
    "two digests in one": Announced(
        own_digest(f"Repr-Digest: {OTHER}"),
        400,
        "RequestInvalid",
        "two different digests",
        "waiting",
    ),
    "long field": Announced(
        with_length("X: " + "x" * 20_000),
        431,
        "RequestInvalid",
        "bytes",
        "waiting",
    ),
    "many fields": Announced(
        with_length(*[f"X{n}: x" for n in range(100)]),
        431,
        "RequestInvalid",
        "fields",
        "waiting",
    ),
    "folded field": Announced(
        with_length("X: x", " y"),
        400,
        "RequestInvalid",
        "malformed",
        "waiting",
    ),
    "two hosts": Announced(
        with_length("Host: other"), 400, "RequestInvalid", "Host", "waiting"
    ),
}


@pytest.mark.parametrize("name", HEADS)
def test_bad_head(bed: HostBed, tar: bytes, name: str) -> None:
    case = HEADS[name]
    params = {"sha256": case.sha256(tar)} if case.sha256 else {}
    transfer = bed.ask_upload(tar, **params)
    lines = case.head(tar)
    head = request("PUT", transfer["url"], None, *lines)
    answer = bed.ask(head + tar)
    error = assert_refused(answer, case.status, case.kind, case.word)
    found = bed.daemon.call("getTransfer", transferID=transfer["transferID"])
    assert found["state"] == case.state
    if case.state == "waiting":
        # HTTP refused it: it can still be used.
        bed.daemon.call("abort", transferID=transfer["transferID"])
    else:
        assert found["error"] == error


def test_refused_before_the_body(bed: HostBed, tar: bytes) -> None:
    """Who asks first sends nothing for nothing."""
    transfer = bed.ask_upload(tar, sha256=wrong(tar))
    lines = *own_digest()(tar), "Expect: 100-continue"
    answer = bed.ask(request("PUT", transfer["url"], None, *lines))
    assert_refused(answer, 422, "ArchiveMismatch", "announced was 1111")


def test_bytes_behind_the_body(bed: HostBed, tar: bytes) -> None:
    """They are another request, and a bad one."""
    head = request("PUT", bed.ask_upload(tar)["url"], tar)
    head = head.replace(b"Connection: close\r\n", b"")
    with bed.peer() as peer:
        assert peer.ask(head + b"\0" * 1000).status == 200
        bed.tar = tar
        assert_refused(peer.answer(), 400, "RequestInvalid", "not HTTP")
        assert peer.ended()


# -- peers that go away -------------------------------------------------------


def finish(sock: socket.socket) -> None:
    # Not SSLSocket.close(), which would say goodbye.
    socket.socket.shutdown(sock, socket.SHUT_RDWR)


def reset(sock: socket.socket) -> None:
    linger = struct.pack("ii", 1, 0)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    sock.close()


CUTS = {"at the start": 0.0, "in the midst": 0.5, "before the end": 1.0}


@pytest.mark.parametrize("end", [finish, reset], ids=["FIN", "RST"])
@pytest.mark.parametrize("cut", CUTS)
def test_cut_upload(
    bed: HostBed, tar: bytes, cut: str, end: Callable[[socket.socket], None]
) -> None:
    transfer = bed.ask_upload(tar)
    sent = min(int(CUTS[cut] * len(tar)), len(tar) - 1)
    head = request("PUT", transfer["url"], tar)[: -len(tar)]
    with bed.peer() as peer:
        peer.send(head + tar[:sent])
        bed.wait_for_state(transfer, "receiving")
        end(peer.sock)
    found = bed.wait_for_end(transfer)
    assert found["state"] == "failed"
    assert_told(found["error"], "TransferIncomplete", f"of {len(tar)} bytes")
    assert found["error"]["fields"]["done"] <= sent
    # A PUT that broke is not continued.
    answer = bed.put(transfer["url"], tar)
    assert_refused(answer, 410, "TransferRefused", "it has failed")


def test_half_closed_upload_is_told(bed: HostBed, tar: bytes) -> None:
    """Who only ends its own side still hears why it failed."""
    transfer = bed.ask_upload(tar)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(bed.daemon.socket)
        peer = Raw(sock)
        peer.send(request("PUT", transfer["url"], tar)[:-1])
        sock.shutdown(socket.SHUT_WR)
        answer = peer.answer()
    done = f"after {len(tar) - 1} of {len(tar)} bytes"
    assert_refused(answer, 400, "TransferIncomplete", done)


@pytest.mark.parametrize("end", [finish, reset], ids=["FIN", "RST"])
def test_cut_download_is_continued(
    bed: HostBed, end: Callable[[socket.socket], None]
) -> None:
    transfer = bed.ask_download()
    with bed.peer() as peer:
        peer.send(request("GET", transfer["url"], None, "Range: bytes=0-99"))
        assert peer.answer().body == bed.tar[:100]
        end(peer.sock)
    answer = bed.get(transfer["url"], "Range: bytes=100-")
    assert answer.status == 206
    assert answer.body == bed.tar[100:]
    answer = bed.get(transfer["url"])
    assert_refused(answer, 410, "TransferRefused", "it has been used")


def test_who_asks_and_goes(bed: HostBed) -> None:
    """Nobody is there any more when the answer is."""
    transfer = bed.ask_download()
    with bed.peer() as peer:
        peer.send(request("GET", transfer["url"]))
        reset(peer.sock)
    # Whether it was heard at all nobody can say.
    bed.daemon.call("abort", transferID=transfer["transferID"])
    bed.wait_for_end(transfer)


# -- tickets and their use ----------------------------------------------------


def test_second_use(bed: HostBed, tar: bytes) -> None:
    transfer = bed.ask_upload(tar)
    assert bed.put(transfer["url"], tar).status == 200
    bed.tar = tar
    for body in (tar, archive(bed.domain, ["evil"])):
        answer = bed.put(transfer["url"], body)
        assert_refused(answer, 410, "TransferRefused", "it has been used")


def test_two_at_once(bed: HostBed, tar: bytes) -> None:
    transfer = bed.ask_upload(tar)
    whole = request("PUT", transfer["url"], tar)
    with bed.peer() as first:
        first.send(whole[:-100])
        bed.wait_for_state(transfer, "receiving")
        answer = bed.put(transfer["url"], tar)
        assert_refused(answer, 409, "TransferRefused", "it is in use")
        assert first.ask(whole[-100:]).status == 200
    bed.tar = tar


def test_wrong_direction(bed: HostBed, tar: bytes) -> None:
    """The transfers stay as they were."""
    up, down = bed.ask_upload(tar), bed.ask_download()
    words = ("TransferRefused", "it is for upload")
    assert_refused(bed.get(up["url"]), 409, *words)
    words = ("TransferRefused", "it is for download")
    assert_refused(bed.put(down["url"], tar), 409, *words)
    assert bed.get(down["url"]).body == bed.tar
    assert bed.put(up["url"], tar).status == 200
    bed.tar = tar


@pytest.mark.parametrize(
    "method", ["POST", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE", "get"]
)
def test_other_methods(bed: HostBed, method: str) -> None:
    transfer = bed.ask_download()
    answer = bed.ask(request(method, transfer["url"]))
    assert_refused(answer, 405, "RequestInvalid", "GET, PUT")
    assert answer.headers["allow"] == "GET, PUT"
    assert bed.get(transfer["url"]).body == bed.tar


def test_head(bed: HostBed) -> None:
    transfer = bed.ask_download()
    with bed.peer() as peer:
        peer.send(request("HEAD", transfer["url"]))
        answer = peer.answer(bodiless=True)
        assert (answer.status, peer.ended()) == (405, True)
    assert bed.get(transfer["url"]).body == bed.tar


TICKETS = {
    "unknown": UNKNOWN,
    "none": "",
    "not hex": "z" * 32,
    "short": "0",
    "long": "0" * 3000,
    "percent": "%30" * 32,
    "parent": "../status",
    "to the call": "../rpc",
    "null": "%00",
    "slash": f"{UNKNOWN}/{UNKNOWN}",
    "query": f"?ticket={UNKNOWN}",
    "semicolon": f"{UNKNOWN};x=y",
    "script": "<script>alert(1)</script>",
}


@pytest.mark.parametrize("name", TICKETS)
def test_wrong_ticket(bed: HostBed, name: str) -> None:
    path = TRANSFERS + TICKETS[name]
    for answer in (bed.put(path, b"x" * 2048), bed.get(path)):
        assert_refused(answer, 404, "TransferNotFound")
        assert UNKNOWN not in str(answer.body)
        assert "script" not in str(answer.body)


def test_ticket_in_other_letters(bed: HostBed) -> None:
    """It is the ticket, the whole ticket and nothing but the ticket."""
    transfer = bed.ask_download()
    url = transfer["url"]
    head, _, ticket = url.rpartition("/")
    for other in (
        url + "?x",
        url + "#x",
        url + "/",
        url[:-1],
        f"{head}//{ticket}",
        f"{head}/%{ord(ticket[0]):x}{ticket[1:]}",
        f"{head}/./{ticket}",
        transfer["transferID"],
    ):
        path = other if other.startswith("/") else TRANSFERS + other
        assert_refused(bed.get(path), 404, "TransferNotFound")
    assert bed.get(url).body == bed.tar


@pytest.mark.parametrize("path", ["/", "/ovf-store", "//", "/ovf-store/rpc/"])
def test_nothing_there(bed: HostBed, path: str) -> None:
    answer = bed.ask(request("GET", path))
    assert_refused(answer, 404, "RequestInvalid", "nothing at this path")


def test_path_that_is_too_long(bed: HostBed) -> None:
    answer = bed.get(TRANSFERS + "0" * 5000)
    assert_refused(answer, 414, "RequestInvalid", "4096 bytes")


def test_aborted(bed: HostBed, tar: bytes) -> None:
    up, down = bed.ask_upload(tar), bed.ask_download()
    for transfer in (up, down):
        ended = bed.daemon.call("abort", transferID=transfer["transferID"])
        assert ended == {"aborted": True, "state": "aborted"}
    words = (410, "TransferRefused", "it was aborted")
    assert_refused(bed.put(up["url"], tar), *words)
    assert_refused(bed.get(down["url"]), *words)


def test_aborted_while_it_comes(bed: HostBed, tar: bytes) -> None:
    transfer = bed.ask_upload(tar)
    whole = request("PUT", transfer["url"], tar)
    with bed.peer() as peer:
        peer.send(whole[:-100])
        bed.wait_for_state(transfer, "receiving")
        bed.daemon.call("abort", transferID=transfer["transferID"])
        answer = peer.ask(whole[-100:])
    assert_refused(answer, 410, "Aborted", transfer["transferID"])
    assert bed.wait_for_end(transfer)["state"] == "aborted"


def test_aborted_while_it_goes(tmp_path: Path) -> None:
    """Who takes it slowly gets no more of it, and no whole archive."""
    domain = make_domain(tmp_path)
    with running_daemon(tmp_path, [domain.path]) as daemon:
        bed = HostBed(daemon, domain, tmp_path)
        notes = {"web": incompressible(3 * MIB)}
        bed.upload(archive(domain, notes))
        transfer = bed.ask_download()
        with socket.socket(socket.AF_UNIX) as sock:
            # Of a local socket the kernel buffers a fraction of a MiB.
            sock.connect(daemon.socket)
            sock.settimeout(20)
            sock.sendall(request("GET", transfer["url"]))
            got = len(sock.recv(4096))
            bed.wait_for_state(transfer, "sending")
            daemon.call("abort", transferID=transfer["transferID"])
            while data := sock.recv(MIB):
                got += len(data)
        assert got < transfer["size"]
        assert bed.wait_for_end(transfer)["state"] == "aborted"
        answer = bed.get(transfer["url"])
        assert_refused(answer, 410, "TransferRefused", "it was aborted")


def test_no_ticket_is_logged(bed: HostBed, tar: bytes) -> None:
    transfer = bed.ask_download()
    assert bed.get(transfer["url"]).status == 200
    log = wait_until(lambda: bed.daemon.log)
    assert transfer["transferID"] in log
    assert transfer["url"].rpartition("/")[2] not in log


# -- ranges -------------------------------------------------------------------

RANGES = {
    "beyond": "bytes=999999999-",
    "backwards": "bytes=9-5",
    "several": "bytes=0-1,5-6",
    "no number": "bytes=a-b",
    "empty": "bytes=-",
    "nothing": "bytes=-0",
    "huge": "bytes=" + "9" * 5000 + "-",
}


@pytest.mark.parametrize("name", RANGES)
def test_bad_range(bed: HostBed, name: str) -> None:
    transfer = bed.ask_download()
    answer = bed.get(transfer["url"], f"Range: {RANGES[name]}")
    assert_refused(answer, 416, "RequestInvalid", "range")
    assert answer.headers["content-range"] == f"bytes */{len(bed.tar)}"
    # It was nobody's last byte.
    assert bed.state(transfer) == "waiting"
    assert bed.get(transfer["url"]).body == bed.tar
