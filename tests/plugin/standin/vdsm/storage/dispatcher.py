# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
class Dispatcher:
    def __init__(self, obj):
        self._obj = obj

    def createVolume(self, *args):
        return self._obj.createVolume(*args)

    def getTaskStatus(self, task):
        status = self._obj.taskMng.getTaskStatus(task)
        return {"status": {"code": 0, "message": ""}, "taskStatus": status}

    def stopTask(self, task):
        self._obj.taskMng._getTask(task).stop()

    def clearTask(self, task):
        self._obj.taskMng.tasks.pop(task, None)
