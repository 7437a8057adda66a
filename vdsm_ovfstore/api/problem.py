# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
What jsonschema found, in words: one line, bounded, the same for each of its
versions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, NamedTuple, Optional

_SHOWN = 40  # characters of a value in a message: a UUID, and some more

HUGE = 10**_SHOWN  # no integer means more than that it is as large

PARAMETERS = "the parameters"

_GUESS = "; did you mean"

_TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "an integer",
    "null": "null",
    "number": "a number",
    "object": "an object",
    "string": "a string",
}


class Problem(NamedTuple):
    """parameter is the one that is wrong; None when it is about several."""

    text: str
    parameter: Optional[str]


def first(found: Iterable[Any], schema: dict[str, Any]) -> Optional[Problem]:
    """
    Of what is wrong with parameters, what a caller should hear of first.

    An unknown name goes first: it often is a misspelt one, and the reason
    why another is missing. Then in the order of the schema.

    Arguments:
        found: errors of jsonschema, in any order.
        schema: of the parameters.
    """
    names = list(schema["properties"])

    def order(error: Any) -> tuple[int, list[str], str]:
        name = _parameter(error)
        if name is None:
            place = len(names)
        else:
            place = names.index(name) if name in names else -1
        # Items of a list by number, as strings of one length.
        path = [f"{step:>9}" for step in error.absolute_path]
        return place, path, str(error.validator)

    ordered = sorted(found, key=order)
    if not ordered:
        return None
    error = ordered[0]
    text = describe(error, PARAMETERS)
    if error.validator == "additionalProperties" and _GUESS not in text:
        missing = [e for e in ordered if e.validator == "required"]
        text = "; ".join([text, *(describe(e, PARAMETERS) for e in missing)])
    return Problem(text, _parameter(error))


def describe(error: Any, whole: str) -> str:
    """
    One error of jsonschema; whole is how to call all that was checked.
    """
    keyword, value = error.validator, error.validator_value
    if keyword == "oneOf":
        names = [name for one in value for name in one["required"]]
        return f"give exactly one of {' and '.join(names)}"
    if keyword == "not":
        return f"give at most one of {' and '.join(value['required'])}"
    if keyword == "anyOf" and error.context:
        # That alternative is meant which fits best.
        best = max(error.context, key=lambda e: len(e.absolute_path))
        return describe(best, whole)
    where = _where(error.absolute_path)
    if keyword == "additionalProperties":
        name = _unknown(error)
        if whole == PARAMETERS and not where:
            text = f"it takes no parameter {shown(name)}"
        else:
            inside = f" in {where}" if where else ""
            text = f"there is no {shown(name)}{inside}"
        return text + guess(name, error.schema["properties"])
    if keyword == "required":
        name = _missing(error)
        return f"{where}.{name} is missing" if where else f"{name} is missing"
    return f"{where or whole} {_must(error)}"


def shown(value: Any) -> str:
    """A value as it was given, or how it begins; ASCII, one line."""
    if isinstance(value, str):
        begin = _begin(value)
        cut = "..." if len(begin) < len(value) else ""
        return json.dumps(begin) + cut
    if isinstance(value, list):
        return "a list"
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, int) and abs(value) >= HUGE:
        return f"a number of more than {_SHOWN} digits"
    return json.dumps(value)


def guess(name: Any, known: Iterable[str]) -> str:
    """ "; did you mean ...?", if one of the known names is like it."""
    if not isinstance(name, str) or len(name) > _SHOWN:
        return ""
    lower = {one.lower(): one for one in known}
    # Imported here: only who errs needs it.
    import difflib

    like = difflib.get_close_matches(name.lower(), lower, 1)
    return f"{_GUESS} {lower[like[0]]}?" if like else ""


# -- private ------------------------------------------------------------------


def _begin(value: str) -> str:
    """What fits, also where each character is escaped as "\\ud800\\udc00"."""
    length = 0
    for place, character in enumerate(value[:_SHOWN]):
        length += len(json.dumps(character)) - 2
        if length > 2 * _SHOWN:
            return value[:place]
    return value[:_SHOWN]


def _parameter(error: Any) -> Optional[str]:
    if error.absolute_path:
        return str(error.absolute_path[0])
    if error.validator == "additionalProperties":
        return _unknown(error)
    return _missing(error) if error.validator == "required" else None


def _unknown(error: Any) -> str:
    return str(min(set(error.instance) - set(error.schema["properties"])))


def _missing(error: Any) -> str:
    missing = (n for n in error.validator_value if n not in error.instance)
    return str(next(missing))


def _where(path: Iterable[Any]) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.lstrip(".")


def _must(error: Any) -> str:
    """What it must be, and what it is."""
    schema, keyword, value = error.schema, error.validator, error.instance
    if keyword in ("maxItems", "minItems"):
        return f"must have {_range(schema, 'Items')} items, not {len(value)}"
    if "title" in schema and keyword not in ("minimum", "maximum"):
        return f"must be {schema['title']}, not {shown(value)}"
    if keyword in ("maxLength", "minLength"):
        length = _range(schema, "Length")
        return f"must have {length} characters, not {len(value)}"
    if keyword in ("minimum", "maximum"):
        return f"must be {_range(schema, 'imum')}, not {shown(value)}"
    if keyword == "enum":
        known = ", ".join(map(shown, schema["enum"]))
        return f"must be one of {known}, not {shown(value)}"
    if keyword == "type":
        types = schema["type"]
        types = types if isinstance(types, list) else [types]
        wanted = " or ".join(_TYPES[one] for one in types)
        return f"must be {wanted}, not {shown(value)}"
    return f"is {shown(value)}, which is not valid"


def _range(schema: dict[str, Any], what: str) -> str:
    low, high = schema.get(f"min{what}"), schema.get(f"max{what}")
    if high is None:
        return f"at least {low}"
    return f"at most {high}" if low is None else f"{low} to {high}"
