# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The engine's own PUT and GET of an OVF_STORE, through the store.

For the engine nothing changes but that the answer is true. The body of an
upload is received and checked before VDSM's task begins; the answer waits for
the end of the task; and a download is verified before its first byte.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.host.exchange import PeerGone
from vdsm_ovfstore.host.limits import Limits
from vdsm_ovfstore.plugin import answers, carried
from vdsm_ovfstore.plugin.jobs import status
from vdsm_ovfstore.plugin.port import Stream
from vdsm_ovfstore.plugin.vdsm import Begun

# Seconds between two looks if the task has ended without a word: if it was
# stopped before it ran.
_LOOK = 1.0

# Seconds for the end of a task that VDSM does not know any more.
_FORGOTTEN = 10.0

_PIECE = 256 * 1024


class Target(NamedTuple):
    """What a request of the engine is about; volume is optional there."""

    pool: str
    domain: str
    image: str
    volume: Optional[str]
    path: str


# -- uploads ------------------------------------------------------------------


def put(handler: Any, plugin: Any, stock: Callable[[], None]) -> None:
    """Answer a PUT; stock is VDSM's own way."""
    length = _length(handler.headers.get(handler.HEADER_CONTENT_LENGTH))
    target = _target(handler, plugin, plugin.config.stock.uploads)
    if target is None or length is None:
        return stock()
    body = _Body(handler, length, plugin.config.server_limits())
    try:
        volume = plugin.stock.volume(target.path, target.image, target.volume)
        if volume is None:
            return stock()
        with answers.signs_of_life(handler):
            upload = plugin.stock.receive(target.path, volume, length, body)
    except errors.TransferIncomplete as e:
        return answers.fail(handler, status(e), 400)
    except errors.Error as e:
        if body.begun:
            return answers.fail(handler, status(e))
        # Without a spool it is as safe as it ever was, and no less.
        handler.log.warning("OVF_STORE is written without the store: %s", e)
        return stock()
    timeout = plugin.config.stock.timeout
    with contextlib.closing(upload):
        file = carried.Incoming(upload, plugin.writers, timeout)
        arguments = {"fileObj": file, "length": length}
        ended = threading.Event()
        with answers.signs_of_life(handler):
            response = handler._createImage().downloadFromStream(
                arguments, ended.set, target.volume
            )
            if not response["status"]["code"]:
                try:
                    task = plugin.vdsm.begun(response["uuid"])
                except errors.Error as e:
                    upload.abort(force=True)
                    ended.wait(_FORGOTTEN)
                    return answers.fail(handler, status(e))
                _wait(task, ended)
                response = _result(task, file.error)
        if response["status"]["code"]:
            return answers.fail(handler, response)
        handler.send_response(200)
        handler.send_header(handler.HEADER_TASK_ID, task.id)
        handler.end_headers()


class _Body:
    """The body of a request, in pieces; begun: some of it was read."""

    def __init__(self, handler: Any, length: int, limits: Limits) -> None:
        self._handler = handler
        self._length = length
        self._limits = limits
        self.begun = False

    def __iter__(self) -> Iterator[bytes]:
        deadline = time.monotonic() + self._limits.body_seconds(self._length)
        buffer = memoryview(bytearray(_PIECE))
        done = 0
        with _stream(self._handler, self._limits) as stream:
            while done < self._length:
                self.begun = True
                wanted = min(_PIECE, self._length - done)
                try:
                    got = stream.read_into(buffer[:wanted], deadline)
                    reason, stalled = "the connection was closed", False
                except PeerGone as e:
                    got, reason, stalled = 0, e.reason, e.stalled
                if not got:
                    raise errors.TransferIncomplete(
                        done=done,
                        length=self._length,
                        reason=reason,
                        stalled=stalled,
                    )
                done += got
                yield bytes(buffer[:got])


# -- downloads ----------------------------------------------------------------


