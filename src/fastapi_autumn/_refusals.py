"""Every way in which a call is refused: status, code, message and headers, each counted when it is made.

The body has FastAPI's shape, `{"detail": {"code": ..., "message": ...}}`. `code` is for programs and does not change.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, assert_never

from fastapi import HTTPException, WebSocketException, status
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse

from fastapi_autumn import telemetry
from fastapi_autumn.errors import (
    BudgetExceeded,
    ConfigurationError,
    InsufficientCredits,
    NotEntitled,
    Refused,
    Unbounded,
    UnknownModel,
)
from fastapi_autumn.settlement.replies import Conflict

__all__ = [
    "Dialect",
    "Refusals",
    "RefusedCall",
    "answer",
    "billing_unavailable",
    "body_too_large",
    "conflict",
    "dialect",
    "not_authenticated",
    "on_a_websocket",
    "refusal",
    "refused",
    "worded",
]

_STATUS: dict[type[Refused], HTTPStatus] = {
    UnknownModel: HTTPStatus.BAD_REQUEST,
    Unbounded: HTTPStatus.UNPROCESSABLE_ENTITY,
    InsufficientCredits: HTTPStatus.PAYMENT_REQUIRED,
    BudgetExceeded: HTTPStatus.PAYMENT_REQUIRED,
    NotEntitled: HTTPStatus.FORBIDDEN,
}


@dataclass(frozen=True, slots=True)
class RefusedCall:
    """A call that is refused, for a function that words it."""

    status: int
    code: str
    """Stable, for programs."""
    message: str
    """For people."""
    detail: Mapping[str, Any] = field(default_factory=dict)
    """JSON-ready: `model`, `required`, `balance` and `plans` of a 402, for one."""


Dialect = Callable[[RefusedCall], Any]
"""From a refusal to the JSON that the caller gets."""

Refusals = Literal["openai", "anthropic"] | Dialect
"""How refusals are worded: as the errors of a provider, so that its official client raises its own exceptions, or as a
function says."""

# The longest reason that fits into a WebSocket's closing frame.
_MAX_REASON_BYTES = 123


def refusal(
    status: HTTPStatus, code: str, message: str, *, headers: Mapping[str, str] | None = None, **detail: Any
) -> HTTPException:
    """Return the answer to a call that is refused; `detail` is added to its code and message."""
    telemetry.refusals.add(1, {"code": code})
    return HTTPException(status, {"code": code, "message": message, **detail}, headers=dict(headers or {}))


def not_authenticated() -> HTTPException:
    """Return the 401 for a caller whom nobody has identified."""
    bearer = {"WWW-Authenticate": "Bearer"}
    return refusal(HTTPStatus.UNAUTHORIZED, "not_authenticated", "Authentication required.", headers=bearer)


def body_too_large() -> HTTPException:
    """Return the 413 for a body over `AUTUMN_MAX_BODY_BYTES`."""
    return refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", "The request's body is too large.")


def refused(error: Refused) -> HTTPException:
    """Return the 400, 402, 403 or 422 that tells a caller about `error`."""
    return refusal(_STATUS[type(error)], error.code, error.message, **error.detail)


def billing_unavailable(retry_after: float | None = None) -> HTTPException:
    """Return the 503 for a call about which Autumn said neither yes nor no; `retry_after` is in seconds."""
    return refusal(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "billing_unavailable",
        "The balance could not be checked. Nothing was run; try again.",
        headers={"Retry-After": str(max(1, math.ceil(retry_after or 1)))},
    )


def conflict(found: Conflict) -> HTTPException:
    """Return the 409 or 422 for an attempt that is not served under its caller's `Idempotency-Key`."""
    match found:
        case Conflict.IN_PROGRESS:
            message = "An attempt under this key is still running; try again when it has ended."
            return refusal(HTTPStatus.CONFLICT, found.value, message, headers={"Retry-After": "1"})
        case Conflict.ALREADY_ANSWERED:
            message = "An attempt under this key was answered and charged; another answer needs another key."
            # The official clients of OpenAI and others repeat a 409 by themselves unless they are told not to.
            return refusal(HTTPStatus.CONFLICT, found.value, message, headers={"x-should-retry": "false"})
        case Conflict.OTHER_REQUEST:
            message = "This key was used for another request."
            return refusal(HTTPStatus.UNPROCESSABLE_ENTITY, found.value, message)
        case _:
            assert_never(found)


