# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""Sockets that listen: TCP, and one in the file system."""

from __future__ import annotations

import contextlib
import grp
import ipaddress
import os
import socket
import stat
from typing import NoReturn, Optional, Union

from vdsm_ovfstore import errors

# A host and a port, or the path of a socket.
Address = Union[tuple[str, int], str]

# What they are set with.
_TCP = "[host] address and port"
_LOCAL = "[local] socket"


class Listener:
    """
    A socket that listens.

    Attributes:
        sock: the socket.
        name: where it listens, for the log.
        local: it lies in the file system.
    """

    def __init__(
        self, sock: socket.socket, name: str, path: Optional[str] = None
    ) -> None:
        self.sock = sock
        self.name = name
        self.local = path is not None
        self._path = path
        self._file = _identity(path) if path else None

    @property
    def port(self) -> int:
        """The TCP port; 0 without."""
        return 0 if self.local else int(self.sock.getsockname()[1])

    def close(self) -> None:
        """Stop to listen. Another one's socket of that name stays."""
        self.sock.close()
        if self._path and _identity(self._path) == self._file:
            with contextlib.suppress(OSError):
                os.unlink(self._path)


def tcp(host: str, port: int, backlog: int, plain: bool) -> Listener:
    """
    Listen on an address; "::" takes IPv4 as well.

    Raises:
        errors.AddressUnavailable
        errors.ConfigInvalid: others than this machine could reach a plain
            connection (without TLS).
    """
    name = _name(host, port)
    try:
        family, _, _, _, found = socket.getaddrinfo(
            host,
            port,
            type=socket.SOCK_STREAM,
            flags=socket.AI_PASSIVE,
        )[0]
    except (OSError, UnicodeError) as e:
        _unavailable(name, f"there is no such address: {e}", _TCP)
    if plain and not is_loopback(str(found[0])):
        reason = f"without TLS only loopback addresses are served, not {name}"
        raise errors.ConfigInvalid(path="", reason=reason)
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
    except OSError as e:  # no IPv6 here
        _unavailable(name, e.strerror or str(e), _TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            only = found[0] != "::"
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
        sock.bind(found)
        sock.listen(backlog)
    except OSError as e:
        sock.close()
        _unavailable(name, e.strerror or str(e), _TCP)
    return Listener(sock, _name(host, sock.getsockname()[1]))


def _name(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach an IP address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def unix(
    path: str,
    backlog: int,
    group: Optional[str] = None,
    mode: int = 0o660,
) -> Listener:
    """
    Listen on a socket in the file system.

    group may use it; that of the process by default. A socket that is left
    of a process that died is replaced.

    Raises:
        errors.AddressUnavailable
        errors.ConfigInvalid: no such group, or something is there that is no
            socket.
    """
    gid = _gid(group) if group else -1
    _make_way(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # It is born with this mode; nobody can be quicker than us.
        os.fchmod(sock.fileno(), 0o600)
        sock.bind(path)
        os.chown(path, -1, gid)
        os.chmod(path, mode)
        sock.listen(backlog)
    except OSError as e:
        sock.close()
        _unavailable(path, e.strerror or str(e), _LOCAL)
    return Listener(sock, path, path)


def _gid(group: str) -> int:
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise errors.ConfigInvalid(
            path="", reason=f"[local] group: there is no group {group!r}"
        ) from None


def is_socket(path: str) -> bool:
    """
    False if nothing is there, or nothing that can be looked at.

    Raises errors.ConfigInvalid: what is there is something else.
    """
    try:
        mode = os.lstat(path).st_mode
    except OSError:
        return False
    if not stat.S_ISSOCK(mode):
        raise errors.ConfigInvalid(
            path="", reason=f"[local] socket: {path} is no socket"
        )
    return True


def _make_way(path: str) -> None:
    """Remove a socket on which nobody listens."""
    if not is_socket(path):
        return  # bind() tells of all else
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A full backlog would make us wait.
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except OSError as e:
            if not isinstance(e, BlockingIOError):
                reason = f"cannot tell who listens: {e.strerror or e}"
                _unavailable(path, reason, _LOCAL)
    _unavailable(path, "another process listens there", _LOCAL)


def _identity(path: str) -> Optional[tuple[int, int]]:
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _unavailable(address: str, reason: str, key: str) -> NoReturn:
    raise errors.AddressUnavailable(
        address=address, reason=reason, key=key
    ) from None
