# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
VDSM's HTTP handler, with more paths, and with a store behind OVF_STOREs.

    POST, PUT, GET /ovf-store/...    ours, see port.py
    PUT, GET / of an OVF_STORE       the engine's own, through the store
    all else                         VDSM's own code

For the engine nothing changes but that the answer is true. The body of an
upload is received and checked before VDSM's task begins; the answer waits for
the end of the task; and a download is verified before its first byte.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.plugin import carried, port
from vdsm_ovfstore.plugin.jobs import status
from vdsm_ovfstore.plugin.replace import replace

# VDSM's code for "not yet": recovering from a crash, or initializing.
_RECOVERING = 99

# The engine gives up 20 s after the last byte that came (vdsConnectionTimeout
# is set for the socket, too). Its client takes an interim answer for a sign of
# life; others may take it for the answer, so it comes late, and only if need
# be. In seconds.
_SIGN_OF_LIFE = 10.0
_PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"

# Seconds between two looks if the task has ended without a word: if it was
# stopped before it ran.
_LOOK = 1.0

_PIECE = 256 * 1024


class Target(NamedTuple):
    """What a request of the engine is about; volume is optional there."""

    pool: str
    domain: str
    image: str
    volume: Optional[str]
    path: str


def install(plugin: Any) -> Callable[[], None]:
    """Change VDSM's handler; returns what changes it back."""
    from vdsm.rpc import http

    with contextlib.ExitStack() as stack:
        verbs = (*http.HttpDetector.HTTP_VERBS, b"POST /")
        needed = max(map(len, verbs))
        replace(
            stack.callback,
            http,
            "ImageRequestHandler",
            handler_class(http.ImageRequestHandler, plugin),
        )
        replace(stack.callback, http.HttpDetector, "HTTP_VERBS", verbs)
        replace(stack.callback, http.HttpDetector, "REQUIRED_SIZE", needed)
        carried.wrap(stack.callback, replace)
        return stack.pop_all().close
    raise AssertionError("not reached")


def handler_class(base: Any, plugin: Any) -> Any:
    """VDSM's handler, extended."""

    class Handler(base):  # type: ignore[misc]
        def do_POST(self) -> None:
            if not self._is_ours():
                self.send_error(404, "there is nothing at this path")

        def do_PUT(self) -> None:
            if not self._is_ours() and not self._refuse_early():
                _put(self, plugin, super().do_PUT)

        def do_GET(self) -> None:
            if not self._is_ours() and not self._refuse_early():
                _get(self, plugin, super().do_GET)

        def handle_expect_100(self) -> bool:
            # Ours are told to send when it is known that they may.
            if self.path.startswith(port.PREFIX):
                return True
            return bool(super().handle_expect_100())

        def _is_ours(self) -> bool:
            if not self.path.startswith(port.PREFIX):
                return False
            if not self._refuse_early():
                port.serve(self, plugin.app, plugin.config.server_limits())
            return True

        def _refuse_early(self) -> bool:
            """A host that recovers knows no pool, and would give nonsense."""
            if plugin.ready():
                return False
            message = "Recovering from crash or Initializing"
            answer = {"code": _RECOVERING, "message": message}
            _fail(self, {"status": answer}, 503)
            return True

    return Handler


# -- uploads ------------------------------------------------------------------


def _put(handler: Any, plugin: Any, stock: Callable[[], None]) -> None:
    length = _length(handler.headers.get(handler.HEADER_CONTENT_LENGTH))
    target = _target(handler, plugin, plugin.config.stock.uploads)
    if target is None or length is None:
        return stock()
    body = _Body(handler.rfile, length)
    try:
        volume = plugin.stock.volume(target.path, target.image, target.volume)
        if volume is None:
            return stock()
        upload = plugin.stock.receive(target.path, volume, length, body)
    except errors.TransferIncomplete as e:
        return _fail(handler, status(e), 400)
    except errors.Error as e:
        if body.begun:
            return _fail(handler, status(e))
        # Without a spool it is as safe as it ever was, and no less.
        handler.log.warning("OVF_STORE is written without the store: %s", e)
        return stock()
    timeout = plugin.config.stock.timeout
    with contextlib.closing(upload):
        file = carried.Incoming(upload, plugin.writers, timeout)
        arguments = {"fileObj": file, "length": length}
        image, ended = handler._createImage(), threading.Event()
        response = image.downloadFromStream(
            arguments, ended.set, target.volume
        )
        if response["status"]["code"]:
            return _fail(handler, response)
        task = _Task(plugin, response["uuid"])
        with _signs_of_life(handler):
            task.wait(ended)
        failed = task.failed()
        if failed is not None:
            return _fail(handler, status(file.error) if file.error else failed)
        handler.send_response(200)
        handler.send_header(handler.HEADER_TASK_ID, task.id)
        handler.end_headers()


