# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later
import enum


class SchemaType(enum.Enum):
    VDSM_API = "vdsm-api"
    VDSM_EVENTS = "vdsm-events"


class Schema:
    def __init__(self, schema_types, strict_mode):
        self._strict_mode = strict_mode
        self._methods = {}
        self._types = {}
        if SchemaType.VDSM_API in schema_types:
            self._methods.update({"Host.ping2": {}})