def get(handler: Any, plugin: Any, stock: Callable[[], None]) -> None:
    """Answer a GET; stock is VDSM's own way."""
    target = _target(handler, plugin, plugin.config.stock.downloads)
    try:
        length = handler._getLength()
    except Exception:
        return stock()  # which says what is wrong
    if target is None:
        return stock()
    try:
        volume = plugin.stock.volume(target.path, target.image, target.volume)
        if volume is None:
            return stock()
        with answers.signs_of_life(handler):
            download = plugin.stock.read(target.path, volume, length)
    except errors.Error as e:
        return answers.fail(handler, status(e))
    limits = plugin.config.server_limits()
    with contextlib.closing(download), _stream(handler, limits) as stream:
        deadline = time.monotonic() + limits.body_seconds(length)
        file = carried.Outgoing(
            download, lambda data: stream.send(data, deadline)
        )
        arguments = {"fileObj": file, "length": length}
        begin, ended = threading.Event(), threading.Event()
        response = handler._createImage().uploadToStream(
            arguments, ended.set, begin, target.volume
        )
        if response["status"]["code"]:
            begin.set()
            return answers.fail(handler, response)
        try:
            task = plugin.vdsm.begun(response["uuid"])
        except errors.Error as e:
            file.cancel()
            begin.set()
            ended.wait(_FORGOTTEN)
            return answers.fail(handler, status(e))
        try:
            handler.send_response(206)
            kind = "application/octet-stream"
            handler.send_header(handler.HEADER_CONTENT_TYPE, kind)
            handler.send_header(handler.HEADER_CONTENT_LENGTH, length)
            span = f"bytes 0-{length - 1}"
            handler.send_header(handler.HEADER_CONTENT_RANGE, span)
            handler.send_header(handler.HEADER_TASK_ID, task.id)
            handler.end_headers()
        finally:
            # The task waits for that, for ever.
            begin.set()
        _wait(task, ended)
        if _result(task)["status"]["code"]:
            # It is too late for words.
            handler.close_connection = True


# -- both ---------------------------------------------------------------------


def _wait(task: Begun, ended: threading.Event) -> None:
    """
    Until a task has ended, and VDSM knows it.

    ended is set when its work is done, or has failed; never, if it was
    stopped before it ran.
    """
    while not ended.wait(_LOOK):
        if task.has_ended():
            return
    while not task.has_ended(_LOOK):
        pass


def _result(
    task: Begun, error: Optional[errors.Error] = None
) -> dict[str, Any]:
    """
    VDSM's answer about a task that has ended; one that failed is cleared.

    error is ours, if we know why: VDSM has it as the words of an exception.
    """
    failed = task.failure()
    if failed is None:
        return {"status": {"code": 0, "message": "Done"}}
    task.clear()
    return failed if error is None else status(error)


@contextlib.contextmanager
def _stream(handler: Any, limits: Limits) -> Iterator[Stream]:
    """The connection, with limits of its own as long as this lasts."""
    try:
        yield Stream(handler, limits.idle)
    finally:
        with contextlib.suppress(OSError):  # it is gone
            handler.connection.settimeout(handler.timeout)


def _target(handler: Any, plugin: Any, wanted: bool) -> Optional[Target]:
    """What the store may be asked about; None: it is VDSM's alone."""
    get = handler.headers.get
    pool, domain = get(handler.HEADER_POOL), get(handler.HEADER_DOMAIN)
    image = get(handler.HEADER_IMAGE)
    if not (wanted and pool and domain and image):
        return None
    found = plugin.vdsm.pool()
    # Another host than the SPM is told so by VDSM.
    if found is None or found.id != pool or not found.spm:
        return None
    if domain not in plugin.vdsm.domains():
        return None
    path = plugin.vdsm.domain_path(pool, domain)
    if path is None:
        return None
    return Target(pool, domain, image, get(handler.HEADER_VOLUME), path)


def _length(value: Optional[str]) -> Optional[int]:
    if value is None or not value.isascii() or not value.isdigit():
        return None
    return int(value) if len(value) < 19 else None
