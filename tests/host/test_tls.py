# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""TLS: who may come in, with real certificates."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Optional

import pytest

from tests.host.certs import Pki, certificates, encrypt_key
from tests.host.harness import wait_until
from tests.host.peers import PING, Raw, Served, serving
from vdsm_ovfstore import errors
from vdsm_ovfstore.host import tls
from vdsm_ovfstore.host.limits import Limits


@contextmanager
def secured(limits: Optional[Limits] = None) -> Iterator[Served]:
    context = tls.server_context(str(certificates().host.path))
    with serving(limits, context) as served:
        yield served


def ask(served: Served, context: ssl.SSLContext) -> int:
    """The status of a ping; raises what TLS says."""
    return served.raw(context).ask(PING).status


def test_client_is_known_by_name(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG", "ovfstore.host")
    with secured() as served:
        assert ask(served, certificates().client.client_context()) == 200
    assert "(engine.example.com) method=POST" in caplog.text


def test_streams() -> None:
    content = os.urandom(5 * 1024**2)
    with secured() as served:
        served.service.transfers.offer("x", content)
        client = served.client(certificates().client.client_context())
        for _ in range(2):
            client.request("PUT", "/ovf-store/transfers/up", content)
            answer = json.loads(client.getresponse().read())
            assert answer["length"] == len(content)
            client.request("GET", "/ovf-store/transfers/x")
            assert client.getresponse().read() == content


def test_refusal_reaches_who_does_not_listen() -> None:
    with secured() as served:
        client = served.client(certificates().client.client_context())
        client.request("PUT", "/ovf-store/transfers/x", bytes(32 * 1024**2))
        answer = client.getresponse()
        assert answer.status == 404
        assert b"TransferNotFound" in answer.read()


def _foreign() -> ssl.SSLContext:
    context = _nobody()
    foreign = certificates().foreign
    context.load_cert_chain(foreign.certificate, foreign.key)
    return context


def _expired() -> ssl.SSLContext:
    return certificates().expired.client_context()


def _nobody() -> ssl.SSLContext:
    return certificates().client.client_context(identified=False)


def _old() -> ssl.SSLContext:
    context = certificates().client.client_context()
    # OpenSSL 3 speaks TLS 1.1 only at this level.
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def _tls12(context: ssl.SSLContext) -> ssl.SSLContext:
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_versions(version: str) -> None:
    context = certificates().client.client_context()
    context.minimum_version = ssl.TLSVersion[version]
    context.maximum_version = ssl.TLSVersion[version]
    with secured() as served:
        assert ask(served, context) == 200


REFUSED = {
    "foreign": (_foreign, "unable to get local issuer"),
    "foreign, TLS 1.2": (lambda: _tls12(_foreign()), "unable to get local"),
    "expired": (_expired, "certificate has expired"),
    "none": (_nobody, "peer did not return a certificate"),
    "none, TLS 1.2": (lambda: _tls12(_nobody()), "peer did not return"),
    "TLS 1.1": (_old, "unsupported protocol"),
}


@pytest.mark.parametrize(
    ("context", "told"), REFUSED.values(), ids=REFUSED.keys()
)
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_peer_is_refused(
    context: object, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(context)
    with secured() as served:
        # An alert, not a reset: the peer is told why.
        with pytest.raises(ssl.SSLError, match="(?i)alert"):
            ask(served, context())
        wait_until(lambda: caplog.records)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.exc_info is None
    assert told in record.getMessage()
    assert "client=127.0.0.1:" in record.getMessage()


def test_plain_peer_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    with secured() as served:
        peer = served.raw()
        peer.send(PING)
        # An alert of TLS at most.
        assert len(peer.sock.recv(100)) < 10
        wait_until(lambda: caplog.records)
    (record,) = caplog.records
    assert "http request" in record.getMessage()


def test_silent_peer_is_sent_away(caplog: pytest.LogCaptureFixture) -> None:
    with secured(Limits(handshake=0.2)) as served:
        assert served.raw().ended()
    assert "TLS: nothing came" in caplog.text


def test_handshake_that_drips_keeps_nobody_waiting() -> None:
    """Neither the others, nor its own thread for long."""
    with secured(Limits(handshake=0.5)) as served:
        peer = served.raw()
        peer.send(b"\x16\x03\x01\x02\x00")
        assert ask(served, certificates().client.client_context()) == 200
        began = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(100):
                peer.send(b"\x01")
                time.sleep(0.05)
        assert time.monotonic() - began < 5


def test_tls_on_a_plain_port() -> None:
    with serving() as served:
        with pytest.raises(ssl.SSLError):
            served.raw(certificates().client.client_context())


def test_certificates_are_changed() -> None:
    def name() -> object:
        sock = served.raw(context).sock
        assert isinstance(sock, ssl.SSLSocket)
        assert Raw(sock).ask(PING).status == 200
        subject = (sock.getpeercert() or {})["subject"]
        return subject[-1][-1][-1]

    context = certificates().client.client_context()
    with secured() as served:
        old = served.raw(context)
        assert old.ask(PING).status == 200
        assert name() == "host1.example.com"
        later = tls.server_context(str(certificates().later.path))
        served.server.reload_tls(later)
        assert name() == "host1-renewed.example.com"
        assert old.ask(PING).status == 200


def test_peer_that_goes_away_in_the_handshake() -> None:
    with secured() as served:
        for _ in range(20):
            sock = socket.create_connection(("127.0.0.1", served.server.port))
            sock.setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
            )
            sock.close()
        assert ask(served, certificates().client.client_context()) == 200


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(tmp_path: Path) -> None:
    def curl(*args: str, pki: Optional[Pki] = None) -> tuple[int, bytes]:
        certificate = (pki or certificates().client).curl()
        done = subprocess.run(
            ["curl", "--silent", *certificate, *args], capture_output=True
        )
        return done.returncode, done.stdout

    content = os.urandom(3 * 1024**2)
    (tmp_path / "archive").write_bytes(content)
    with secured() as served:
        served.service.transfers.offer("down", content)
        base = f"https://localhost:{served.server.port}/ovf-store"
        call = '{"jsonrpc":"2.0","id":1,"method":"OvfStore.ping"}'
        kind = ("--header", "Content-Type:application/json")
        status, answer = curl(*kind, "--data", call, base + "/rpc")
        assert status == 0
        assert json.loads(answer)["result"] == {"api": 1}
        upload = ["--upload-file", str(tmp_path / "archive")]
        status, answer = curl(*upload, base + "/transfers/up")
        assert status == 0
        assert json.loads(answer)["length"] == len(content)
        # 22 is the status of curl for an answer of 400 or more.
        status, answer = curl("--fail", *upload, base + "/transfers/x")
        assert status == 22
        assert curl(base + "/transfers/down") == (0, content)
        part = curl("--range", "5-9", base + "/transfers/down")
        assert part == (0, content[5:10])
        foreign = certificates().foreign
        trusted = ["--cacert", str(certificates().host.authority)]
        status, answer = curl(*trusted, base + "/rpc", pki=foreign)
        assert (status != 0, answer) == (True, b"")


def test_http_client_of_python() -> None:
    with secured() as served:
        client = http.client.HTTPSConnection(
            "localhost",
            served.server.port,
            context=certificates().client.client_context(),
        )
        for _ in range(3):
            client.request("GET", "/ovf-store/transfers/x")
            answer = client.getresponse()
            assert (answer.status, len(answer.read()) > 0) == (404, True)
        client.close()


# -- the files ----------------------------------------------------------------


@pytest.fixture
def pki(tmp_path: Path) -> Pki:
    """A copy to be spoilt."""
    shutil.copytree(certificates().host.path, tmp_path / "pki")
    return Pki(tmp_path / "pki")


def refused(pki: Pki, wrong: Path) -> str:
    """What is said of the file that is wrong."""
    with pytest.raises(errors.CertificateInvalid) as e:
        tls.server_context(str(pki.path))
    assert e.value.path == str(wrong)
    assert "tls failed" not in str(e.value).lower()
    return str(e.value)


@pytest.mark.parametrize("name", ["key", "certificate", "authority"])
def test_file_is_missing(pki: Pki, name: str) -> None:
    path: Path = getattr(pki, name)
    path.unlink()
    assert "No such file" in refused(pki, path)


@pytest.mark.parametrize("name", ["key", "certificate", "authority"])
@pytest.mark.parametrize("content", ["", "garbage"], ids=repr)
def test_file_is_wrong(pki: Pki, name: str, content: str) -> None:
    path: Path = getattr(pki, name)
    path.write_text(content)
    told = refused(pki, path)
    if name == "key":
        assert "it holds no private key" in told


@pytest.mark.parametrize("name", ["key", "certificate"])
def test_file_is_cut_off(pki: Pki, name: str) -> None:
    path: Path = getattr(pki, name)
    text = path.read_text()
    path.write_text(text[:-100] + text[-40:])
    assert "damaged" in refused(pki, path)


def test_swapped_files(pki: Pki) -> None:
    key, certificate = pki.key.read_text(), pki.certificate.read_text()
    pki.key.write_text(certificate)
    pki.certificate.write_text(key)
    assert "it holds no certificate" in refused(pki, pki.certificate)


def test_key_of_another_certificate(pki: Pki) -> None:
    shutil.copy(certificates().client.key, pki.key)
    assert "this is not the key of" in refused(pki, pki.key)


def test_encrypted_key(pki: Pki) -> None:
    encrypt_key(certificates().host, pki.key)
    assert "encrypted" in refused(pki, pki.key)


def test_certificate_in_place_of_the_authority(pki: Pki) -> None:
    shutil.copy(pki.certificate, pki.authority)
    assert "no certificate of a CA" in refused(pki, pki.authority)


def test_directory_is_missing(tmp_path: Path) -> None:
    pki = Pki(tmp_path / "none")
    refused(pki, pki.key)


def test_end_of_a_certificate_is_told(
    pki: Pki, caplog: pytest.LogCaptureFixture
) -> None:
    tls.server_context(str(pki.path))
    assert caplog.text == ""
    shutil.copytree(certificates().expired.path, pki.path, dirs_exist_ok=True)
    tls.server_context(str(pki.path))
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    date = subprocess.run(
        ["openssl", "x509", "-noout", "-enddate", "-in", pki.certificate],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    end = ssl.cert_time_to_seconds(date.strip().partition("=")[2])
    expected = datetime.fromtimestamp(end, timezone.utc).isoformat()
    assert record.getMessage() == (
        f"CERTIFICATE path={pki.certificate} expired={expected}"
    )
