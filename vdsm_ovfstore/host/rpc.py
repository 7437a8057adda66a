# SPDX-FileCopyrightText: vdsm-ovfstore contributors
# SPDX-License-Identifier: GPL-2.0-or-later

"""JSON-RPC 2.0: one call in, one answer out."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn, Optional, Protocol, Union

from vdsm_ovfstore import errors
from vdsm_ovfstore.api.problem import shown
from vdsm_ovfstore.host import answers
from vdsm_ovfstore.host.exchange import Exchange

NAMESPACE = "OvfStore."

NOT_JSON = -32700
NO_REQUEST = -32600
NO_VERB = -32601
NO_PARAMETERS = -32602

# Parameters are three levels deep at most, and the largest are lists of some
# hundred ids. Without a limit a call of 1 MiB would take 30 MiB, and could
# take the stack from under the parser.
_DEPTH = 16
_VALUES = 10000

# Long enough for every number that is asked for: a size is below 2**63.
# Python needs seconds for a number of a million digits.
_DIGITS = 20

# An id is repeated in the answer and in the log.
_ID_LENGTH = 128

Id = Union[str, int, float, None]


class Service(Protocol):
    """What is called: validates both ways, raises errors.Error."""

    def call(self, verb: str, params: dict[str, Any]) -> dict[str, Any]: ...


class _Call:
    """A call, as far as it was understood."""

    def __init__(self) -> None:
        self.id: Id = None
        self.code: Optional[int] = NO_REQUEST  # of what may now be wrong


def handle(exchange: Exchange, service: Service) -> None:
    """Answer a POST with what the service says. Raises PeerGone."""
    call = _Call()
    try:
        result = _call(call, _receive(exchange), exchange, service)
        answer = {"jsonrpc": "2.0", "id": call.id, "result": result}
        body = answers.encode(answer)
    except Exception as e:
        _send_error(exchange, call, e)
    else:
        exchange.answer(200, body, answers.JSON)


def _send_error(exchange: Exchange, call: _Call, error: Exception) -> None:
    refused = answers.refused(error)
    exchange.problem = answers.clean(str(refused.error))
    code = call.code
    if isinstance(error, errors.ParametersInvalid):
        code = NO_PARAMETERS
    status = 404 if code == NO_VERB else refused.status
    data = answers.document(refused.error)
    message = data.pop("message")
    body = {
        "jsonrpc": "2.0",
        "id": call.id,
        "error": {
            "code": data["code"] if code is None else code,
            "message": message,
            "data": data,
        },
    }
    headers = {**answers.JSON, **refused.headers}
    exchange.answer(status, answers.encode(body), headers)


def _receive(exchange: Exchange) -> bytes:
    limit = exchange.limits.rpc_body
    if exchange.length is None:
        raise answers.Refused(411, "Content-Length is missing")
    if exchange.length > limit:
        raise answers.Refused(
            413, f"a call has {limit} bytes at most, not {exchange.length}"
        )
    if "Content-Encoding" in exchange.headers:
        raise answers.Refused(415, "Content-Encoding is not supported")
    kind = exchange.headers.get("Content-Type") or ""
    if kind.partition(";")[0].strip().lower() != "application/json":
        # A page in a browser can send a few other types without asking.
        raise answers.Refused(415, "Content-Type must be application/json")
    return b"".join(exchange.body())


def _call(
    call: _Call, body: bytes, exchange: Exchange, service: Service
) -> dict[str, Any]:
    call.code = NOT_JSON
    request = parse(body)
    call.code = NO_REQUEST
    if isinstance(request, list):
        _refuse("batches are not supported; send one call at a time")
    if not isinstance(request, dict):
        _refuse("a call is an object")
    call.id = _id(request)
    method = _method(request)
    exchange.subject = answers.clean(method[:64])
    verb = method[len(NAMESPACE) :]
    params = request.get("params", {})
    if not isinstance(params, dict):
        raise errors.ParametersInvalid(
            verb=verb, reason="parameters go by name: params is an object"
        )
    unknown = set(request) - {"jsonrpc", "id", "method", "params"}
    if unknown:
        _refuse(f"a call has no member {shown(min(unknown))}")
    call.code = NO_VERB
    if not method.startswith(NAMESPACE):
        _refuse(f"methods begin with {NAMESPACE!r}, as {NAMESPACE}ping")
    call.code = None  # the error's own
    try:
        return service.call(verb, params)
    except errors.RequestInvalid:
        call.code = NO_VERB
        raise


def _id(request: dict[str, Any]) -> Union[str, int, float]:
    value: Id = request.get("id")
    if value is None:
        _refuse(
            "without an id nobody gets the answer; give a string or a number"
        )
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        _refuse("id is a string or a number")
    if isinstance(value, str) and len(value) > _ID_LENGTH:
        _refuse(f"id has {_ID_LENGTH} characters at most")
    return value


def _method(request: dict[str, Any]) -> str:
    if request.get("jsonrpc") != "2.0":
        _refuse('jsonrpc is "2.0"')
    method = request.get("method")
    if not isinstance(method, str):
        _refuse("method is a string")
    return method


def _refuse(reason: str) -> NoReturn:
    raise errors.RequestInvalid(reason=reason)


# -- JSON ---------------------------------------------------------------------


def parse(body: bytes) -> Any:
    """
    JSON as RFC 8259 has it: UTF-8, no NaN, no name twice, not too deep.

    Raises errors.RequestInvalid.
    """
    try:
        text = body.decode("utf-8")
        _check_shape(text)
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
            parse_float=_number,
        )
        _check_text(value)
    except UnicodeDecodeError:
        _refuse("not UTF-8")
    except UnicodeEncodeError:
        _refuse("a string with half of a surrogate pair")
    except json.JSONDecodeError as e:
        _refuse(f"not JSON: {e.msg}, at character {e.pos}")
    return value


_ESCAPED = re.compile(r"\\.", re.DOTALL)
_MARK = re.compile(r"[\[\]{},:]")


def _check_shape(text: str) -> None:
    """Before it is parsed: not too deep, not too many values."""
    depth = 0
    # Every second part lies outside of strings, once no quote is escaped. If
    # it is no JSON at all, this holds as far as the parser will come.
    outside = "".join(_ESCAPED.sub("", text).split('"')[::2])
    for number, mark in enumerate(_MARK.finditer(outside)):
        if number > _VALUES:
            _refuse(f"more than {_VALUES} values")
        if mark[0] in "[{":
            depth += 1
        elif mark[0] in "]}":
            depth -= 1
        if depth > _DEPTH:
            _refuse(f"nested more than {_DEPTH} levels deep")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            _refuse(f"{name[:64]!r} is given twice")
        found[name] = value
    return found


def _constant(name: str) -> NoReturn:
    _refuse(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS:
        _refuse(f"a number of more than {_DIGITS} digits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        _refuse("a number that is too large")
    return value


def _check_text(value: Any) -> None:
    """Raises UnicodeEncodeError for what cannot be stored or told."""
    if isinstance(value, str):
        value.encode("utf-8")
    elif isinstance(value, list):
        for each in value:
            _check_text(each)
    elif isinstance(value, dict):
        for name, each in value.items():
            _check_text(name)
            _check_text(each)
