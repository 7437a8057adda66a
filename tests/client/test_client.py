# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Addresses, errors, and answers that are none."""

from __future__ import annotations

import inspect
import json
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import pytest

from tests.client.peer import DOMAIN, JOB, Peer, Told, cut, running
from tests.host.certs import certificates, encrypt_key
from vdsm_ovfstore import errors
from vdsm_ovfstore.client import Client, documents
from vdsm_ovfstore.client.address import parse
from vdsm_ovfstore.client.told import told

PROJECT = Path(__file__).parents[2]
DEFINITION = json.loads((PROJECT / "schema" / "verbs.json").read_text())

# -- addresses ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "host", "port", "tls", "authority"),
    [
        pytest.param(
            *("https://h.example.com:54322", "h.example.com", 54322, True),
            "h.example.com:54322",
            id="https",
        ),
        pytest.param(
            *("https://[fe80::1]:1/", "fe80::1", 1, True, "[fe80::1]:1"),
            id="ipv6",
        ),
        pytest.param(
            *("http://127.0.0.9:80", "127.0.0.9", 80, False, "127.0.0.9:80"),
            id="loopback",
        ),
        pytest.param(
            *("http://[::1]:80", "::1", 80, False, "[::1]:80"),
            id="ipv6 loopback",
        ),
        pytest.param(
            *("http://localhost:80", "localhost", 80, False, "localhost:80"),
            id="localhost",
        ),
    ],
)
def test_address(
    given: str, host: str, port: int, tls: bool, authority: str
) -> None:
    found = parse(given)
    assert (found.host, found.port, found.tls) == (host, port, tls)
    assert found.authority == authority
    assert found.path is None


def test_path_is_an_address(tmp_path: Path) -> None:
    assert parse(tmp_path / "s").path == str(tmp_path / "s")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        pytest.param("http://10.0.0.1:80", "use https", id="plain"),
        pytest.param(
            "http://127.0.0.1.example.com:80", "use https", id="plain name"
        ),
        pytest.param("https://host", "port is missing|expected", id="no port"),
        pytest.param("https://:443", "expected", id="no host"),
        pytest.param("https://u@h:443", "expected", id="user"),
        pytest.param("https://h\r\nX:443", "expected", id="two lines"),
        pytest.param("https://h:0", "no such port", id="port 0"),
        pytest.param("https://h:99999", "no such port", id="large port"),
        pytest.param("https://fe80::1:443", "write an IPv6", id="bare ipv6"),
        pytest.param("ftp://h:1", "only https", id="ftp"),
        pytest.param("h:1", "write it as https://h:1", id="no scheme"),
        pytest.param("https://h:1/foo", "nothing may follow", id="path"),
        pytest.param("", "neither", id="empty"),
    ],
)
def test_address_refused(given: str, reason: str) -> None:
    with pytest.raises(errors.UsageError, match=reason):
        Client(given)


# -- against the definition ---------------------------------------------------

METHODS = {
    "ping": ["ping"],
    "list": ["list_domains"],
    "getInfo": ["get_info"],
    "create": ["create"],
    "upload": ["begin_upload"],
    "download": ["begin_download"],
    "getTransfer": ["get_transfer"],
    "getJobs": ["get_jobs"],
    "abort": ["abort_transfer", "abort_job"],
    "listVms": ["list_vms"],
    "getVm": ["get_vm"],
    "getHistory": ["get_history"],
    "diff": ["diff"],
    "verify": ["verify"],
    "repair": ["repair"],
    "restore": ["restore"],
    "pin": ["pin"],
    "unpin": ["unpin"],
}
NAMES = {
    "storagedomainID": "domain",
    "storagepoolID": "pool",
    "vmID": "vm",
    "jobID": "job",
    "jobIDs": "jobs",
    "transferID": "transfer",
    "collectOrphans": "collect",
}


def test_every_verb_has_a_method() -> None:
    assert set(METHODS) == set(DEFINITION["verbs"])


@pytest.mark.parametrize("verb", sorted(METHODS))
def test_parameters_are_those_of_the_definition(verb: str) -> None:
    params = DEFINITION["verbs"][verb]["params"]
    expected = {
        NAMES.get(name, name): schema.get("default")
        for name, schema in params["properties"].items()
    }
    required = {NAMES.get(name, name) for name in params["required"]}
    found: dict[str, Any] = {}
    needed: set[str] = set()
    methods = METHODS[verb]
    for name in methods:
        for parameter in inspect.signature(
            getattr(Client, name)
        ).parameters.values():
            if parameter.name == "self":
                continue
            has_default = parameter.default is not parameter.empty
            found[parameter.name] = parameter.default if has_default else None
            if not has_default and len(methods) == 1:
                needed.add(parameter.name)
    if verb == "getTransfer":
        assert needed == {"transfer"}
    assert found == expected
    assert needed == required


