# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
from vdsm.storage.dispatcher import Dispatcher
from vdsm.storage.hsm import HSM


class clientIF:
    _instance = None

    def __init__(self):
        self.irs = Dispatcher(HSM())
        self.recovering = False

    @classmethod
    def getInstance(cls, irs=None, log=None, scheduler=None):
        if cls._instance is None:
            cls._instance = cls()
        return cls._instance

    @property
    def ready(self):
        return not self.recovering

    def start(self):
        pass

    def prepareForShutdown(self):
        pass
