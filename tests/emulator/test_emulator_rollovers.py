"""What is left at a reset and may still be used: under another plan, and by entities."""

import pytest

from emulator.conftest import CATALOG
from fastapi_autumn.emulator import Emulator

ANN = {"customer_id": "ann"}
DAY = 86_400_000


def plan(plan_id, included, most=None, **more):
    item = {"feature_id": "usage", "included": included, "reset": {"interval": "month"}}
    if most is not None:
        item["rollover"] = {"max": most, "expiry_duration_type": "forever"}
    return {"plan_id": plan_id, "name": plan_id, "group": "other", "items": [item | more]}


@pytest.fixture
def emulator(time):
    plans = [
        plan("small", 10, 8),
        plan("large", 100, 5) | {"price": {"amount": 9, "interval": "month"}},
        plan("plain", 100) | {"price": {"amount": 9, "interval": "month"}},
        plan("seated", 10, 8, entity_feature_id="seats"),
    ]
    built = Emulator(":memory:", catalog=CATALOG | {"plans": plans}, clock=time)
    yield built
    built.close()


async def attach(autumn, plan_id):
    await autumn.ok("billing.attach", **ANN, plan_id=plan_id, no_billing_changes=True)


async def usage(autumn, operation="customers.get", **more):
    return (await autumn.ok(operation, **ANN, **more))["balances"]["usage"]


@pytest.mark.parametrize(("then", "remaining", "kept"), [("large", 105, [5]), ("plain", 100, None)])
async def test_an_upgrade_takes_along_what_was_rolled_over(autumn, time, then, remaining, kept):
    """Seven were rolled over; the next plan keeps as many as it allows, and one that rolls nothing over keeps none."""
    await attach(autumn, "small")
    await autumn.ok("balances.track", **ANN, feature_id="usage", value=3)
    time.now += 32 * DAY
    assert (await usage(autumn))["remaining"] == 17
    await attach(autumn, then)
    shown = await usage(autumn)
    rolled_over = shown.get("rollovers") and [item["balance"] for item in shown["rollovers"]]
    assert (shown["remaining"], rolled_over) == (remaining, kept)


async def test_entities_roll_over_apart_and_are_added_up_for_the_customer(autumn, time):
    """Of ten each, seven and nothing are left: one entity has 17 in the next month, the other ten, and both have 27."""
    await attach(autumn, "seated")
    for entity_id, used in (("a", 3), ("b", 10)):
        await autumn.ok("entities.create", **ANN, entity_id=entity_id, feature_id="seats")
        await autumn.ok("balances.track", **ANN, entity_id=entity_id, feature_id="usage", value=used)
    time.now += 32 * DAY
    a, b = [await usage(autumn, "entities.get", entity_id=entity_id) for entity_id in ("a", "b")]
    both = await usage(autumn)
    assert [shown["remaining"] for shown in (a, b, both)] == [17, 10, 27]
    assert [[item["balance"] for item in shown["rollovers"]] for shown in (a, b, both)] == [[7], [], [7]]
    await autumn.ok("balances.track", **ANN, entity_id="a", feature_id="usage", value=9)
    assert (await usage(autumn, "entities.get", entity_id="a"))["rollovers"][0] == {
        "granted": 7,
        "balance": 0,
        "expires_at": 0,
    }
    await autumn.ok("entities.delete", **ANN, entity_id="a")
    assert (await usage(autumn))["remaining"] == 10