class _Body:
    """The body of a request, in pieces; begun: some of it was read."""

    def __init__(self, file: Any, length: int) -> None:
        self._file = file
        self._length = length
        self.begun = False

    def __iter__(self) -> Iterator[bytes]:
        done = 0
        while done < self._length:
            self.begun = True
            try:
                data = self._file.read1(min(_PIECE, self._length - done))
                why = "the connection was closed"
            except OSError as e:
                data, why = b"", e.strerror or "nothing came for too long"
            if not data:
                raise errors.TransferIncomplete(
                    done=done,
                    length=self._length,
                    reason=why,
                    stalled=False,
                )
            done += len(data)
            yield data


# -- downloads ----------------------------------------------------------------


def _get(handler: Any, plugin: Any, stock: Callable[[], None]) -> None:
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
        with _signs_of_life(handler):
            download = plugin.stock.read(target.path, volume, length)
    except errors.Error as e:
        return _fail(handler, status(e))
    with contextlib.closing(download):
        file = carried.Outgoing(download, handler.wfile)
        arguments = {"fileObj": file, "length": length}
        image = handler._createImage()
        begin, ended = threading.Event(), threading.Event()
        response = image.uploadToStream(
            arguments, ended.set, begin, target.volume
        )
        if response["status"]["code"]:
            begin.set()
            return _fail(handler, response)
        task = _Task(plugin, response["uuid"])
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
            task.wait(ended)
        if task.failed() is not None:
            # It is too late for words.
            handler.close_connection = True


# -- both ---------------------------------------------------------------------


class _Task:
    """A task of the SPM."""

    def __init__(self, plugin: Any, task_id: str) -> None:
        self._vdsm = plugin.vdsm
        self.id = task_id

    def wait(self, ended: threading.Event) -> None:
        """
        Until it has ended, and VDSM knows it.

        ended is set when its work is done, or has failed; never, if it was
        stopped before it ran.
        """
        while not ended.wait(_LOOK):
            if self._vdsm.task_has_ended(self.id):
                return
        while not self._vdsm.task_has_ended(self.id, _LOOK):
            pass

    def failed(self) -> Optional[dict[str, Any]]:
        """VDSM's answer for one that failed, which is cleared; else None."""
        failed: Optional[dict[str, Any]] = self._vdsm.task_failure(self.id)
        if failed is not None:
            self._vdsm.clear_task(self.id)
        return failed


@contextlib.contextmanager
def _signs_of_life(handler: Any) -> Iterator[None]:
    """Send interim answers, while a peer that knows them waits."""
    over = threading.Event()

    def send() -> None:
        while not over.wait(_SIGN_OF_LIFE):
            try:
                handler.wfile.write(_PROCESSING)
                handler.wfile.flush()
            except (OSError, ValueError):
                return  # the work goes on

    thread = threading.Thread(target=send, name="ovfstore-102", daemon=True)
    if handler.request_version == "HTTP/1.1":
        thread.start()
    try:
        yield
    finally:
        over.set()
        if thread.is_alive():
            thread.join()


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


def _fail(handler: Any, answer: dict[str, Any], code: int = 500) -> None:
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
    _drain(handler)


def _drain(handler: Any) -> None:
    """Take what is still sent, for a moment, so that the answer arrives."""
    deadline = time.monotonic() + 2
    handler.connection.settimeout(0.5)
    with contextlib.suppress(OSError, ValueError):
        while time.monotonic() < deadline and handler.rfile.read1(_PIECE):
            pass
