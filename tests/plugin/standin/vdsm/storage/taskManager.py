# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
from vdsm.storage.task import Task


class TaskManager:
    def __init__(self):
        self.tasks = {}

    def add(self, work):
        task = Task(work)
        self.tasks[task.id] = task
        return task

    def _getTask(self, taskID):
        return self.tasks[taskID]

    def getTaskStatus(self, taskID):
        task = self.tasks[taskID]
        code, message = task.error or (0, "")
        return {
            "taskState": "finished" if task.wait(0) else "running",
            "taskResult": "cleanSuccess" if task.error else "success",
            "code": code,
            "message": message,
        }
