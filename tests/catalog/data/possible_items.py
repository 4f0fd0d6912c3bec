"""What a type checker must accept: the three shapes of an item, in all their forms."""

from decimal import Decimal

from fastapi_autumn.catalog import ModelMarkup, Proration, Reset, Rollover, Tier, feature, item, plan, price

usage = feature(id="usage", name="Usage", type="metered", consumable=True)
seats = feature(id="seats", name="Seats", type="metered", consumable=False, event_names=["seat.taken"])
flag = feature(id="flag", name="Flag", type="boolean", archived=True)
by_object = feature(id="a", name="A", type="credit_system", credit_schema={usage: 1})
by_id = feature(id="b", name="B", type="credit_system", credit_schema={"usage": Decimal("0.5")})
ai = feature(id="c", name="C", type="ai_credit_system", model_markups={"a/b": 5, "custom/x": ModelMarkup(1, 2, 3)})

kept = Rollover(max=5, expiry_duration_type="forever")
prorated = Proration(on_increase="prorate_immediately", on_decrease="none")

with_reset = [
    item(usage, included=5, reset="month"),
    item("usage", included=5, reset=Reset("month", 2), rollover=kept),
    item(usage, reset="month", price=price(1, billing_method="usage_based")),
    item(usage, reset="month", price=price(1, billing_method="prepaid", billing_units=100), proration=prorated),
    item(usage, reset="month", price=price(9, billing_method="prepaid", interval="year")),
]
with_price = [
    item(usage, included=5, price=price(1, interval="month", billing_method="usage_based", max_purchase=9)),
    item(seats, price=price(1, interval="month", billing_method="prepaid"), proration=prorated),
    item(
        usage,
        price=price(
            tiers=[Tier(10, 1), Tier("inf", 0.5)],
            tier_behavior="graduated",
            interval="month",
            billing_method="usage_based",
        ),
    ),
    item(
        usage,
        price=price(
            tiers=[Tier(10, 1, 2), Tier("inf", 0.5)], tier_behavior="volume", interval="year", billing_method="prepaid"
        ),
    ),
]
with_neither = [item(flag), item(seats, included=3), item(usage, unlimited=True, entity_feature=seats)]

pro = plan(id="pro", name="Pro", price=price(20, interval="month"), items=[*with_reset, *with_price, *with_neither])
