# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
# What came through to VDSM's own code: (arguments, image, body).
copied = []


class Image:
    def __init__(self, repoPath):
        self.repoPath = repoPath

    def copyToImage(self, methodArgs, sdUUID, imgUUID, volUUID=None):
        data = methodArgs["fileObj"].read(methodArgs["length"])
        copied.append((sdUUID, imgUUID, volUUID, data))

    def copyFromImage(self, methodArgs, sdUUID, imgUUID, volUUID):
        methodArgs["fileObj"].write(bytes(methodArgs["length"]))
