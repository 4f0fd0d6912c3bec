"""What a use sets off besides: alerts, automatic top-ups, and holds by track."""

import pytest

from fastapi_autumn.emulator.books._clock import DAY

TOP_UP = {"feature_id": "credits", "enabled": True, "threshold": 10, "quantity": 500}


async def use(autumn, units, **more):
    return await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=units, **more)


async def controls(autumn, **kinds):
    await autumn.ok("customers.update", customer_id="ann", billing_controls=kinds)


async def with_card(autumn):
    """Let the customer leave a card, and buy a top-up that can be bought again."""
    setup = await autumn.ok("billing.setup_payment", customer_id="ann")
    await autumn.post(f"{setup['url'].removeprefix('http://autumn')}/confirm")
    once = [{"feature_id": "credits", "quantity": 500}]
    await autumn.ok("billing.attach", customer_id="ann", plan_id="top_up", feature_quantities=once)


async def test_an_alert_is_told_once_per_crossing(autumn, emulator):
    """At 80 % it is told, beyond that not again; after a refund below, the next crossing is told."""
    alert = {"feature_id": "credits", "threshold": 80, "threshold_type": "usage_percentage", "name": "nearly"}
    await controls(autumn, usage_alerts=[alert])
    for units in (39, 1, 5, -20, 20):
        await use(autumn, units)
    told = {"name": "nearly", "threshold": 80, "threshold_type": "usage_percentage"}
    data = {"customer_id": "ann", "feature_id": "credits", "usage_alert": told}
    assert emulator.messages == [{"type": "balances.usage_alert_triggered", "data": data}] * 2


async def test_every_alert_on_a_feature_is_told(autumn, emulator):
    """Two thresholds that one use crosses are two messages, and an alert that names no feature is about every one."""
    half = {"feature_id": "credits", "threshold": 50, "threshold_type": "usage_percentage", "name": "half"}
    any_ = {"threshold": 12, "threshold_type": "remaining", "name": "few"}
    await controls(autumn, usage_alerts=[half, any_])
    await use(autumn, 40)
    assert [message["data"]["usage_alert"]["name"] for message in emulator.messages] == ["half", "few"]


async def test_an_entity_s_alert_is_about_the_entity(autumn, emulator):
    """A use by an entity crosses its own threshold and the customer's, told with the entity and without."""
    entity = {"customer_id": "ann", "entity_id": "e1"}
    await autumn.ok("entities.create", **entity, feature_id="seats", name="E")
    alert = {"feature_id": "credits", "threshold": 10, "threshold_type": "usage"}
    await autumn.ok("entities.update", **entity, billing_controls={"usage_alerts": [alert | {"name": "theirs"}]})
    await controls(autumn, usage_alerts=[alert | {"name": "all"}])
    await use(autumn, 15, entity_id="e1")
    told = [(message["data"].get("entity_id"), message["data"]["usage_alert"]["name"]) for message in emulator.messages]
    assert told == [(None, "all"), ("e1", "theirs")]


async def test_the_last_credit_is_told(autumn, emulator):
    """What the plan includes is used up: once, and again only after there was something to use again."""
    for units in (49, 1, 5, -10, 10):
        await use(autumn, units)
    data = {"customer_id": "ann", "feature_id": "credits", "limit_type": "included"}
    assert emulator.messages == [{"type": "balances.limit_reached", "data": data}] * 2


@pytest.mark.parametrize(
    ("limits", "limit_type"),
    [
        ({"spend_limits": [{"feature_id": "credits", "enabled": True, "overage_limit": 5}]}, "spend_limit"),
        ({"usage_limits": [{"feature_id": "credits", "limit": 30, "interval": "day"}]}, "usage_limit"),
        ({"overage_allowed": [{"feature_id": "credits", "enabled": False}]}, "included"),
    ],
)
async def test_the_limit_that_ends_the_use_is_told(autumn, emulator, limits, limit_type):
    """With overage, it is the customer's own limit that ends the use: on spending, on usage, or on overage at all."""
    await autumn.ok("billing.attach", customer_id="ann", plan_id="pro", no_billing_changes=True)
    await controls(autumn, **limits)
    await use(autumn, 4000)
    assert [message["data"]["limit_type"] for message in emulator.messages] == [limit_type]


async def test_a_limit_with_a_filter_is_told_with_it(autumn, emulator):
    """A limit on what one model uses names the model, and not by another model's use."""
    limit = {"feature_id": "credits", "limit": 5, "interval": "day", "filter": {"properties": {"model": "large"}}}
    await controls(autumn, usage_limits=[limit])
    await use(autumn, 5, properties={"model": "small"})
    assert emulator.messages == []
    await use(autumn, 5, properties={"model": "large"})
    data = {"customer_id": "ann", "feature_id": "credits", "limit_type": "usage_limit", "filter": limit["filter"]}
    assert emulator.messages == [{"type": "balances.limit_reached", "data": data}]


