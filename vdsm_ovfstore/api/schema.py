# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""
The verbs, as schema/verbs.json defines them, and the check of what is asked
and answered against it.

jsonschema finds what is wrong; the words are ours (in problem.py), for its
own differ from version to version and repeat whatever they were given.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Optional

from vdsm_ovfstore import errors
from vdsm_ovfstore.api import problem

Schema = dict[str, Any]

_FILE = os.path.join("schema", "verbs.json")
_SHARED = os.path.join("share", "vdsm-ovfstore", _FILE)

# Items of an array that are looked at: more than any parameter takes, so
# that the array is found too long.
_ITEMS = 1000


class Verb(NamedTuple):
    """
    One verb.

    params, result, job_result and upload_result are schemas, without
    references. job_result is what the job answers that the verb starts,
    upload_result the PUT. errors are names of classes in errors.py.
    """

    name: str
    summary: str
    description: str
    params: Schema
    result: Schema
    job_result: Optional[Schema]
    upload_result: Optional[Schema]
    errors: tuple[str, ...]
    example: dict[str, Any]

    @property
    def job(self) -> bool:
        """Whether it answers with a job, which goes on afterwards."""
        return self.job_result is not None


class Definition:
    """
    All verbs. Several threads may use one.

    Arguments:
        document: what schema/verbs.json holds.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        definitions = document["definitions"]
        self.verbs: dict[str, Verb] = {
            name: _verb(name, fields, definitions)
            for name, fields in document["verbs"].items()
        }
        self._validators: dict[tuple[str, str], Any] = {}

    @classmethod
    def load(cls) -> Definition:
        """
        Raises errors.Error: the file is not there, or cannot be read.
        """
        path = find()
        try:
            with open(path, encoding="utf-8") as f:
                return cls(json.load(f))
        except (OSError, ValueError) as e:
            raise errors.Error(reason=f"Cannot read {path}: {e}") from None

    def check_params(self, verb: str, params: Any) -> dict[str, Any]:
        """
        The parameters with the defaults of those that were left out.

        Raises:
            errors.RequestInvalid: there is no such verb.
            errors.ParametersInvalid: says which one is wrong; of several,
                the first in the order of the definition.
        """
        schema = self._known(verb).params
        if not isinstance(params, dict):
            reason = (
                f"parameters are given by name, in an object, not as "
                f"{problem.shown(params)}"
            )
            raise errors.ParametersInvalid(
                verb=verb, reason=reason, parameter=None
            )
        # No parameter has more than one level below it. What is deeper is
        # wrong whatever it holds, and need not be walked, or printed.
        outline = {name: _outlined(value) for name, value in params.items()}
        found = problem.first(self._errors(verb, "params", outline), schema)
        if found is not None:
            raise errors.ParametersInvalid(
                verb=verb, reason=found.text, parameter=found.parameter
            )
        defaults = {
            name: below["default"]
            for name, below in schema["properties"].items()
            if "default" in below
        }
        return {**defaults, **params}

    def check_result(self, verb: str, result: Any) -> None:
        """Raises errors.Unexpected: it is not what the verb answers."""
        self._check(verb, "result", result)

    def check_job_result(self, verb: str, result: Any) -> None:
        """Raises errors.Unexpected: not what the job of the verb answers."""
        self._check(verb, "job_result", result)

    def check_upload_result(self, verb: str, result: Any) -> None:
        """Raises errors.Unexpected: not what the PUT answers."""
        self._check(verb, "upload_result", result)

    # -- private --------------------------------------------------------------

    def _known(self, verb: Any) -> Verb:
        if isinstance(verb, str) and verb in self.verbs:
            return self.verbs[verb]
        reason = f"there is no verb {problem.shown(verb)}"
        raise errors.RequestInvalid(
            reason=reason + problem.guess(verb, self.verbs)
        )

    def _check(self, verb: str, part: str, result: Any) -> None:
        self._known(verb)
        error = next(self._errors(verb, part, result), None)
        if error is not None:
            raise errors.Unexpected(
                kind=f"{part.replace('_', ' ')} of {verb}",
                reason=problem.describe(error, "it"),
            )

    def _errors(self, verb: str, part: str, instance: Any) -> Iterator[Any]:
        key = (verb, part)
        if key not in self._validators:
            # Made when first used: jsonschema takes 50 ms to import. Two
            # threads may both make it; either will do.
            schema = getattr(self.verbs[verb], part)
            if schema is None:
                raise ValueError(f"{verb} has no {part}")
            self._validators[key] = _validator(schema)
        found: Iterator[Any] = self._validators[key].iter_errors(instance)
        return found


def find() -> str:
    """
    The path of schema/verbs.json: in a checkout, or where it is installed.

    Raises errors.Error: it is in neither place.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    above = os.path.dirname(package)
    places = [
        os.path.join(above, _FILE),
        # PREFIX of PREFIX/lib/python3.X/site-packages, wherever that is.
        os.path.join(
            os.path.dirname(os.path.dirname(os.path.dirname(above))), _SHARED
        ),
        os.path.join("/usr", _SHARED),
    ]
    for path in places:
        if os.path.isfile(path):
            return path
    raise errors.Error(
        reason="The definition of the verbs is not installed; it is none of "
        + ", ".join(places)
    )


def _verb(name: str, fields: Schema, definitions: Schema) -> Verb:
    def schema(part: str) -> Any:
        return _expanded(fields.get(part), definitions)

    return Verb(
        name=name,
        summary=fields["summary"],
        description=fields["description"],
        params=schema("params"),
        result=schema("result"),
        job_result=schema("job_result"),
        upload_result=schema("upload_result"),
        errors=tuple(fields["errors"]),
        example=fields["example"],
    )


def _expanded(node: Any, definitions: Schema) -> Any:
    """
    A schema with what it refers to in the place of references.

    jsonschema resolves references with state that threads must not share
    (3.2), in another way in each of its versions, and needs a fifth to twice
    as long for it. What stands beside a reference describes this use of it.
    """
    if isinstance(node, list):
        return [_expanded(below, definitions) for below in node]
    if not isinstance(node, dict):
        return node
    plain = {
        key: _expanded(below, definitions)
        for key, below in node.items()
        if key != "$ref"
    }
    if "$ref" not in node:
        return plain
    name = node["$ref"].rpartition("/")[2]
    return {**_expanded(definitions[name], definitions), **plain}


def _validator(schema: Schema) -> Any:
    try:
        import jsonschema
    except ImportError:
        raise errors.PackageMissing(
            python=sys.executable,
            module="jsonschema",
            package="python3-jsonschema",
        ) from None
    base = jsonschema.Draft7Validator
    types = base.TYPE_CHECKER.redefine_many(
        {"integer": _is_integer, "number": _is_number}
    )
    return jsonschema.validators.extend(base, type_checker=types)(schema)


def _is_integer(checker: Any, value: Any) -> bool:
    """Draft 7 takes 1.0 for one; those who use it would not."""
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(checker: Any, value: Any) -> bool:
    """NaN, which Python's json reads, is within any range."""
    if isinstance(value, float):
        return math.isfinite(value)
    return _is_integer(checker, value)


def _outlined(value: Any) -> Any:
    if isinstance(value, list):
        return [_leaf(item) for item in value[:_ITEMS]]
    return _leaf(value)


def _leaf(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        return type(value)()
    # Python refuses to print very long integers; jsonschema prints what is
    # out of range.
    too_long = isinstance(value, int) and abs(value) > problem.HUGE
    return problem.HUGE if too_long else value
