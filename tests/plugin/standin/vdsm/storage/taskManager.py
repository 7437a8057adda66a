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
        return self.tasks[taskID].deprecated_getStatus()
