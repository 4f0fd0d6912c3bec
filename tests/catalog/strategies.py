"""Hypothesis strategies for catalogs that validate, with awkward names and texts."""

from hypothesis import strategies as st

from fastapi_autumn.catalog import (
    Catalog,
    FreeTrial,
    ModelMarkup,
    Proration,
    Reset,
    Rollover,
    Tier,
    customize,
    feature,
    item,
    item_filter,
    plan,
    plan_license,
    price,
)

ids = st.from_regex(r"\A[a-zA-Z0-9_-]{1,12}\Z") | st.sampled_from(
    ["plan", "item", "price", "feature", "class", "None", "match", "1st", "ai-credits", "ai_credits", "_", "--"]
)
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).map(lambda text: text + "x")
amounts = st.integers(1, 10**6) | st.decimals(min_value="0.01", max_value=1000, places=2) | st.just(0.1)
intervals = st.sampled_from(["one_off", "week", "month", "quarter", "semi_annual", "year"])
currencies = st.none() | st.just([{"currency": "eur", "amount": 19}])
prorations = st.builds(
    Proration,
    on_increase=st.sampled_from(["bill_immediately", "prorate_immediately", "prorate_next_cycle", "bill_next_cycle"]),
    on_decrease=st.sampled_from(["prorate", "prorate_immediately", "prorate_next_cycle", "none", "no_prorations"]),
)
resets = st.sampled_from(["hour", "day", "month", "one_off"]) | st.builds(Reset, intervals, st.integers(2, 6))
flags = st.booleans()


@st.composite
def item_prices(draw, methods=("usage_based", "prepaid"), *, interval=True):
    """A price with an amount or with tiers, of one of the billing methods."""
    method = draw(st.sampled_from(methods))
    more = {"billing_method": method, "max_purchase": draw(st.none() | st.integers(0, 1000))}
    more["billing_units"] = draw(st.sampled_from([1, 100]))
    more["additional_currencies"] = draw(currencies)
    if interval:
        more |= {"interval": draw(intervals), "interval_count": draw(st.none() | st.integers(2, 3))}
    if draw(flags):
        return price(draw(amounts), **more)
    behaviors = ["graduated", "volume"] if method == "prepaid" else ["graduated"]
    behavior = draw(st.sampled_from(behaviors))
    flat = draw(st.none() | amounts) if behavior == "volume" else None
    tiers = [Tier(2 * 10**6, draw(amounts), flat, draw(currencies)), Tier("inf", draw(amounts))]
    return price(tiers=tiers, tier_behavior=behavior, **more)


@st.composite
def items(draw, features):
    """An item that fits its feature."""
    one = draw(st.sampled_from(features))
    if one.type == "boolean":
        return item(one)
    rollover = draw(
        st.none()
        | st.builds(Rollover, max=st.none() | amounts, expiry_duration_type=st.just("month"))
        | st.builds(Rollover, max_percentage=st.integers(1, 100), expiry_duration_type=st.just("forever"))
    )
    more = {"included": draw(st.none() | amounts), "pooled": draw(flags)}
    more["entity_feature"] = draw(st.none() | st.sampled_from(features))
    shape = draw(st.sampled_from(["reset", "reset and price", "usage", "prepaid", "unlimited", "held"]))
    if shape == "reset":
        return item(one, reset=draw(resets), rollover=rollover, **more)
    if shape == "reset and price":
        priced = draw(item_prices(interval=False))
        proration = draw(st.none() | prorations) if priced.billing_method == "prepaid" else None
        return item(one, reset=draw(intervals), price=priced, rollover=rollover, proration=proration, **more)
    if shape == "usage":
        return item(one, price=draw(item_prices(("usage_based",))), **more)
    if shape == "prepaid":
        return item(one, price=draw(item_prices(("prepaid",))), proration=draw(st.none() | prorations), **more)
    if shape == "unlimited" or one.type == "credit_system" or one.consumable:
        return item(one, unlimited=True, entity_feature=draw(st.none() | st.sampled_from(features)))
    return item(one, **more)


@st.composite
def features(draw):
    """A few features, credit systems last; the first is metered and consumable."""
    names = draw(st.lists(ids, min_size=1, max_size=5, unique=True))
    metered = feature(id=names[0], name=draw(texts), type="metered", consumable=True)
    made = [metered]
    for id_ in names[1:]:
        name, archived = draw(texts), draw(flags)
        kind = draw(st.sampled_from(["metered", "boolean", "credit_system", "ai_credit_system"]))
        if kind == "metered":
            made.append(feature(id=id_, name=name, type="metered", consumable=draw(flags), archived=archived))
        elif kind == "boolean":
            made.append(feature(id=id_, name=name, type="boolean", archived=archived))
        elif kind == "credit_system":
            made.append(feature(id=id_, name=name, type="credit_system", credit_schema={metered: draw(amounts)}))
        else:
            markups = {"a/b": draw(st.integers(-100, 50)), "custom/x": ModelMarkup(5, 1, 2)}
            markups = draw(st.none() | st.just(markups))
            made.append(
                feature(
                    id=id_,
                    name=name,
                    type="ai_credit_system",
                    default_markup=draw(st.none() | st.integers(-100, 50)),
                    provider_markups=draw(st.none() | st.just({"my_provider": 5})),
                    model_markups=markups,
                    event_names=draw(st.lists(texts, max_size=2)),
                )
            )
    return made


