# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
An engine's REST API on a local port, over TLS, as the SDK meets it.

Its answers are what the SDK's own writers make of the SDK's own types: the
XML of the API model that both it and the engine are generated from.
"""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import ssl
import threading
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Callable, NamedTuple

from tests.engine.ovfs import ident
from tests.host.certs import certificates

POOL, CLUSTER = ident("pool"), ident("cluster")
PASSWORD, TOKEN = "secret", "token-of-sso"


class Reply(NamedTuple):
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


class Hang(Exception):
    """No answer."""


class Cut(Exception):
    """Half an answer, and the connection is closed."""


Trouble = Callable[[str, dict[str, str]], Any]


class Api:
    """
    What the engine has.

    trouble: is asked about each request first, with its path and its query;
    gives a Reply, raises Hang or Cut, or gives None.
    """

    def __init__(self) -> None:
        import ovirtsdk4.types as types

        self.types = types
        self.vms: list[Any] = []
        self.templates: list[Any] = [
            types.Template(id="0" * 8 + "-0000-0000-0000-" + "0" * 12)
        ]
        self.domains: list[Any] = []
        self.hosts: list[Any] = []
        self.locked: list[str] = []
        self.trouble: Trouble = lambda path, query: None
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.url = ""

    def add_vm(self, name: str, data: bytes, status: str = "down") -> None:
        types = self.types
        configuration = types.Configuration(
            data=data.decode(), type=types.ConfigurationType.OVF
        )
        self.vms = [vm for vm in self.vms if vm.id != ident(name)]
        self.vms.append(
            types.Vm(
                id=ident(name),
                name=name,
                status=types.VmStatus(status),
                cluster=types.Cluster(id=CLUSTER),
                initialization=types.Initialization(
                    configuration=configuration
                ),
            )
        )

    def add_domain(self, ident: str, name: str, kind: str = "data") -> None:
        types = self.types
        self.domains.append(
            types.StorageDomain(
                id=ident,
                name=name,
                type=types.StorageDomainType(kind),
                status=types.StorageDomainStatus.ACTIVE,
            )
        )

    def add_host(self, address: str, spm: str, status: str = "up") -> None:
        types = self.types
        self.hosts.append(
            types.Host(
                id=ident(address),
                address=address,
                status=types.HostStatus(status),
                spm=types.Spm(status=types.SpmStatus(spm)),
            )
        )

    def answer(self, path: str, query: dict[str, str]) -> Reply:
        self.requests.append((path, query))
        found = self.trouble(path, query)
        if found is not None:
            return Reply(*found)
        types = self.types
        if path.endswith("/sso/oauth/token"):
            return _json({"access_token": TOKEN})
        if path.endswith("/services/sso-logout"):
            return _json({})
        prefix = "/ovirt-engine/api/"
        assert path.startswith(prefix), path
        what = path[len(prefix) :]
        pool = types.DataCenter(id=POOL, name="Default")
        if what == "clusters":
            pair = [types.Cluster(id=CLUSTER, data_center=pool)]
            return _many("Cluster", pair)
        if what == "datacenters":
            return _many("DataCenter", [pool])
        if what == f"datacenters/{POOL}/storagedomains":
            return _many("StorageDomain", self.domains)
        if what == "disks":
            assert query["search"] == "status=locked"
            disks = [types.Disk(id=disk) for disk in self.locked]
            return _many("Disk", disks)
        if what == "hosts":
            return _many("Host", self.hosts)
        if what == "templates":
            return _many("Template", self.templates)
        if what == "vms":
            return _many("Vm", self._page(query))
        kind, _, wanted = what.partition("/")
        listed = {"vms": self.vms, "templates": self.templates}[kind]
        for one in listed:
            if one.id == wanted:
                return _one("Vm" if kind == "vms" else "Template", one)
        return fault(404, "Not Found")

    def _page(self, query: dict[str, str]) -> list[Any]:
        found = re.fullmatch(r"sortby name page (\d+)", query["search"])
        assert found and query["all_content"] == "true"
        size = int(query["max"])
        begin = (int(found[1]) - 1) * size
        vms = sorted(self.vms, key=lambda vm: str(vm.name))
        return vms[begin : begin + size]


def fault(status: int, reason: str, detail: str = "") -> Reply:
    import ovirtsdk4.types as types

    body = _xml("Fault", types.Fault(reason=reason, detail=detail))
    return Reply(status, body, (("Content-Type", "application/xml"),))


def _json(document: Any) -> Reply:
    body = json.dumps(document).encode()
    return Reply(200, body, (("Content-Type", "application/json"),))


def _one(kind: str, value: Any) -> Reply:
    headers = (("Content-Type", "application/xml"),)
    return Reply(200, _xml(kind, value), headers)


def _many(kind: str, values: Sequence[Any]) -> Reply:
    headers = (("Content-Type", "application/xml"),)
    return Reply(200, _xml(kind, list(values)), headers)


def _xml(kind: str, value: Any) -> bytes:
    from ovirtsdk4 import writers, xml

    writer = xml.XmlWriter(None, indent=True)
    try:
        cls = getattr(writers, f"{kind}Writer")
        if isinstance(value, list):
            cls.write_many(value, writer)
        else:
            cls.write_one(value, writer)
        return str(writer.string()).encode()
    finally:
        writer.close()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Head and body in one piece: else each answer waits for an ACK, 40 ms.
    wbufsize = 1 << 20
    api: Api

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        form = urllib.parse.parse_qs(self.rfile.read(length).decode())
        self._answer({k: v[0] for k, v in form.items()})

    def _answer(self, form: dict[str, str] | None = None) -> None:
        path, _, text = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(text))
        query.update(form or {})
        token = self.headers.get("Authorization")
        if token is not None:
            query["token"] = token.partition(" ")[2]
        try:
            reply = self.api.answer(path, query)
        except Hang:
            time.sleep(2)
            self.close_connection = True
            return
        except Cut:
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.send_header("Content-Type", "application/xml")
            self.end_headers()
            self.wfile.write(b"<vms><vm id=")
            self.close_connection = True
            return
        self.send_response(reply.status)
        for name, value in reply.headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(reply.body)))
        self.end_headers()
        self.wfile.write(reply.body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextlib.contextmanager
def serving(api: Api) -> Iterator[str]:
    """Gives the file of the CA that its certificate is of."""
    pki = certificates()
    handler = type("Handler", (_Handler,), {"api": api})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    host = Path(pki.host.path)
    context.load_cert_chain(
        host / "certs" / "vdsmcert.pem", host / "keys" / "vdsmkey.pem"
    )
    server.socket = context.wrap_socket(server.socket, server_side=True)
    # No name: the SDK waits a second for each that curl has to resolve.
    api.url = f"https://127.0.0.1:{server.server_port}/ovirt-engine/api"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield str(host / "certs" / "cacert.pem")
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
