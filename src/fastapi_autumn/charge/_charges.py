"""Taking the credits, and deciding how it ends."""

import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from fastapi_autumn._exact import representable
from fastapi_autumn.charge._answers import insufficient, loose_grant
from fastapi_autumn.charge._budget import Budget
from fastapi_autumn.charge._charge import Charge, ending
from fastapi_autumn.charge._charging import WAYS, WayOfCharging, not_taken
from fastapi_autumn.charge._metered import Failed
from fastapi_autumn.charge._quotes import AskedFor, Estimate, Quote, Requirement, quote
from fastapi_autumn.client import AutumnClient
from fastapi_autumn.customers import KnownCustomers
from fastapi_autumn.errors import (
    CircuitOpen,
    CustomerNotFound,
    Overloaded,
    RequestRejected,
    Unavailable,
    Uncertain,
)
from fastapi_autumn.models import Balance, CheckResult, Customer
from fastapi_autumn.pricing import PriceList, price_of
from fastapi_autumn.pricing import credits as exact_credits
from fastapi_autumn.settings import AutumnSettings
from fastapi_autumn.settlement import Charging, Entry, ledger
from fastapi_autumn.settlement.entry import Doubt
from fastapi_autumn.settlement.replies import PaidCharge

if TYPE_CHECKING:
    from fastapi_autumn.settlement.outbox import Outbox

__all__ = ["Charges", "Requirement"]

_log = logging.getLogger("fastapi_autumn")

_LONGEST_HOLD_MS = 24 * 3600 * 1000 - 300_000
"""Autumn refuses a hold of more than 24 hours. The rest is for what is left of a difference between the clocks."""


