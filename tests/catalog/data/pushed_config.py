"""The catalog whose push was recorded from the official command line, in Python."""

from fastapi_autumn.catalog import FreeTrial, Proration, Rollover, Tier, customize, feature, item, plan, price

messages = feature(id="messages", name="Messages", type="metered", consumable=True)
seats = feature(id="seats", name="Seats", type="metered", consumable=False)
sso = feature(id="sso", name="SSO", type="boolean")
credits = feature(  # noqa: A001 - the variable of the recorded file
    id="credits", name="Credits", type="credit_system", credit_schema={messages: 2}
)
ai_credits = feature(
    id="ai_credits",
    name="AI Credits",
    type="ai_credit_system",
    default_markup=20,
    model_markups={"anthropic/claude-opus-4-8": 10},
    provider_markups={"openai": 5},
)

free = plan(id="free", name="Free", auto_enable=True, items=[item(messages, included=5, reset="month")])
pro = plan(
    id="pro",
    name="Pro",
    description="For teams",
    group="main",
    price=price(20, interval="month"),
    free_trial=FreeTrial(duration_length=14, duration_type="day", card_required=True),
    items=[
        item(
            messages,
            included=1000,
            price=price(1, interval="month", billing_method="usage_based", billing_units=100),
        ),
        item(
            seats,
            included=2,
            price=price(10, interval="month", billing_method="prepaid", max_purchase=50),
            proration=Proration(on_increase="prorate_immediately", on_decrease="none"),
        ),
        item(
            credits,
            included=100,
            reset="month",
            rollover=Rollover(max=50, expiry_duration_type="month", expiry_duration_length=1),
        ),
        item(sso),
    ],
)
pro_annual = pro.variant(id="pro_annual", name="Pro Annual", customize=customize(price=price(200, interval="year")))
topup = plan(
    id="topup",
    name="Top up",
    add_on=True,
    items=[
        item(
            messages,
            price=price(
                tiers=[Tier(100, 0.1), Tier("inf", 0.05)],
                tier_behavior="graduated",
                interval="one_off",
                billing_method="prepaid",
            ),
        )
    ],
)
