"""Taking the credits, and deciding how it ends."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from fastapi_autumn.charge._charge import Charge
from fastapi_autumn.client import AutumnClient
from fastapi_autumn.customers import KnownCustomers
from fastapi_autumn.errors import (
    CustomerNotFound,
    InsufficientCredits,
    LockAlreadyExists,
    RequestRejected,
    Unavailable,
    Uncertain,
    UnknownModel,
)
from fastapi_autumn.models import Balance, CheckResult, Customer, CustomerRecord, Lock
from fastapi_autumn.pricing import to_json_number
from fastapi_autumn.settings import AutumnSettings, Settlement
from fastapi_autumn.settlement import Action, Entry, Outcome, Taken, Verdict, settle

if TYPE_CHECKING:
    from fastapi_autumn.settlement.outbox import Outbox

__all__ = ["Charges", "PriceList", "Requirement"]

_log = logging.getLogger("fastapi_autumn")


class PriceList(Protocol):
    """What a model call costs."""

    def get_model_credits(self, model: str) -> Decimal | None:
        """Return the price of one call in credits, or None for a model that is not on the list."""
        ...


class Requirement(Protocol):
    """What a customer's plan has to include, apart from the balance."""

    def check(self, record: CustomerRecord, *, model: str, credits: Decimal) -> None:  # noqa: A002 - Autumn's own word
        """Return if the customer may make the call.

        Raises:
            NotEntitled: They may not.
        """
        ...