@pytest.mark.parametrize(
    ("document", "name"),
    [
        pytest.param(documents.Fault, "error", id="error"),
        pytest.param(documents.Generation, "generation", id="generation"),
        pytest.param(documents.Entity, "entity", id="entity"),
        pytest.param(documents.Copy, "copy", id="copy"),
        pytest.param(documents.Degraded, "degraded", id="degraded"),
        pytest.param(documents.Status, "statusDocument", id="status"),
        pytest.param(documents.Uploaded, "uploadDocument", id="upload"),
        pytest.param(documents.Created, "createDocument", id="create"),
        pytest.param(documents.Repaired, "repairDocument", id="repair"),
        pytest.param(documents.Restored, "restoreDocument", id="restore"),
        pytest.param(documents.Pinned, "pinDocument", id="pin"),
        pytest.param(documents.Checked, "verifyDocument", id="verify"),
        pytest.param(
            documents.CheckedGeneration,
            "checkedGeneration",
            id="checked generation",
        ),
        pytest.param(documents.CheckedCopy, "checkedCopy", id="checked copy"),
        pytest.param(documents.Segment, "segment", id="segment"),
        pytest.param(documents.Job, "job", id="job"),
        pytest.param(documents.Ping, "ping", id="ping"),
        pytest.param(documents.History, "getHistory", id="history"),
        pytest.param(documents.Vms, "listVms", id="vms"),
        pytest.param(documents.Vm, "getVm", id="vm"),
        pytest.param(documents.Diff, "diff", id="diff"),
        pytest.param(documents.Change, "change", id="change"),
        pytest.param(documents.Transfer, "getTransfer", id="transfer"),
        pytest.param(documents.Aborted, "abort", id="abort"),
    ],
)
def test_types_are_those_of_the_definition(document: Any, name: str) -> None:
    verb = DEFINITION["verbs"].get(name)
    schema = verb["result"] if verb else DEFINITION["definitions"][name]
    assert set(document.__annotations__) == set(schema["properties"])
    assert document.__required_keys__ == set(schema["required"])


@pytest.mark.parametrize(
    ("literal", "name"),
    [
        (documents.Verdict, "verdict"),
        (documents.TransferState, "transferState"),
        (documents.JobStatus, "jobStatus"),
    ],
)
def test_words_are_those_of_the_definition(literal: Any, name: str) -> None:
    words = DEFINITION["definitions"][name]["enum"]
    assert list(get_args(literal)) == words


# -- errors that a host tells -------------------------------------------------


def document(error: errors.Error) -> dict[str, Any]:
    return {
        "type": type(error).__name__,
        "code": error.code,
        "message": str(error),
        "next_step": error.next_step,
        "fields": error.fields(),
    }


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(
            errors.LeaseBusy(domain="d", owner="host 2", waited=1.5),
            id="LeaseBusy",
        ),
        pytest.param(
            errors.HostBusy(reason="full", retry_after=7), id="HostBusy"
        ),
        pytest.param(
            errors.StorageFailed(
                operation="read", path="/p", reason="I/O error", errno=5
            ),
            id="StorageFailed",
        ),
        pytest.param(
            errors.TransferRefused(transfer="t", reason="r", gone=True),
            id="TransferRefused",
        ),
        pytest.param(errors.TransferNotFound(), id="TransferNotFound"),
    ],
)
def test_error_comes_as_it_was(error: errors.Error) -> None:
    found = told(document(error))
    assert type(found) is type(error)
    assert found.__dict__ == error.__dict__
    assert (str(found), found.next_step) == (str(error), error.next_step)


def test_error_of_a_later_version_keeps_its_words() -> None:
    sent = {
        "type": "StoreOnFire",
        "code": 3777,
        "message": "The {store} is on fire",
        "next_step": "Run {away}",
        "fields": {"heat": 5},
    }
    found = told(sent)
    assert isinstance(found, errors.Error)
    assert document(found) == sent


