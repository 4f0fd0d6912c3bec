"""Plans on customers: attaching, paying at the stand-in, replacing, cancelling, trials, and what time does."""

import re
from urllib.parse import urljoin

import pytest

from emulator.conftest import START
from fastapi_autumn.emulator.books._clock import DAY, add_interval


async def plans(autumn, customer_id="ann"):
    shown = await autumn.ok("customers.get", customer_id=customer_id)
    return {plan["plan_id"]: plan for plan in shown["subscriptions"]}


async def buy(autumn, **body):
    """Attach a plan and confirm the check-out that it leads to."""
    url = (await autumn.ok("billing.attach", customer_id="ann", **body))["payment_url"]
    page = await autumn.get(url)
    assert "No money moves" in page.text
    return await autumn.post(urljoin(url, re.search(r'formaction="([^"]+/confirm)"', page.text)[1]))


async def test_a_priced_plan_is_attached_after_the_check_out(autumn):
    """Attaching gives a page; only confirming it replaces the free plan and grants the pro balance."""
    url = (await autumn.ok("billing.attach", customer_id="ann", plan_id="pro"))["payment_url"]
    assert await autumn.remaining() == 50
    await autumn.post(f"{url}/confirm")
    assert list(await plans(autumn)) == ["pro"]
    assert await autumn.remaining() == 2000
    assert (await autumn.post(f"{url}/confirm")).status_code == 404


async def test_a_declined_check_out_attaches_nothing(autumn):
    """Declining closes the page and leaves the customer as he was."""
    url = (await autumn.ok("billing.attach", customer_id="ann", plan_id="pro"))["payment_url"]
    assert "Nothing was bought" in (await autumn.post(f"{url}/decline")).text
    assert list(await plans(autumn)) == ["free"]
    assert (await autumn.get(url)).status_code == 404


async def test_the_buyer_is_sent_back(autumn):
    """After confirming, the browser goes to `success_url`."""
    answer = await buy(autumn, plan_id="pro", success_url="https://example.com/done")
    assert (answer.status_code, answer.headers["location"]) == (303, "https://example.com/done")


async def test_a_known_card_is_charged_without_a_page(autumn):
    """Once a customer has paid, the next purchase is attached at once; `always` still shows the page."""
    await buy(autumn, plan_id="pro")
    top_up = {"plan_id": "top_up", "feature_quantities": [{"feature_id": "credits", "quantity": 500}]}
    assert (await autumn.ok("billing.attach", customer_id="ann", **top_up))["payment_url"] is None
    assert await autumn.remaining() == 2500
    asked = await autumn.ok("billing.attach", customer_id="ann", redirect_mode="always", **top_up)
    assert asked["payment_url"]


async def test_without_a_card_and_without_a_page_payment_is_required(autumn):
    """`redirect_mode: never` says what is missing and attaches nothing."""
    answer = await autumn.ok("billing.attach", customer_id="ann", plan_id="pro", redirect_mode="never")
    assert answer["required_action"]["code"] == "payment_method_required"
    assert list(await plans(autumn)) == ["free"]


async def test_top_ups_stack_and_outlive_the_month(autumn, emulator):
    """A top-up adds to the balance, is used after the plan's credits, and does not reset."""
    body = {"plan_id": "top_up", "feature_quantities": [{"feature_id": "credits", "quantity": 500}]}
    await buy(autumn, **body)
    await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=70)
    shown = (await autumn.ok("customers.get", customer_id="ann"))["balances"]["credits"]["breakdown"]
    assert [(part["plan_id"], part["remaining"]) for part in shown] == [("free", 0), ("top_up", 480)]
    emulator.clock.advance(days=31)
    assert await autumn.remaining() == 530


async def test_the_same_plan_again_is_refused(autumn):
    """A customer has a plan once."""
    answer = await autumn.call("billing.attach", customer_id="ann", plan_id="free")
    assert (answer.status_code, answer.json()["code"]) == (409, "plan_already_attached")


async def test_a_downgrade_waits_for_the_end_of_the_cycle(autumn, emulator):
    """Going from a paid plan to a cheaper one is scheduled, and happens when the month is over."""
    await buy(autumn, plan_id="pro")
    await autumn.ok("billing.attach", customer_id="ann", plan_id="free")
    found = await plans(autumn)
    assert (found["pro"]["status"], found["free"]["status"]) == ("active", "scheduled")
    assert found["free"]["started_at"] == found["pro"]["expires_at"] == add_interval(START, "month")
    assert await autumn.remaining() == 2000
    emulator.clock.advance(days=31)
    assert {key: plan["status"] for key, plan in (await plans(autumn)).items()} == {"free": "active"}
    assert await autumn.remaining() == 50


