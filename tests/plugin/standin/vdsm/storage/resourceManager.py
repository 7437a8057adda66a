# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
EXCLUSIVE, SHARED = "exclusive", "shared"

held = {}


class RequestTimedOutError(Exception):
    pass


class _Held:
    def __init__(self, name):
        self._name = name

    def release(self):
        del held[self._name]


def acquireResource(namespace, name, lockType, timeout=None):
    if (namespace, name) in held:
        raise RequestTimedOutError()
    held[namespace, name] = lockType
    return _Held((namespace, name))


def getNamespace(*args):
    return "_".join(args)