def test_known_error_with_other_fields_keeps_its_words() -> None:
    sent = document(errors.LeaseBusy(domain="d", owner="o", waited=1))
    sent["fields"] = {"domain": "d", "waited": "long"}
    found = told(sent)
    assert isinstance(found, errors.LeaseBusy)
    assert found.exit_status == errors.EXIT_BUSY
    assert document(found) == sent


def test_fields_cannot_shadow_what_an_error_is() -> None:
    sent = document(errors.Damaged(what="w", reason="r"))
    for name in ("msg", "code", "hint", "next_step", "fields", "args", "self"):
        sent["fields"][name] = "{self.__class__}"
    sent["fields"]["__class__"] = "x"
    sent["fields"]["exit_status"] = 0
    found = told(sent)
    assert found.__dict__ == {"what": "w", "reason": "r"}
    assert (found.code, str(found)) == (3540, "w is damaged: r")
    assert found.exit_status == errors.EXIT_DAMAGED


@pytest.mark.parametrize(
    ("name", "base"),
    [
        pytest.param("Any", errors.Error, id="no error"),
        pytest.param("annotations", errors.Error, id="not a class"),
        pytest.param("a b", errors.Error, id="no name"),
        pytest.param(None, errors.Error, id="nothing"),
        pytest.param(["Damaged"], errors.Error, id="list"),
    ],
)
def test_type_that_is_none_of_ours(name: Any, base: type) -> None:
    found = told({"type": name, "code": 3, "message": "it is so"})
    assert isinstance(found, base)
    assert (found.code, str(found)) == (3, "it is so")


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(None, id="null"),
        pytest.param([], id="list"),
        pytest.param({}, id="empty"),
        pytest.param({"type": "Damaged", "fields": []}, id="fields"),
        pytest.param({"message": {"a": 1}, "code": "x"}, id="types"),
    ],
)
def test_document_that_is_none(sent: Any) -> None:
    found = told(sent)
    assert "did not say" in str(found)
    assert isinstance(found.code, int)


def test_message_is_one_line_that_can_be_shown() -> None:
    found = told({"message": "a\r\n\x1b[31mb" + "x" * 5000, "code": 1})
    assert str(found).startswith("a ?[31mbx")
    assert len(str(found)) <= 2000


# -- hosts that are not there -------------------------------------------------


def failure(client: Client) -> errors.HostUnreachable:
    with client, pytest.raises(errors.HostUnreachable) as caught:
        client.ping()
    text = str(caught.value)
    assert "\n" not in text
    assert client.address.text in text
    return caught.value


def test_no_socket(tmp_path: Path) -> None:
    error = failure(Client(tmp_path / "none"))
    assert error.fields()["kind"] == "connect"
    assert str(error).endswith("there is no such socket")
    assert "systemctl status ovfstored" in error.next_step


def test_name_in_place_of_a_url() -> None:
    error = failure(Client("no-host.example.com"))
    assert "https://HOST:PORT" in error.next_step


@pytest.mark.root
def test_no_right_to_the_socket() -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become somebody else")
    # Not below tmp_path, which nobody else may enter.
    with TemporaryDirectory() as parent, socket.socket(socket.AF_UNIX) as sock:
        os.chmod(parent, 0o711)
        path = os.path.join(parent, "s")
        sock.bind(path)
        sock.listen()
        os.chmod(path, 0o600)
        os.seteuid(65534)  # nobody
        try:
            error = failure(Client(path))
        finally:
            os.seteuid(0)
    assert "no right to use the socket" in str(error)
    assert "group" in error.next_step and "--direct" in error.next_step


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
    assert "nobody listens" in str(failure(Client(tmp_path / "s")))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert "nobody listens" in str(failure(Client(f"http://127.0.0.1:{port}")))


def test_path_that_is_too_long(tmp_path: Path) -> None:
    assert "too long" in str(failure(Client(tmp_path / ("x" * 200))))


def test_unknown_name() -> None:
    error = failure(Client("https://host.invalid:54322"))
    assert error.fields()["kind"] == "name"
    assert "host.invalid is not known" in str(error)


def test_silent_host() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        start = time.monotonic()
        error = failure(Client(url, total=0.2))
        assert error.fields()["kind"] == "timeout"
        assert time.monotonic() - start < 20


def test_silent_host_of_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}"
        error = failure(Client(url, total=0.2))
        assert error.fields()["kind"] == "timeout"


# -- TLS ----------------------------------------------------------------------