class Charges:
    """Opens charges and closes them.

    Args:
        settings: Feature, settlement, and what to do when Autumn is unreachable.
        client: The way to Autumn.
        customers: Who is known to exist.
        prices: Model to credits.
        outbox: Where what has to be done is kept until it is done.
    """

    def __init__(
        self,
        settings: AutumnSettings,
        *,
        client: AutumnClient,
        customers: KnownCustomers,
        prices: PriceList,
        outbox: "Outbox",
    ) -> None:
        self.settings = settings
        self._client = client
        self._customers = customers
        self._prices = prices
        self._outbox = outbox

    @asynccontextmanager
    async def charge(
        self,
        customer: Customer,
        model: str,
        *,
        feature_id: str | None = None,
        entity_id: str | None = None,
        properties: Mapping[str, Any] | None = None,
        settlement: Settlement | None = None,
    ) -> AsyncIterator[Charge]:
        """Charge for what happens inside; an exception, or a cancellation, gives the credits back.

        Raises as `open` does.
        """
        charge = await self.open(
            customer,
            model,
            feature_id=feature_id,
            entity_id=entity_id,
            properties=properties,
            settlement=settlement,
        )
        try:
            yield charge
        except BaseException:
            charge.finish(Outcome.FAILED)
            raise
        charge.finish(Outcome.DONE)

    def free(self, customer: Customer, model: str) -> Charge:
        """Return a charge over nothing, for a call that is not billed."""
        entry = self._entry(customer, self.settings.feature_id, Decimal(0), None)
        return self._charge(entry, customer, model)(taken=Taken.NOTHING)

    async def open(
        self,
        customer: Customer,
        model: str,
        *,
        feature_id: str | None = None,
        entity_id: str | None = None,
        properties: Mapping[str, Any] | None = None,
        settlement: Settlement | None = None,
        requirement: Requirement | None = None,
        confirm_customer: bool = True,
    ) -> Charge:
        """Take the credits that a call of `model` costs.

        Args:
            customer: Who pays.
            model: What is called.
            feature_id: Used instead of the one in the settings.
            entity_id: Whose share of the customer's balance pays.
            properties: Recorded with Autumn's event.
            settlement: Used instead of the one in the settings.
            requirement: What the plan has to include besides; looking costs a round trip.
            confirm_customer: Create or confirm the customer here; False when somebody else has begun to.

        Raises:
            UnknownModel: The price list does not have the model.
            NotEntitled: `requirement` is not met.
            InsufficientCredits: The balance does not cover it; nothing was taken.
            Unavailable: Autumn gave neither a yes nor a no, and `on_unavailable` is `deny`.
            RequestRejected: Autumn refused the request itself: a wrong key, a feature that does not exist.
        """
        price = self._prices.get_model_credits(model)
        if price is None:
            raise UnknownModel("There is no price for this model.", model=model)
        hold = (settlement or self.settings.settlement) == "hold"
        unavailable = await self._admit(customer, model, price, requirement, confirm=confirm_customer)
        # From the making of the id to its journal there is no wait: a commit in between would count it as written.
        entry = self._entry(customer, feature_id or self.settings.feature_id, price, entity_id)
        charge = self._charge(entry, customer, model)
        if unavailable is not None:
            return self._unverified(charge(taken=Taken.NOTHING, verified=False), unavailable)
        if not hold:
            # A hold needs no journal: Autumn gives it back by itself when its time is over.
            self._outbox.open(entry)
        taken, unknown = (Taken.HELD, Taken.HELD) if hold else (Taken.DEDUCTED, Taken.UNKNOWN)
        try:
            result = await self._take(customer, entry, model, properties, hold=hold)
        except Unavailable as error:
            taken = unknown if isinstance(error, Uncertain) else Taken.NOTHING
            if taken is Taken.NOTHING:
                self._outbox.close(entry.charge_id)
            return self._unverified(charge(taken=taken, verified=False), error)
        except RequestRejected:
            self._outbox.close(entry.charge_id)
            raise
        except BaseException:
            charge(taken=unknown).refund("cancelled during the check")
            raise
        if result is not None and not result.allowed:
            self._outbox.close(entry.charge_id)
            raise _insufficient(result, model=model, price=price)
        return charge(taken=taken, balance=result.balance if result is not None else None)

    def _charge(self, entry: Entry, customer: Customer, model: str) -> Callable[..., Charge]:
        return partial(
            Charge,
            entry,
            customer=customer,
            model=model,
            refund_on_disconnect=self.settings.refund_on_disconnect,
            close=self.close,
        )

    async def _admit(
        self, customer: Customer, model: str, price: Decimal, requirement: Requirement | None, *, confirm: bool
    ) -> Unavailable | None:
        """Make sure that the customer exists and meets the requirement; returns why that cannot be told."""
        try:
            if requirement is not None:
                requirement.check(await self._customers.record(customer), model=model, credits=price)
            elif confirm:
                await self._customers.exists(customer)
        except Unavailable as error:
            return error
        return None

    async def _take(
        self, customer: Customer, entry: Entry, model: str, properties: Mapping[str, Any] | None, *, hold: bool
    ) -> CheckResult | None:
        """Check and take in one step; None is a hold whose answer was lost."""
        try:
            return await self._check(entry, model, properties, hold=hold)
        except CustomerNotFound:
            # Its creation may still be under way beside this request, or it was deleted at Autumn since.
            self._customers.forget(customer)
            await self._customers.record(customer)
            return await self._check(entry, model, properties, hold=hold)

    async def _check(
        self, entry: Entry, model: str, properties: Mapping[str, Any] | None, *, hold: bool
    ) -> CheckResult | None:
        recorded = {**(properties or {}), "charge_id": entry.charge_id, "model": model}
        lock = None
        if hold:
            recorded["settlement"] = "hold"
            lock = Lock(entry.charge_id, expires_at=entry.created_at + int(self.settings.hold_ttl * 1000))
        try:
            return await self._client.balances.check(
                entry.customer_id,
                entry.feature_id,
                required_balance=entry.credits,
                send_event=not hold,
                lock=lock,
                entity_id=entry.entity_id,
                properties=recorded,
                with_preview=True,
                idempotency_key=None if hold else f"{entry.charge_id}:check",
            )
        except LockAlreadyExists:
            return None

    def _entry(self, customer: Customer, feature_id: str, price: Decimal, entity_id: str | None) -> Entry:
        now = self._outbox.now()
        return Entry(
            charge_id=self._outbox.new_charge_id(),
            customer_id=customer.id,
            feature_id=feature_id,
            entity_id=entity_id,
            credits=price,
            action=Action.LOOK_UP,
            value=-price,
            reason="the process died",
            created_at=now,
        )

    def _unverified(self, charge: Charge, error: Unavailable) -> Charge:
        """Apply `on_unavailable` to a call for which Autumn gave neither a yes nor a no."""
        if self.settings.on_unavailable == "deny":
            charge.refund("no answer to the check")
            raise error
        _log.warning("a call is served unverified: %s", error)
        return charge

    def close(self, entry: Entry, taken: Taken, verdict: Verdict) -> None:
        """Have done what `verdict` needs. Returns at once and cannot fail; the outbox sees to the rest."""
        instruction = settle(taken, charged=entry.credits, verdict=verdict)
        if instruction is None:
            self._outbox.close(entry.charge_id)
            return
        delay = self.settings.event_delay if instruction.action is Action.LOOK_UP else 0
        self._outbox.put(
            replace(
                entry,
                action=instruction.action,
                value=instruction.value,
                reason=verdict.reason,
                due_at=self._outbox.now() + int(delay * 1000),
            )
        )


def _insufficient(result: CheckResult, *, model: str, price: Decimal) -> InsufficientCredits:
    return InsufficientCredits(
        "The balance does not cover this call.",
        model=model,
        required=to_json_number(price if result.required_balance is None else result.required_balance),
        balance=_shown_balance(result.balance),
        plans=_shown_plans(result.preview),
    )


def _shown_balance(balance: Balance | None) -> dict[str, Any] | None:
    """What a customer may see of a balance; grants and their ids are internal."""
    if balance is None:
        return None
    return {
        "feature_id": balance.feature_id,
        "remaining": to_json_number(balance.remaining),
        "granted": to_json_number(balance.granted),
        "usage": to_json_number(balance.usage),
        "next_reset_at": balance.next_reset_at,
        "unlimited": balance.unlimited,
        "overage_allowed": balance.overage_allowed,
    }


def _shown_plans(preview: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The plans that would help, by id and name, out of a check's preview."""
    products = (preview or {}).get("products") or []
    return [
        {"id": product.get("id"), "name": product.get("name"), "add_on": bool(product.get("is_add_on"))}
        for product in products
    ]
