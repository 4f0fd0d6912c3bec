"""Routes for front ends: what a customer has, what they could have, and where they go to pay.

No `from __future__ import annotations` here: FastAPI reads these signatures.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from http import HTTPStatus
from typing import Annotated, Any, Literal, Protocol
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, HTTPException, Query, Request
from pydantic import BaseModel, Field
from starlette.types import ASGIApp, Receive, Scope, Send

from ._identity import customer_from, from_request_user
from ._openapi import RESPONSES
from ._refusals import billing_unavailable, not_authenticated
from ._scope import Runtime, request_state
from .errors import RequestRejected, Unavailable
from .models import AttachResult, Customer, CustomerRecord, EventAggregate, Plan, PortalResult

__all__ = ["AttachRequest", "PortalRequest", "billing_router"]


class _Autumn(Protocol):
    def running(self) -> AbstractAsyncContextManager[Runtime]: ...


class AttachRequest(BaseModel):
    """Which plan the customer wants, and where to bring them back after paying.

    A plan whose items are bought in advance, such as a top-up, needs `feature_quantities`: feature id to units.
    """

    plan_id: str = Field(min_length=1)
    success_url: str | None = None
    feature_quantities: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)


class PortalRequest(BaseModel):
    """Where to bring the customer back from the portal."""

    return_url: str | None = None


class _EmulatorPages:
    """One of the emulator's pages, such as its check-out, below the billing routes; the rest of it stays inside."""

    def __init__(self, emulator: Callable[[], ASGIApp], page: str) -> None:
        self._emulator = emulator
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = f"/{self._page}/{scope['path_params']['rest']}"
        await self._emulator()({**scope, "root_path": "", "path": path}, receive, send)


def billing_router(
    autumn: _Autumn, *, prefix: str, customer: Callable[..., Any] | None, emulator: Callable[[], ASGIApp] | None
) -> APIRouter:
    """Make the routes; see `Autumn.router`. `emulator` gives the one that runs inside this process, if any does."""

    async def paying(identity: Annotated[Any, Depends(customer or _from_request)]) -> Customer:
        found = customer_from(identity)
        if found is None:
            raise not_authenticated()
        return found

    async def runtime() -> AsyncIterator[Runtime]:
        async with autumn.running() as running:
            with _answering():
                yield running

    here = _as_given if emulator is None else _served_here
    Paying = Annotated[Customer, Depends(paying)]  # noqa: N806 - a type
    Running = Annotated[Runtime, Depends(runtime)]  # noqa: N806 - a type
    router = APIRouter(prefix=prefix, tags=["billing"], responses={401: RESPONSES[401], 503: RESPONSES[503]})

    @router.get("/customer")
    async def get_customer(customer: Paying, running: Running) -> CustomerRecord:
        """Who is calling, with their plans and balances; created on the first visit."""
        return await running.customers.record(customer)

    @router.get("/plans")
    async def list_plans(running: Running) -> tuple[Plan, ...]:
        """The plans on offer."""
        return await running.client.plans.list()

    @router.get("/usage")
    async def get_usage(
        customer: Paying,
        running: Running,
        feature_id: Annotated[str, Query(min_length=1)],
        range: Annotated[Literal["24h", "7d", "30d", "90d"], Query()] = "30d",  # noqa: A002 - Autumn's own name
    ) -> EventAggregate:
        """What the customer used, by period and in total."""
        await running.customers.exists(customer)
        return await running.client.events.aggregate(customer.id, feature_id, range=range)

    @router.post("/attach")
    async def attach(body: AttachRequest, customer: Paying, running: Running, request: Request) -> AttachResult:
        """Put the customer on a plan, or say where they go to pay for it."""
        await running.customers.exists(customer)
        result = await running.client.billing.attach(
            customer.id, body.plan_id, success_url=body.success_url, feature_quantities=body.feature_quantities
        )
        return result.model_copy(update={"payment_url": here(request, result.payment_url)})

    @router.post("/portal")
    async def open_portal(body: PortalRequest, customer: Paying, running: Running, request: Request) -> PortalResult:
        """Where the customer manages payment and invoices."""
        await running.customers.exists(customer)
        result = await running.client.billing.open_customer_portal(customer.id, return_url=body.return_url)
        return result.model_copy(update={"url": here(request, result.url)})

    if emulator is not None:
        _add_pages(router, emulator)
    return router


def _add_pages(router: APIRouter, emulator: Callable[[], ASGIApp]) -> None:
    for page in ("checkout", "portal"):
        # Starlette takes anything that is not a function for an ASGI app; its annotation knows functions only.
        pages: Any = _EmulatorPages(emulator, page)
        router.add_route(f"{router.prefix}/emulator/{page}/{{rest:path}}", pages, include_in_schema=False)


def _as_given(_request: Request, url: str | None) -> str | None:
    return url


def _served_here(request: Request, url: str | None) -> str | None:
    """The address of an emulator's page below the billing routes: inside a process it has no host of its own."""
    if url is None:
        return None
    billing = request.url.path.rpartition("/")[0]
    return str(request.url.replace(path=f"{billing}/emulator{urlsplit(url).path}", query=""))


_THE_CALLERS_FAULT = {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}


@contextmanager
def _answering() -> Iterator[None]:
    """Turn what Autumn answered, or did not, into what the front end is told."""
    try:
        yield
    except Unavailable as error:
        raise billing_unavailable(error.retry_after) from error
    except RequestRejected as error:
        status = error.status if error.status in _THE_CALLERS_FAULT else HTTPStatus.BAD_GATEWAY
        raise HTTPException(status, {"code": error.code, "message": error.message}) from error


async def _from_request(request: Request) -> object:
    state = request_state(request.scope)
    if state is not None:
        return state.customer
    return from_request_user(request) if "user" in request.scope else None
