"""What the middleware and the gate share about one request, under `scope["state"]`.

State travels in the scope and not in context variables: those set below a BaseHTTPMiddleware, or in a thread, do not
come back up.
"""

from collections.abc import Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Protocol

from fastapi import HTTPException
from starlette.authentication import BaseUser

from . import telemetry
from .charge import Charge, Charges
from .client import AutumnClient
from .customers import KnownCustomers
from .models import Customer
from .settings import AutumnSettings

if TYPE_CHECKING:
    from .settlement.outbox import Outbox

__all__ = ["RequestState", "Runtime", "RuntimeSource", "customer_of", "nobody", "refusal", "request_state", "share"]

_KEY = "fastapi_autumn"


@dataclass(frozen=True, slots=True)
class Runtime:
    """What exists while the application runs: connections, the outbox, and who is known."""

    client: AutumnClient
    customers: KnownCustomers
    charges: Charges
    outbox: "Outbox"


class RuntimeSource(Protocol):
    """What the middleware needs of `Autumn`."""

    @property
    def settings(self) -> AutumnSettings:
        """The settings it was made with."""
        ...

    @property
    def runtime(self) -> Runtime | None:
        """The runtime that belongs to the running event loop, if the lifespan has made one."""
        ...

    def running(self) -> AbstractAsyncContextManager[Runtime]:
        """Make a runtime for the time being, and settle everything before it goes."""
        ...


@dataclass(slots=True)
class RequestState:
    """One request on a covered path."""

    runtime: Runtime
    customer: Customer | None
    charges: list[Charge] = field(default_factory=list)


def share(scope: MutableMapping[str, Any], state: RequestState) -> None:
    """Put `state` where the gate finds it."""
    scope.setdefault("state", {})[_KEY] = state


def request_state(scope: MutableMapping[str, Any]) -> RequestState | None:
    """Return what the middleware shared, or None when it did not see this request."""
    state = scope.get("state", {}).get(_KEY)
    return state if isinstance(state, RequestState) else None


def refusal(
    status: HTTPStatus, code: str, message: str, *, headers: Mapping[str, str] | None = None, **detail: Any
) -> HTTPException:
    """Count a refusal, and return the answer that says so."""
    telemetry.refusals.add(1, {"code": code})
    return HTTPException(status, {"code": code, "message": message, **detail}, headers=dict(headers or {}))


def nobody() -> HTTPException:
    """Refuse a request of nobody."""
    bearer = {"WWW-Authenticate": "Bearer"}
    return refusal(HTTPStatus.UNAUTHORIZED, "not_authenticated", "Who is calling?", headers=bearer)


def customer_of(user: BaseUser) -> Customer | None:
    """Take an authenticated user of Starlette's for the customer: its `identity`, or else its `display_name`."""
    if not user.is_authenticated:
        return None
    try:
        return Customer(user.identity)
    except NotImplementedError:
        return Customer(user.display_name)
