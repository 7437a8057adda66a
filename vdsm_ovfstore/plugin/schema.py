# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The verbs in the words of VDSM's schema (lib/vdsm/api/vdsm-api.yml).

Made from schema/verbs.json. VDSM's words are fewer: what may be one of several
types is anything there. It does not matter: every call and result is checked
by our own definition, and VDSM's schema is not enforced unless [devel]
api_strict_mode is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from vdsm_ovfstore.api.schema import Definition, Schema, Verb

NAMESPACE = "OvfStore"
_ADDED = "4.50"

# VDSM takes what has this default for what may be missing.
_OPTIONAL = "no-default"


class Anything(dict[str, str]):
    """The values of an enum that has them all; VDSM asks "in", no more."""

    def __contains__(self, value: object) -> bool:
        return True


_PRIMITIVE = {
    "string": "string",
    "boolean": "boolean",
    "integer": "int",
    "number": "long",  # takes fractions as well
}


def methods(definition: Definition) -> dict[str, Any]:
    """What is added to Schema._methods."""
    return {
        f"{NAMESPACE}.{verb.name}": _method(verb)
        for verb in definition.verbs.values()
    }


def types(definition: Definition) -> dict[str, Any]:
    """What is added to Schema._types: the result of each verb."""
    return {
        _type_name(verb): _type(verb.result, _type_name(verb))
        for verb in definition.verbs.values()
    }


def _type_name(verb: Verb) -> str:
    return f"{NAMESPACE}{verb.name[0].upper()}{verb.name[1:]}Result"


def _method(verb: Verb) -> dict[str, Any]:
    return {
        "added": _ADDED,
        "description": verb.description,
        "params": list(_properties(verb.params, f"{verb.name}Param")),
        "return": {
            "description": verb.summary,
            "type": _type(verb.result, _type_name(verb)),
        },
    }


def _properties(schema: Schema, prefix: str) -> Iterator[dict[str, Any]]:
    required = schema.get("required", ())
    for name, below in schema.get("properties", {}).items():
        one: dict[str, Any] = {
            "name": name,
            "description": below.get("description", name),
            "type": _type(below, f"{prefix}{name[0].upper()}{name[1:]}"),
        }
        if name not in required or _may_be_null(below):
            one["defaultvalue"] = _OPTIONAL
        yield one


def _may_be_null(schema: Schema) -> bool:
    """VDSM takes null for missing."""
    if any(_may_be_null(one) for one in schema.get("anyOf", ())):
        return True
    return "null" in schema.get("type", ()) or None in schema.get("enum", ())


def _type(schema: Schema, name: str) -> Any:
    kind = schema.get("type")
    if "enum" in schema:
        return _enum(schema, name, {value: value for value in schema["enum"]})
    if kind == "array":
        return [_type(schema["items"], name + "Item")]
    if kind == "object" and "properties" in schema:
        return {
            "name": name,
            "type": "object",
            "description": schema.get("description", name),
            "properties": list(_properties(schema, name)),
        }
    if isinstance(kind, str) and kind in _PRIMITIVE:
        return _PRIMITIVE[kind]
    return _enum(schema, name, Anything())


def _enum(schema: Schema, name: str, values: dict[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "type": "enum",
        "description": schema.get("description", name),
        "values": values,
    }