async def test_cancelling_at_the_end_of_the_cycle_and_taking_it_back(autumn, emulator):
    """A cancelled plan runs until its period ends; un-cancelled, it goes on into the next one."""
    await buy(autumn, plan_id="pro")
    change = {"customer_id": "ann", "plan_id": "pro"}
    await autumn.ok("billing.update", **change, cancel_action="cancel_end_of_cycle")
    assert (await plans(autumn))["pro"]["expires_at"] == add_interval(START, "month")
    await autumn.ok("billing.update", **change, cancel_action="uncancel")
    emulator.clock.advance(days=31)
    assert (await plans(autumn))["pro"]["current_period_start"] == add_interval(START, "month")
    await autumn.ok("billing.update", **change, cancel_action="cancel_end_of_cycle")
    emulator.clock.advance(days=31)
    assert list(await plans(autumn)) == ["free"]


async def test_cancelling_now_brings_the_automatic_plan_back(autumn):
    """Without a paid plan the customer is on the free one again, with a fresh balance."""
    await buy(autumn, plan_id="pro")
    await autumn.ok("billing.update", customer_id="ann", plan_id="pro", cancel_action="cancel_immediately")
    assert list(await plans(autumn)) == ["free"]
    assert await autumn.remaining() == 50


async def test_seats_that_are_taken_stay_taken(autumn):
    """Use of what is not consumed is carried over to the next plan."""
    await buy(autumn, plan_id="pro")
    await autumn.ok("balances.track", customer_id="ann", feature_id="seats", value=2)
    item = {"feature_id": "seats", "included": 10}
    await autumn.ok("plans.create", plan_id="team", name="Team", group="main", items=[item])
    body = {"customer_id": "ann", "plan_id": "team", "plan_schedule": "immediate"}
    await autumn.ok("billing.attach", **body)
    assert await autumn.remaining(feature_id="seats") == 8


async def test_a_trial_ends_with_the_group_s_automatic_plan(autumn, emulator):
    """A trial without a card is attached at once and is over after its days."""
    trial = {"duration_type": "day", "duration_length": 7, "card_required": False}
    item = {"feature_id": "credits", "included": 300, "reset": {"interval": "month"}}
    price = {"amount": 10, "interval": "month"}
    await autumn.ok(
        "plans.create", plan_id="try", name="Try", group="main", price=price, free_trial=trial, items=[item]
    )
    assert (await autumn.ok("billing.attach", customer_id="ann", plan_id="try"))["payment_url"] is None
    assert (await plans(autumn))["try"]["trial_ends_at"] == START + 7 * DAY
    assert await autumn.remaining() == 300
    emulator.clock.advance(days=7)
    assert list(await plans(autumn)) == ["free"]


async def test_a_preview_moves_nothing(autumn):
    """preview_attach tells what would be paid, what comes and what goes."""
    shown = await autumn.ok("billing.preview_attach", customer_id="ann", plan_id="pro")
    assert (shown["total"], shown["redirect_to_checkout"]) == (20, True)
    assert [change["plan_id"] for change in shown["incoming"] + shown["outgoing"]] == ["pro", "free"]
    assert list(await plans(autumn)) == ["free"]


async def test_the_portal_is_a_page(autumn):
    """open_customer_portal gives an address at which something answers."""
    url = (await autumn.ok("billing.open_customer_portal", customer_id="ann"))["url"]
    assert "free: active" in (await autumn.get(url)).text


async def test_a_prepaid_quantity_can_be_changed(autumn):
    """Buying more later adds to the balance; what was used stays used."""
    item = {"feature_id": "images", "included": 10, "reset": {"interval": "month"}}
    item["price"] = {"amount": 1, "billing_units": 1, "interval": "month", "billing_method": "prepaid"}
    await autumn.ok("plans.create", plan_id="packs", name="Packs", group="packs", items=[item])
    body = {"plan_id": "packs", "feature_quantities": [{"feature_id": "images", "quantity": 30}]}
    await autumn.ok("billing.attach", customer_id="ann", no_billing_changes=True, **body)
    await autumn.ok("balances.track", customer_id="ann", feature_id="images", value=12)
    body["feature_quantities"][0]["quantity"] = 40
    await autumn.ok("billing.update", customer_id="ann", **body)
    shown = (await autumn.ok("customers.get", customer_id="ann"))["balances"]["images"]["breakdown"][0]
    assert (shown["included_grant"], shown["prepaid_grant"], shown["remaining"]) == (10, 30, 28)


@pytest.mark.parametrize("operation", ["invoices.list", "billing.multi_attach", "licenses.attach", "keys.mint"])
async def test_what_is_left_out_says_so(autumn, operation):
    """A 501 names what the emulator does not have."""
    answer = await autumn.call(operation)
    assert answer.status_code == 501
    assert operation in answer.json()["message"]
