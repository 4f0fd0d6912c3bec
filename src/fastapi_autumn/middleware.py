"""Who is calling, and how their call ended.

The middleware is pure ASGI and outermost on purpose: no other place in FastAPI sees the status, the final part of the
body, a client that leaves and an exception that comes out after the body, all of one request.
"""

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from starlette._utils import get_route_path
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from fastapi_autumn._attempts import finish
from fastapi_autumn._browsers import is_emulators_page
from fastapi_autumn._identity import customer_from, from_request_user
from fastapi_autumn._openapi import document
from fastapi_autumn._refusals import (
    Dialect,
    Refusals,
    RefusedCall,
    answer,
    body_too_large,
    dialect,
    not_authenticated,
    on_a_websocket,
)
from fastapi_autumn._scope import RequestState, Runtime, RuntimeSource, current_request, header_of, request_state, share
from fastapi_autumn._watch import Watch
from fastapi_autumn.charge import note_observed
from fastapi_autumn.errors import AutumnError, ConfigurationError
from fastapi_autumn.models import Customer
from fastapi_autumn.settlement import Outcome
from fastapi_autumn.settlement.replies import Attempt

__all__ = ["AutumnMiddleware", "Identify", "RefusedCall", "from_request_user"]

_log = logging.getLogger("fastapi_autumn")

Identify = Callable[[HTTPConnection], Any | Awaitable[Any]]
"""From the connection to a `Customer`, an id (a string, an integer or a UUID), or None for nobody. May be async."""


class AutumnMiddleware:
    """Identify the customer, make sure that Autumn has them, and close the charges of a request when it has ended.

    Args:
        app: The application.
        autumn: The `Autumn` of this service.
        paths: Prefixes of the paths it covers, matched on whole segments; default: `AUTUMN_PATHS`.
        open_paths: Prefixes below those that it leaves alone, such as a list of models or a health check.
        identify: Tells who is calling: a `Customer`, an id (a string, an integer or a UUID), or None for nobody (401).
            May be async, and may raise an HTTPException, which is sent as it is. None leaves it to the `customer`
            dependency of each gate.
        refusals: How refusals are worded, of this class and of the gates below it: `"openai"` or `"anthropic"`, as
            that provider's error object, so that its official client raises its own exceptions; or a function from a
            `RefusedCall` to the JSON of the body. Default: that of `autumn`, or else FastAPI's shape.

    A WebSocket on a covered path is identified as well; nobody's is closed with 1008. Requests on other paths, OPTIONS
    and the lifespan pass untouched.

    Raises:
        ConfigurationError: `paths` or `open_paths` is not a list of prefixes that start with a slash.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        autumn: RuntimeSource,
        paths: Sequence[str] | None = None,
        open_paths: Sequence[str] = (),
        identify: Identify | None = from_request_user,
        refusals: Refusals | None = None,
    ) -> None:
        self.app = app
        self._autumn = autumn
        self._prefixes = _prefixes("paths", autumn.settings.paths if paths is None else paths)
        self._open_prefixes = _prefixes("open_paths", open_paths)
        self._identify = identify
        chosen = refusals or getattr(autumn, "refusals", None)
        self._dialect = None if chosen is None else dialect(chosen)
        self._observes = autumn.settings.observes
        self._without_lifespan = _WithoutLifespan(autumn)
        # Tasks that nothing else refers to, so that they are not collected while they run.
        self._ending: set[asyncio.Task[None]] = set()
        self._documented: Any = None
        self._document(app)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] not in {"http", "websocket"}:
            await self.app(scope, receive, send)
            return
        if self._documented is not scope.get("app"):
            self._document(scope.get("app"))
        prefix = self._covering(scope)
        if prefix is None or scope.get("method") == "OPTIONS":
            await self.app(scope, receive, send)
            return
        runtime = self._autumn.runtime
        if runtime is not None:
            await self._handle(runtime, prefix, scope, receive, send)
            return
        async with self._without_lifespan.running() as standing:
            await self._handle(standing, prefix, scope, receive, send)

    def _document(self, app: Any) -> None:
        self._documented = app
        if hasattr(app, "openapi"):
            document(app, reworded=self._dialect is not None)

    def _covering(self, scope: Scope) -> str | None:
        """Return the longest prefix that covers the path; None if no prefix does, or somebody else's longer one."""
        path = get_route_path(scope)
        prefix = _longest(self._prefixes, path)
        if prefix is None or _longest(self._open_prefixes, path) is not None or self._is_emulators_page(path):
            return None
        full: str = scope.get("root_path", "") + prefix
        outer = request_state(scope)
        # Of two that cover a request one charges, or every call would be paid twice. A copy of its scope with another
        # path is another request.
        if outer is None or outer.path != scope["path"] or outer.outcome is not None:
            return full
        return None if len(outer.prefix) >= len(full) else full

    async def _handle(self, runtime: Runtime, prefix: str, scope: Scope, receive: Receive, send: Send) -> None:
        # Nobody is refused where this only observes, and what it is for is the books, not the memory.
        max_body_bytes = 0 if self._observes else self._autumn.settings.max_body_bytes
        length = header_of(scope, b"content-length") or ""
        # Before anybody is identified: what is announced to be too large is to cost nothing.
        if max_body_bytes and length.isdecimal() and int(length) > max_body_bytes:
            await answer(body_too_large(), self._dialect)(scope, receive, send)
            return
        try:
            customer = await self._customer(HTTPConnection(scope))
        except HTTPException as error:
            await _refuse(error, self._dialect, scope, receive, send)
            return
        if customer is not None:
            await self._ensure(runtime, customer)
        state = RequestState(runtime, customer, scope["path"], prefix)
        if self._observes and customer is None and self._identify is not None:
            state.observed.append("not_authenticated")
        share(scope, state)
        watch = Watch(state, scope, receive, send, max_body_bytes=max_body_bytes, dialect=self._dialect)
        token = current_request.set(state)
        try:
            await self.app(scope, watch.receive, watch.send)
        except BaseException as error:
            if not (isinstance(error, Exception) and await watch.refuse_large_body()):
                await self._end(state, error)
                raise
        finally:
            # A request that its event loop left behind is closed by the garbage collector, in another context.
            with suppress(ValueError):
                current_request.reset(token)
        await self._end(state, None)

    async def _end(self, state: RequestState, error: BaseException | None) -> None:
        outcome = state.ending.outcome(error)
        if state.attempt is None:
            # Returns at once: what has to be told to Autumn goes through the outbox.
            _close(state, outcome)
            return
        # A task of its own: servers cancel a request whose caller has left, and its end is to be noted all the same.
        task = asyncio.create_task(self._end_attempt(state, state.attempt, outcome), name="autumn-attempt")
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        if not isinstance(error, asyncio.CancelledError):
            await asyncio.shield(task)

    async def _end_attempt(self, state: RequestState, attempt: Attempt, outcome: Outcome) -> None:
        async with self._autumn.running():
            try:
                await finish(state, attempt, outcome, close=partial(_close, state, outcome))
            finally:
                _close(state, outcome)

    async def _customer(self, connection: HTTPConnection) -> Customer | None:
        """Return who is calling, or None where the gates find that out or nobody needs to know.

        Raises:
            HTTPException: Nobody is calling, or `identify` says what to answer.
        """
        if self._identify is None:
            return None
        try:
            found = self._identify(connection)
            customer = customer_from(await found if inspect.isawaitable(found) else found)
        except HTTPException:
            if not self._observes:
                raise
            customer = None
        if customer is None:
            if not self._observes:
                raise not_authenticated()
            note_observed("not_authenticated", f"{connection.scope['type']} {connection.url.path}", "")
        return customer

    def _is_emulators_page(self, path: str) -> bool:
        """Tell whether a browser opens a page of the emulator in this process, which it does without credentials."""
        return self._autumn.settings.emulator and is_emulators_page(path)

    async def _ensure(self, runtime: Runtime, customer: Customer) -> None:
        try:
            await runtime.customers.exists(customer)
        except AutumnError:
            # Logged where it happened. A route without a gate works all the same, and a gate asks again.
            return


