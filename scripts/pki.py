# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
Certificates for development and tests, made by the openssl command.

    certs/cacert.pem  certs/vdsmcert.pem  keys/vdsmkey.pem    as VDSM has them
    client/cert.pem  client/key.pem                           for who connects
    ca/key.pem                                                to make more
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# What the host and who connects go by there: localhost by each of its names.
LOCALHOST = "DNS:localhost,IP:127.0.0.1,IP:::1"

# Elliptic curves: an RSA key takes up to a second to make.
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def make_pki(directory: Path) -> Path:
    """Make a CA, a host's certificate and a client's; returns directory."""
    for name in ("certs", "keys", "client", "ca"):
        os.makedirs(directory / name, mode=0o700, exist_ok=True)
    ca = Issuer(directory / "certs/cacert.pem", directory / "ca/key.pem")
    ca.make("/CN=ovfstore development CA", days=3650)
    for name, cert, key in (
        ("localhost", "certs/vdsmcert.pem", "keys/vdsmkey.pem"),
        ("client", "client/cert.pem", "client/key.pem"),
    ):
        ca.issue(f"/CN={name}", directory / cert, directory / key, days=3650)
    return directory


class Issuer:
    """A CA: its certificate and its key, in two files."""

    def __init__(self, cert: Path, key: Path) -> None:
        self.cert = cert
        self._key = key

    def make(self, subject: str, days: int) -> None:
        openssl(
            *("req", "-x509", *_NEW_KEY, "-nodes", "-days", days),
            *("-subj", subject),
            # OpenSSL's own default differs by version; Python 3.13 wants it.
            *("-addext", "keyUsage=critical,keyCertSign,cRLSign"),
            *("-keyout", self._key, "-out", self.cert),
        )

    def issue(
        self,
        subject: str,
        cert: Path,
        key: Path,
        days: int,
        names: str = LOCALHOST,
    ) -> None:
        """
        Make a key and a certificate for server and client, as the engine
        gives its hosts; over those that are there.
        """
        request = self._key.with_name("request.pem")
        extensions = self._key.with_name("extensions")
        extensions.write_text(
            f"subjectAltName={names}\n"
            "basicConstraints=critical,CA:FALSE\n"
            "keyUsage=digitalSignature,keyEncipherment\n"
            "extendedKeyUsage=serverAuth,clientAuth\n"
            "authorityKeyIdentifier=keyid\n"
        )
        openssl(
            *("req", "-new", *_NEW_KEY, "-nodes", "-subj", subject),
            *("-keyout", key, "-out", request),
        )
        openssl(
            *("x509", "-req", "-in", request, "-days", days),
            *("-CA", self.cert, "-CAkey", self._key, "-CAcreateserial"),
            *("-extfile", extensions, "-out", cert),
        )


def openssl(*args: object) -> None:
    """Run it; raises subprocess.CalledProcessError."""
    # openssl makes keys with mode 0600 by itself.
    subprocess.run(
        ["openssl", *map(str, args)],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
