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


async def add_plan(autumn, plan_id, amount, interval="month", **more):
    await autumn.ok(
        "plans.create", plan_id=plan_id, name=plan_id.title(), price={"amount": amount, "interval": interval}, **more
    )


async def attach(autumn, plan_id, **more):
    return await autumn.ok("billing.attach", customer_id="ann", plan_id=plan_id, no_billing_changes=True, **more)


async def update(autumn, plan_id, **more):
    body = {"customer_id": "ann", "plan_id": plan_id, "no_billing_changes": True} | more
    return await autumn.call("billing.update", **body)


@pytest.mark.parametrize(
    ("amount", "interval", "status"),
    [(19, "month", "scheduled"), (20, "month", "active"), (100, "year", "active"), (5, "week", "active")],
)
async def test_what_is_cheaper_by_the_month_waits(autumn, amount, interval, status):
    """From $20 a month: $19 waits, as much does not, nor does a longer commitment, nor $5 a week."""
    await add_plan(autumn, "base", 20, group="main")
    await add_plan(autumn, "other", amount, interval, group="main")
    await attach(autumn, "base")
    await attach(autumn, "other")
    assert (await plans(autumn))["other"]["status"] == status


async def test_what_use_costs_makes_no_plan_dearer(autumn):
    """Pro costs $20 and $1 by use: going to a plan of $20 is no downgrade."""
    await add_plan(autumn, "flat", 20, group="main")
    await attach(autumn, "pro")
    await attach(autumn, "flat")
    assert {key: plan["status"] for key, plan in (await plans(autumn)).items()} == {"flat": "active"}


async def test_a_plan_that_is_ending_is_still_attached(autumn):
    """To attach it again is refused: taking the cancellation back is another operation."""
    await attach(autumn, "pro")
    assert (await update(autumn, "pro", cancel_action="cancel_end_of_cycle")).is_success
    again = await autumn.call("billing.attach", customer_id="ann", plan_id="pro", no_billing_changes=True)
    assert (again.status_code, again.json()["code"]) == (409, "plan_already_attached")


async def test_cancelling_forgets_what_was_scheduled(autumn, emulator):
    """A downgrade from team to pro is scheduled; team, cancelled at once, is followed by the free plan."""
    await add_plan(autumn, "team", 50, group="main")
    await attach(autumn, "team")
    await attach(autumn, "pro")
    assert (await update(autumn, "team", cancel_action="cancel_immediately")).is_success
    assert {key: plan["status"] for key, plan in (await plans(autumn)).items()} == {"free": "active"}


async def test_cancelling_what_is_scheduled_lets_the_current_plan_go_on(autumn):
    """Team was to end for pro; when pro is cancelled before it starts, team does not end."""
    await add_plan(autumn, "team", 50, group="main")
    await attach(autumn, "team")
    await attach(autumn, "pro")
    assert (await plans(autumn))["team"]["expires_at"] is not None
    assert (await update(autumn, "pro", cancel_action="cancel_immediately")).is_success
    (left,) = (await plans(autumn)).values()
    assert (left["plan_id"], left["canceled_at"], left["expires_at"]) == ("team", None, None)


async def test_the_end_of_an_add_on_starts_nothing(autumn, emulator):
    """An add-on in the same group that ends does not bring what waits for the main plan."""
    await add_plan(autumn, "team", 50, group="main")
    await add_plan(autumn, "extra", 1, "week", group="main", add_on=True)
    for plan_id in ("team", "extra", "pro"):
        await attach(autumn, plan_id)
    assert (await update(autumn, "extra", cancel_action="cancel_end_of_cycle")).is_success
    emulator.clock.advance(days=8)
    assert {key: plan["status"] for key, plan in (await plans(autumn)).items()} == {
        "team": "active",
        "pro": "scheduled",
    }


@pytest.mark.parametrize(
    ("plan_id", "change", "said"),
    [
        ("free", {"cancel_action": "cancel_end_of_cycle"}, "Free products do not have billing cycles"),
        ("top_up", {"cancel_action": "cancel_end_of_cycle"}, "One-off products do not have billing cycles"),
        ("flat", {"cancel_action": "uncancel"}, "Cannot uncancel a subscription that is scheduled"),
        ("flat", {"no_billing_changes": False}, "is scheduled and cannot be updated"),
        ("pro", {"feature_quantities": [{"feature_id": "credits", "quantity": 5}]}, "no prepaid price"),
        ("top_up", {"feature_quantities": [{"feature_id": "credits", "quantity": 999}]}, "one-off prepaid quantity"),
    ],
)
async def test_changes_that_a_plan_does_not_have_are_refused(autumn, plan_id, change, said):
    """What is free or bought once has no cycle, what is scheduled no cancellation, and what is not sold no quantity."""
    if plan_id != "free":
        await add_plan(autumn, "flat", 1, group="main")
        await attach(autumn, "pro")
        await attach(autumn, "flat")
        await attach(autumn, "top_up", feature_quantities=[{"feature_id": "credits", "quantity": 500}])
    answer = await update(autumn, plan_id, **change)
    assert answer.status_code == 400
    assert said in answer.json()["message"]