def _prefixes(argument: str, paths: Sequence[str]) -> tuple[str, ...]:
    if isinstance(paths, str):
        raise ConfigurationError(f"AutumnMiddleware: {argument} is a list of prefixes, such as [{paths!r}]")
    for prefix in paths:
        if not prefix.startswith("/"):
            raise ConfigurationError(f"AutumnMiddleware: the path {prefix!r} in {argument} has to start with a slash")
    return tuple(prefix.rstrip("/") for prefix in paths)


def _longest(prefixes: Sequence[str], path: str) -> str | None:
    covering = (prefix for prefix in prefixes if path == prefix or path.startswith(f"{prefix}/"))
    return max(covering, key=len, default=None)


async def _refuse(error: HTTPException, dialect: Dialect | None, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket":
        closing = on_a_websocket(error)
        await WebSocketClose(closing.code, closing.reason)(scope, receive, send)
    else:
        await answer(error, dialect)(scope, receive, send)


def _close(state: RequestState, outcome: Outcome) -> None:
    state.outcome = outcome
    for charge in state.charges:
        decides = not charge.closed
        charge.finish(state.outcome_of(charge, outcome))
        if outcome is not Outcome.DONE and decides:
            _log.info("charge %s of %s ended as %s", charge.id, charge.customer.id, outcome.value)


class _WithoutLifespan:
    """Runs Autumn where no lifespan has: in a mounted application, or under a bare test client.

    Under the test client each request has an event loop of its own and is settled before that ends. A second request in
    one loop means a server, where starting and stopping for every request would cost 100 ms: there it keeps running
    until the loop ends, and says what is missing.
    """

    def __init__(self, autumn: RuntimeSource) -> None:
        self._autumn = autumn
        self._seen: WeakSet[asyncio.AbstractEventLoop] = WeakSet()
        self._standing: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Task[None]] = WeakKeyDictionary()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Runtime]:
        loop = asyncio.get_running_loop()
        async with self._autumn.running() as runtime:
            if loop in self._seen and loop not in self._standing:
                _log.warning(
                    "Autumn's lifespan does not run, so charges are not settled in order when the service stops. Pass "
                    "FastAPI(lifespan=autumn.lifespan), or enter `async with autumn.lifespan(app)` in your own. The "
                    "lifespan of a mounted application never runs: do it in the outermost application."
                )
                self._standing[loop] = loop.create_task(self._stand(), name="autumn-without-lifespan")
            self._seen.add(loop)
            yield runtime

    async def _stand(self) -> None:
        async with self._autumn.running():
            await asyncio.get_running_loop().create_future()
