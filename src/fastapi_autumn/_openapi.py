"""What a refused call looks like, and how it gets into the OpenAPI document of the routes that can refuse.

A dependency cannot add responses to its route, but one that is a `SecurityBase` adds its name to the operation. The
gate is one, and `document` exchanges that name for the answers: the routes need to repeat nothing.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["GATE_MARK", "RESPONSES", "document"]

GATE_MARK = "AutumnCredits"

_SCHEMA_NAME = "AutumnRefusal"


class _Detail(BaseModel):
    model_config = ConfigDict(extra="allow")

    code: str = Field(description="Stable, for machines.", examples=["insufficient_credits"])
    message: str = Field(description="For people.")


class Refusal(BaseModel):
    """The body of every refusal. `detail` holds more where there is more to say, such as the balance with a 402."""

    detail: _Detail


_DESCRIPTIONS = {
    HTTPStatus.BAD_REQUEST: "`unknown_model`: the model has no price.",
    HTTPStatus.UNAUTHORIZED: "`not_authenticated`: nobody knows who is calling.",
    HTTPStatus.PAYMENT_REQUIRED: (
        "`insufficient_credits`: `detail` also has `model`, `required`, `balance` (`remaining`, `granted`, `usage`, "
        "`next_reset_at`, `unlimited`, `overage_allowed`) and `plans` that would help."
    ),
    HTTPStatus.FORBIDDEN: "`not_entitled`: the plan does not include this call.",
    HTTPStatus.SERVICE_UNAVAILABLE: "`billing_unavailable`: nobody could be asked; see `Retry-After`.",
}

RESPONSES: dict[int | str, dict[str, Any]] = {
    status.value: {"model": Refusal, "description": description} for status, description in _DESCRIPTIONS.items()
}
"""For `responses=` of a router or route, where the document is made without `document`."""


class _Documented(Protocol):
    openapi: Callable[[], dict[str, Any]]


def document(app: _Documented) -> None:
    """Make `app.openapi()` list the gate's refusals on every route that has a gate. Doing it twice does no harm."""
    original = app.openapi

    def openapi() -> dict[str, Any]:
        schema = original()
        _exchange_marks(schema)
        return schema

    app.openapi = openapi


def _exchange_marks(schema: dict[str, Any]) -> None:
    components = schema.get("components", {})
    schemes = components.get("securitySchemes", {})
    if GATE_MARK not in schemes:
        return
    del schemes[GATE_MARK]
    if not schemes:
        del components["securitySchemes"]
    body = Refusal.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = components.setdefault("schemas", {})
    schemas.update(body.pop("$defs"))
    schemas[_SCHEMA_NAME] = body
    for path in schema.get("paths", {}).values():
        for operation in path.values():
            if isinstance(operation, dict):
                _exchange_mark(operation)


def _exchange_mark(operation: dict[str, Any]) -> None:
    required = operation.get("security", [])
    remaining = [requirement for requirement in required if GATE_MARK not in requirement]
    if len(remaining) == len(required):
        return
    if remaining:
        operation["security"] = remaining
    else:
        del operation["security"]
    responses = operation.setdefault("responses", {})
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{_SCHEMA_NAME}"}}}
    for status, description in _DESCRIPTIONS.items():
        responses.setdefault(str(status.value), {"description": description, "content": content})
    responses.setdefault("422", {"description": "The request has no single, plain model."})
