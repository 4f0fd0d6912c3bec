"""What customers can have: credits for an AI product."""

from fastapi_autumn.catalog import feature, item, plan, price

# One unit of usage is one credit; what a model costs is for the price list to say.
ai_usage = feature(id="ai_usage", name="AI usage", type="metered", consumable=True)
ai_credits = feature(
    id="ai_credits",
    name="AI credits",
    type="credit_system",
    credit_schema={ai_usage: 1},
)

# Every new customer gets this one.
free = plan(
    id="free",
    name="Free",
    group="main",
    auto_enable=True,
    items=[item(ai_credits, included=50, reset="month")],
)

# Beyond the 2000 included, usage goes on at a dollar per hundred credits.
pro = plan(
    id="pro",
    name="Pro",
    group="main",
    price=price(20, interval="month"),
    items=[
        item(
            ai_credits,
            included=2000,
            price=price(
                1,
                billing_units=100,
                interval="month",
                billing_method="usage_based",
            ),
        ),
    ],
)

# Bought on top of either plan; these credits do not expire.
credit_top_up = plan(
    id="credit_top_up",
    name="Credit top-up",
    add_on=True,
    items=[
        item(
            ai_credits,
            price=price(
                5,
                billing_units=500,
                interval="one_off",
                billing_method="prepaid",
            ),
        ),
    ],
)
