# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Real certificates, laid out as VDSM does it, by the openssl command."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from scripts.pki import LOCALHOST, Issuer, openssl

# Kept until the process ends, and then removed.
_KEPT: list[TemporaryDirectory[str]] = []


class Pki(NamedTuple):
    """A directory with keys/, certs/, and whose certificate it holds."""

    path: Path

    @property
    def key(self) -> Path:
        return self.path / "keys" / "vdsmkey.pem"

    @property
    def certificate(self) -> Path:
        return self.path / "certs" / "vdsmcert.pem"

    @property
    def authority(self) -> Path:
        return self.path / "certs" / "cacert.pem"

    def client_context(self, identified: bool = True) -> ssl.SSLContext:
        """For a client that shows its certificate, or none."""
        context = ssl.create_default_context(cafile=str(self.authority))
        if identified:
            context.load_cert_chain(self.certificate, self.key)
        return context

    def curl(self) -> list[str]:
        return [
            "--cacert", str(self.authority),
            "--cert", str(self.certificate),
            "--key", str(self.key),
        ]  # fmt: skip


class Certificates(NamedTuple):
    """
    host and client are of one CA, later as well; foreign is not.

    later is the host's next certificate; expired was a client's.
    """

    host: Pki
    later: Pki
    client: Pki
    expired: Pki
    foreign: Pki


@lru_cache(maxsize=1)
def certificates() -> Certificates:
    """Made once for all tests."""
    directory = TemporaryDirectory(prefix="ovfstore-certs-")
    _KEPT.append(directory)
    root = Path(directory.name)
    ours, others = _authority(root / "ours"), _authority(root / "others")
    return Certificates(
        host=_issue(root / "host", ours, "host1.example.com"),
        later=_issue(root / "later", ours, "host1-renewed.example.com"),
        client=_issue(root / "client", ours, "engine.example.com"),
        expired=_issue(root / "expired", ours, "old.example.com", days=-1),
        foreign=_issue(root / "foreign", others, "foreign.example.com"),
    )


def _authority(path: Path) -> Issuer:
    path.mkdir()
    issuer = Issuer(path / "ca.pem", path / "ca.key")
    issuer.make(f"/O={path.name}/CN=CA of {path.name}", days=30)
    return issuer


def _issue(path: Path, issuer: Issuer, name: str, days: int = 30) -> Pki:
    pki = Pki(path)
    for directory in (pki.key.parent, pki.certificate.parent):
        directory.mkdir(parents=True)
    pki.authority.write_bytes(issuer.cert.read_bytes())
    issuer.issue(
        *(f"/O=example/CN={name}", pki.certificate, pki.key, days),
        names=f"DNS:{name},{LOCALHOST}",
    )
    return pki


def encrypt_key(pki: Pki, target: Path) -> None:
    """Write the key protected by a passphrase."""
    openssl(
        *("ec", "-in", pki.key, "-aes128", "-passout", "pass:secret"),
        *("-out", target),
    )
