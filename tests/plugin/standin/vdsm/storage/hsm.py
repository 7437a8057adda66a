# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
from vdsm.storage import monitor, sp, taskManager


class HSM:
    _pool = sp.DisconnectedPool()

    def __init__(self):
        self.domainMonitor = monitor.DomainMonitor()
        self.taskMng = taskManager.TaskManager()
        # Set by who wants volumes.
        self.make_volume = None

    def createVolume(
        self,
        sdUUID,
        spUUID,
        imgUUID,
        size,
        volFormat,
        preallocate,
        diskType,
        volUUID,
        desc,
        srcImgUUID="",
        srcVolUUID="",
        initialSize=None,
        addBitmaps=False,
        legal=True,
        sequence=0,
        bitmap=None,
    ):
        task = self.taskMng.add(
            lambda: self.make_volume(imgUUID, volUUID, int(size), desc)
        )
        task.run()
        return {"status": {"code": 0, "message": ""}, "uuid": task.id}

    def getTaskStatus(self, taskID):
        pass

    def stopTask(self, taskID):
        pass

    def clearTask(self, taskID):
        pass
