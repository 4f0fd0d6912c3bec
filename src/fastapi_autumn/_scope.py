"""What the middleware and the gate share about one request, in its scope.

State travels in the scope and not in context variables: those set below a BaseHTTPMiddleware, or in a thread, do not
come back up. Downwards a context variable works everywhere, so `current_request` tells `Autumn.charge`, which sees no
scope, in which request it runs.
"""

from collections.abc import MutableMapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from starlette.requests import HTTPConnection

from fastapi_autumn._ending import Ending
from fastapi_autumn.charge import Charge, Charges
from fastapi_autumn.client import AutumnClient
from fastapi_autumn.customers import KnownCustomers
from fastapi_autumn.models import Customer
from fastapi_autumn.settings import AutumnSettings
from fastapi_autumn.settlement import Outcome

if TYPE_CHECKING:
    from fastapi_autumn.settlement.messages import Messages
    from fastapi_autumn.settlement.outbox import Outbox
    from fastapi_autumn.settlement.replies import Attempt, Replies

__all__ = [
    "News",
    "RequestState",
    "Runtime",
    "RuntimeSource",
    "charges_of",
    "current_request",
    "header_of",
    "request_state",
    "share",
    "surrounding",
    "watch_route",
]

_KEY = "fastapi_autumn"


@dataclass(slots=True)
class News:
    """What this process has heard through webhooks; a number that has grown makes older knowledge stale."""

    plans: int = 0
    """How often somebody's plans have changed."""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What exists while the application runs: connections, the outbox, and who is known."""

    client: AutumnClient
    customers: KnownCustomers
    charges: Charges
    outbox: "Outbox"
    replies: "Replies"
    messages: "Messages"
    news: News = field(default_factory=News)


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
    """One request, or one WebSocket, on a covered path."""

    runtime: Runtime
    customer: Customer | None
    path: str
    """Its path, as the server sent it."""
    prefix: str
    """The prefix that covers it, with the path under which the application is mounted."""
    ending: Ending = field(default_factory=Ending)
    charges: list[Charge] = field(default_factory=list)
    opened: dict[object, Charge] = field(default_factory=dict)
    """Which gate opened which charge, so that an equal gate reuses it."""
    outcome: Outcome | None = None
    """How it ended, once it has."""
    attempt: "Attempt | None" = None
    """The attempt that this is under a key of the caller's, if they sent one."""
    under_key: list[tuple[str, Charge]] = field(default_factory=list)
    """What each of the attempt's charges was opened for, and the charge."""

    refused: Any = None
    """The exception with which a gate refused, and the dialect that the gate has for it."""
    observed: list[str] = field(default_factory=list)
    """Why it would have been refused before a charge was opened, where `AUTUMN_MODE=observe` let it through."""
    cancelled: list[Charge] = field(default_factory=list)
    """Charges whose work was cancelled before the request ended."""

    def adopt(self, charge: Charge, *, cancelled: bool) -> None:
        """Let a charge end as this request ends, or has ended."""
        if cancelled:
            self.cancelled.append(charge)
        if self.outcome is None:
            self.charges.append(charge)
        else:
            charge.finish(self.outcome_of(charge, self.outcome))

    def outcome_of(self, charge: Charge, outcome: Outcome) -> Outcome:
        """Tell how a charge ends if the request ends in `outcome`.

        Where the caller stayed to the end, it was not they who had the work cancelled: it ran into a limit on time.
        """
        return Outcome.FAILED if outcome is Outcome.DONE and charge in self.cancelled else outcome


current_request: ContextVar[RequestState | None] = ContextVar("fastapi_autumn_request", default=None)


def surrounding(runtime: Runtime) -> RequestState | None:
    """Return the request in which the running task works, or None.

    A task that outlived the request which started it is in none: a queue's worker, a job that was accepted with a 202.
    Neither is one in an event loop of its own, whose charges nobody could end from here.
    """
    state = current_request.get()
    if state is None or state.outcome is not None or state.runtime.outbox is not runtime.outbox:
        return None
    return state


def share(scope: MutableMapping[str, Any], state: RequestState) -> None:
    """Put `state` where the gate finds it.

    Not under `scope["state"]`: whoever sends the parts of a batch through the application on copies of the scope shares
    that, and one part would be served on the charge of another.
    """
    scope[_KEY] = state


def request_state(scope: MutableMapping[str, Any]) -> RequestState | None:
    """Return what the middleware shared, or None when it did not see this request."""
    state = scope.get(_KEY)
    return state if isinstance(state, RequestState) else None


def header_of(scope: MutableMapping[str, Any], name: bytes) -> str | None:
    """Return the first header called `name`, in lower case, in a fifth of the time that a search in `Headers` takes."""
    for known, value in scope["headers"]:
        if known == name:
            return bytes(value).decode("latin-1")
    return None


def charges_of(connection: HTTPConnection) -> tuple[Charge, ...]:
    """Return what has been charged for a request or a WebSocket so far, where no parameter hands the charge over.

    That is in an exception handler, in another middleware, or in a framework's callback.
    """
    state = request_state(connection.scope)
    return () if state is None else tuple(state.charges)


def watch_route(scope: MutableMapping[str, Any], state: RequestState) -> None:
    """Tell the middleware what the route raises, before other middleware can hide when that was.

    A BaseHTTPMiddleware, for one, completes the body of a stream that failed. A dependency with `yield` would see the
    same, and costs 40 microseconds per request, a tenth of a charged call. So FastAPI's exit stack is used directly;
    where it is missing, the judgement does without.
    """
    stack = scope.get("fastapi_inner_astack")
    if stack is None:
        state.ending.route_is_hidden()
    else:
        stack.push(state.ending.route_exits)
