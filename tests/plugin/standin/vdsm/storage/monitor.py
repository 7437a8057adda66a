# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
class Status:
    def __init__(self, actual=True, valid=True, host_id=True):
        self._found = actual, valid, host_id

    @property
    def actual(self):
        return self._found[0]

    @property
    def valid(self):
        return self._found[1]

    @property
    def hasHostId(self):
        return self._found[2]


class DomainMonitor:
    def __init__(self):
        self.found = {}

    @property
    def poolDomains(self):
        return list(self.found)

    def getDomainsStatus(self):
        return list(self.found.items())

    def stopMonitoring(self, sdUUIDs):
        for domain in sdUUIDs:
            self.found.pop(domain, None)
