"""Which plans a front end shows and sells, and how often Autumn is asked for them."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from fastapi_autumn._purchases import Cached, is_free, pays_now
from fastapi_autumn._scope import News
from fastapi_autumn.emulator import Fault
from fastapi_autumn.models import Plan
from shop import ADA, Shop, buy


async def test_a_free_plan_that_is_not_for_everybody_is_not_on_offer(tmp_path):
    """An internal plan costs nothing; without `plans`, no customer sees it or gives it to themselves."""
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        await add_staff_plan(shop)
        shown = (await client.get("/billing/plans", headers=ADA)).json()
        attached = await client.post("/billing/attach", json={"plan_id": "staff"}, headers=ADA)
        previewed = await client.post("/billing/preview", json={"plan_id": "staff"}, headers=ADA)

        assert {plan["id"] for plan in shown} == {"free", "pro", "credit_top_up"}
        assert attached.status_code == previewed.status_code == 404
        assert attached.json()["detail"]["code"] == "plan_not_offered"


async def test_the_application_says_what_is_on_offer(tmp_path):
    """`plans` holds for both routes, in its order, whatever a plan costs; what Autumn does not have is left out."""
    shop = Shop(tmp_path, plans=["staff", "pro", "gone"])
    async with shop.calling() as client:
        await add_staff_plan(shop)
        shown = (await client.get("/billing/plans", headers=ADA)).json()

        assert [plan["id"] for plan in shown] == ["staff", "pro"]
        assert (await client.post("/billing/attach", json={"plan_id": "staff"}, headers=ADA)).status_code == 200
        assert (await buy(client)).status_code == 404


async def test_a_free_add_on_is_not_on_offer_by_itself(tmp_path):
    """Autumn gives it to everybody; on the offer as well, it could be taken a second time."""
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        bonus = {"plan_id": "bonus", "name": "Bonus", "add_on": True, "auto_enable": True}
        await shop.autumn.client.call("plans.create", bonus)

        assert "bonus" not in {plan["id"] for plan in (await client.get("/billing/plans", headers=ADA)).json()}


async def test_plans_are_asked_for_once_a_minute(tmp_path):
    """Autumn answers 25 of these a second for the whole organisation, so a busy page shares one answer."""
    shop = Shop(tmp_path, public_plans=True)
    async with shop.calling() as client:
        answers = await asyncio.gather(*(client.get("/billing/plans") for _ in range(50)))
        shop.emulator.faults.add("plans.list", Fault(kind="fail", status=503))
        answers.append(await client.get("/billing/plans"))

        assert {answer.status_code for answer in answers} == {200}
        assert {answer.headers["cache-control"] for answer in answers} == {"public, max-age=60"}
        assert shop.way.calls.count("plans.list") == 1


async def test_an_old_offer_is_better_than_none(tmp_path, monkeypatch):
    """When the minute is over and Autumn cannot be asked, the page shows what it showed before."""
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        before = (await client.get("/billing/plans", headers=ADA)).json()
        monkeypatch.setattr("fastapi_autumn._purchases._FRESH_SECONDS", 0.0)
        shop.emulator.faults.add("plans.list", Fault(kind="fail", status=503))
        after = await client.get("/billing/plans", headers=ADA)

        assert after.json() == before
        assert shop.way.calls.count("plans.list") == 2


async def test_a_plan_of_a_moment_ago_can_be_bought(tmp_path, monkeypatch):
    """A plan that is not in the cached offer is looked for once more before it is refused."""
    monkeypatch.setattr("fastapi_autumn._purchases._AT_MOST_ONCE_IN_SECONDS", 0.0)
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        await client.get("/billing/plans", headers=ADA)
        body = {"plan_id": "big", "name": "Big", "price": {"amount": 99, "interval": "month"}}
        await shop.autumn.client.call("plans.create", body)
        response = await client.post("/billing/attach", json={"plan_id": "big"}, headers=ADA)

        assert response.status_code == 200
        assert response.json()["payment_url"]


async def add_staff_plan(shop: Shop) -> None:
    body = {"plan_id": "staff", "name": "Staff", "items": [{"feature_id": "ai_credits", "included": 1_000_000}]}
    await shop.autumn.client.call("plans.create", body)


@pytest.mark.parametrize(
    ("price", "items", "free"),
    [
        (None, [], True),
        ({"amount": 0, "interval": "month"}, [], True),
        ({"amount": 20, "interval": "month"}, [], False),
        (None, [{"feature_id": "f", "price": None}], True),
        (None, [{"feature_id": "f", "price": {"amount": 1}}], False),
        (None, [{"feature_id": "f", "price": {"amount": 0}}], True),
        (None, [{"feature_id": "f", "price": {"tiers": [{"to": 5, "amount": 0}, {"to": "inf", "amount": 2}]}}], False),
        (None, [{"feature_id": "f", "price": {"tiers": [{"to": "inf", "flat_amount": 2}]}}], False),
        (None, [{"feature_id": "f", "price": {"tiers": [{"to": "inf", "amount": 0}]}}], True),
    ],
)
def test_a_plan_is_free_when_nothing_in_it_costs(price: Any, items: Any, free: bool) -> None:
    """A price of 0 is none, and one tier that costs is enough."""
    assert is_free(Plan(id="p", name="P", price=price, items=items)) is free


@pytest.mark.parametrize(
    ("price", "bought", "pays"),
    [
        ({"amount": 1}, 10, False),
        ({"amount": 1}, 11, True),
        ({"amount": 0}, 11, False),
        ({"tiers": [{"to": 20, "amount": 0}, {"to": "inf", "amount": 2}]}, 20, False),
        ({"tiers": [{"to": 20, "amount": 0}, {"to": "inf", "amount": 2}]}, 21, True),
        ({"tiers": [{"to": 20, "amount": 2}, {"to": "inf", "amount": 0}]}, 21, True),
        ({"tiers": [{"to": 20, "amount": 2}, {"to": "inf", "amount": 0}], "tier_behavior": "volume"}, 21, False),
        ({"tiers": [{"to": 20, "amount": 0}, {"to": "inf", "flat_amount": 2}], "tier_behavior": "volume"}, 21, True),
    ],
)
def test_what_is_paid_for_at_once_depends_on_how_much_is_bought(price: Any, bought: int, pays: bool) -> None:
    """Of a prepaid item with 10 units included: those, and the steps of a price that cost nothing, are free."""
    item = {"feature_id": "seats", "included": 10, "price": price | {"billing_method": "prepaid"}}
    assert pays_now(Plan(id="p", name="P", items=[item]), {"seats": bought}) is pays


async def test_a_free_plan_that_is_archived_cannot_be_ended(tmp_path):
    """Its customers stay on it, and ending it would make it begin anew with all its credits."""
    shop = Shop(tmp_path, plans=["free", "pro"])
    async with shop.calling() as client:
        await client.get("/billing/customer", headers=ADA)
        await shop.autumn.client.call("plans.update", {"plan_id": "free", "archived": True})
        shown = (await client.get("/billing/plans", headers=ADA)).json()
        cancelled = await client.post("/billing/cancel", json={"plan_id": "free"}, headers=ADA)

        assert [plan["id"] for plan in shown] == ["pro"]
        assert (cancelled.status_code, cancelled.json()["detail"]["code"]) == (409, "plan_is_free")


async def test_two_applications_do_not_share_an_offer():
    """An answer that comes late for one Autumn is not taken for that of another."""
    cached = Cached[str](lambda client: client())
    slow, going = asyncio.Event(), asyncio.Event()

    async def first() -> str:
        going.set()
        await slow.wait()
        return "first"

    async def second() -> str:
        return "second"

    def runtime(front_end: Any) -> Any:
        return SimpleNamespace(client=SimpleNamespace(front_end=front_end), news=News())

    one, other = runtime(first), runtime(second)
    asking = asyncio.create_task(cached.get(one))
    await going.wait()
    assert await cached.get(other) == "second"
    slow.set()
    assert await asking == "first"
    assert await cached.get(other) == "second"
