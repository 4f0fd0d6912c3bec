"""Every error this package raises.

The bases are cut by what a caller can do about it::

    AutumnError
    ├── ConfigurationError          fix the set-up; raised at start-up, never while serving
    │   ├── PriceListError          a price that is not a positive, finite amount
    │   └── CatalogError            a feature, item or plan that Autumn would refuse
    ├── AmountError                 an amount of credits that must not reach Autumn (also a ValueError)
    ├── Refused                     this customer may not make this call; `code`, `detail`
    │   ├── InsufficientCredits     the balance does not cover it
    │   ├── UnknownModel            the price list does not have the model
    │   └── NotEntitled             the customer's plan does not include it
    ├── RequestRejected             4xx: Autumn said no; `status`, `code`, `message`
    │   ├── CustomerNotFound        404 customer_not_found
    │   ├── LockAlreadyExists       409 lock_already_exists: the hold is there
    │   └── DuplicateRequest        409 duplicate_idempotency_key: this key was used before
    └── Unavailable                 neither a yes nor a no
        ├── NotSent                 nothing reached Autumn; safe to repeat
        │   ├── ConnectFailed       refused, unresolved, no TLS
        │   └── Overloaded          the limit on concurrent calls, or the circuit breaker
        ├── RateLimited             429; not done; `retry_after`
        └── Uncertain               may have happened
            ├── NoAnswer            timed out or dropped after the request may have left
            ├── ServerFailure       5xx; `retry_after` where Autumn gave one
            ├── NotVerified         202: Autumn failed open
            └── UnexpectedAnswer    an answer that does not have the documented shape
"""

from typing import Any

__all__ = [
    "AmountError",
    "AutumnError",
    "CatalogError",
    "ConfigurationError",
    "ConnectFailed",
    "CustomerNotFound",
    "DuplicateRequest",
    "InsufficientCredits",
    "LockAlreadyExists",
    "NoAnswer",
    "NotEntitled",
    "NotSent",
    "NotVerified",
    "Overloaded",
    "PriceListError",
    "RateLimited",
    "Refused",
    "RequestRejected",
    "ServerFailure",
    "Unavailable",
    "Uncertain",
    "UnexpectedAnswer",
    "UnknownModel",
    "rejection",
]


class AutumnError(Exception):
    """Base of every error of this package."""


class ConfigurationError(AutumnError):
    """The set-up is wrong; the message says what to change."""


class PriceListError(ConfigurationError):
    """A price list that cannot be charged from; the message names the file and the line where there is one."""


class CatalogError(ConfigurationError):
    """A feature, item or plan that Autumn would refuse; the message names it and says what to write."""


class AmountError(AutumnError, ValueError):
    """An amount of credits that must not reach Autumn: negative, zero, not finite, too large or not a number."""


class Refused(AutumnError):
    """A customer may not make a call.

    `code` is stable and for machines. `detail` is JSON-ready and holds what the customer should be told besides, such
    as the remaining balance; it never holds anything internal.
    """

    code = "refused"

    def __init__(self, message: str, **detail: Any) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class InsufficientCredits(Refused):
    """The balance does not cover the call. `detail` has `model`, `required`, `balance` and, if asked for, `plans`."""

    code = "insufficient_credits"


class UnknownModel(Refused):
    """The price list does not have the model, so nobody knows what to charge."""

    code = "unknown_model"


class NotEntitled(Refused):
    """The customer's plan does not include this call, whatever the balance is."""

    code = "not_entitled"


class RequestRejected(AutumnError):
    """Autumn answered 4xx: the request was understood and nothing was done.

    `status` is the HTTP status, `code` Autumn's machine-readable code, `message` its text for people.
    """

    def __init__(self, operation: str, *, status: int, code: str, message: str) -> None:
        super().__init__(f"{operation}: Autumn answered {status} {code}: {message}")
        self.operation = operation
        self.status = status
        self.code = code
        self.message = message


class CustomerNotFound(RequestRejected):
    """No such customer. `check` and `track` never create one; `customers.get_or_create` does."""


class LockAlreadyExists(RequestRejected):
    """A hold with this lock id exists, so an earlier attempt with the same id got through."""


class DuplicateRequest(RequestRejected):
    """The idempotency key was used within the last 24 hours; the first answer is not replayed."""


class Unavailable(AutumnError):
    """Autumn gave neither a yes nor a no.

    `retry_after` is in seconds, or None where nothing is known about when to come back.
    """

    def __init__(self, operation: str, reason: str, *, retry_after: float | None = None) -> None:
        super().__init__(f"{operation}: {reason}")
        self.operation = operation
        self.reason = reason
        self.retry_after = retry_after


class NotSent(Unavailable):
    """Nothing reached Autumn, so repeating the call is safe."""


class ConnectFailed(NotSent):
    """No connection to Autumn: refused, unresolved, or no TLS. Check AUTUMN_BASE_URL and the network."""


class Overloaded(NotSent):
    """Held back on this side: too many calls to Autumn at once, or Autumn is known to be down."""


class RateLimited(Unavailable):
    """Autumn answered 429 and did nothing."""


class Uncertain(Unavailable):
    """The call may or may not have taken effect at Autumn."""


class NoAnswer(Uncertain):
    """The request may have left, and no whole answer came back.

    `timed_out` tells a wait that ran out from a connection that broke.
    """

    def __init__(self, operation: str, reason: str, *, timed_out: bool = False) -> None:
        super().__init__(operation, reason)
        self.timed_out = timed_out


class ServerFailure(Uncertain):
    """Autumn answered 5xx."""


class NotVerified(Uncertain):
    """Autumn answered 202: it failed open without looking at the balance."""


class UnexpectedAnswer(Uncertain):
    """Autumn's answer lacks what its documented shape promises; `reason` names the fields, never their values."""


_BY_CODE: dict[str, type[RequestRejected]] = {
    "customer_not_found": CustomerNotFound,
    "lock_already_exists": LockAlreadyExists,
    "duplicate_idempotency_key": DuplicateRequest,
}


def rejection(operation: str, *, status: int, code: str, message: str) -> RequestRejected:
    """Build the error for a 4xx answer: the class that stands for `code`, else `RequestRejected`."""
    return _BY_CODE.get(code, RequestRejected)(operation, status=status, code=code, message=message)
