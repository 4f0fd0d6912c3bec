"""What a front end may buy, and how one wish becomes one purchase: no HTTP here."""

import asyncio
import hashlib
import logging
import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from ._scope import Runtime
from .client import Operations
from .errors import DuplicateRequest, RequestRejected, Unavailable, Uncertain
from .models import AttachResult, Customer, CustomerRecord, EntityRecord, Plan, Purchase, Subscription

__all__ = ["Cached", "Offer", "Purchases", "Wish", "is_free", "pays_now"]

_log = logging.getLogger("fastapi_autumn")

_T = TypeVar("_T")
_V = TypeVar("_V")

_FRESH_SECONDS = 60.0
_AT_MOST_ONCE_IN_SECONDS = 1.0
_ONE_WISH_MS = 60_000
_DOUBLE_CLICK_MS = 5_000
_CLOCK_SLACK_MS = 2_000
_UNKNOWN_SECONDS = 600.0
_KEY_SECONDS = 24 * 3600.0
_REMEMBERED = 10_000


class Cached(Generic[_T]):
    """What Autumn answers alike for everybody, asked for once a minute; when Autumn cannot be asked, the old answer."""

    def __init__(self, fetch: Callable[[Operations], Awaitable[_T]]) -> None:
        self._fetch = fetch
        self._client: object = None
        self._value: _T | None = None
        self._at = 0.0
        self._heard = 0
        self._under_way: asyncio.Task[_T] | None = None

    async def get(self, runtime: Runtime, *, newer: bool = False) -> _T:
        """Return the answer; `newer` asks again, though not more than once a second.

        Raises:
            Unavailable: Autumn cannot be asked, and there is no older answer.
        """
        now = asyncio.get_running_loop().time()
        if self._client is not runtime.client:
            # Another application's, or another test's: in one process each has its own Autumn.
            self._client, self._value, self._under_way = runtime.client, None, None
        newer = newer or self._heard != runtime.news.plans
        if self._value is not None and now - self._at < (_AT_MOST_ONCE_IN_SECONDS if newer else _FRESH_SECONDS):
            return self._value
        if self._under_way is None or self._under_way.done():
            self._under_way = asyncio.create_task(self._refresh(runtime), name="autumn-offer")
        try:
            return await asyncio.shield(self._under_way)
        except Unavailable:
            if self._value is None:
                raise
            return self._value

    async def _refresh(self, runtime: Runtime) -> _T:
        heard = runtime.news.plans
        value = await self._fetch(runtime.client.front_end)
        if self._client is runtime.client:
            self._heard = heard
            self._value, self._at = value, asyncio.get_running_loop().time()
        return value


class Offer:
    """The plans that a customer may choose by themselves.

    Args:
        plans: Their ids; None for all that cost something, and the free ones that Autumn gives to everybody.
    """

    def __init__(self, plans: Collection[str] | None) -> None:
        self._ids = None if plans is None else tuple(dict.fromkeys(plans))
        self._missing: list[str] = []
        self._plans = Cached[tuple[Plan, ...]](lambda client: client.plans.list(include_archived=True))

    async def plans(self, runtime: Runtime, *, newer: bool = False) -> tuple[Plan, ...]:
        """Return them: in the order in which they were named, or else in Autumn's."""
        plans = [plan for plan in await self._plans.get(runtime, newer=newer) if not plan.archived]
        if self._ids is None:
            return tuple(plan for plan in plans if not is_free(plan) or (plan.auto_enable and not plan.add_on))
        known = {plan.id: plan for plan in plans}
        missing = [id_ for id_ in self._ids if id_ not in known]
        if missing != self._missing:
            self._missing = missing
            _log.warning("plans are on offer that Autumn does not have: %s", ", ".join(missing) or "none any more")
        return tuple(known[id_] for id_ in self._ids if id_ in known)

    async def find(self, runtime: Runtime, plan_id: str, *, entity_id: str | None = None) -> Plan | None:
        """Return a plan on offer, or None; what costs nothing is for customers, not for each of their entities."""
        for newer in (False, True):
            for plan in await self.plans(runtime, newer=newer):
                if plan.id == plan_id:
                    return None if entity_id is not None and is_free(plan) else plan
        return None

    async def is_free(self, runtime: Runtime, plan_id: str) -> bool:
        """Tell whether a plan costs nothing, on offer or not: customers stay on one that is archived."""
        return any(plan.id == plan_id and is_free(plan) for plan in await self._plans.get(runtime))


