"""Holds: how they begin, how they end, and what happens when nobody ends them."""

import pytest

HOUR = 3_600_000


async def hold(autumn, lock_id, credits_, **lock):
    lock = {"enabled": True, "lock_id": lock_id, **lock}
    return await autumn.call(
        "balances.check", customer_id="ann", feature_id="usage", required_balance=credits_, lock=lock
    )


async def test_an_expired_hold_gives_its_credits_back(autumn, time):
    """At its time a hold is released by itself, and finalizing it afterwards is refused."""
    await hold(autumn, "h", 5, expires_at=time.now + HOUR)
    assert await autumn.remaining() == 45
    time.now += HOUR
    assert await autumn.remaining() == 50
    late = await autumn.call("balances.finalize", lock_id="h", action="confirm")
    assert (late.status_code, late.json()["message"]) == (400, "Lock not found for ID: h")


async def test_a_release_by_expiry_is_an_event(autumn, time):
    """The books show the expiry: the hold's credits come back as a negative event."""
    await hold(autumn, "h", 5, expires_at=time.now + HOUR)
    time.now += HOUR
    events = await autumn.ok("events.list", customer_id="ann")
    assert [event["value"] for event in events["list"]] == [-5, 5]


async def test_a_hold_without_expiry_stays(autumn, time):
    """Without `expires_at` nothing gives the credits back, however long one waits."""
    await hold(autumn, "h", 5)
    time.now += 24 * 24 * HOUR
    assert await autumn.remaining() == 45


async def test_an_expiry_in_seconds_loses_the_credits(autumn, time):
    """Seconds sent as milliseconds lie in 1970: the credits are taken and the hold cannot be finalized."""
    await hold(autumn, "h", 5, expires_at=time.now // 1_000 + 3_600)
    assert await autumn.remaining() == 45
    assert (await autumn.call("balances.finalize", lock_id="h", action="release")).status_code == 400
    assert await autumn.remaining() == 45


async def test_an_expiry_more_than_a_day_ahead_is_refused(autumn, time):
    """A hold may last 24 hours and not longer; what is refused takes nothing."""
    answer = await hold(autumn, "h", 5, expires_at=time.now + 24 * HOUR + 1)
    assert answer.status_code == 400
    assert await autumn.remaining() == 50


@pytest.mark.parametrize(("override", "left"), [(3, 47), (8, 42), (0, 50), (1000, 0)])
async def test_a_confirmation_may_carry_another_amount(autumn, override, left):
    """Confirming less returns the difference, confirming more takes it, as far as there is any."""
    await hold(autumn, "h", 5)
    await autumn.ok("balances.finalize", lock_id="h", action="confirm", override_value=override)
    assert await autumn.remaining() == left


async def test_an_id_that_was_asked_for_in_vain_cannot_be_finalized_for_an_hour(autumn, time):
    """Finalizing an unknown id claims it: a hold taken under it then is stuck, until the hour is over."""
    await autumn.call("balances.finalize", lock_id="h", action="confirm")
    await hold(autumn, "h", 5)
    assert (await autumn.call("balances.finalize", lock_id="h", action="confirm")).status_code == 409
    time.now += HOUR
    await autumn.ok("balances.finalize", lock_id="h", action="confirm")


async def test_ids_are_shared_by_all_customers(autumn):
    """One customer's hold blocks the id for every other customer."""
    await autumn.ok("customers.get_or_create", customer_id="bob")
    await hold(autumn, "h", 5)
    body = {"customer_id": "bob", "feature_id": "usage", "lock": {"enabled": True, "lock_id": "h"}}
    assert (await autumn.call("balances.check", **body)).json()["code"] == "lock_already_exists"


async def test_a_hold_without_entitlement_is_denied(autumn):
    """Nobody can hold what nobody can pay: the answer is no, and there is no lock."""
    await autumn.ok("features.create", feature_id="new", name="New", type="metered", consumable=True)
    body = {"customer_id": "ann", "feature_id": "new", "lock": {"enabled": True, "lock_id": "h"}}
    assert (await autumn.ok("balances.check", **body))["allowed"] is False
    assert (await autumn.call("balances.finalize", lock_id="h", action="confirm")).status_code == 400


async def test_a_hold_that_comes_after_its_release_stays_for_ever(autumn, time):
    """Releasing an unknown id spoils it: a hold placed under it later is neither released by anybody, nor by time."""
    assert (await autumn.call("balances.finalize", lock_id="h", action="release")).status_code == 400
    await hold(autumn, "h", 5, expires_at=time.now + HOUR // 2)
    late = await autumn.call("balances.finalize", lock_id="h", action="release")
    assert (late.status_code, late.json()["message"]) == (
        409,
        "Lock receipt not claimable: RESERVATION_ALREADY_PROCESSING",
    )
    time.now += 24 * HOUR
    assert await autumn.remaining() == 45


async def test_a_denied_hold_does_not_look_at_its_id(autumn):
    """An id in use is a 409 only where the hold would be allowed."""
    await hold(autumn, "h", 5)
    denied = await hold(autumn, "h", 100)
    assert (denied.status_code, denied.json()["allowed"]) == (200, False)
    assert (await hold(autumn, "h", 1)).status_code == 409


async def test_a_hold_may_outlive_its_entity(autumn, time):
    """A hold of an entity that is gone comes back by itself, usage limits or not, and stops nobody else."""
    await autumn.ok("entities.create", customer_id="ann", entity_id="e1", feature_id="seats")
    limit = {"feature_id": "usage", "limit": 30, "interval": "day", "enabled": True}
    await autumn.ok("customers.update", customer_id="ann", billing_controls={"usage_limits": [limit]})
    lock = {"enabled": True, "lock_id": "h", "expires_at": time.now + HOUR}
    use = {"customer_id": "ann", "feature_id": "usage", "entity_id": "e1"}
    await autumn.ok("balances.check", **use, required_balance=5, lock=lock)
    await autumn.ok("entities.delete", customer_id="ann", entity_id="e1")
    time.now += HOUR
    await autumn.ok("customers.get_or_create", customer_id="bob")
    assert await autumn.remaining() == 50
