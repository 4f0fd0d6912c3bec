"""Billing controls and entities through the API."""

from fastapi_autumn.emulator.books._clock import DAY


async def use(autumn, units, **more):
    body = {"customer_id": "ann", "feature_id": "usage", "required_balance": units, "send_event": True, **more}
    return (await autumn.ok("balances.check", **body))["allowed"]


async def on_pro(autumn, **controls):
    await autumn.ok("billing.attach", customer_id="ann", plan_id="pro", no_billing_changes=True)
    await autumn.ok("customers.update", customer_id="ann", billing_controls=controls)


async def test_a_spend_limit_ends_overage(autumn):
    """Past the grant only as far as the limit says."""
    await on_pro(autumn, spend_limits=[{"feature_id": "credits", "enabled": True, "overage_limit": 5}])
    assert await use(autumn, 2000)
    assert await use(autumn, 5)
    assert not await use(autumn, 1)


async def test_overage_can_be_switched_off_and_on(autumn):
    """Off: a usage-based plan stops at zero. On: even the free plan goes on."""
    on = {"overage_allowed": [{"feature_id": "credits", "enabled": True}]}
    await autumn.ok("customers.update", customer_id="ann", billing_controls=on)
    assert await use(autumn, 80)
    await on_pro(autumn, overage_allowed=[{"feature_id": "credits", "enabled": False}])
    assert not await use(autumn, 2001)


async def test_a_usage_limit_counts_within_its_window(autumn, emulator):
    """Twelve a day: the thirteenth is refused, a refund makes no room, a release does, the next day starts at zero."""
    limit = {"feature_id": "usage", "enabled": True, "limit": 12, "interval": "day"}
    shown = await autumn.ok("customers.update", customer_id="ann", billing_controls={"usage_limits": [limit]})
    assert shown["billing_controls"]["usage_limits"][0]["usage"] == 0
    assert await use(autumn, 10)
    assert await use(autumn, 2, lock={"enabled": True, "lock_id": "two"})
    assert not await use(autumn, 1)
    await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=-2)
    assert not await use(autumn, 1)
    await autumn.ok("balances.finalize", lock_id="two", action="release")
    shown = await autumn.ok("customers.get", customer_id="ann")
    assert shown["billing_controls"]["usage_limits"][0]["usage"] == 10
    assert await use(autumn, 2)
    emulator.clock.advance(milliseconds=DAY)
    assert await use(autumn, 12)


async def test_a_usage_limit_with_a_filter_counts_what_fits_it(autumn):
    """Three with one model: others are not counted, and a use that names no model is not either."""
    limit = {"feature_id": "usage", "limit": 3, "interval": "day", "filter": {"properties": {"model": "large"}}}
    await autumn.ok("customers.update", customer_id="ann", billing_controls={"usage_limits": [limit]})
    assert await use(autumn, 5, properties={"model": "small"})
    assert await use(autumn, 5)
    assert await use(autumn, 3, properties={"model": "large"})
    assert not await use(autumn, 1, properties={"model": "large"})
    shown = await autumn.ok("customers.get", customer_id="ann")
    assert shown["billing_controls"]["usage_limits"][0]["usage"] == 3


async def test_a_plan_s_controls_count_unless_the_customer_has_some(autumn):
    """What the plan limits, a customer's own limit replaces."""
    limit = {"feature_id": "credits", "enabled": True, "limit": 3, "interval": "day"}
    await autumn.ok("plans.update", plan_id="free", billing_controls={"usage_limits": [limit]})
    assert not await use(autumn, 4)
    own = {"usage_limits": [limit | {"limit": 10}]}
    await autumn.ok("customers.update", customer_id="ann", billing_controls=own)
    assert await use(autumn, 4)


async def test_entities_have_balances_of_their_own(autumn):
    """Each seat gets its grant; one seat's use leaves the other's alone, and the customer sees the sum."""
    items = [
        {"feature_id": "seats", "included": 3},
        {"feature_id": "credits", "included": 20, "reset": {"interval": "month"}, "entity_feature_id": "seats"},
    ]
    await autumn.ok("plans.create", plan_id="team", name="Team", group="main", items=items)
    await autumn.ok("billing.attach", customer_id="ann", plan_id="team", no_billing_changes=True)
    for entity in ("e1", "e2"):
        await autumn.ok("entities.create", customer_id="ann", entity_id=entity, feature_id="seats")
    assert await use(autumn, 6, entity_id="e1")
    left = {
        entity: (await autumn.ok("entities.get", entity_id=entity))["balances"]["credits"]["remaining"]
        for entity in ("e1", "e2")
    }
    assert left == {"e1": 14, "e2": 20}
    assert await autumn.remaining() == 34
    assert await autumn.remaining(feature_id="seats") == 1
    await autumn.ok("entities.delete", customer_id="ann", entity_id="e2")
    assert await autumn.remaining() == 14
    assert await autumn.remaining(feature_id="seats") == 2


async def test_events_can_be_grouped_and_filtered(autumn, time):
    """Aggregate adds up by a property; list finds by feature, and by time."""
    for model, value in (("small", 1), ("large", 5), ("small", 2)):
        time.now += 1_000
        properties = {"model": model}
        await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=value, properties=properties)
    body = {"customer_id": "ann", "feature_id": "usage", "range": "24h", "group_by": "properties.model"}
    added = await autumn.ok("events.aggregate", **body)
    assert added["list"][-1]["grouped_values"]["usage"] == {"small": 3, "large": 5}
    assert added["total"] == {"usage": {"count": 3, "sum": 8}}
    late = {"start": time.now - 500, "end": time.now}
    found = await autumn.ok("events.list", customer_id="ann", feature_id=["usage"], custom_range=late)
    assert [event["value"] for event in found["list"]] == [2]


async def test_an_event_name_reaches_its_feature(autumn):
    """Track by event name counts for every feature that lists it."""
    answer = await autumn.ok("balances.track", customer_id="ann", event_name="used", value=3)
    assert answer["deductions"][0]["value"] == 3
    assert await autumn.remaining() == 47
