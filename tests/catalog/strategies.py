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
resets = st.sampled_from(["hour", "day", "month", "one_off"]) | st.builds(Reset, intervals, st.integers(2, 6))
flags = st.booleans()


@st.composite
def item_prices(draw, methods=("usage_based", "prepaid"), *, interval=True):
    """A price with an amount or with tiers, of one of the billing methods."""
    method = draw(st.sampled_from(methods))
    more = {"billing_method": method, "max_purchase": draw(st.none() | st.integers(0, 1000))}
    more["billing_units"] = draw(st.sampled_from([1, 100]))
    if interval:
        more |= {"interval": draw(intervals), "interval_count": draw(st.none() | st.integers(2, 3))}
    if draw(flags):
        return price(draw(amounts), **more)
    behaviors = ["graduated", "volume"] if method == "prepaid" else ["graduated"]
    behavior = draw(st.sampled_from(behaviors))
    flat = draw(st.none() | amounts) if behavior == "volume" else None
    tiers = [Tier(2 * 10**6, draw(amounts), flat), Tier("inf", draw(amounts))]
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
    shape = draw(st.sampled_from(["reset", "reset and price", "usage", "prepaid", "unlimited", "held"]))
    if shape == "reset":
        return item(one, reset=draw(resets), rollover=rollover, **more)
    if shape == "reset and price":
        return item(one, reset=draw(intervals), price=draw(item_prices(interval=False)), rollover=rollover, **more)
    if shape == "usage":
        return item(one, price=draw(item_prices(("usage_based",))), **more)
    if shape == "prepaid":
        proration = draw(st.none() | st.just(Proration(on_increase="prorate", on_decrease="no_action")))
        return item(one, price=draw(item_prices(("prepaid",))), proration=proration, **more)
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


@st.composite
def catalogs(draw):
    """A whole catalog."""
    known = draw(features())
    plan_ids = draw(st.lists(ids, max_size=4, unique=True))
    plans, variants = [], []
    for id_ in plan_ids:
        controls = {"usage_limits": [{"feature_id": known[0].id, "limit": 5, "interval": "day"}]}
        plans.append(
            plan(
                id=id_,
                name=draw(texts),
                description=draw(st.none() | texts),
                group=draw(st.just("") | texts),
                add_on=draw(flags),
                archived=draw(flags),
                price=draw(st.none() | st.builds(price, amounts, interval=intervals)),
                items=draw(st.lists(items(known), max_size=3)),
                free_trial=draw(
                    st.none() | st.builds(FreeTrial, duration_length=st.integers(1, 30), card_required=flags)
                ),
                billing_controls=draw(st.none() | st.just(controls)),
                licenses=[plan_license(plans[0], included=draw(st.integers(0, 3)))] if plans and draw(flags) else [],
            )
        )
    if plans and draw(flags):
        change = customize(
            price=draw(st.none() | st.builds(price, amounts, interval=intervals)),
            add_items=[draw(items(known))],
            remove_items=[item_filter(known[0])],
        )
        variants.append(plans[0].variant(id=f"{plans[0].id}_variant", name=draw(texts), customize=change))
    return Catalog(tuple(known), tuple(plans), tuple(variants))
