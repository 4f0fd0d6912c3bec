"""The errors that the API answers with: `{message, code, env}` under a status."""

from __future__ import annotations


class ApiError(Exception):
    """An answer of 400 or more. Whatever the request wrote so far is undone unless `keep_writes`."""

    def __init__(self, status: int, code: str, message: str, *, keep_writes: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.keep_writes = keep_writes


def invalid_inputs(*problems: str) -> ApiError:
    """Build the 400 of a request that does not fit its schema; several problems are joined as Autumn joins them."""
    message = problems[0] if len(problems) == 1 else "[Validation Errors] " + "; ".join(problems)
    return ApiError(400, "invalid_inputs", message)


def invalid_request(message: str, *, status: int = 400, keep_writes: bool = False) -> ApiError:
    """Build the error of a request that is well formed and cannot be done."""
    return ApiError(status, "invalid_request", message, keep_writes=keep_writes)


def not_found(kind: str, identifier: object) -> ApiError:
    """Build the 404 for a `customer`, `feature`, `product` or `entity`."""
    return ApiError(404, f"{kind}_not_found", f"{kind.capitalize()} {identifier} not found")


def duplicate_idempotency_key(key: str) -> ApiError:
    """Build the 409 for a key that was used within its 24 hours; the first answer is not replayed."""
    return ApiError(
        409, "duplicate_idempotency_key", f"Another request with idempotency key {key} has already been received"
    )
