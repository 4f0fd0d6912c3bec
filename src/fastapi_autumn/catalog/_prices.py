"""`price`, of a plan or of an item, and which class of price comes out: each class fits other items."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any, Literal, get_args, overload

from fastapi_autumn.catalog._model import (
    BillingInterval,
    BillingMethod,
    ItemPrice,
    Number,
    PlanPrice,
    PrepaidPrice,
    Reset,
    ResetPrice,
    Tier,
    UsagePrice,
)
from fastapi_autumn.catalog._rules import require

__all__ = ["item_price", "one_cycle", "price"]


@overload
def price(
    amount: Number,
    *,
    interval: BillingInterval,
    interval_count: int | None = ...,
    additional_currencies: Sequence[Mapping[str, Any]] | None = ...,
) -> PlanPrice: ...
@overload
def price(
    amount: Number,
    *,
    billing_method: BillingMethod,
    billing_units: Number = ...,
    max_purchase: Number | None = ...,
    additional_currencies: Sequence[Mapping[str, Any]] | None = ...,
) -> ResetPrice: ...
@overload
def price(
    amount: Number,
    *,
    billing_method: Literal["usage_based"],
    interval: BillingInterval,
    interval_count: int | None = ...,
    billing_units: Number = ...,
    max_purchase: Number | None = ...,
    additional_currencies: Sequence[Mapping[str, Any]] | None = ...,
) -> UsagePrice: ...
@overload
def price(
    amount: Number,
    *,
    billing_method: Literal["prepaid"],
    interval: BillingInterval,
    interval_count: int | None = ...,
    billing_units: Number = ...,
    max_purchase: Number | None = ...,
    additional_currencies: Sequence[Mapping[str, Any]] | None = ...,
) -> PrepaidPrice: ...
@overload
def price(
    *,
    tiers: Sequence[Tier],
    tier_behavior: Literal["graduated"],
    billing_method: Literal["usage_based"],
    billing_units: Number = ...,
    max_purchase: Number | None = ...,
) -> ResetPrice: ...
@overload
def price(
    *,
    tiers: Sequence[Tier],
    tier_behavior: Literal["graduated", "volume"],
    billing_method: Literal["prepaid"],
    billing_units: Number = ...,
    max_purchase: Number | None = ...,
) -> ResetPrice: ...
@overload
def price(
    *,
    tiers: Sequence[Tier],
    tier_behavior: Literal["graduated"],
    billing_method: Literal["usage_based"],
    interval: BillingInterval,
    interval_count: int | None = ...,
    billing_units: Number = ...,
    max_purchase: Number | None = ...,
) -> UsagePrice: ...
@overload
def price(
    *,
    tiers: Sequence[Tier],
    tier_behavior: Literal["graduated", "volume"],
    billing_method: Literal["prepaid"],
    interval: BillingInterval,
    interval_count: int | None = ...,
    billing_units: Number = ...,
    max_purchase: Number | None = ...,
) -> PrepaidPrice: ...
def price(
    amount: Number | None = None,
    *,
    interval: BillingInterval | None = None,
    interval_count: int | None = None,
    billing_method: BillingMethod | None = None,
    billing_units: Number = 1,
    max_purchase: Number | None = None,
    tiers: Sequence[Tier] | None = None,
    tier_behavior: Literal["graduated", "volume"] | None = None,
    additional_currencies: Sequence[Mapping[str, Any]] | None = None,
) -> PlanPrice | ItemPrice:
    """Say what a plan costs, or, with a `billing_method`, what more units of an item cost.

    `price(20, interval="month")` is a plan's. `price(1, billing_units=100, interval="month",
    billing_method="usage_based")` is an item's: one dollar per hundred units beyond what is included.

    Args:
        amount: in major units of the organisation's currency (dollars, not cents).
        interval: how often it is billed; `one_off` is once. For an item it is also how often the balance resets.
        interval_count: bill every so many intervals; 1 by default.
        billing_method: `usage_based` bills afterwards for what was used, `prepaid` is bought in advance.
        billing_units: what `amount` buys; usage is rounded up to it.
        max_purchase: the most units beyond those included.
        tiers: instead of `amount`; the last one goes to "inf".
        tier_behavior: `graduated` prices each step by itself, `volume` all units at the step that was reached.
        additional_currencies: `{"currency": "eur", "amount": 19}` for each further currency.

    Raises:
        CatalogError: A tier is no `Tier`.
    """
    for number, tier in enumerate(tiers or (), start=1):
        require(tier, Tier, f"tier {number} of a price", "Tier(100, amount=1)")
    if billing_method is None and interval is not None and amount is not None and tiers is None:
        return PlanPrice(
            amount=amount,
            interval=interval,
            interval_count=interval_count,
            additional_currencies=additional_currencies,
        )
    return item_price(
        amount=amount,
        tiers=None if tiers is None else tuple(tiers),
        tier_behavior=tier_behavior,
        billing_method=billing_method,
        billing_units=billing_units,
        max_purchase=max_purchase,
        interval=interval,
        interval_count=interval_count,
        additional_currencies=additional_currencies,
    )


def item_price(**values: Any) -> ItemPrice:
    """The class of item price that `values` make: it follows from the interval and the billing method."""
    if values.get("interval") is None:
        return ResetPrice(**values)
    return UsagePrice(**values) if values.get("billing_method") == "usage_based" else PrepaidPrice(**values)


def one_cycle(reset: Reset | None, price: ItemPrice | None) -> tuple[Reset | None, ItemPrice | None]:
    """Bring reset and price into the form in which one cycle is said once.

    A price without an interval bills at each reset, which on the wire is a price with the interval of that reset; and
    a reset that only repeats the interval of the price adds nothing.
    """
    if reset is None or price is None:
        return reset, price
    if isinstance(price, ResetPrice) and reset.interval in get_args(BillingInterval):
        values = {field.name: getattr(price, field.name) for field in fields(price)}
        return None, item_price(**values | {"interval": reset.interval, "interval_count": reset.interval_count})
    same = reset.interval == price.interval and (reset.interval_count or 1) == (price.interval_count or 1)
    return (None if same else reset), price
