# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
SPM_ACQUIRED = "SPM"


class DisconnectedPool:
    def is_connected(self):
        return False


class StoragePool:
    def __init__(self, spUUID, poolPath, spmRole="SPM", id=1):
        self.spUUID = spUUID
        self.poolPath = poolPath
        self.spmRole = spmRole
        self.id = id

    def is_connected(self):
        return True
