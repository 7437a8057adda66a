# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Where a host is: a unix socket, or a port that speaks TLS."""

from __future__ import annotations

import os
import re
from typing import NamedTuple, Optional, Union

from vdsm_ovfstore import errors

_LOOPBACK = ("localhost", "::1")

# HOST:PORT or [ADDRESS]:PORT, which nobody calls a socket.
_PORT = re.compile(r"[^/\s]+:[0-9]{1,5}")


class Address(NamedTuple):
    """
    path is that of a unix socket; else host and port are set.

    text is what errors show.
    """

    text: str
    path: Optional[str] = None
    host: str = ""
    port: int = 0
    tls: bool = False

    @property
    def authority(self) -> str:
        """The value of the header Host."""
        if self.path is not None:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse(given: Union[str, os.PathLike[str]]) -> Address:
    """
    Take an address apart: PATH, https://HOST:PORT or http://LOOPBACK:PORT.

    Raises errors.UsageError.
    """
    text = os.fspath(given)
    scheme, separator, rest = text.partition("://")
    if not separator:
        if not text or "\0" in text:
            raise _refused(text, "it is neither a path nor a URL")
        if _PORT.fullmatch(text):
            raise _refused(text, f"write it as https://{text}")
        return Address(text, path=text)
    if scheme not in ("http", "https"):
        raise _refused(text, "only https, and http to this host, are spoken")
    host, port = _host_and_port(text, rest[:-1] if rest[-1:] == "/" else rest)
    if scheme == "http" and not _is_loopback(host):
        raise _refused(
            text, "plain http is spoken with this host only; use https"
        )
    return Address(text, host=host, port=port, tls=scheme == "https")


def _host_and_port(text: str, rest: str) -> tuple[str, int]:
    if rest.startswith("["):
        host, separator, port = rest[1:].partition("]:")
    else:
        host, separator, port = rest.rpartition(":")
        if ":" in host:
            raise _refused(text, "write an IPv6 address as [ADDRESS]:PORT")
    if re.match(r"[0-9]+[/?#]", port):
        raise _refused(text, "nothing may follow the port")
    if not host or any(c in "/@?#[]" or c.isspace() for c in host):
        raise _refused(text, "expected https://HOST:PORT")
    if not (separator and port.isascii() and port.isdigit()):
        raise _refused(text, "the port is missing")
    if not 0 < int(port[:6]) < 65536:
        raise _refused(text, "there is no such port")
    return host, int(port)


def _is_loopback(host: str) -> bool:
    if host in _LOOPBACK:
        return True
    parts = host.split(".")
    return (
        len(parts) == 4
        and parts[0] == "127"
        and all(p.isascii() and p.isdigit() for p in parts)
    )


def _refused(text: str, reason: str) -> errors.UsageError:
    return errors.UsageError(reason=f"Host address {text!r}: {reason}")
