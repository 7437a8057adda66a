# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""What the engine is told on VDSM's port, and what keeps it listening."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

# The engine gives up 20 s after the last byte that came (vdsConnectionTimeout
# is set for the socket, too). Twice in that time it gets a sign of life, in
# seconds.
_SIGN_OF_LIFE = 8.0

# The one interim answer that every client passes over, however often it
# comes, asked for or not: Python's http.client takes a 102 for the answer.
_INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"

# What is still read of a peer that was refused, in seconds and bytes: who
# closes at once lets the kernel reset the connection, and the peer may never
# see why.
_LINGER = 2.0
_SILENCE = 0.5
_PIECE = 256 * 1024


def fail(handler: Any, answer: dict[str, Any], code: int = 500) -> None:
    """An answer of VDSM as an error; the engine reads it as JSON only."""
    handler.close_connection = True
    handler.log.error("OVF_STORE request failed: %s", answer["status"])
    body = json.dumps({"status": answer["status"]}).encode("ascii")
    try:
        handler.send_response(code)
        handler.send_header(handler.HEADER_CONTENT_TYPE, "application/json")
        handler.send_header(handler.HEADER_CONTENT_LENGTH, len(body))
        if code == 503:
            handler.send_header("Retry-After", "10")
        handler.end_headers()
        handler.wfile.write(body)
        handler.wfile.flush()
    except OSError as e:
        handler.log.warning("and its peer is gone: %s", e)
    _linger(handler)


@contextlib.contextmanager
def signs_of_life(handler: Any) -> Iterator[None]:
    """Send interim answers while a peer that knows them waits."""
    over = threading.Event()

    def send() -> None:
        while not over.wait(_SIGN_OF_LIFE):
            try:
                handler.wfile.write(_INTERIM)
                handler.wfile.flush()
            except (OSError, ValueError):
                return  # the work goes on

    thread = threading.Thread(target=send, name="ovfstore-100", daemon=True)
    if handler.request_version == "HTTP/1.1":
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.is_alive():
            thread.join()


def _linger(handler: Any) -> None:
    deadline = time.monotonic() + _LINGER
    with contextlib.suppress(OSError, ValueError):
        handler.connection.settimeout(_SILENCE)
        while time.monotonic() < deadline and handler.rfile.read1(_PIECE):
            pass
