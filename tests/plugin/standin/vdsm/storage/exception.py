# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
class StorageException(Exception):
    code = 200
    expected = False

    def __init__(self, *value):
        self.value = value