def server_context(who: str = "host") -> ssl.SSLContext:
    pki = getattr(certificates(), who)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.certificate, pki.key)
    context.load_verify_locations(certificates().host.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def client(url: str, who: str = "client", **changed: Any) -> Client:
    pki = getattr(certificates(), who)
    how = {
        "ca": str(certificates().client.authority),
        "cert": str(pki.certificate),
        "key": str(pki.key),
    }
    return Client(url, **{**how, **changed})


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_tls(version: str) -> None:
    context = server_context()
    context.maximum_version = getattr(ssl.TLSVersion, version)
    with running(context) as peer, client(peer.url) as host:
        assert host.ping()["api"] == 1
        assert host.ping()["api"] == 1
    assert peer.connections == 1


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
@pytest.mark.parametrize(
    ("who", "changed", "reason", "way_out"),
    [
        pytest.param(
            *("foreign", {}, "it does not know the CA of our cert"),
            "--cert and --key",
            id="foreign",
        ),
        pytest.param(
            *("expired", {}, "vdsmcert.pem has expired", "Renew"), id="expired"
        ),
        pytest.param(
            *("client", {"cert": None, "key": None}),
            "it wants a client certificate|it refuses a client without one",
            "--cert and --key",
            id="none",
        ),
    ],
)
def test_host_refuses_us(
    version: str,
    who: str,
    changed: dict[str, Any],
    reason: str,
    way_out: str,
) -> None:
    context = server_context()
    context.maximum_version = getattr(ssl.TLSVersion, version)
    with running(context) as peer:
        error = failure(client(peer.url, who, **changed))
    assert error.fields()["kind"] == "tls"
    assert re.search(reason, str(error)), str(error)
    assert way_out in error.next_step


def test_host_of_a_foreign_ca() -> None:
    with running(server_context("foreign")) as peer:
        error = failure(client(peer.url))
    assert "of a CA that is not trusted" in str(error)
    assert "--cacert" in error.next_step


def test_host_whose_certificate_has_expired() -> None:
    with running(server_context("expired")) as peer:
        error = failure(client(peer.url))
    assert "its certificate has expired" in str(error)
    assert "Renew the host's certificate" in error.next_step


def test_host_under_another_name() -> None:
    # Its certificate has 127.0.0.1.
    with running(server_context(), "127.0.0.2") as peer:
        error = failure(client(peer.url))
    assert "its certificate is not for 127.0.0.2" in str(error)
    assert "a name that its certificate has" in error.next_step


def test_host_without_tls() -> None:
    with running() as peer:
        error = failure(client(f"https://127.0.0.1:{peer.port}"))
    assert "does not speak TLS" in str(error)
    assert "[tls] enable" in error.next_step


def test_host_with_tls_that_is_asked_without() -> None:
    with running(server_context()) as peer:
        url = peer.url
        error = failure(Client(url.replace("https", "http")))
    assert url in error.next_step


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        pytest.param({"ca": "/none.pem"}, "No such file", id="no CA"),
        pytest.param({"ca": "/etc/passwd"}, "no certificate", id="bad CA"),
        pytest.param({"cert": "/none.pem"}, "No such file", id="no cert"),
        pytest.param({"cert": "/etc/passwd"}, "no certificate", id="bad cert"),
        pytest.param({"cert": "/etc"}, "directory", id="directory"),
        pytest.param({"key": "/none.pem"}, "No such file", id="no key"),
        pytest.param({"key": "/etc/passwd"}, "no key in PEM", id="bad key"),
    ],
)
def test_files_that_cannot_be_used(
    changed: dict[str, Any], reason: str
) -> None:
    """The error names the file, and the option that gave it."""
    ((option, path),) = changed.items()
    with client("https://127.0.0.1:1", **changed) as host:
        with pytest.raises(errors.SourceUnreadable, match=reason) as caught:
            host.ping()
    assert str(caught.value).startswith(f"Cannot read {path}: ")
    option = "--cacert" if option == "ca" else f"--{option}"
    assert caught.value.next_step == f"Give another file with {option}"


def test_key_without_certificate() -> None:
    with pytest.raises(errors.UsageError, match="needs a certificate"):
        Client("https://127.0.0.1:1", key="/key.pem")


def test_key_of_another() -> None:
    key = str(certificates().foreign.key)
    with client("https://127.0.0.1:1", key=key) as host:
        with pytest.raises(errors.SourceUnreadable, match="not the key of"):
            host.ping()


