"""Routes for front ends: what a customer has, what they could have, and where they go to pay.

No `from __future__ import annotations` here: FastAPI reads these signatures.
"""

import logging
import math
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from http import HTTPStatus
from typing import Annotated, Any, Literal, Protocol

from fastapi import APIRouter, Depends, Header, HTTPException, Query, Request, Response
from pydantic import BaseModel, Field
from starlette.types import ASGIApp

from ._browsers import EmulatorPages, not_from_a_form, safe_url
from ._identity import customer_from, from_request_user
from ._openapi import RESPONSES
from ._purchases import Cached, Offer, Purchases, Wish, pays_now
from ._refusals import not_authenticated, refusal
from ._scope import Runtime, request_state
from .client import Operations
from .errors import RateLimited, RequestRejected, Unavailable, Uncertain
from .models import (
    AttachResult,
    Balance,
    Customer,
    EntityRecord,
    EventAggregate,
    PaymentSetup,
    Plan,
    PortalResult,
    Preview,
    Purchase,
    Subscription,
)

__all__ = [
    "AttachRequest",
    "BillingCustomer",
    "PlanRequest",
    "PortalRequest",
    "PreviewRequest",
    "SetupRequest",
    "billing_router",
]


_log = logging.getLogger("fastapi_autumn")

_Dependency = Callable[..., Any]
_MOST_ENTITIES = 1000

_OF_A_CHANGE: dict[int | str, dict[str, Any]] = {
    404: {"description": "`plan_not_offered`, or Autumn's own code."},
    409: {"description": "`plan_already_attached`; `plan_is_free`: there is nothing to cancel."},
    429: {"description": "`busy`: another change of this customer's plans is under way. Nothing was done."},
    504: {"description": "`outcome_unknown`: it may have been done. Show the customer's plans before another try."},
}


class _Autumn(Protocol):
    def running(self) -> AbstractAsyncContextManager[Runtime]: ...


class BillingCustomer(BaseModel):
    """What a front end may know about who is calling; the metadata that a service keeps at Autumn stays there."""

    id: str | None
    name: str | None
    email: str | None
    subscriptions: tuple[Subscription, ...]
    purchases: tuple[Purchase, ...]
    balances: dict[str, Balance]
    flags: dict[str, Any]


class PlanRequest(BaseModel):
    """A plan that the customer is on."""

    plan_id: str = Field(min_length=1)
    entity_id: str | None = Field(default=None, min_length=1)


class PreviewRequest(PlanRequest):
    """A plan that the customer may want.

    One whose items are bought in advance, such as a top-up, needs `feature_quantities`: feature id to units.
    """

    feature_quantities: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)


class AttachRequest(PreviewRequest):
    """A plan that the customer wants, and where to bring them back to after paying."""

    success_url: str | None = None


class SetupRequest(BaseModel):
    """Where to bring the customer back to after leaving a card."""

    success_url: str | None = None


class PortalRequest(BaseModel):
    """Where to bring the customer back to from the portal."""

    return_url: str | None = None


