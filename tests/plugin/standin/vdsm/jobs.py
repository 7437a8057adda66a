# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
_jobs = {}


class JobNotActive(Exception):
    pass


class AbortNotSupported(Exception):
    pass


class Job:
    _JOB_TYPE = None

    def __init__(self, job_id, description=""):
        self.id = job_id
        self.description = description
        self.deleted = self.told = False

    @property
    def status(self):
        return "pending"

    @property
    def progress(self):
        return None

    @property
    def error(self):
        return None

    def info(self):
        found = {
            "id": self.id,
            "status": self.status,
            "description": self.description,
            "job_type": self._JOB_TYPE,
        }
        if self.progress is not None:
            found["progress"] = self.progress
        if self.error:
            found["error"] = self.error.info()
        return found

    def abort(self):
        raise AbortNotSupported()

    def _autodelete_if_required(self):
        self.deleted = True

    def _send_event(self):
        self.told = True


def add(job):
    _jobs[job.id] = job


def info():
    return {job.id: job.info() for job in _jobs.values()}
