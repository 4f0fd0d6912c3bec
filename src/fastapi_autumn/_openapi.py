"""What a refused call looks like, and how it gets into the OpenAPI document of the routes that can refuse.

A dependency cannot add responses to its route. `document` looks for the routes that depend on a gate, each time the
application makes its document, and adds the answers there: the routes need to repeat nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from http import HTTPStatus
from typing import Any, Protocol

import fastapi.routing
from pydantic import BaseModel, ConfigDict, Field
from starlette.routing import Mount

__all__ = ["RESPONSES", "Documented", "document"]


class Documented:
    """A dependency whose routes answer with `RESPONSES` besides their own."""


class RefusalDetail(BaseModel):
    """Why a call was refused."""

    model_config = ConfigDict(extra="allow")

    code: str = Field(description="Stable, for programs.", examples=["unknown_model"])
    message: str = Field(description="For people.")


class Refusal(BaseModel):
    """The body of every refusal."""

    detail: RefusalDetail


class ShownBalance(BaseModel):
    """What a customer has, in units of the feature; amounts are exact numbers."""

    feature_id: str
    remaining: float
    granted: float
    usage: float
    next_reset_at: int | None = Field(description="Milliseconds since 1970.")
    unlimited: bool
    overage_allowed: bool


class ShownPlan(BaseModel):
    """A plan that would help."""

    id: str | None
    name: str | None
    add_on: bool


class InsufficientCreditsDetail(RefusalDetail):
    """What a call would have cost, and what there is."""

    code: str = Field(description="Stable, for programs.", examples=["insufficient_credits"])
    model: str
    required: float = Field(description="What the call costs, in credits.")
    estimate: dict[str, Any] | None = Field(
        None, description="What `required` is, where the price depends on the use: `of`, and the most that it may use."
    )
    balance: ShownBalance | None
    plans: list[ShownPlan]


class InsufficientCreditsRefusal(BaseModel):
    """The body of a 402."""

    detail: InsufficientCreditsDetail


_DESCRIPTIONS = {
    HTTPStatus.BAD_REQUEST: "`unknown_model`: the model has no price.",
    HTTPStatus.UNAUTHORIZED: "`not_authenticated`: the caller has not been identified.",
    HTTPStatus.PAYMENT_REQUIRED: "`insufficient_credits`: the balance does not cover this call.",
    HTTPStatus.FORBIDDEN: "`not_entitled`: the plan does not include this call.",
    HTTPStatus.CONFLICT: (
        "`in_progress` or `already_answered`: what became of an earlier attempt under the same `Idempotency-Key`."
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "`body_too_large`: the request's body is larger than the service allows.",
    HTTPStatus.SERVICE_UNAVAILABLE: "`billing_unavailable`: the balance could not be checked; see `Retry-After`.",
}
_MODELS: dict[HTTPStatus, type[BaseModel]] = {HTTPStatus.PAYMENT_REQUIRED: InsufficientCreditsRefusal}

RESPONSES: dict[int | str, dict[str, Any]] = {
    status.value: {"model": _MODELS.get(status, Refusal), "description": description}
    for status, description in _DESCRIPTIONS.items()
}
"""For `responses=` of a router or route, where the document is made without `document`."""

_SCHEMA_REFERENCE = "#/components/schemas/{model}"
_INVALID_MODEL = {
    "description": "The request has no single, plain model, or its `Idempotency-Key` belongs to another request."
}
_CREDIT_HEADERS = {
    "Autumn-Credits-Charged": {
        "description": "What was taken for the call before it ran, in credits.",
        "schema": {"type": "number"},
    },
    "Autumn-Credits-Remaining": {
        "description": "What the customer had left then, in credits. Missing when that is unlimited or unknown.",
        "schema": {"type": "number"},
    },
}


class _Application(Protocol):
    openapi: Callable[[], dict[str, Any]]


def document(app: _Application, *, reworded: bool = False) -> None:
    """Make `app.openapi()`, and that of mounted applications, list what gates answer. Doing it twice does no harm.

    `reworded` leaves the bodies out: they are in a dialect of the application's choice.
    A running application is documented by itself; a script that exports the document has to call this before.
    """
    if getattr(app.openapi, "lists_refusals", False):
        return
    original = app.openapi

    def openapi() -> dict[str, Any]:
        schema = original()
        _add_refusals(schema, getattr(app, "routes", ()), reworded=reworded)
        return schema

    openapi.lists_refusals = True  # type: ignore[attr-defined]
    app.openapi = openapi
    for route in getattr(app, "routes", ()):
        if isinstance(route, Mount) and hasattr(route.app, "openapi"):
            document(route.app, reworded=reworded)


def _add_refusals(schema: dict[str, Any], routes: Iterable[Any], *, reworded: bool) -> None:
    operations = list(_gated_operations(schema, routes))
    for operation in operations:
        responses = operation.setdefault("responses", {})
        for status, response in responses.items():
            if status.startswith("2"):
                response.setdefault("headers", {}).update(_CREDIT_HEADERS)
        for status, description in _DESCRIPTIONS.items():
            reference = _SCHEMA_REFERENCE.format(model=_MODELS.get(status, Refusal).__name__)
            content: dict[str, Any] = {"application/json": {} if reworded else {"schema": {"$ref": reference}}}
            responses.setdefault(str(status.value), {"description": description, "content": content})
        responses.setdefault("422", _INVALID_MODEL)
    if operations and not reworded:
        schemas = schema.setdefault("components", {}).setdefault("schemas", {})
        models: list[type[BaseModel]] = [Refusal, *_MODELS.values()]
        for model in models:
            own = model.model_json_schema(ref_template=_SCHEMA_REFERENCE)
            for name, definition in {**own.pop("$defs"), model.__name__: own}.items():
                # An application may have used RESPONSES on some routes, and has the same schemas then.
                schemas.setdefault(name, definition)


def _gated_operations(schema: dict[str, Any], routes: Iterable[Any]) -> Iterator[dict[str, Any]]:
    # Since 0.137, FastAPI keeps included routers apart and has a function that flattens them.
    flat = getattr(fastapi.routing, "iter_route_contexts", iter)
    for route in flat(routes):
        if _is_gated(getattr(route, "dependant", None)):
            path = schema.get("paths", {}).get(route.path_format, {})
            # A WebSocket's route has no methods, and is not in the document.
            for method in getattr(route, "methods", None) or ():
                if method.lower() in path:
                    yield path[method.lower()]


def _is_gated(dependant: Any) -> bool:
    return dependant is not None and any(
        isinstance(dependency.call, Documented) or _is_gated(dependency) for dependency in dependant.dependencies
    )
