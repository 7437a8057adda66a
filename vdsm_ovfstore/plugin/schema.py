# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The verbs in the words of VDSM's schema (lib/vdsm/api/vdsm-api.yml).

Made from schema/verbs.json. VDSM's words are fewer: what may be one of several
types, or nothing, is left unchecked there ("no-default"). It does not matter:
every call and result is checked by our own definition, and VDSM's schema is
not enforced unless [devel] api_strict_mode is set.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Optional

from vdsm_ovfstore.api.schema import Definition, Schema, Verb

NAMESPACE = "OvfStore"
_ADDED = "4.50"

# VDSM takes a property that has this default for one that may be missing,
# and looks at no value of it.
_UNCHECKED = "no-default"

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
        kind = _type(below, f"{prefix}{name[0].upper()}{name[1:]}")
        one: dict[str, Any] = {
            "name": name,
            "description": below.get("description", name),
            "type": kind or "string",
        }
        if kind is None or name not in required:
            one["defaultvalue"] = _UNCHECKED
        yield one


def _type(schema: Schema, name: str) -> Optional[Any]:
    """None for what VDSM has no words for."""
    if "enum" in schema:
        return {
            "name": name,
            "type": "enum",
            "description": schema.get("description", name),
            "values": {value: value for value in schema["enum"]},
        }
    kind = schema.get("type")
    if kind == "array":
        item = _type(schema["items"], name + "Item")
        return None if item is None else [item]
    if kind == "object":
        if "properties" not in schema:
            return None
        return {
            "name": name,
            "type": "object",
            "description": schema.get("description", name),
            "properties": list(_properties(schema, name)),
        }
    return _PRIMITIVE.get(kind) if isinstance(kind, str) else None