async def test_a_hold_and_its_confirmation_tell_too(autumn, emulator):
    """A hold of all credits reaches the limit; released, and confirmed with more than it held, it is reached again."""
    hold = {"customer_id": "ann", "feature_id": "usage"}
    await autumn.ok("balances.check", **hold, required_balance=50, lock={"enabled": True, "lock_id": "a"})
    await autumn.ok("balances.finalize", lock_id="a", action="release")
    await autumn.ok("balances.check", **hold, required_balance=20, lock={"enabled": True, "lock_id": "b"})
    await autumn.ok("balances.finalize", lock_id="b", action="confirm", override_value=50)
    assert [message["type"] for message in emulator.messages] == ["balances.limit_reached"] * 2


async def test_to_look_is_enough_to_buy(autumn, emulator):
    """A check that takes nothing finds the balance low, answers with it, and sets a top-up off."""
    await with_card(autumn)
    await use(autumn, 545)
    await controls(autumn, auto_topups=[TOP_UP])
    assert await autumn.remaining() == 5
    assert [message["type"] for message in emulator.messages] == ["billing.auto_topup_succeeded"]
    assert await autumn.remaining() == 505


async def test_what_runs_low_is_bought_again(autumn, emulator, time):
    """Down to the threshold: another 500, told with what is there now; not twice within half a minute."""
    await with_card(autumn)
    await controls(autumn, auto_topups=[TOP_UP])
    answer = await use(autumn, 541)
    assert answer["balance"]["remaining"] == 9
    assert await autumn.remaining() == 509
    (message,) = emulator.messages
    assert message["type"] == "billing.auto_topup_succeeded"
    assert (message["data"]["quantity_granted"], message["data"]["balance_after"]) == (500, 509)
    await use(autumn, 505)
    assert await autumn.remaining() == 4
    time.now += 30_000
    assert (await use(autumn, 1))["balance"]["remaining"] == 3
    assert await autumn.remaining() == 503


async def test_a_purchase_limit_ends_the_buying(autumn, emulator, time):
    """One a month; the second is refused with its reason, and the next month buys again."""
    await with_card(autumn)
    await controls(autumn, auto_topups=[TOP_UP | {"purchase_limit": {"interval": "month", "limit": 1}}])
    await use(autumn, 545)
    time.now += 60_000
    await use(autumn, 500)
    assert [message["type"] for message in emulator.messages] == [
        "billing.auto_topup_succeeded",
        "billing.auto_topup_failed",
    ]
    assert emulator.messages[1]["data"]["reason"] == "purchase_limit_reached"
    time.now += 32 * DAY
    await use(autumn, 46)
    assert emulator.messages[-1]["type"] == "billing.auto_topup_succeeded"


async def test_without_a_card_nothing_is_bought(autumn, emulator):
    """It is told, and the balance stays where it is."""
    once = [{"feature_id": "credits", "quantity": 500}]
    await autumn.ok(
        "billing.attach", customer_id="ann", plan_id="top_up", feature_quantities=once, no_billing_changes=True
    )
    await controls(autumn, auto_topups=[TOP_UP])
    await use(autumn, 545)
    assert emulator.messages[0]["data"]["reason"] == "missing_payment_method"
    assert await autumn.remaining() == 5


async def test_a_track_can_hold(autumn):
    """With a lock it takes what is there, and a release gives just that back."""
    lock = {"enabled": True, "lock_id": "t"}
    assert (await use(autumn, 60, lock=lock))["balance"]["remaining"] == 0
    again = await autumn.call("balances.track", customer_id="ann", feature_id="usage", value=-1, lock=lock)
    assert again.status_code == 409
    await autumn.ok("balances.finalize", lock_id="t", action="release")
    assert await autumn.remaining() == 50


async def test_a_deleted_balance_can_leave_its_use_behind(autumn):
    """`recalculate_balances` takes what was used of it from the other balances of the feature."""
    await autumn.ok("balances.create", customer_id="ann", feature_id="credits", included_grant=10, balance_id="gift")
    await use(autumn, 53)
    body = {"customer_id": "ann", "feature_id": "credits", "balance_id": "gift"}
    await autumn.ok("balances.update", customer_id="ann", feature_id="credits", add_to_balance=20, interval="month")
    await autumn.ok("balances.delete", **body, recalculate_balances=True)
    assert await autumn.remaining() == 17


@pytest.mark.parametrize(("anchor", "left"), [(None, False), ("utc", True)])
async def test_a_limit_follows_the_balance_or_the_calendar(autumn, time, anchor, left):
    """A day's limit starts with the balance's own reset, or at midnight UTC if it is anchored there."""
    time.now += DAY - time.now % DAY - 60_000
    limit = {"feature_id": "usage", "limit": 3, "interval": "day"} | ({"anchor": anchor} if anchor else {})
    await controls(autumn, usage_limits=[limit])
    await use(autumn, 3)
    time.now += 120_000
    answer = await autumn.ok("balances.check", customer_id="ann", feature_id="usage")
    assert answer["allowed"] is left
