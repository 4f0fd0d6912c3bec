"""Which model a request asks for.

What is charged must be what the handler gets, so a body that could be read in two ways is refused, not interpreted.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError

from fastapi_autumn._attempts import is_form
from fastapi_autumn.pricing import CallRequest

__all__ = ["MAX_MODEL_NAME", "checked_model", "model_from_body", "request_of"]

MAX_MODEL_NAME = 256
_BEFORE_JSON = b" \t\r\n\x00\xef\xbb\xbf\xfe\xff"
"""White space, byte order marks, and the zeros of the wider encodings."""


async def model_from_body(request: Request, *, default: str | None = None) -> str:
    """Return the field `model` of the request's body, JSON or form; `default` where it has none.

    Where the route has several body parameters, it is the field of the one that has it. FastAPI keeps the body that it
    has read, so nothing is read twice and the handler's own parameters still work.

    Raises:
        RequestValidationError: The body has no single, plain `model`; FastAPI answers 422.
    """
    if is_form(request):
        if await _looks_like_json(request):
            raise _invalid("value_error", "A form must not look like JSON", at=("body",))
        values: list[Any] = (await request.form()).getlist("model")
    else:
        values = await _values_in_json(request)
    if not values and default is not None:
        return default
    if not values:
        raise _invalid("missing", "Field required")
    if len(values) > 1:
        raise _invalid("value_error", "The field must not be given more than once")
    return checked_model(values[0])


def checked_model(value: object) -> str:
    """Return `value` if it can be a model's name.

    Raises:
        RequestValidationError: It is no string, empty, longer than 256 characters, or has control characters.
    """
    if not isinstance(value, str):
        raise _invalid("string_type", "Input should be a valid string")
    if not value or len(value) > MAX_MODEL_NAME or not value.isprintable():
        raise _invalid("value_error", f"A model's name has 1 to {MAX_MODEL_NAME} printable characters")
    return value


async def _looks_like_json(request: Request) -> bool:
    """Tell whether a handler that reads the bytes of a form could take them for JSON, in any encoding of it."""
    if request.headers["content-type"].lower().startswith("multipart/"):
        return False
    try:
        body = await request.body()
    except RuntimeError:
        # FastAPI has parsed it from the stream, and nobody can read it again.
        return False
    return body.lstrip(_BEFORE_JSON).startswith((b"{", b"["))


async def _values_in_json(request: Request) -> list[Any]:
    body = await request.body()
    try:
        if body.count(b'"model"') == 1 and b"\\u" not in body:
            # The one way to write the key occurs once, so the parse that FastAPI has made of it is unambiguous.
            parsed = await request.json()
            top = list(parsed.items()) if isinstance(parsed, dict) else []
        else:
            pairs = json.loads(body, object_pairs_hook=list)
            top = pairs if _is_object(pairs) else []
    except (ValueError, RecursionError):
        raise _invalid("json_invalid", "JSON decode error", at=("body",)) from None
    return [value for key, value in _fields(request, top) if key == "model"]


def _is_object(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(pair, tuple) for pair in value)


def _fields(request: Request, top: list[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Return the fields that a handler reads: of the body, or of each of several body parameters."""
    parameters = _several_parameters(request)
    if parameters is None:
        yield from top
        return
    for name, value in top:
        if name not in parameters:
            continue
        yield name, value
        if isinstance(value, dict):
            yield from value.items()
        elif value and _is_object(value):
            yield from value


def _several_parameters(request: Request) -> frozenset[str] | None:
    """Return the names of the route's body parameters where FastAPI expects each under its name; None elsewhere."""
    dependant = getattr(request.scope.get("route"), "dependant", None)
    if dependant is None:
        return None
    fields = list(_body_fields(dependant))
    names = frozenset(field.alias for field in fields)
    embedded = len(names) > 1 or any(getattr(field.field_info, "embed", None) for field in fields)
    return names if embedded else None


def _body_fields(dependant: Any) -> Iterator[Any]:
    yield from dependant.body_params
    for inner in dependant.dependencies:
        yield from _body_fields(inner)


async def request_of(request: Request) -> CallRequest:
    """Return what the request says about its call, of all its body parameters together."""
    if is_form(request):
        fields = {name: value for name, value in (await request.form()).items() if isinstance(value, str)}
        return CallRequest(fields, sum(len(value.encode(errors="replace")) for value in fields.values()))
    asked = CallRequest.of(await request.body())
    merged: Mapping[str, Any] = dict(_fields(request, list(asked.body.items())))
    return CallRequest(merged, asked.size)


def _invalid(kind: str, message: str, *, at: tuple[str, ...] = ("body", "model")) -> RequestValidationError:
    # The input is left out on purpose: it is what was wrong, and it may be megabytes.
    return RequestValidationError([{"type": kind, "loc": at, "msg": message, "input": None}])
