"""Every way in which a call is refused: status, code, message and headers, each counted when it is made.

The body has FastAPI's shape, `{"detail": {"code": ..., "message": ...}}`. `code` is for programs and does not change.
"""

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, assert_never

from fastapi import HTTPException, WebSocketException, status
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import JSONResponse

from fastapi_autumn import telemetry
from fastapi_autumn.errors import BudgetExceeded, InsufficientCredits, NotEntitled, Refused, Unbounded, UnknownModel
from fastapi_autumn.settlement.replies import Conflict

__all__ = [
    "answer",
    "billing_unavailable",
    "body_too_large",
    "conflict",
    "not_authenticated",
    "on_a_websocket",
    "refusal",
    "refused",
]

_STATUS: dict[type[Refused], HTTPStatus] = {
    UnknownModel: HTTPStatus.BAD_REQUEST,
    Unbounded: HTTPStatus.UNPROCESSABLE_ENTITY,
    InsufficientCredits: HTTPStatus.PAYMENT_REQUIRED,
    BudgetExceeded: HTTPStatus.PAYMENT_REQUIRED,
    NotEntitled: HTTPStatus.FORBIDDEN,
}
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


def answer(error: StarletteHTTPException) -> JSONResponse:
    """Return the response that FastAPI would make of `error`, for middleware, where FastAPI makes none."""
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
