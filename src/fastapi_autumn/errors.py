"""Every error this package raises.

The bases are cut by what a caller can do about it::

    AutumnError
    ├── ConfigurationError          fix the set-up; raised at start-up, never while serving
    │   ├── PriceListError          a price that is not a positive, finite amount
    │   └── CatalogError            a feature, item or plan that Autumn would refuse
    ├── AmountError                 an amount of credits that must not reach Autumn (also a ValueError)
    ├── UnknownUsage                a report of what a call used that nobody can read (also a ValueError)
    ├── UnsendableRequest           no JSON, or no header, can say it; nothing was sent (also a ValueError)
    ├── Refused                     this customer may not make this call; `code`, `detail`
    │   ├── InsufficientCredits     the balance does not cover it
    │   ├── UnknownModel            the price list does not have the model
    │   ├── Unbounded               nobody can tell what the call can cost at most
    │   ├── BudgetExceeded          what is left of a budget does not cover it
    │   └── NotEntitled             the customer's plan does not include it
    ├── RequestRejected             4xx in Autumn's own words: a clear no; `status`, `code`, `message`
    │   └── CustomerNotFound        404 customer_not_found
    └── Unavailable                 neither a yes nor a no
        ├── NotSent                 nothing reached Autumn; safe to repeat
        │   ├── ConnectFailed       refused, unresolved, no TLS
        │   └── Overloaded          the limit on concurrent calls
        │       └── CircuitOpen     the circuit breaker
        ├── RateLimited             429; not done; `retry_after`
        └── Uncertain               may have happened; `status`, `code`, `message` where there was an answer
            ├── NoAnswer            timed out or dropped after the request may have left
            ├── ServerFailure       5xx; `retry_after` where Autumn gave one
            ├── NotVerified         202: Autumn put it off, or failed open
            ├── UnexpectedAnswer    an answer that is not Autumn's, or not about what was asked
            ├── DuplicateRequest    409 duplicate_idempotency_key: an earlier attempt came to an end, or still runs
            ├── LockAlreadyExists   409 lock_already_exists: an earlier attempt has placed the hold
            └── LockNotClaimable    409 "not claimable": another finalize has the hold, or had it
"""

from collections.abc import Callable
from typing import Any, Self

__all__ = [
    "AmountError",
    "AutumnError",
    "BudgetExceeded",
    "CatalogError",
    "CircuitOpen",
    "ConfigurationError",
    "ConnectFailed",
    "CustomerNotFound",
    "DuplicateRequest",
    "InsufficientCredits",
    "LockAlreadyExists",
    "LockNotClaimable",
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
    "Unbounded",
    "Uncertain",
    "UnexpectedAnswer",
    "UnknownModel",
    "UnknownUsage",
    "UnsendableRequest",
    "rejection",
]


class AutumnError(Exception):
    """Base of every error of this package. Each survives pickling, so that a pool of processes can hand it on."""

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[Any, ...], dict[str, Any]]:
        # Python's own way calls the class with `args`, which hold the finished text and not what `__init__` takes.
        return type(self).__new__, (type(self), *self.args), vars(self)


class ConfigurationError(AutumnError):
    """The set-up is wrong; the message says what to change."""


class PriceListError(ConfigurationError):
    """A price list that cannot be charged from; the message names the file and the line where there is one."""


class CatalogError(ConfigurationError):
    """A feature, item or plan that Autumn would refuse; the message names it and says what to write."""


class AmountError(AutumnError, ValueError):
    """An amount of credits that must not reach Autumn: negative, zero, not finite, too large or not a number."""


class UnknownUsage(AutumnError, ValueError):
    """A report of what a call used in which no counts can be found; the message says what was looked for."""


class UnsendableRequest(AutumnError, ValueError):
    """What was passed cannot travel: JSON cannot write it, or a header cannot carry it. Nothing was sent."""


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


class Unbounded(Refused):
    """Nobody can tell what the call can cost at most, so nothing can be held for it. `detail` may have a `field`."""

    code = "unbounded"


class BudgetExceeded(Refused):
    """What is left of a budget does not cover a step, which was not made. `detail` has `model`, `required`, `left`."""

    code = "budget_exceeded"


class NotEntitled(Refused):
    """The customer's plan does not include this call, whatever the balance is."""

    code = "not_entitled"


class RequestRejected(AutumnError):
    """Autumn understood the request and did nothing: a 4xx with a JSON object that has a `code` and a `message`.

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
    """Held back on this side: too many calls to Autumn at once."""


class CircuitOpen(Overloaded):
    """Held back on this side, because Autumn is known to be down."""


class RateLimited(Unavailable):
    """Autumn answered 429 and did nothing."""


class Uncertain(Unavailable):
    """The call may or may not have taken effect at Autumn.

    `status` is that of the answer, or None where none came; `code` and `message` are Autumn's where it gave them.
    """

    def __init__(
        self,
        operation: str,
        reason: str,
        *,
        retry_after: float | None = None,
        status: int | None = None,
        code: str | None = None,
        message: str | None = None,
    ) -> None:
        super().__init__(operation, reason, retry_after=retry_after)
        self.status = status
        self.code = code
        self.message = message


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
    """Autumn answered 202: it failed open without looking at the balance, or put the work off."""


class UnexpectedAnswer(Uncertain):
    """The answer is not Autumn's, lacks what its documented shape promises, or is about another customer.

    `reason` names fields, never their values.
    """


class DuplicateRequest(Uncertain):
    """Autumn has seen the idempotency key within the last 24 hours, and does not replay the first answer.

    That says nothing about the first attempt: Autumn claims a key when the work begins, frees it when the work fails,
    and keeps it when it crashes in between.
    """


class LockAlreadyExists(Uncertain):
    """A hold with this lock id exists, so an earlier attempt with the same id got through; how it ended is unknown."""


class LockNotClaimable(Uncertain):
    """Another finalize has the hold, or had its id before the hold was there; what became of it is unknown."""


_UNCERTAIN_BY_CODE: dict[str, type[Uncertain]] = {
    "lock_already_exists": LockAlreadyExists,
    "duplicate_idempotency_key": DuplicateRequest,
}
_CONFLICT = 409


def rejection(operation: str, *, status: int, code: str, message: str) -> RequestRejected | Uncertain:
    """Build the error for a 4xx in Autumn's own words; a 409 about an earlier attempt is not a no."""
    uncertain = _UNCERTAIN_BY_CODE.get(code)
    if status == _CONFLICT and "not claimable" in message:
        uncertain = LockNotClaimable
    if uncertain is not None:
        reason = f"Autumn answered {status} {code}: {message}"
        return uncertain(operation, reason, status=status, code=code, message=message)
    kind = CustomerNotFound if code == "customer_not_found" else RequestRejected
    return kind(operation, status=status, code=code, message=message)