def is_free(plan: Plan) -> bool:
    """Tell whether nothing in a plan has a price above zero."""
    prices = [plan.price, *(item.get("price") for item in plan.items)]
    return not any(_costs(price) for price in prices if price)


def pays_now(plan: Plan, quantities: Mapping[str, int]) -> bool:
    """Tell whether attaching a plan costs something at once; what is included in a prepaid item is not paid for."""
    if plan.price and _costs(plan.price):
        return True
    return any(
        price.get("billing_method") == "prepaid"
        and _costs(price, units=(item.get("included") or 0, quantities.get(str(item.get("feature_id")), 0)))
        for item in plan.items
        if (price := item.get("price"))
    )


def _costs(price: Mapping[str, Any], *, units: tuple[float, float] | None = None) -> bool:
    """Tell whether a price is above zero: of the units after the first number up to the second, or of any at all."""
    if units is not None and units[1] <= units[0]:
        return False
    parts = [price, *_tiers(price, units)]
    return any(part.get("amount") or part.get("flat_amount") for part in parts)


def _tiers(price: Mapping[str, Any], units: tuple[float, float] | None) -> list[Mapping[str, Any]]:
    """Return the tiers that price the units: with "volume" the one where the last unit falls, else each one begun."""
    tiers = price.get("tiers") or []
    if units is None:
        return list(tiers)
    included, last = units
    reached, begins = [], included
    for tier in tiers:
        if begins >= last:
            break
        reached.append(tier)
        begins = math.inf if tier["to"] == "inf" else tier["to"]
    return reached[-1:] if price.get("tier_behavior") == "volume" else reached


@dataclass(frozen=True, slots=True)
class Wish:
    """What a customer asked to buy.

    `key` is the front end's own name for this one wish, if it gave one. `once` is for what costs nothing, or else it
    could be taken again and again.
    """

    plan_id: str
    feature_quantities: Mapping[str, int] = field(default_factory=dict)
    entity_id: str | None = None
    success_url: str | None = None
    key: str | None = None
    once: bool = False

    def signature(self, customer_id: str) -> str:
        """Return what two clicks of one wish have in common, as an idempotency key."""
        # What can be had once is the same wish under every key.
        key, quantities = (None, []) if self.once else (self.key, sorted(self.feature_quantities.items()))
        named = repr((customer_id, self.plan_id, self.entity_id, key, quantities))
        return hashlib.sha256(named.encode("utf-8", "surrogatepass")).hexdigest()[:32]