trials = st.builds(
    FreeTrial,
    duration_length=st.integers(1, 30),
    duration_type=st.sampled_from(["day", "month", "year"]),
    card_required=flags,
    on_end=st.sampled_from([None, "bill", "revert"]),
)
plan_prices = st.builds(
    price, amounts, interval=intervals, interval_count=st.none() | st.integers(2, 3), additional_currencies=currencies
)


@st.composite
def controls(draw, feature_id):
    """Billing controls of every kind, with and without what Autumn fills in."""
    switch = draw(st.sampled_from([{}, {"enabled": True}, {"enabled": False}]))
    one = {"feature_id": feature_id, **switch}
    limit = {**one, "limit": 5, "interval": draw(st.sampled_from(["day", "week", "month", "year"]))}
    limit |= draw(st.sampled_from([{}, {"anchor": "utc"}, {"filter": {"properties": {"model": "a"}}}]))
    spend = {**one, "overage_limit": draw(st.integers(0, 100))}
    spend |= draw(st.sampled_from([{}, {"limit_type": "absolute"}, {"skip_overage_billing": True}]))
    alert = {**one, "threshold": 80, "threshold_type": draw(st.sampled_from(["usage", "remaining_percentage"]))}
    top_up = {**one, "threshold": 5, "quantity": 100}
    bounded = {"purchase_limit": {"interval": "month", "limit": 3}}
    top_up |= draw(st.sampled_from([{}, bounded, {"invoice_mode": False}]))
    kinds = {
        "usage_limits": [limit], "spend_limits": [spend], "usage_alerts": [alert], "auto_topups": [top_up],
        "overage_allowed": [one],
    }  # fmt: skip
    return {kind: kinds[kind] for kind in draw(st.lists(st.sampled_from(sorted(kinds)), min_size=1, unique=True))}


@st.composite
def customizations(draw, known):
    """What a variant or a licence changes, in every field."""
    change = {}
    if draw(flags):
        change["items"] = draw(st.lists(items(known), max_size=2))
    else:
        change["add_items"] = draw(st.none() | st.lists(items(known), min_size=1, max_size=2))
        interval = draw(st.none() | intervals)
        count = None if interval is None else draw(st.none() | st.integers(2, 3))
        change["remove_items"] = draw(
            st.none() | st.just([item_filter(known[0], interval=interval, interval_count=count)])
        )
    if draw(flags):
        change["price"] = draw(st.none() | plan_prices)
    if draw(flags):
        change["free_trial"] = draw(st.none() | trials)
    change["billing_controls"] = draw(st.none() | controls(known[0].id))
    return customize(**change)


@st.composite
def licenses(draw, licensed, known):
    """A licence of a plan, in every field."""
    return plan_license(
        licensed,
        included=draw(st.integers(0, 3)),
        version=draw(st.none() | st.just(1)),
        prepaid_only=draw(st.sampled_from([None, True, False])),
        customize=draw(st.none() | customizations(known)),
    )


@st.composite
def catalogs(draw):
    """A whole catalog."""
    known = draw(features())
    plan_ids = draw(st.lists(ids, max_size=4, unique=True))
    plans, variants = [], []
    for id_ in plan_ids:
        auto_enable = not plans and draw(flags)  # one of a group
        plans.append(
            plan(
                id=id_,
                name=draw(texts),
                description=draw(st.none() | texts),
                group=draw(st.just("") | texts),
                add_on=draw(flags),
                archived=draw(flags),
                auto_enable=auto_enable,
                price=None if auto_enable else draw(st.none() | plan_prices),
                items=draw(st.lists(items(known), max_size=3)),
                free_trial=None if auto_enable else draw(st.none() | trials),
                billing_controls=draw(st.none() | controls(known[0].id)),
                licenses=[draw(licenses(plans[0], known))] if plans and draw(flags) else [],
            )
        )
    if plans and draw(flags):
        variant_id = f"{plans[0].id}_variant"
        variants.append(plans[0].variant(id=variant_id, name=draw(texts), customize=draw(customizations(known))))
    return Catalog(tuple(known), tuple(plans), tuple(variants))
