"""Corrections of balances by hand: update, delete and recalculate."""

import pytest

ANN = {"customer_id": "ann", "feature_id": "credits"}
GIFT = ANN | {"balance_id": "gift"}
DAY = 86_400_000


async def grant(autumn, credits_, **more):
    await autumn.ok("balances.create", **(GIFT | {"included_grant": credits_} | more))


async def parts(autumn):
    """Return what is left of each balance of credits, below zero too, by its interval."""
    shown = (await autumn.ok("customers.get", customer_id="ann"))["balances"]["credits"]["breakdown"]
    return {part["reset"]["interval"]: part["included_grant"] + part["prepaid_grant"] - part["usage"] for part in shown}


async def test_usage_is_set_against_what_was_granted_by_hand_too(autumn):
    """After a grant of 80 in place of 50, a usage of 10 leaves 70."""
    await autumn.ok("balances.update", **ANN, included_grant=80)
    await autumn.ok("balances.update", **ANN, usage=10)
    shown = (await autumn.ok("customers.get", customer_id="ann"))["balances"]["credits"]
    assert (shown["granted"], shown["usage"], shown["remaining"]) == (80, 10, 70)


async def test_the_reset_that_comes_next_is_moved(autumn, time):
    """Of a month's and a day's balance it is the day's that resets at the new time."""
    await grant(autumn, 5, reset={"interval": "day"})
    await autumn.ok("balances.update", **ANN, next_reset_at=time.now + 1_000)
    await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=4)
    time.now += 2_000
    assert await parts(autumn) == {"day": 5, "month": 50}


async def test_the_balance_that_ends_first_is_moved(autumn, time):
    """A grant can be given an end, and is gone after it."""
    await grant(autumn, 5)
    await autumn.ok("balances.update", **GIFT, expires_at=time.now + 1_000)
    time.now += 2_000
    assert await parts(autumn) == {"month": 50}


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"interval": "month", "expires_at": 1}, 400, "not recurring balances"),
        ({"interval": "one_off", "next_reset_at": 1}, 400, "lifetime balance"),
        ({"interval": "year", "expires_at": 1}, 404, "No balances found for feature credits, customer ann"),
        ({"interval": "year", "next_reset_at": 1}, 404, "No balances found for feature credits, customer ann"),
    ],
)
async def test_times_that_a_balance_does_not_have_are_refused(autumn, changes, status, said):
    """What resets has no end of its own, what never resets no next reset, and what is not there neither."""
    await grant(autumn, 5)
    answer = await autumn.call("balances.update", **ANN, **changes)
    assert answer.status_code == status
    assert said in answer.json()["message"]


async def test_what_is_left_pays_for_what_is_owed(autumn):
    """70 credits owe 20 of a month's balance; a grant of 30 that comes later pays for them when asked to."""
    await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=70, overage_behavior="overflow")
    await grant(autumn, 30)
    assert await parts(autumn) == {"month": -20, "one_off": 30}
    await autumn.ok("balances.recalculate", **ANN)
    assert await parts(autumn) == {"month": 0, "one_off": 10}


async def test_more_owed_than_there_is_stays_owed_by_the_first(autumn):
    """Recalculated, a debt of 20 is paid with 5, and the balance that is used first owes the other 15."""
    await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=70, overage_behavior="overflow")
    await grant(autumn, 5)
    await autumn.ok("balances.recalculate", **ANN)
    assert await parts(autumn) == {"month": -15}


async def test_recalculating_what_owes_nothing_changes_nothing(autumn):
    """With no debt there is nothing to distribute anew, and with no balance there is nothing at all."""
    await grant(autumn, 5)
    await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=20)
    await autumn.ok("balances.recalculate", **ANN)
    assert await parts(autumn) == {"month": 30, "one_off": 5}
    assert (await autumn.call("balances.recalculate", customer_id="ann", feature_id="images")).status_code == 404


async def test_a_balance_that_nobody_can_pay_for_stays_as_a_debt(autumn):
    """The only balance, deleted with its use left behind, grants nothing any more and owes what was used."""
    await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=20)
    await autumn.ok("balances.delete", **ANN, recalculate_balances=True)
    shown = (await autumn.ok("customers.get", customer_id="ann"))["balances"]["credits"]
    assert (shown["granted"], shown["usage"], shown["remaining"]) == (0, 20, 0)


async def test_a_use_that_is_left_behind_may_be_owed(autumn):
    """A grant of 100 is used for 60 beyond the plan's 50, and deleted: the plan's balance owes those 60."""
    await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=50)
    await grant(autumn, 100)
    await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=60)
    await autumn.ok("balances.delete", **GIFT, recalculate_balances=True)
    assert await parts(autumn) == {"month": -60}


async def test_a_whole_number_without_end_is_no_number(autumn):
    """A whole number that is past every float is infinity in JavaScript: 400, and nothing moves."""
    answer = await autumn.call("balances.track", customer_id="ann", feature_id="usage", value=10**400)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_inputs")
    assert await autumn.remaining() == 50