def test_key_that_is_encrypted(tmp_path: Path) -> None:
    encrypt_key(certificates().client, tmp_path / "key")
    with client("https://127.0.0.1:1", key=str(tmp_path / "key")) as host:
        with pytest.raises(errors.SourceUnreadable, match="encrypted"):
            host.ping()


# -- answers that are none ----------------------------------------------------


def http(body: bytes, head: bytes = b"") -> bytes:
    length = f"Content-Length: {len(body)}\r\n\r\n".encode()
    return b"HTTP/1.1 200 OK\r\n" + head + length + body


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", "no HTTP", id="ssh"),
        pytest.param(b"HTTP/1.1 abc\r\n\r\n", "no HTTP", id="status"),
        pytest.param(b"x" * 20000, "a line has no end", id="long line"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 200, "headers", id="headers"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", "no header", id="header"
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "chunked",
            id="chunked",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            "Content-Length",
            id="length",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\nContent-Length: 67108865\r\n\r\n",
            "67108865 bytes",
            id="too large",
        ),
        pytest.param(http(b"<html>"), "no JSON", id="html"),
        pytest.param(http(b"[" * 100000), "no JSON", id="deep"),
        pytest.param(http(b"[]"), "no JSON object", id="list"),
        pytest.param(http(b"{}"), "no JSON-RPC", id="empty"),
        pytest.param(
            http(b'{"jsonrpc": "2.0", "id": 99, "result": {}}'),
            "answered call 99",
            id="other id",
        ),
        pytest.param(
            http(b'{"jsonrpc": "2.0", "id": 1}'), "no result", id="no result"
        ),
        pytest.param(
            http(b'{"jsonrpc": "2.0", "id": 1, "result": []}'),
            "no result",
            id="result",
        ),
    ],
)
def test_answer_that_is_none(answer: bytes, reason: str) -> None:
    with running() as peer:
        peer.verbs["ping"] = lambda params: answer
        error = failure(Client(peer.url))
    assert error.fields()["kind"] == "answer"
    text = str(error)
    assert "it does not answer as an OVF store host: " in text
    assert reason in text


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"HTTP/1.1 200", id="in a line"),
        pytest.param(b"HTTP/1.1 200 OK\r\nA: b\r\n", id="in the head"),
        pytest.param(http(b"12345")[:-1], id="in the body"),
    ],
)
def test_answer_that_is_cut(answer: bytes) -> None:
    with running() as peer:
        peer.verbs["ping"] = lambda params: answer
        error = failure(Client(peer.url))
    assert error.fields()["kind"] == "lost"


def test_answer_that_ends_with_the_connection() -> None:
    body = b'{"jsonrpc": "2.0", "id": 1, "result": {"api": 7}}'
    with running() as peer, Client(peer.url) as host:
        peer.verbs["ping"] = lambda params: b"HTTP/1.0 200 OK\r\n\r\n" + body
        assert host.ping()["api"] == 7


def test_results_without_what_we_need() -> None:
    with running() as peer, Client(peer.url) as host:
        for verb in ("list", "create", "upload", "download", "getJobs"):
            peer.verbs[verb] = lambda params: {}
        for call in (
            host.list_domains,
            lambda: host.create(DOMAIN),
            lambda: host.upload(DOMAIN, b"x"),
            lambda: host.download(DOMAIN),
            lambda: host.wait_job(JOB, timeout=0),
        ):
            with pytest.raises(errors.HostUnreachable, match="does not ans"):
                call()


@pytest.mark.parametrize(
    "url",
    [
        pytest.param("http://evil/", id="other host"),
        pytest.param("/ovf-store/transfers/a\r\nX: y", id="two lines"),
        pytest.param("/ovf-store/transfers/", id="no ticket"),
        pytest.param("/ovf-store/transfers/../rpc", id="elsewhere"),
    ],
)
def test_url_that_is_none(url: str) -> None:
    with running() as peer, Client(peer.url) as host:
        peer.verbs["upload"] = lambda params: {"transferID": "t", "url": url}
        with pytest.raises(errors.HostUnreachable, match="the URL"):
            host.upload(DOMAIN, b"x")


# -- jobs ---------------------------------------------------------------------


def job(status: str, **fields: Any) -> dict[str, Any]:
    return {"jobs": [{"jobID": JOB, "status": status, **fields}]}


