"""Catalogs to start from: source texts for an `autumn_config.py`."""

from typing import Literal, TypeAlias

__all__ = ["TEMPLATES", "Template"]

Template: TypeAlias = Literal["credits", "seats", "usage", "flags"]

_CREDITS = '''\
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
'''

_SEATS = '''\
"""What customers can have: seats for a team."""

from fastapi_autumn.catalog import Proration, customize, feature, item, plan, price

# Seats are held, not used up, so they never reset.
seats = feature(id="seats", name="Seats", type="metered", consumable=False)

free = plan(
    id="free",
    name="Free",
    group="main",
    auto_enable=True,
    items=[item(seats, included=1)],
)

team = plan(
    id="team",
    name="Team",
    group="main",
    price=price(30, interval="month"),
    items=[
        item(
            seats,
            included=3,
            price=price(10, interval="month", billing_method="prepaid"),
            proration=Proration(on_increase="prorate_immediately", on_decrease="none"),
        ),
    ],
)
team_annual = team.variant(
    id="team_annual",
    name="Team, yearly",
    customize=customize(price=price(300, interval="year")),
)
'''

_USAGE = '''\
"""What customers can have: requests, billed by use."""

from fastapi_autumn.catalog import Tier, feature, item, plan, price

api_requests = feature(
    id="api_requests",
    name="API requests",
    type="metered",
    consumable=True,
)

free = plan(
    id="free",
    name="Free",
    group="main",
    auto_enable=True,
    items=[item(api_requests, included=1000, reset="month")],
)

# Nothing to pay up front: each step of usage has its own price per request.
pay_as_you_go = plan(
    id="pay_as_you_go",
    name="Pay as you go",
    group="main",
    items=[
        item(
            api_requests,
            included=1000,
            price=price(
                tiers=[Tier(100_000, 0.001), Tier("inf", 0.0005)],
                tier_behavior="graduated",
                interval="month",
                billing_method="usage_based",
            ),
        ),
    ],
)
'''

_FLAGS = '''\
"""What customers can have: parts of a product that a plan switches on."""

from fastapi_autumn.catalog import feature, item, plan, price

single_sign_on = feature(id="single_sign_on", name="Single sign-on", type="boolean")
priority_support = feature(
    id="priority_support",
    name="Priority support",
    type="boolean",
)

free = plan(id="free", name="Free", group="main", auto_enable=True)
pro = plan(
    id="pro",
    name="Pro",
    group="main",
    price=price(20, interval="month"),
    items=[item(priority_support)],
)
enterprise = plan(
    id="enterprise",
    name="Enterprise",
    group="main",
    price=price(500, interval="month"),
    items=[item(priority_support), item(single_sign_on)],
)
'''

TEMPLATES: dict[Template, str] = {"credits": _CREDITS, "seats": _SEATS, "usage": _USAGE, "flags": _FLAGS}
"""By name, the first being the default."""
