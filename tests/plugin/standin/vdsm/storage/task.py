# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
import contextlib
import threading
import uuid

from vdsm.common.threadlocal import vars
from vdsm.storage import exception as se


class Task:
    def __init__(self, work):
        self.id = str(uuid.uuid4())
        self._work = work
        self._done = threading.Event()
        self._callbacks = []
        self.error = None

    def run(self):
        vars.task = self
        try:
            self._work()
        except se.StorageException as e:
            self.error = (e.code, f"value={e}")
        except Exception as e:
            self.error = (100, str(e))
        self._done.set()

    def wait(self, timeout=None):
        return self._done.wait(timeout)

    def deprecated_getStatus(self):
        code, message = self.error or (0, "")
        return {
            "taskState": "finished" if self.wait(0) else "running",
            "taskResult": "cleanSuccess" if self.error else "success",
            "code": code,
            "message": message,
        }

    @contextlib.contextmanager
    def abort_callback(self, callback):
        self._callbacks.append(callback)
        try:
            yield
        finally:
            self._callbacks.remove(callback)

    def stop(self):
        for callback in list(self._callbacks):
            callback()