def test_wait_job_tells_progress_and_returns_the_result() -> None:
    seen = iter(
        [
            job("pending", step="", progress=0),
            job("running", step="reading", progress=41.5),
            job("done", result={"copies": []}),
        ]
    )
    heard: list[tuple[str, int, int]] = []
    with running() as peer, Client(peer.url) as host:
        peer.verbs["getJobs"] = lambda params: next(seen)
        result = host.wait_job(JOB, progress=lambda *a: heard.append(a))
    assert result == {"copies": []}
    assert heard == [("pending", 0, 100), ("reading", 41, 100)]
    assert peer.params == [{"jobIDs": [JOB]}] * 3


def test_wait_job_raises_what_it_failed_with() -> None:
    sent = document(errors.LeaseBusy(domain="d", owner="o", waited=3))
    with running() as peer, Client(peer.url) as host:
        peer.verbs["getJobs"] = lambda params: job("failed", error=sent)
        with pytest.raises(errors.LeaseBusy, match="in use by o"):
            host.wait_job(JOB)
        peer.verbs["getJobs"] = lambda params: job("aborted", error=None)
        with pytest.raises(errors.Aborted):
            host.wait_job(JOB)
        peer.verbs["getJobs"] = lambda params: {"jobs": []}
        with pytest.raises(errors.JobNotFound, match=JOB):
            host.wait_job(JOB)


def test_wait_job_ends_at_its_timeout() -> None:
    with running() as peer, Client(peer.url) as host:
        peer.verbs["getJobs"] = lambda params: job("running", step="s")
        with pytest.raises(errors.HostBusy, match="not ended after 0.1 sec"):
            host.wait_job(JOB, timeout=0.1)


def test_wait_job_outlives_a_host_that_is_away_for_a_moment() -> None:
    answers: list[Any] = [cut, _busy, lambda p: job("done", result={})]
    with running() as peer, Client(peer.url, total=0.5) as host:
        peer.verbs["getJobs"] = lambda params: answers.pop(0)(params)
        assert host.wait_job(JOB) == {}


def _busy(params: object) -> Any:
    raise Told(type="HostBusy", fields={"reason": "full", "retry_after": 9})


# -- pages --------------------------------------------------------------------


def test_all_vms_stays_with_the_first_generation() -> None:
    def page(params: dict[str, Any]) -> dict[str, Any]:
        first = params["first"]
        return {
            "generation": {"number": 7, "sha256": "ab"},
            "entities": [
                {"name": f"vm{n}"} for n in range(first, min(first + 2, 5))
            ],
            "total": 5,
        }

    with running() as peer, Client(peer.url) as host:
        peer.verbs["listVms"] = page
        found = host.all_vms(DOMAIN)
    names = [e["name"] for e in found["entities"]]
    assert names == ["vm0", "vm1", "vm2", "vm3", "vm4"]
    assert found["first"] == 0
    asked = [p.get("generation") for p in peer.params]
    assert asked == [None, "7:ab", "7:ab"]


def test_whole_diff_stays_with_two_generations() -> None:
    def page(params: dict[str, Any]) -> dict[str, Any]:
        first = params["first"]
        return {
            "old": {"number": 6, "sha256": "aa"},
            "new": {"number": 7, "sha256": "bb"},
            "removed": 1,
            "added": 2,
            "changed": 2,
            "changes": [
                {"name": f"vm{n}"} for n in range(first, min(first + 2, 5))
            ],
        }

    with running() as peer, Client(peer.url) as host:
        peer.verbs["diff"] = page
        found = host.whole_diff(DOMAIN)
    names = [e["name"] for e in found["changes"]]
    assert names == ["vm0", "vm1", "vm2", "vm3", "vm4"]
    asked = [(p.get("old"), p.get("new")) for p in peer.params]
    assert asked == [(None, None), ("6:aa", "7:bb"), ("6:aa", "7:bb")]


# -- what it costs ------------------------------------------------------------


def test_import_leaves_out_what_is_expensive() -> None:
    code = (
        "import sys, vdsm_ovfstore.client; "
        "print(*({'ssl', 'http.client', 'email', 'urllib.request', "
        "'subprocess', 'tempfile', 'jsonschema', "
        "'vdsm_ovfstore.client.documents'} & set(sys.modules)))"
    )
    done = subprocess.run(
        # Without the modules of this environment that import at start.
        [sys.executable, "-S", "-c", code],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout == "\n"


def test_client_may_be_used_by_threads(peer: Peer) -> None:
    with Client(peer.url) as host, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: host.ping()["api"], range(80)))
    assert answers == [1] * 80


@pytest.fixture
def peer() -> Any:
    with running() as found:
        yield found
