# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
import threading

from vdsm.clientIF import clientIF
from vdsm.storage import image


class APIBase:
    ctorArgs = []

    def __init__(self):
        self._cif = clientIF.getInstance()
        self._irs = self._cif.irs


class Image(APIBase):
    def __init__(self, UUID, spUUID, sdUUID):
        APIBase.__init__(self)
        self._image, self._pool, self._domain = UUID, spUUID, sdUUID

    def downloadFromStream(self, methodArgs, callback, volUUID=None):
        def work():
            try:
                found = image.Image(self._irs._obj._pool.poolPath)
                found.copyToImage(
                    methodArgs, self._domain, self._image, volUUID
                )
            finally:
                callback()

        return self._schedule(work)

    def uploadToStream(self, methodArgs, callback, startEvent, volUUID=None):
        def work():
            startEvent.wait()
            try:
                found = image.Image(self._irs._obj._pool.poolPath)
                found.copyFromImage(
                    methodArgs, self._domain, self._image, volUUID
                )
            finally:
                callback()

        return self._schedule(work)

    def _schedule(self, work):
        if self._irs._obj._pool.spmRole != "SPM":
            return {"status": {"code": 654, "message": "Not SPM"}}
        task = self._irs._obj.taskMng.add(work)
        threading.Thread(target=task.run, daemon=True).start()
        return {"status": {"code": 0, "message": "OK"}, "uuid": task.id}
