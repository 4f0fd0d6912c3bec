"""What `tests/catalog/data/pushed_config.py` has not: the rarer shapes that both command lines know."""

from fastapi_autumn.catalog import (
    FreeTrial,
    Reset,
    Rollover,
    Tier,
    customize,
    feature,
    item,
    item_filter,
    plan,
    price,
)

ai_usage = feature(id="ai_usage", name="AI usage", type="metered", consumable=True, event_names=["chat", "image"])
storage = feature(id="storage", name="Storage", type="metered", consumable=False)
priority = feature(id="priority", name="Priority", type="boolean")
ai_credits = feature(id="ai_credits", name="AI credits", type="credit_system", credit_schema={ai_usage: 2.5})

starter = plan(
    id="starter",
    name="Starter",
    group="main",
    auto_enable=True,
    items=[item(ai_credits, included=10.5, reset=Reset("week", 2)), item(storage, included=1)],
)
team = plan(
    id="team",
    name="Team",
    group="main",
    description="Everything, per seat",
    price=price(99, interval="quarter"),
    free_trial=FreeTrial(duration_length=1, duration_type="month", card_required=False),
    items=[
        item(
            ai_credits,
            included=500,
            reset="month",
            rollover=Rollover(max_percentage=50, expiry_duration_type="forever"),
        ),
        item(ai_usage, unlimited=True),
        item(
            storage,
            included=5,
            price=price(
                tiers=[Tier(50, 2, 10), Tier("inf", 1)],
                tier_behavior="volume",
                interval="semi_annual",
                billing_method="prepaid",
            ),
        ),
        item(priority),
    ],
)
solo = team.variant(
    id="solo",
    name="Solo",
    customize=customize(
        price=price(9, interval="month"),
        add_items=[item(storage, included=2)],
        remove_items=[item_filter(storage), item_filter(priority)],
        free_trial=None,
    ),
)
pack = plan(
    id="pack",
    name="Pack",
    add_on=True,
    items=[item(ai_credits, price=price(5, interval="one_off", billing_method="prepaid", billing_units=100))],
)