class Charges:
    """Opens charges and closes them.

    Args:
        settings: Feature, way of charging, and what to do when Autumn is unreachable.
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
        charging: Charging | None = None,
        credits: Decimal | float | str | None = None,  # noqa: A002 - Autumn's own word
        request: AskedFor = None,
        estimate: Estimate | None = None,
        failed: Failed = "nothing",
        gone: tuple[type[BaseException], ...] = (),
        leave_to_request: Callable[..., None] | None = None,
    ) -> AsyncIterator[Charge]:
        """Charge for what happens inside.

        An exception gives the credits back. One of `gone` means that the caller has left, which costs what it costs on
        a route. A cancellation, or the closing of a generator, may mean either. Inside of a request only the end of the
        request tells, so the charge is left to it; elsewhere there is no caller who could have left, and it failed.

        Raises as `open` does.
        """
        charge = await self.open(
            customer,
            model,
            feature_id=feature_id,
            entity_id=entity_id,
            properties=properties,
            charging=charging,
            credits=credits,
            request=request,
            estimate=estimate,
            failed=failed,
        )
        with ending(charge, gone, leave_to_request):
            yield charge

    @asynccontextmanager
    async def budget(
        self,
        customer: Customer,
        credits: Decimal | float | str,  # noqa: A002 - Autumn's own word
        *,
        gone: tuple[type[BaseException], ...] = (),
        leave_to_request: Callable[..., None] | None = None,
        **options: Any,
    ) -> AsyncIterator[Budget]:
        """Hold `credits` for what happens inside. It ends as in `charge`, and costs what its steps come to.

        Raises as `open_budget` does.
        """
        budget = await self.open_budget(customer, credits, **options)
        with ending(budget, gone, leave_to_request):
            yield budget

    async def open_budget(
        self,
        customer: Customer,
        credits: Decimal | float | str,  # noqa: A002 - Autumn's own word
        *,
        name: str = "budget",
        feature_id: str | None = None,
        entity_id: str | None = None,
        properties: Mapping[str, Any] | None = None,
        failed: Failed = "used",
        requirement: Requirement | None = None,
        confirm_customer: bool = True,
    ) -> Budget:
        """Hold `credits` for the steps of a run, which stands as the model `name` in Autumn's events.

        The rest is as in `open`.
        """
        ledger.refuse_reserved(properties or {})
        asked = Quote(exact_credits(credits), of="budget")
        opened, balance, verified = await self._open(
            customer,
            name,
            asked,
            feature_id=feature_id or self.settings.feature_id,
            entity_id=entity_id,
            properties=properties,
            charging="hold",
            requirement=requirement,
            confirm_customer=confirm_customer,
        )
        return Budget(
            opened,
            total=asked.credits,
            prices=self._prices,
            failed=failed,
            journal=self._outbox.open,
            balance=balance,
            verified=verified,
            **self._of(customer, name),
        )

    def free_budget(self, customer: Customer, credits: Decimal | float | str, *, name: str = "budget") -> Budget:  # noqa: A002 - as above
        """Return a budget whose steps are counted and not billed."""
        entry = self._entry(customer, self.settings.feature_id, Decimal(0), None, "deduct")
        total = exact_credits(credits)
        return Budget(not_taken(entry), total=total, prices=self._prices, **self._of(customer, name))

    async def price(self, model: str, *, credits: Decimal | float | str | None = None) -> object:  # noqa: A002 - as above
        """Return what says how much a call costs: the amount, a rate, or None for a model without a price."""
        return credits if credits is not None else await price_of(self._prices, model)

    def free(self, customer: Customer, model: str) -> Charge:
        """Return a charge over nothing, for a call that is not billed."""
        entry = self._entry(customer, self.settings.feature_id, Decimal(0), None, "deduct")
        return Charge(not_taken(entry), **self._of(customer, model))

    def paid(
        self,
        customer: Customer,
        model: str,
        earlier: PaidCharge,
        *,
        feature_id: str | None = None,
        entity_id: str | None = None,
    ) -> Charge:
        """Return a charge for a call that an earlier attempt has paid for. What `settle` adds is charged anew."""
        entry = self._entry(customer, feature_id or self.settings.feature_id, earlier.credits, entity_id, "deduct")
        return Charge(not_taken(entry), earlier=earlier, **self._of(customer, model))

    async def open(
        self,
        customer: Customer,
        model: str,
        *,
        feature_id: str | None = None,
        entity_id: str | None = None,
        properties: Mapping[str, Any] | None = None,
        charging: Charging | None = None,
        credits: Decimal | float | str | None = None,  # noqa: A002 - Autumn's own word
        request: AskedFor = None,
        estimate: Estimate | None = None,
        failed: Failed = "nothing",
        requirement: Requirement | None = None,
        confirm_customer: bool = True,
    ) -> Charge:
        """Take the credits that a call of `model` costs, or hold the most that it can cost where its price is a rate.

        Args:
            customer: Who pays.
            model: What is called.
            feature_id: Used instead of the one in the settings.
            entity_id: Whose share of the customer's balance pays.
            properties: Recorded with Autumn's event.
            charging: Used instead of the one in the settings, for a fixed price; a rate needs a hold.
            credits: Taken instead of the price, or held instead of the most that a rate comes to.
            request: What a rate's call asks for; see `CallRequest`.
            estimate: From a rate and a request to what is held instead of the most.
            failed: What a call with a rate costs if it fails: nothing, or what it used by then.
            requirement: What the plan has to include besides; looking costs a round trip.
            confirm_customer: Create or confirm the customer here; False when somebody else has begun to.

        Raises:
            UnknownModel: The price list does not have the model.
            Unbounded: Nothing says what a call with a rate can use at most.
            NotEntitled: `requirement` is not met.
            InsufficientCredits: The balance does not cover it; nothing was taken.
            Unavailable: Autumn gave neither a yes nor a no, and `on_unavailable` is `deny`.
            RequestRejected: Autumn refused the request itself: a wrong key, a feature that does not exist.
            ConfigurationError: `properties` uses a name that belongs to this package.
        """
        ledger.refuse_reserved(properties or {})
        asked = await quote(self._prices, model, credits=credits, request=request, estimate=estimate)
        opened, balance, verified = await self._open(
            customer,
            model,
            asked,
            feature_id=feature_id or self.settings.feature_id,
            entity_id=entity_id,
            properties=properties,
            charging="hold" if asked.rate is not None else charging or self.settings.charging,
            requirement=requirement,
            confirm_customer=confirm_customer,
        )
        return Charge(
            opened,
            rate=asked.rate,
            bounds=asked.bounds,
            request=asked.request,
            failed=failed,
            journal=self._outbox.open,
            balance=balance,
            verified=verified,
            **self._of(customer, model),
        )

    async def _open(
        self,
        customer: Customer,
        model: str,
        asked: Quote,
        *,
        feature_id: str,
        entity_id: str | None,
        properties: Mapping[str, Any] | None,
        charging: Charging,
        requirement: Requirement | None,
        confirm_customer: bool,
    ) -> tuple[Entry, Balance | None, bool]:
        """Take or hold the credits; returns the entry, the balance that is left, and whether Autumn said yes."""
        price = asked.credits
        unavailable = await self._admit(customer, model, price, requirement, confirm=confirm_customer)
        way = self._way(charging, customer)
        if unavailable is None and not way.journalled and not self._client.knows_the_time:
            # A hold ends by Autumn's clock. One that has ended before it began is never given back.
            unavailable = await self._admit(customer, model, price, None, confirm=True)
        # Do not await between creating the id and journalling it: a commit in between would take it for written.
        entry = way.begin(self._entry(customer, feature_id, price, entity_id, way.name))
        if unavailable is not None:
            return self._unverified(not_taken(entry), unavailable)
        if way.journalled:
            self._outbox.open(entry)
        try:
            result = await self._take(way, customer, entry, model, properties)
        except Unavailable as error:
            left = entry if isinstance(error, Uncertain) else not_taken(entry)
            return self._unverified(left, error)
        except RequestRejected:
            self._end(not_taken(entry))
            raise
        except BaseException:
            # The request may be at work at Autumn. So the charge ends in doubt, and what was taken comes back.
            self._end(entry._replace(reason="cancelled during the check"))
            raise
        if not result.allowed:
            self._end(not_taken(entry))
            raise insufficient(result, model=model, asked=asked)
        held_until = self._hold_ends_at() if entry.held else None
        loose = loose_grant(result.balance, held_until=held_until)
        opened = way.taken(entry)._replace(required=result.required_balance, **loose)
        return opened, result.balance, True

    def _way(self, charging: Charging, customer: Customer) -> WayOfCharging:
        """Return how to charge now. A worker that others may take for dead begins nothing that only it can undo.

        Raises:
            Overloaded: This worker may not charge at all.
        """
        # Autumn counts usage limits by itself: a refund does not lower that count, the release of a hold does.
        way = WAYS["hold" if self._customers.has_usage_limit(customer) else charging]
        if not way.journalled or self._outbox.shows_life:
            return way
        if self.settings.when_cut_off == "hold" and not self._outbox.stopping:
            return WAYS["hold"]
        raise Overloaded("balances.check", "the outbox cannot be written, so no charge is opened", retry_after=1)

    def _of(self, customer: Customer, model: str) -> dict[str, Any]:
        """Return the arguments that all charges have in common."""
        return {
            "customer": customer,
            "model": model,
            "settings": self.settings,
            "end": self._end,
            "correct": self._correct,
        }

    def _correct(self, entry: Entry, difference: Decimal, reason: str) -> None:
        """Take or give back what a call comes to beyond what was settled already, as a charge of its own."""
        amount = representable(abs(difference))
        own = self._entry(Customer(entry.customer_id), entry.feature_id, amount, entry.entity_id, entry.charging)
        self._end(not_taken(own)._replace(cost=difference, reason=reason))

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
        self, way: WayOfCharging, customer: Customer, entry: Entry, model: str, properties: Mapping[str, Any] | None
    ) -> CheckResult:
        """Check and take in one step."""
        try:
            return await self._check(way, entry, model, properties)
        except CustomerNotFound:
            # Its creation may still be under way beside this request, or it was deleted at Autumn since. A clear no
            # frees the key, so it may be used again.
            self._customers.forget(customer)
            await self._customers.record(customer)
            return await self._check(way, entry, model, properties)

    def _hold_ends_at(self) -> int:
        return self._outbox.now() + min(int(self.settings.hold_ttl * 1000), _LONGEST_HOLD_MS)

    async def _check(
        self, way: WayOfCharging, entry: Entry, model: str, properties: Mapping[str, Any] | None
    ) -> CheckResult:
        return await self._client.balances.check(
            entry.customer_id,
            entry.feature_id,
            required_balance=entry.credits,
            entity_id=entry.entity_id,
            properties=ledger.opening(entry.charge_id, model=model, charging=entry.charging, given=properties),
            # What would help, for a 402, without a second call.
            with_preview=True,
            idempotency_key=entry.key,
            **way.ask(entry, expires_at=self._hold_ends_at()),
        )

    def _entry(
        self, customer: Customer, feature_id: str, price: Decimal, entity_id: str | None, charging: Charging
    ) -> Entry:
        """Say what is to be done if the process dies now: whatever was taken is given back."""
        return Entry(
            charge_id=self._outbox.new_charge_id(),
            customer_id=customer.id,
            feature_id=feature_id,
            entity_id=entity_id,
            credits=price,
            cost=Decimal(0),
            reason="the process died",
            charging=charging,
            created_at=self._outbox.now(),
        )

    def _unverified(self, entry: Entry, error: Unavailable) -> tuple[Entry, None, bool]:
        """Apply `on_unavailable` to a call for which Autumn gave neither a yes nor a no."""
        # What this service holds back itself does not show that Autumn cannot be asked. A customer who floods it would
        # choose to be served.
        held_back_here = isinstance(error, Overloaded) and not isinstance(error, CircuitOpen)
        if self.settings.on_unavailable == "deny" or held_back_here:
            self._end(entry._replace(reason="no answer to the check"))
            raise error
        _log.warning("A call is served unverified: %s", error)
        return entry, None, False

    def _end(self, entry: Entry) -> None:
        """Have done what the end of a charge needs. Returns at once and cannot fail; the outbox sees to the rest."""
        # A hold is owed its end even if it cost just what it holds: unconfirmed, it would run out.
        owed = entry.doubt is not Doubt.NONE or entry.held or entry.taken != entry.cost
        self._outbox.end(entry._replace(due_at=self._outbox.now()), owed=owed)
