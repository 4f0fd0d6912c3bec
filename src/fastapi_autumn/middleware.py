"""Who is calling, and how their call ended.

The middleware is pure ASGI and outermost on purpose: no other place in FastAPI sees the status, the final part of the
body, a client that leaves and an exception that comes out after the body, all of one request.
"""

import inspect
import logging
import traceback
from collections.abc import Awaitable, Callable, Sequence
from contextlib import _AsyncGeneratorContextManager, _GeneratorContextManager
from decimal import Decimal
from http import HTTPStatus
from typing import Any

from fastapi import HTTPException
from starlette._utils import get_route_path
from starlette.background import BackgroundTask, BackgroundTasks
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ._openapi import document
from ._scope import RequestState, Runtime, RuntimeSource, customer_of, nobody, refusal, share
from .charge import Charge
from .customers import is_customer_id
from .errors import AutumnError, ConfigurationError
from .models import Customer
from .pricing import to_json_number
from .settlement import Outcome, judge

__all__ = ["AutumnMiddleware", "Identify", "from_request_user"]

_log = logging.getLogger("fastapi_autumn")

Identity = Customer | str | None
Identify = Callable[[HTTPConnection], Identity | Awaitable[Identity]]


def from_request_user(connection: HTTPConnection) -> Customer | None:
    """Take Starlette's `request.user` for the customer: its `identity`, or else its `display_name`.

    Raises:
        ConfigurationError: No AuthenticationMiddleware has run before.
    """
    if "user" not in connection.scope:
        raise ConfigurationError(
            "AutumnMiddleware does not know who is calling. Pass identify=..., a function from the connection to a "
            "Customer or an id; or add Starlette's AuthenticationMiddleware after it, so that it runs before; or pass "
            "identify=None when each CreditGate has its own customer=..."
        )
    return customer_of(connection.user)