def billing_router(
    autumn: _Autumn,
    *,
    prefix: str,
    customer: Callable[..., Any] | None,
    plans: Collection[str] | None = None,
    public_plans: bool = False,
    emulator: Callable[[], ASGIApp] | None = None,
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

    router = APIRouter(
        prefix=prefix,
        tags=["billing"],
        responses={401: RESPONSES[401], 503: RESPONSES[503]},
        dependencies=[Depends(not_from_a_form)],
    )
    offer, pages = Offer(plans), EmulatorPages(prefix, here=emulator is not None)
    _add_what_there_is(router, paying, runtime, offer, public_plans=public_plans)
    _add_changes(router, paying, runtime, offer=offer, purchases=Purchases(), pages=pages)
    _add_pages_elsewhere(router, paying, runtime, pages)
    if emulator is not None:
        pages.add_to(router, emulator)
    return router


def _add_what_there_is(
    router: APIRouter, paying: _Dependency, runtime: _Dependency, offer: Offer, *, public_plans: bool
) -> None:
    features = Cached(_features)
    Paying = Annotated[Customer, Depends(paying)]  # noqa: N806 - a type
    Running = Annotated[Runtime, Depends(runtime)]  # noqa: N806 - a type

    @router.get("/customer")
    async def get_customer(customer: Paying, running: Running) -> BillingCustomer:
        """Who is calling, with their plans and balances; created on the first visit."""
        record = await running.customers.record(customer)
        return BillingCustomer.model_validate(record, from_attributes=True)

    @router.get("/plans", dependencies=[] if public_plans else [Depends(paying)])
    async def list_plans(running: Running, response: Response) -> tuple[Plan, ...]:
        """The plans on offer, as of the last minute."""
        response.headers["cache-control"] = f"{'public' if public_plans else 'private'}, max-age=60"
        return await offer.plans(running)

    @router.get("/usage")
    async def get_usage(
        customer: Paying,
        running: Running,
        feature_id: Annotated[str, Query(min_length=1)],
        range: Annotated[Literal["24h", "7d", "30d", "90d"], Query()] = "30d",  # noqa: A002 - Autumn's own name
        entity_id: Annotated[str | None, Query(min_length=1)] = None,
    ) -> EventAggregate:
        """What the customer used, by period and in total."""
        known = await features.get(running)
        if feature_id not in known and feature_id not in (known := await features.get(running, newer=True)):
            raise refusal(HTTPStatus.NOT_FOUND, "feature_not_found", "There is no such feature.")
        if known[feature_id]:
            raise refusal(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "credit_system",
                "Nothing is counted under a credit system; ask for what its credits pay for.",
                features=known[feature_id],
            )
        await running.customers.exists(customer)
        events = running.client.front_end.events
        return await events.aggregate(customer.id, feature_id, entity_id=entity_id, range=range)

    @router.get("/entities")
    async def list_entities(customer: Paying, running: Running) -> tuple[EntityRecord, ...]:
        """The customer's entities, such as seats or workspaces, at most a thousand, with their balances."""
        await running.customers.exists(customer)
        page = await running.client.front_end.entities.list(customer_id=customer.id, limit=_MOST_ENTITIES)
        return tuple(entity for entity in page.list if entity.customer_id in {None, customer.id})


def _add_changes(
    router: APIRouter,
    paying: _Dependency,
    runtime: _Dependency,
    *,
    offer: Offer,
    purchases: Purchases,
    pages: EmulatorPages,
) -> None:
    Paying = Annotated[Customer, Depends(paying)]  # noqa: N806 - a type
    Running = Annotated[Runtime, Depends(runtime)]  # noqa: N806 - a type

    @router.post("/preview")
    async def preview(body: PreviewRequest, customer: Paying, running: Running) -> Preview:
        """What a plan would cost, now and in the next cycle."""
        await _offered(offer, running, body)
        await running.customers.exists(customer)
        return await running.client.front_end.billing.preview_attach(
            customer.id, body.plan_id, entity_id=body.entity_id, feature_quantities=body.feature_quantities
        )

    @router.post("/attach", responses=_OF_A_CHANGE)
    async def attach(
        body: AttachRequest,
        customer: Paying,
        running: Running,
        request: Request,
        idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
    ) -> AttachResult:
        """Put the customer on a plan, or say where they go to pay for it.

        Two clicks are one purchase. The same plan and amount twice within a minute is, too, unless each has its own
        `Idempotency-Key`.
        """
        success_url = safe_url(request, body.success_url, "success_url")
        plan = await _offered(offer, running, body)
        once = not pays_now(plan, body.feature_quantities)
        wish = Wish(plan.id, body.feature_quantities, body.entity_id, success_url, key=idempotency_key, once=once)
        result = await purchases.buy(running, customer, wish)
        return result.model_copy(update={"payment_url": pages.address(request, result.payment_url)})

    @router.post("/cancel", responses=_OF_A_CHANGE)
    async def cancel(body: PlanRequest, customer: Paying, running: Running) -> AttachResult:
        """End a plan with its cycle."""
        if await offer.is_free(running, body.plan_id):
            # It would end at once, and begin anew with all its credits.
            raise refusal(
                HTTPStatus.CONFLICT, "plan_is_free", "This plan costs nothing, so there is nothing to cancel."
            )
        await running.customers.exists(customer)
        return await running.client.front_end.billing.update(
            customer.id,
            body.plan_id,
            entity_id=body.entity_id,
            cancel_action="cancel_end_of_cycle",
        )

    @router.post("/uncancel", responses=_OF_A_CHANGE)
    async def uncancel(body: PlanRequest, customer: Paying, running: Running) -> AttachResult:
        """Take a cancellation back before the cycle ends."""
        await running.customers.exists(customer)
        return await running.client.front_end.billing.update(
            customer.id, body.plan_id, entity_id=body.entity_id, cancel_action="uncancel"
        )


def _add_pages_elsewhere(router: APIRouter, paying: _Dependency, runtime: _Dependency, pages: EmulatorPages) -> None:
    Paying = Annotated[Customer, Depends(paying)]  # noqa: N806 - a type
    Running = Annotated[Runtime, Depends(runtime)]  # noqa: N806 - a type

    @router.post("/setup-payment")
    async def setup_payment(
        customer: Paying, running: Running, request: Request, body: SetupRequest | None = None
    ) -> PaymentSetup:
        """Where the customer leaves a card without buying anything."""
        success_url = safe_url(request, body.success_url if body else None, "success_url")
        await running.customers.exists(customer)
        result = await running.client.front_end.billing.setup_payment(customer.id, success_url=success_url)
        return result.model_copy(update={"url": pages.address(request, result.url)})

    @router.post("/portal")
    async def open_portal(
        customer: Paying, running: Running, request: Request, body: PortalRequest | None = None
    ) -> PortalResult:
        """Where the customer manages payment and invoices."""
        return_url = safe_url(request, body.return_url if body else None, "return_url")
        await running.customers.exists(customer)
        result = await running.client.front_end.billing.open_customer_portal(customer.id, return_url=return_url)
        return result.model_copy(update={"url": pages.address(request, result.url)})


async def _offered(offer: Offer, running: Runtime, body: PreviewRequest) -> Plan:
    plan = await offer.find(running, body.plan_id, entity_id=body.entity_id)
    if plan is None:
        raise refusal(HTTPStatus.NOT_FOUND, "plan_not_offered", "This plan is not on offer.")
    return plan


async def _features(client: Operations) -> dict[str, list[str]]:
    """Return the ids of all features, each with the features that it pays for."""
    return {
        feature.id: [str(one["metered_feature_id"]) for one in feature.credit_schema or ()]
        for feature in await client.features.list()
    }


_THE_CALLERS_FAULT = {HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT}
_CHANGES = {"billing.attach", "billing.update"}


@contextmanager
def _answering() -> Iterator[None]:
    """Turn what Autumn answered, or did not, into what the front end is told."""
    try:
        yield
    except (Unavailable, RequestRejected) as error:
        raise _told(error) from error


def _told(error: Unavailable | RequestRejected) -> HTTPException:
    retry_after: float | None = None
    match error:
        case Uncertain(operation=operation) if operation in _CHANGES:
            _log.warning("a customer is told that nobody knows what became of a change of plans: %s", error)
            status, code = HTTPStatus.GATEWAY_TIMEOUT, "outcome_unknown"
            message = "It is not known yet whether this was done. Look at your plans before you try again."
        case RateLimited(operation=operation) if operation in _CHANGES:
            status, code, retry_after = HTTPStatus.TOO_MANY_REQUESTS, "busy", error.retry_after or 1
            message = "Another change of your plans is under way. Nothing was done; look again in a moment."
        case Unavailable():
            status, code, retry_after = HTTPStatus.SERVICE_UNAVAILABLE, "billing_unavailable", error.retry_after or 1
            message = "Billing cannot be reached; try again."
        case RequestRejected() if error.status in _THE_CALLERS_FAULT:
            status, code, message = HTTPStatus(error.status), error.code, error.message
        case _:
            # Such as a wrong key, of which Autumn's words show the beginning: for operators, not for customers.
            _log.error("Autumn does not take the calls of the billing routes, check the key: %s", error)
            status, code, message = HTTPStatus.BAD_GATEWAY, "billing_refused", "Billing is not set up correctly."
    headers = None if retry_after is None else {"Retry-After": str(max(1, math.ceil(retry_after)))}
    return refusal(status, code, message, headers=headers)


async def _from_request(request: Request) -> object:
    state = request_state(request.scope)
    if state is not None:
        return state.customer
    return from_request_user(request) if "user" in request.scope else None
