"""The route that Autumn's webhooks call.

No `from __future__ import annotations` here: FastAPI reads these signatures.
"""

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any, Protocol, TypeVar

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool

from fastapi_autumn._refusals import refusal
from fastapi_autumn._scope import Runtime
from fastapi_autumn.models import Customer
from fastapi_autumn.settlement.messages import MessagesAwayError, Standing
from fastapi_autumn.webhooks._events import BillingUpdated, ProductsUpdated, WebhookEvent, read_event
from fastapi_autumn.webhooks._signature import NotVerified, Signed, read_secrets, verify

__all__ = ["WebhookRouter"]

_log = logging.getLogger("fastapi_autumn.webhooks")

_MOST_BYTES = 1024 * 1024
_HandlerT = TypeVar("_HandlerT", bound=Callable[[Any], Any])
_CHANGES_PLANS = {BillingUpdated.TYPE, ProductsUpdated.TYPE}


class _Autumn(Protocol):
    def running(self) -> AbstractAsyncContextManager[Runtime]: ...


class WebhookRouter(APIRouter):
    """Takes what Autumn tells, once each, and hands it to the handlers; see `Autumn.webhooks`."""

    def __init__(self, autumn: _Autumn, *, path: str, secrets: Iterable[str], name: str, tolerance: float) -> None:
        super().__init__(tags=["webhooks"])
        self._autumn = autumn
        self._keys = read_secrets(secrets)
        self._name = name
        self._tolerance = tolerance
        self._handlers: list[tuple[frozenset[str], Callable[[Any], Any]]] = []
        # Autumn calls it, and no page of the application.
        self.add_api_route(
            path, self._receive, methods=["POST"], include_in_schema=False, status_code=HTTPStatus.NO_CONTENT
        )

    def on(self, *events: type[WebhookEvent] | str) -> Callable[[_HandlerT], _HandlerT]:
        """Register a handler for events, by class or by Autumn's name; without any, for all of them.

        A handler takes the event. It may be a plain function, which runs in a thread. When it raises, the sender is
        told so and sends the message again, and all handlers of the event run again.
        """
        wanted = frozenset(event if isinstance(event, str) else event.TYPE for event in events)

        def register(handler: _HandlerT) -> _HandlerT:
            self._handlers.append((frozenset() if WebhookEvent.TYPE in wanted else wanted, handler))
            return handler

        return register

    async def _receive(self, request: Request) -> Response:
        body = await _body_of(request)
        async with self._autumn.running() as runtime:
            signed = self._verified(request, body, now_seconds=runtime.outbox.now() / 1000)
            try:
                return await self._once(runtime, signed, body)
            except MessagesAwayError as error:
                _log.error("A webhook waits for the outbox's database (%s). Autumn sends it again.", error)
                raise _come_back("webhook_not_noted", "The message cannot be noted now; send it again.") from error

    def _verified(self, request: Request, body: bytes, *, now_seconds: float) -> Signed:
        try:
            return verify(self._keys, request.headers, body, now_seconds=now_seconds, tolerance=self._tolerance)
        except NotVerified as error:
            _log.warning("A webhook was refused: %s", error)
            raise refusal(HTTPStatus.UNAUTHORIZED, "webhook_not_verified", str(error)) from None

    async def _once(self, runtime: Runtime, signed: Signed, body: bytes) -> Response:
        claim = await runtime.messages.claim(
            self._name,
            signed.message_id,
            signed_at=signed.signed_at,
            worker_id=runtime.outbox.worker_id,
            now=runtime.outbox.now(),
        )
        match claim.standing:
            case Standing.REPLAYED:
                _log.warning("A webhook was refused: it is a copy of %s.", signed.message_id)
                raise refusal(HTTPStatus.UNAUTHORIZED, "webhook_replayed", "This was sent and handled before.")
            case Standing.RUNNING:
                raise _come_back("webhook_running", "An earlier attempt is at work on this message.")
            case Standing.NEW:
                done = False
                try:
                    done = await self._handle(runtime, signed, body)
                finally:
                    # A task of its own: where this one is cancelled, the next attempt must still find it free.
                    noting = asyncio.create_task(runtime.messages.finish(claim, done=done), name="autumn-webhook")
                    await _noted(noting, done=done)
                if not done:
                    raise refusal(
                        HTTPStatus.INTERNAL_SERVER_ERROR, "webhook_failed", "A handler failed; send the message again."
                    )
        return Response(status_code=HTTPStatus.NO_CONTENT)

    async def _handle(self, runtime: Runtime, signed: Signed, body: bytes) -> bool:
        try:
            event = read_event(signed.message_id, body)
            _forget(runtime, event)
            for wanted, handler in self._handlers:
                if not wanted or event.type in wanted:
                    await _call(handler, event)
        except ValidationError as error:
            _log.error("The webhook %s is not what Autumn sends: %s", signed.message_id, _fields_of(error))
            return False
        except Exception:  # noqa: BLE001 - whatever a handler raises, the sender has to hear that it is to come back
            _log.exception("A handler of the webhook %s failed. Autumn sends it again.", signed.message_id)
            return False
        return True


async def _body_of(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise refusal(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", "The message is too large.")
    return bytes(body)


async def _noted(noting: "asyncio.Task[None]", *, done: bool) -> None:
    try:
        await asyncio.shield(noting)
    except MessagesAwayError as error:
        # What was done is not to be sent again, and what failed counts as free in this process.
        _log.error("What became of a webhook cannot be noted (%s). It was%s done.", error, "" if done else " not")


async def _call(handler: Callable[[Any], Any], event: WebhookEvent) -> None:
    if inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(getattr(handler, "__call__", None)):  # noqa: B004 - an object may have an async __call__
        result: Awaitable[Any] = handler(event)
    else:
        result = run_in_threadpool(handler, event)
    await result


def _forget(runtime: Runtime, event: WebhookEvent) -> None:
    """Drop what this process remembers and Autumn has changed."""
    if event.about is not None:
        runtime.customers.forget(Customer(event.about))
    if event.type in _CHANGES_PLANS:
        runtime.news.plans += 1


def _fields_of(error: ValidationError) -> str:
    """Name what is wrong and where, without the values, which are a customer's."""
    return "; ".join(
        f"{'.'.join(map(str, problem['loc']))}: {problem['type']}"
        for problem in error.errors(include_input=False, include_url=False)
    )


def _come_back(code: str, message: str) -> Exception:
    return refusal(HTTPStatus.SERVICE_UNAVAILABLE, code, message, headers={"Retry-After": "5"})