class AutumnMiddleware:
    """Identify the customer, make sure that Autumn has them, and close the charges of a request when it has ended.

    Args:
        app: The application.
        autumn: The `Autumn` of this service.
        paths: Prefixes of the paths it covers, matched on whole segments; default: `AUTUMN_PATHS`.
        identify: Tells who is calling: a `Customer`, an id, or None for nobody (401). May be async. None leaves it to
            the `customer` dependency of each gate.

    Requests on other paths, OPTIONS, WebSockets and the lifespan pass untouched.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        autumn: RuntimeSource,
        paths: Sequence[str] | None = None,
        identify: Identify | None = from_request_user,
    ) -> None:
        if isinstance(paths, str):
            raise ConfigurationError(f"AutumnMiddleware: paths is a list of prefixes, such as [{paths!r}]")
        prefixes = autumn.settings.paths if paths is None else paths
        for prefix in prefixes:
            if not prefix.startswith("/"):
                raise ConfigurationError(f"AutumnMiddleware: the path {prefix!r} has to start with a slash")
        self.app = app
        self._autumn = autumn
        self._prefixes = tuple(prefix.rstrip("/") for prefix in prefixes)
        self._identify = identify
        self._max_body_bytes = autumn.settings.max_body_bytes
        self._documented: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if self._documented is not scope.get("app"):
            self._document(scope["app"])
        if scope["method"] == "OPTIONS" or not self._covers(get_route_path(scope)):
            await self.app(scope, receive, send)
            return
        runtime = self._autumn.runtime
        if runtime is not None:
            await self._handle(runtime, scope, receive, send)
            return
        # No lifespan has run, as under a bare TestClient: everything lives for one request and is settled at its end.
        async with self._autumn.running() as temporary:
            await self._handle(temporary, scope, receive, send)

    def _document(self, app: Any) -> None:
        self._documented = app
        if hasattr(app, "openapi"):
            document(app)

    def _covers(self, path: str) -> bool:
        return any(path == prefix or path.startswith(f"{prefix}/") for prefix in self._prefixes)

    async def _handle(self, runtime: Runtime, scope: Scope, receive: Receive, send: Send) -> None:
        connection = HTTPConnection(scope)
        length = connection.headers.get("content-length", "")
        if self._max_body_bytes and length.isdecimal() and int(length) > self._max_body_bytes:
            await _answer(_too_large())(scope, receive, send)
            return
        customer = None
        if self._identify is not None:
            customer = await _customer(self._identify, connection)
            if customer is None:
                await _answer(nobody())(scope, receive, send)
                return
            await self._ensure(runtime, customer)
        state = RequestState(runtime, customer)
        share(scope, state)
        watch = _Watch(state, receive, send, max_body_bytes=self._max_body_bytes)
        try:
            await self.app(scope, watch.receive, watch.send)
        except BaseException as error:
            watch.finish(error)
            raise
        watch.finish(None)

    async def _ensure(self, runtime: Runtime, customer: Customer) -> None:
        try:
            await runtime.customers.exists(customer)
        except AutumnError:
            # Logged where it happened. A route without a gate works all the same, and a gate asks again.
            return


async def _customer(identify: Identify, connection: HTTPConnection) -> Customer | None:
    found = identify(connection)
    identity = await found if inspect.isawaitable(found) else found
    customer = Customer(identity) if isinstance(identity, str) else identity
    if customer is not None and not is_customer_id(customer.id):
        _log.warning("a customer id that Autumn would refuse or mistake is taken for nobody")
        return None
    return customer


def _too_large() -> HTTPException:
    return refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", "The request's body is too large.")


def _answer(error: HTTPException) -> JSONResponse:
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


class _Watch:
    """What is seen of one request; made afresh for each."""

    __slots__ = (
        "_body_bytes",
        "_complete",
        "_disconnected",
        "_max_body_bytes",
        "_receive",
        "_send",
        "_state",
        "_status",
    )

    def __init__(self, state: RequestState, receive: Receive, send: Send, *, max_body_bytes: int) -> None:
        self._state = state
        self._receive = receive
        self._send = send
        self._max_body_bytes = max_body_bytes
        self._body_bytes = 0
        self._status: int | None = None
        self._complete = False
        self._disconnected = False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            if not self._complete:
                self._disconnected = True
        elif self._max_body_bytes:
            self._body_bytes += len(message.get("body", b""))
            if self._body_bytes > self._max_body_bytes:
                raise _too_large()
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            if self._state.charges and self._status < HTTPStatus.BAD_REQUEST:
                message = {**message, "headers": [*message.get("headers", ()), *_credit_headers(self._state.charges)]}
        try:
            await self._send(message)
        except OSError:
            self._disconnected = True
            raise
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._complete = True

    def finish(self, error: BaseException | None) -> None:
        """Close what is still open. Returns at once: what has to be told to Autumn goes through the outbox."""
        if not self._state.charges:
            return
        left = isinstance(error, ClientDisconnect)
        raised = error is not None and not left and not (self._complete and _is_afterthought(error))
        if raised and self._disconnected and not isinstance(error, Exception):
            # Servers and test clients cancel the application of a client that has left.
            raised = False
        outcome = judge(
            raised=raised,
            status=self._status,
            complete=self._complete,
            disconnected=self._disconnected or left,
        )
        if outcome is not Outcome.DONE:
            _log.info("a charged call ended as %s", outcome.value)
        for charge in self._state.charges:
            charge.finish(outcome)


_AFTER_DELIVERY = {BackgroundTask.__call__.__code__, BackgroundTasks.__call__.__code__}
_CLEAN_UP = {_AsyncGeneratorContextManager.__aexit__.__code__, _GeneratorContextManager.__exit__.__code__}


def _is_afterthought(error: BaseException) -> bool:
    """Tell whether an exception came from what runs after a delivered answer, not from making the answer.

    A failed event stream and a failed background task look the same from outside: a complete 200, then an exception.
    Only the traceback knows which it was: a background task's frame is in it, or that of a dependency's clean-up that
    was entered with nothing wrong yet.
    """
    if isinstance(error, BaseExceptionGroup):
        return all(_is_afterthought(inner) for inner in error.exceptions)
    return any(
        frame.f_code in _AFTER_DELIVERY or (frame.f_code in _CLEAN_UP and frame.f_locals.get("typ") is None)
        for frame, _ in traceback.walk_tb(error.__traceback__)
    )


def _credit_headers(charges: Sequence[Charge]) -> list[tuple[bytes, bytes]]:
    cost = sum((charge.cost for charge in charges), start=Decimal(0))
    headers = [(b"autumn-credits-charged", str(to_json_number(cost)).encode())]
    balance = charges[-1].balance
    if balance is not None:
        # What is decided to be given back is counted as there, although it is still on its way.
        on_its_way = sum((charge.credits - charge.cost for charge in charges), start=Decimal(0))
        headers.append((b"autumn-credits-remaining", str(to_json_number(balance.remaining + on_its_way)).encode()))
    return headers