def answer(error: StarletteHTTPException, dialect: Dialect | None = None) -> JSONResponse:
    """Return the response that FastAPI would make of `error`, for middleware, where FastAPI makes none."""
    if dialect is not None:
        return worded(error, dialect)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


def on_a_websocket(error: StarletteHTTPException | RequestValidationError) -> WebSocketException:
    """Return what closes a WebSocket instead of `error`: 1013, try again later, for a 503, and 1008 for the others."""
    if isinstance(error, RequestValidationError):
        return WebSocketException(status.WS_1008_POLICY_VIOLATION, "invalid_model")
    unavailable = error.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    detail: Any = error.detail
    reason = str(detail["code"] if isinstance(detail, dict) and "code" in detail else detail)
    return WebSocketException(
        status.WS_1013_TRY_AGAIN_LATER if unavailable else status.WS_1008_POLICY_VIOLATION,
        reason.encode()[:_MAX_REASON_BYTES].decode(errors="ignore"),
    )


def dialect(refusals: Refusals) -> Dialect:
    """Return the function that words refusals.

    Raises:
        ConfigurationError: There is no dialect of this name.
    """
    if callable(refusals):
        return refusals
    if refusals not in _DIALECTS:
        raise ConfigurationError(f"refusals={refusals!r} is none of {', '.join(map(repr, _DIALECTS))} and no function.")
    return _DIALECTS[refusals]


def worded(error: StarletteHTTPException | RequestValidationError, dialect: Dialect) -> JSONResponse:
    """Return the answer to a call that is refused with `error`, in a dialect."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        status, headers = int(HTTPStatus.UNPROCESSABLE_ENTITY), None
        told = RefusedCall(status, "invalid_model", f"{where}: {first['msg']}", {"param": where})
    else:
        status, headers = error.status_code, error.headers
        detail: Any = error.detail
        if isinstance(detail, Mapping):
            rest = {name: value for name, value in detail.items() if name not in {"code", "message"}}
            told = RefusedCall(status, str(detail.get("code", "refused")), str(detail.get("message", "")), rest)
        else:
            # What `identify` raised has FastAPI's shape, and nothing but a text.
            told = RefusedCall(status, HTTPStatus(status).name.lower(), str(detail))
    return JSONResponse(dialect(told), status, headers)


_OPENAI_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.PAYMENT_REQUIRED: "insufficient_quota",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.SERVICE_UNAVAILABLE: "server_error",
}
_ANTHROPIC_TYPES = {
    HTTPStatus.UNAUTHORIZED: "authentication_error",
    HTTPStatus.PAYMENT_REQUIRED: "billing_error",
    HTTPStatus.FORBIDDEN: "permission_error",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "request_too_large",
    HTTPStatus.SERVICE_UNAVAILABLE: "overloaded_error",
}


def _as_openai(refusal: RefusedCall) -> dict[str, Any]:
    kind = _OPENAI_TYPES.get(HTTPStatus(refusal.status), "invalid_request_error")
    param = refusal.detail.get("param", "model" if refusal.code == "unknown_model" else None)
    told = {"message": refusal.message, "type": kind, "param": param, "code": refusal.code}
    return {"error": {**refusal.detail, **told}}


def _as_anthropic(refusal: RefusedCall) -> dict[str, Any]:
    kind = _ANTHROPIC_TYPES.get(HTTPStatus(refusal.status), "invalid_request_error")
    return {
        "type": "error",
        "error": {**refusal.detail, "type": kind, "message": refusal.message, "code": refusal.code},
    }


_DIALECTS: dict[str, Dialect] = {"openai": _as_openai, "anthropic": _as_anthropic}
