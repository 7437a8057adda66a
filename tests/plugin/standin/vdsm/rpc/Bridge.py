# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
from vdsm import API
from vdsm.api import vdsmapi

command_info = {"Host_getJobs": {"ret": "jobs"}}


class DynamicBridge:
    def __init__(self):
        self._schema = vdsmapi.Schema((vdsmapi.SchemaType.VDSM_API,), False)

    def _dynamicMethod(self, className, methodName, *args, **kwargs):
        api = getattr(API, className)()
        command = command_info[f"{className}_{methodName}"]
        return command["call"](api, kwargs)
