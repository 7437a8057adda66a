# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What a peer may ask of the server."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """
    Limits of one server. Sizes are in bytes, times in seconds.

    Who is over one of them is told so, where he can still be told.
    """

    # Connections at the same time; each has a thread. The engine has a few
    # per host; transfers are bounded by the service, far below this.
    connections: int = 64

    # Connections that the kernel keeps until there is a thread for them.
    backlog: int = 256

    # The longest path is that of a transfer: some 80 bytes. imageio takes
    # 4096 too.
    request_line: int = 4096

    # What nginx and Apache take are 32 KiB and 8 KiB a line; a client of
    # ours sends less than 1 KiB.
    header_bytes: int = 16 * 1024
    header_fields: int = 64

    # The largest request of a verb is a list of job ids: 40 bytes each.
    rpc_body: int = 1024**2

    # TLS with a peer 300 ms away takes one second.
    handshake: float = 10

    # Without a byte in either direction. The engine's connection with VDSM
    # counts as dead after as long.
    idle: float = 20

    # From the first to the last byte of a request's header. It comes in one
    # packet, unless somebody lets it drip.
    header: float = 30

    # Until the next request on a connection.
    keep_alive: float = 60

    # A body in all: this, and its length at the slowest rate at which a
    # peer may send or take it: a sixteenth of 1 MiB/s, a slow WAN. 128 MiB
    # may take 35 minutes.
    body_time: float = 60
    body_rate: int = 64 * 1024

    # What is still read of a peer that was answered before it sent all:
    # who closes at once lets the kernel reset the connection, and the peer
    # may never see the answer. An archive for a store of the default size.
    linger_bytes: int = 128 * 1024**2
    linger_time: float = 10

    def body_seconds(self, length: int) -> float:
        """How long a body of this many bytes may take."""
        return self.body_time + length / self.body_rate