async def test_a_plan_of_an_entity_is_its_own(autumn):
    """An entity's plan is updated with the entity named, and without it the customer's."""
    entity = {"customer_id": "ann", "entity_id": "e1"}
    await autumn.ok("entities.create", **entity, feature_id="seats", name="E")
    await attach(autumn, "pro", entity_id="e1")
    assert (await update(autumn, "pro", cancel_action="cancel_immediately")).status_code == 404
    assert (await update(autumn, "pro", cancel_action="cancel_immediately", entity_id="e1")).is_success
    shown = await autumn.ok("entities.get", **entity)
    assert [plan["plan_id"] for plan in shown["subscriptions"]] == ["free"]


async def test_without_a_name_the_paid_plan_is_meant(autumn):
    """Of free, pro and a top-up an update that names none changes pro."""
    await attach(autumn, "top_up", feature_quantities=[{"feature_id": "credits", "quantity": 500}])
    await attach(autumn, "pro")
    await autumn.ok("billing.update", customer_id="ann", cancel_action="cancel_immediately")
    assert list(await plans(autumn)) == ["free"]


async def test_what_is_bought_once_beside_a_subscription_is_bought_again(autumn):
    """A plan that sells credits once besides: each quantity that is asked for comes on top, in whole packs."""
    pack = {"amount": 5, "billing_units": 100, "interval": "one_off", "billing_method": "prepaid"}
    await add_plan(autumn, "mixed", 30, group="main", items=[{"feature_id": "credits", "price": pack}])
    await attach(autumn, "mixed", feature_quantities=[{"feature_id": "credits", "quantity": 100}])
    assert await autumn.remaining() == 100
    for _ in range(2):
        assert (
            await update(autumn, "mixed", feature_quantities=[{"feature_id": "credits", "quantity": 150}])
        ).is_success
    assert await autumn.remaining() == 500


async def test_a_trial_is_given_once(autumn, emulator):
    """Who comes back to a plan after its trial pays from the first day, and is shown as having tried it."""
    trial = {"duration_type": "day", "duration_length": 7, "card_required": False}
    await add_plan(autumn, "try", 10, group="main", free_trial=trial)
    await attach(autumn, "try")
    emulator.clock.advance(days=8)
    assert list(await plans(autumn)) == ["free"]
    assert (await autumn.ok("billing.attach", customer_id="ann", plan_id="try"))["payment_url"] is not None
    await attach(autumn, "try")
    assert (await plans(autumn))["try"]["trial_ends_at"] is None
    shown = await autumn.ok("customers.get", customer_id="ann", expand=["trials_used"])
    assert shown["trials_used"] == [{"plan_id": "try", "customer_id": "ann", "fingerprint": None}]


BUNDLE = [{"plan_id": "pro"}, {"plan_id": "top_up", "feature_quantities": [{"feature_id": "credits", "quantity": 500}]}]


async def test_several_plans_are_bought_on_one_page(autumn):
    """The page names both plans, the preview their sum; confirmed, both are there."""
    shown = await autumn.ok("billing.preview_multi_attach", customer_id="ann", plans=BUNDLE)
    assert (shown["total"], [change["plan_id"] for change in shown["incoming"]]) == (25, ["pro", "top_up"])
    url = (await autumn.ok("billing.multi_attach", customer_id="ann", plans=BUNDLE))["payment_url"]
    page = (await autumn.get(url)).text
    assert "Pro" in page
    assert "Top-up" in page
    assert list(await plans(autumn)) == ["free"]
    await autumn.post(f"{url}/confirm")
    assert list(await plans(autumn)) == ["pro"]
    assert await autumn.remaining() == 2500


async def test_several_plans_may_replace_one(autumn):
    """Two plans that would each replace another are refused, and so are two that sell the same in advance."""
    await add_plan(autumn, "flat", 9, group="main")
    twice = await autumn.call(
        "billing.multi_attach", customer_id="ann", plans=[{"plan_id": "pro"}, {"plan_id": "flat"}]
    )
    assert twice.status_code == 400
    item = {"feature_id": "credits", "price": {"amount": 1, "billing_units": 1, "interval": "month"}}
    item["price"]["billing_method"] = "prepaid"
    await add_plan(autumn, "packs", 9, add_on=True, items=[item])
    same = await autumn.call("billing.multi_attach", customer_id="ann", plans=[{"plan_id": "packs"}, *BUNDLE])
    assert "does not support the same prepaid feature" in same.json()["message"]
    assert list(await plans(autumn)) == ["free"]


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


@pytest.mark.parametrize("operation", ["invoices.list", "billing.preview_update", "licenses.attach", "keys.mint"])
async def test_what_is_left_out_says_so(autumn, operation):
    """A 501 names what the emulator does not have."""
    answer = await autumn.call(operation)
    assert answer.status_code == 501
    assert operation in answer.json()["message"]