_Bought = frozenset[tuple[str, int]]
"""What a record shows of one plan: each subscription or purchase, and when it began."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """An attempt whose outcome is unknown: its key, what was there before it, and how long it is remembered."""

    key: str
    before: _Bought
    until: float


class Purchases:
    """Makes one purchase of one wish: of a double click, of a second try after a lost answer, of two tabs.

    Clicks at the same time share one call to Autumn, and one soon after has the same answer. Where processes share no
    memory, both send Autumn the same key: it names the wish and the minute. After an unknown outcome the customer's
    record is compared with the one before; the key stays the same until the outcome is known, so that a second purchase
    cannot begin beside the first.
    """

    def __init__(self) -> None:
        self._under_way: dict[str, asyncio.Task[AttachResult]] = {}
        self._unknown: dict[str, _Attempt] = {}
        self._answered: dict[str, tuple[AttachResult, float]] = {}

    async def buy(self, runtime: Runtime, customer: Customer, wish: Wish) -> AttachResult:
        """Attach the plan, or say where to pay for it.

        Raises:
            Uncertain: Nobody knows yet; look at the customer before trying again.
            RateLimited: Another change of this customer's plans is under way; nothing was done.
            RequestRejected: Autumn said no.
        """
        signature = wish.signature(customer.id)
        answered, until = self._answered.get(f"{signature}:{wish.key}", (None, 0.0))
        if answered is not None and asyncio.get_running_loop().time() < until:
            return answered
        task = self._under_way.get(signature)
        if task is None:
            task = asyncio.create_task(self._buy(runtime, customer, wish, signature), name="autumn-purchase")
            self._under_way[signature] = task
            task.add_done_callback(lambda _: self._under_way.pop(signature, None))
        # Who leaves does not take the purchase along.
        return await asyncio.shield(task)

    async def _buy(self, runtime: Runtime, customer: Customer, wish: Wish, signature: str) -> AttachResult:
        now, now_ms = asyncio.get_running_loop().time(), runtime.client.now_ms()
        bought = await _bought(runtime, customer, wish)
        if wish.once and bought:
            raise RequestRejected(
                "billing.attach", status=409, code="plan_already_attached", message="You have had this plan already."
            )
        attempt = self._unknown.pop(signature, None)
        if attempt is None or now >= attempt.until:
            keyed = wish.key and not wish.once
            if not keyed and now_ms % _ONE_WISH_MS < _DOUBLE_CLICK_MS and _since(bought, now_ms - _DOUBLE_CLICK_MS):
                # The minute has just changed, and with it the key: this is the second click of the minute before.
                return AttachResult(customer_id=customer.id)
            key = signature if keyed else f"{signature}:{now_ms // _ONE_WISH_MS}"
            attempt = _Attempt(key, bought, now + _UNKNOWN_SECONDS)
        elif bought - attempt.before:
            return self._answer(signature, wish, AttachResult(customer_id=customer.id))
        try:
            result = await runtime.client.front_end.billing.attach(
                customer.id,
                wish.plan_id,
                entity_id=wish.entity_id,
                success_url=wish.success_url,
                feature_quantities=wish.feature_quantities,
                idempotency_key=attempt.key,
            )
        except RequestRejected as error:
            # Stripe may fail after Autumn has written everything.
            if error.code != "stripe_error" or not await self._was_bought_after_all(runtime, customer, wish, attempt):
                raise
            result = AttachResult(customer_id=customer.id)
        except Uncertain as error:
            _put(self._unknown, signature, attempt)
            # A key that Autumn has had is that of a click of the last minute, perhaps in another process.
            since_ms = now_ms - _ONE_WISH_MS - _CLOCK_SLACK_MS if isinstance(error, DuplicateRequest) else None
            if not await self._was_bought_after_all(runtime, customer, wish, attempt, since_ms):
                raise
            del self._unknown[signature]
            result = AttachResult(customer_id=customer.id)
        return self._answer(signature, wish, result)

    def _answer(self, signature: str, wish: Wish, result: AttachResult) -> AttachResult:
        """Remember an answer, for the clicks that follow, as long as they mean the same."""
        if result.required_action is None:
            click_ms = _DOUBLE_CLICK_MS if result.payment_url else _ONE_WISH_MS
            until = asyncio.get_running_loop().time() + (_KEY_SECONDS if wish.key else click_ms / 1000)
            _put(self._answered, f"{signature}:{wish.key}", (result, until))
        return result

    async def _was_bought_after_all(
        self, runtime: Runtime, customer: Customer, wish: Wish, attempt: _Attempt, since_ms: int | None = None
    ) -> bool:
        try:
            bought = await _bought(runtime, customer, wish)
        except (Unavailable, RequestRejected):
            return False
        return bool(bought - attempt.before) or (since_ms is not None and _since(bought, since_ms))


async def _bought(runtime: Runtime, customer: Customer, wish: Wish) -> _Bought:
    """Look at what the customer has of the plan, and create them if need be."""
    record: CustomerRecord | EntityRecord
    if wish.entity_id is None:
        # Not a confirmation that is under way: it may have been read before the purchase was made.
        record, level = (await runtime.client.front_end.customers.confirm(customer)).record(), "customer"
    else:
        await runtime.customers.exists(customer)
        record = await runtime.client.front_end.entities.get(customer.id, wish.entity_id)
        # An entity's record also shows the plans of its customer.
        level = "entity"
    found: list[Subscription | Purchase] = [*record.subscriptions, *record.purchases]
    return frozenset(
        (type(one).__name__, one.started_at or 0)
        for one in found
        if one.plan_id == wish.plan_id and one.scope in {None, level}
    )


def _since(bought: _Bought, since_ms: int) -> bool:
    return any(started_at >= since_ms for _, started_at in bought)


def _put(memory: dict[str, _V], signature: str, value: _V) -> None:
    memory.pop(signature, None)
    memory[signature] = value
    if len(memory) > _REMEMBERED:
        del memory[next(iter(memory))]
