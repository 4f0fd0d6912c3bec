"""The rules for one item of a plan: which reset, price and allowance fit which feature."""

from collections.abc import Iterator, Mapping, Sequence
from typing import get_args

from fastapi_autumn.catalog._model import (
    BillingInterval,
    BillingMethod,
    Feature,
    Item,
    ItemPrice,
    Number,
    OnDecrease,
    OnIncrease,
    PrepaidPrice,
    Proration,
    ResetInterval,
    Tier,
)
from fastapi_autumn.catalog._rules import number_problem

__all__ = ["item_problems"]

_MOST = 10_000_000_000_000
"""The server's limit on what an item includes."""


def item_problems(items: Sequence[Item], features: Mapping[str, Feature], field: str) -> Iterator[tuple[str, str]]:
    """Where and why Autumn would refuse one of `items`."""
    for index, item in enumerate(items):
        where = f" → {field}[{index}] ({item.feature_id or 'no feature'})"
        feature = features.get(item.feature_id)
        if feature is None:
            yield where, f'feature "{item.feature_id}" is not defined in the catalog; define it or correct the id'
        else:
            for message in _fits(item, feature):
                yield where, message
        if item.entity_feature_id is not None and item.entity_feature_id not in features:
            yield where, f'entity feature "{item.entity_feature_id}" is not defined in the catalog; define it'
        for message in (*_amounts(item), *_intervals(item), *_rollover(item)):
            yield where, message
        if item.price is not None:
            for message in _price(item, item.price):
                yield f"{where} → price", message
        elif item.proration is not None:
            yield where, "proration is for prepaid prices; leave it out"


def _fits(item: Item, feature: Feature) -> Iterator[str]:
    cycle = item.reset is not None or (item.price is not None and item.price.interval is not None)
    if feature.type == "boolean":
        if cycle:
            yield "a boolean feature is there or not and never resets; leave out reset and price"
        if item.included:
            yield "a boolean feature has no units; leave out included"
    consumable = feature.type == "credit_system" or (feature.type == "metered" and feature.consumable)
    grants = item.price is not None or (item.included is not None and not item.unlimited)
    if consumable and grants and not cycle:
        yield 'what is used up must come back; write reset="month", or a price with interval="month" ("one_off": never)'


def _amounts(item: Item) -> Iterator[str]:
    if item.included is not None and (wrong := number_problem(item.included, most=_MOST)):
        yield f"included {wrong}"
    if item.unlimited and (item.included or item.price is not None):
        yield "unlimited leaves nothing to include or to sell; leave out unlimited, or included and price"


def _intervals(item: Item) -> Iterator[str]:
    reset, price = item.reset, item.price
    cycles = [("reset", reset, get_args(ResetInterval)), ("price", price, get_args(BillingInterval))]
    for name, cycle, known in cycles:
        if cycle is None or cycle.interval is None:
            continue
        if cycle.interval not in known:
            yield f"{name} interval {cycle.interval!r} is unknown; write one of {', '.join(known)}"
        if cycle.interval_count is not None and (wrong := number_problem(cycle.interval_count, least=1, whole=True)):
            yield f"the interval_count of {name} {wrong}"
    if price is None:
        return
    if reset is None:
        if price.interval is None:
            yield 'the price says how much but not how often; write interval="month" in it'
    elif price.interval is None:
        yield f"nothing is billed every {reset.interval}; write an interval of week or longer in a prepaid price"
    elif not isinstance(price, PrepaidPrice):
        yield f"resets every {reset.interval} but bills every {price.interval}; only a prepaid price may differ"


def _rollover(item: Item) -> Iterator[str]:
    rollover = item.rollover
    if rollover is None:
        return
    if item.reset is None and (item.price is None or item.price.interval is None):
        yield "rollover moves units from one cycle to the next, and there is no cycle; write a reset or leave it out"
    if rollover.max is not None and rollover.max_percentage is not None:
        yield "rollover has max and max_percentage; keep one"
    if rollover.max is not None and (wrong := number_problem(rollover.max)):
        yield f"the max of rollover {wrong}"
    if rollover.max_percentage is not None and (wrong := number_problem(rollover.max_percentage, most=100)):
        yield f"the max_percentage of rollover {wrong}"


def _price(item: Item, price: ItemPrice) -> Iterator[str]:
    if price.billing_method not in get_args(BillingMethod):
        yield 'billing_method is missing or unknown; write "prepaid" or "usage_based"'
    if wrong := number_problem(price.billing_units, above=0):
        yield f"billing_units {wrong}"
    if price.max_purchase is not None and (wrong := number_problem(price.max_purchase)):
        yield f"max_purchase {wrong}"
    if price.amount is not None and (wrong := number_problem(price.amount)):
        yield f"amount {wrong}"
    if item.proration is not None:
        yield from _proration(item.proration, price)
    if price.tiers is None:
        if price.amount is None:
            yield "amount is missing; write an amount, or tiers"
        if price.tier_behavior is not None:
            yield "tier_behavior is for tiers; leave it out"
    elif price.amount is not None:
        yield "amount and tiers exclude each other; keep one"
    else:
        yield from _tiers(price, price.tiers, item)


def _proration(proration: Proration, price: ItemPrice) -> Iterator[str]:
    if price.billing_method == "usage_based":
        yield "proration is for prepaid prices; leave it out"
    for name, known in (("on_increase", get_args(OnIncrease)), ("on_decrease", get_args(OnDecrease))):
        if (given := getattr(proration, name)) not in known:
            yield f"the {name} of proration is {given!r}; write one of {', '.join(known)}"


def _tiers(price: ItemPrice, tiers: Sequence[Tier], item: Item) -> Iterator[str]:
    if price.tier_behavior not in {"graduated", "volume"}:
        yield 'tier_behavior is missing; write "graduated" (each step at its own price) or "volume" (all at the last)'
    if price.tier_behavior == "volume" and price.billing_method == "usage_based":
        yield 'volume tiers are for prepaid prices; write tier_behavior="graduated" or billing_method="prepaid"'
    if not tiers or tiers[-1].to != "inf":
        yield 'the last tier must have no end, or more could not be priced; write Tier("inf", amount) last'
    for number, tier in enumerate(tiers, start=1):
        if tier.amount is None and tier.flat_amount is None:
            yield f"tier {number} has no price; write an amount"
        if tier.amount is not None and (wrong := number_problem(tier.amount)):
            yield f"the amount of tier {number} {wrong}"
        if tier.flat_amount is not None and (wrong := number_problem(tier.flat_amount)):
            yield f"the flat_amount of tier {number} {wrong}"
        if tier.flat_amount is not None and (price.tier_behavior != "volume" or len(tiers) == 1):
            yield f"the flat_amount of tier {number} needs volume and more than one tier; leave it out"
    yield from _ends(tiers, item.included or 0)


def _ends(tiers: Sequence[Tier], included: Number) -> Iterator[str]:
    last, what = included, "what is included"
    for number, tier in enumerate(tiers, start=1):
        if tier.to == "inf":
            if number < len(tiers):
                yield f'tier {number} ends at "inf", so the ones after it are never reached; take them out'
        elif wrong := number_problem(tier.to, above=0):
            yield f"the end of tier {number} {wrong}"
        elif tier.to <= last:
            yield f"tier {number} ends at {tier.to}, not beyond {what} ({last}); write tiers in rising order"
        else:
            last, what = tier.to, f"tier {number}"
