"""From items of plans to entitlements of customers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from decimal import ROUND_CEILING, Decimal

from fastapi_autumn.emulator._document import Document
from fastapi_autumn.emulator.books._clock import next_after
from fastapi_autumn.emulator.books._customer import AttachedPlan, Customer
from fastapi_autumn.emulator.books._entitlements import Entitlement, amount


def entitlements_of(
    plan: Document,
    attached: AttachedPlan,
    features: dict[str, Document],
    entities: Iterable[Document],
    new_id: Callable[[str], str],
) -> list[Entitlement]:
    """Make the entitlements that a plan gives to a customer who gets it at `attached.started_at`."""
    anchor = attached.trial_ends_at or attached.started_at
    made = []
    for item in plan["items"]:
        feature = features.get(item["feature_id"])
        if feature is None:
            continue
        held = entitlement(
            new_id("cus_ent"),
            feature,
            item,
            started_at=attached.started_at,
            anchor=anchor,
            quantity=attached.quantities.get(item["feature_id"], 0) if is_prepaid(item) else 0,
        )
        held.plan_id, held.product_id, held.add_on = plan["id"], attached.id, attached.add_on
        held.entity_id = attached.entity_id
        if held.entity_feature_id:
            held.entities = {
                entity["id"]: held.granted for entity in entities if entity["feature_id"] == held.entity_feature_id
            }
        made.append(held)
    return made


def bought(units: Decimal, price: Document | None) -> Decimal:
    """Round units that are bought in advance up to whole packs."""
    pack = amount((price or {}).get("billing_units") or 1)
    return max(Decimal(0), (units / pack).to_integral_value(ROUND_CEILING) * pack)


def is_prepaid(item: Document) -> bool:
    """Whether an item is bought in advance, in a quantity that the customer chooses."""
    return bool(item["price"]) and item["price"]["billing_method"] == "prepaid"


def buy_more(customer: Customer, held: Entitlement, quantity: Decimal) -> None:
    """Add to what was bought in advance: it pays for what is owed of the feature, and the rest is there to be used."""
    held.prepaid += quantity
    left = quantity
    for other in customer.metered([held.feature_id]):
        paid = min(left, max(Decimal(0), -other.balance))
        other.balance += paid
        left -= paid
    held.balance += left


def entitlement(
    identifier: str, feature: Document, item: Document, *, started_at: int, anchor: int, quantity: float = 0
) -> Entitlement:
    """Make one entitlement from an item of a plan, or from balances.create, which has the same fields.

    `quantity` is the whole number of units that a prepaid item was bought for, what is included counted in. Units are
    sold in packs, so a part of a pack is a whole one.
    """
    reset = item.get("reset") or {}
    interval = reset.get("interval")
    resets = interval is not None and interval != "one_off"
    count = reset.get("interval_count") or 1
    included = amount(item["included"])
    price = item.get("price")
    prepaid = bought(amount(quantity) - included, price)
    return Entitlement(
        id=identifier,
        feature_id=feature["id"],
        created_at=started_at,
        boolean=feature["type"] == "boolean",
        included=Decimal(0) if item["unlimited"] else included,
        prepaid=prepaid,
        balance=Decimal(0) if item["unlimited"] else included + prepaid,
        unlimited=item["unlimited"],
        interval=interval,
        interval_count=count,
        anchor=anchor,
        next_reset_at=next_after(anchor, interval, count, started_at) if resets and interval else None,
        price=price
        and {
            key: price[key]
            for key in ("amount", "tiers", "tier_behavior", "billing_units", "billing_method", "max_purchase")
            if key in price
        },
        rollover=item.get("rollover"),
        entity_feature_id=item.get("entity_feature_id"),
    )
