"""What can be bought through the billing routes, and that one wish becomes one purchase."""

import asyncio
import json
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import Header

from fastapi_autumn import Customer
from fastapi_autumn._purchases import Cached, is_free
from fastapi_autumn.autumn import default_catalog
from fastapi_autumn.emulator import Emulator, Fault
from fastapi_autumn.models import Plan
from fastapi_autumn.transports import Answer, AsgiTransport
from service import Service

ADA = {"x-token": "ada"}
TOP_UP = {"plan_id": "credit_top_up", "feature_quantities": {"ai_credits": 500}}


async def by_token(x_token: str = Header("")) -> Customer | None:
    return Customer(x_token) if x_token else None


class Watched:
    """The way to the emulator, which counts what goes over it and answers some of it itself."""

    def __init__(self) -> None:
        self.inner: Any = None
        self.calls: list[str] = []
        self.instead: dict[str, Answer] = {}

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        operation = path.removeprefix("/v1/")
        self.calls.append(operation)
        if operation in self.instead:
            return self.instead[operation]
        return await self.inner.request(method, path, **options)

    async def aclose(self) -> None: ...


class Shop(Service):
    """An application with the billing routes, and a customer, Ada, whose card is on file."""

    def __init__(self, folder: Any, *, emulator: bool = True, **router: Any) -> None:
        self.way = Watched()
        super().__init__(folder, max_retries=0, transport=self.way, secret_key="am_sk_test_emulator", emulator=emulator)
        self.inside = self.emulator if emulator else Emulator(":memory:", catalog=default_catalog())
        self.way.inner = AsgiTransport(self.inside, timeout=5)
        self.app.include_router(self.autumn.router(prefix="/billing", customer=by_token, **router))

    async def leave_card(self, client: Any) -> None:
        url = (await client.post("/billing/setup-payment", headers=ADA)).json()["url"]
        assert (await client.post(f"{url}/confirm")).status_code == 200

    async def bought(self) -> int:
        record = await self.autumn.client.customers.get("ada")
        return int(record.balances["ai_credits"].granted - 50) // 500


def answer(status: int, code: str) -> Answer:
    return Answer(status, {}, json.dumps({"code": code, "message": "Autumn's words", "env": "sandbox"}).encode())


async def buy(client: Any, *, key: str | None = None, **body: Any) -> Any:
    headers = ADA | ({} if key is None else {"idempotency-key": key})
    return await client.post("/billing/attach", json=TOP_UP | body, headers=headers)


async def test_a_double_click_is_one_purchase(tmp_path):
    """Two clicks at the same time, and a third after their answer, buy once and are all told that it is done."""
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        await shop.leave_card(client)
        answers = await asyncio.gather(*(buy(client) for _ in range(5)))
        answers.append(await buy(client))

        assert {answer.status_code for answer in answers} == {200}
        assert shop.way.calls.count("billing.attach") == 1
        assert await shop.bought() == 1


async def test_another_worker_recognises_the_second_click(tmp_path):
    """Workers share no memory, but both send the key of the minute, and the record shows what the first bought."""
    shop = Shop(tmp_path)
    shop.app.include_router(shop.autumn.router(prefix="/other", customer=by_token))
    async with shop.calling() as client:
        await shop.leave_card(client)
        await buy(client)
        second = await client.post("/other/attach", json=TOP_UP, headers=ADA)

        assert second.status_code == 200
        assert await shop.bought() == 1


async def test_a_double_click_over_the_end_of_a_minute_is_one_purchase(tmp_path, monkeypatch):
    """When the key has changed between the clicks, the record tells another worker that the first was a moment ago."""
    monkeypatch.setattr("fastapi_autumn._purchases._ONE_WISH_MS", 1)
    shop = Shop(tmp_path)
    shop.app.include_router(shop.autumn.router(prefix="/other", customer=by_token))
    async with shop.calling() as client:
        await shop.leave_card(client)
        await buy(client)
        second = await client.post("/other/attach", json=TOP_UP, headers=ADA)

        assert second.status_code == 200
        assert shop.way.calls.count("billing.attach") == 1
        assert await shop.bought() == 1


async def test_another_amount_is_another_wish(tmp_path, monkeypatch):
    """500 credits and then 1,000 are 1,500, without a key and within a minute."""
    # Where a minute changes, a purchase of a moment ago counts whatever its amount; not here.
    monkeypatch.setattr("fastapi_autumn._purchases._DOUBLE_CLICK_MS", 0)
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        await shop.leave_card(client)
        assert (await buy(client)).status_code == 200
        assert (await buy(client, feature_quantities={"ai_credits": 1_000})).status_code == 200

        assert await shop.bought() == 3


async def test_two_wishes_are_two_purchases(tmp_path):
    """A front end that names its wishes gets one purchase for each name, and the same answer for the same name."""
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        await shop.leave_card(client)
        for key in ("first", "second", "first", "second"):
            assert (await buy(client, key=key)).status_code == 200

        assert await shop.bought() == 2


async def test_a_lost_answer_is_looked_up(tmp_path):
    """The purchase was made and its answer dropped: the record shows it, and the customer is told that it is done."""
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        await shop.leave_card(client)
        shop.emulator.faults.add("billing.attach", Fault(kind="drop", times=1))

        assert (await buy(client)).status_code == 200
        assert (await buy(client)).status_code == 200
        assert await shop.bought() == 1


async def test_an_unknown_outcome_is_told_as_such(tmp_path):
    """Nobody is asked to try again; who does all the same, once Autumn can be asked, finds the purchase made."""
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        await shop.leave_card(client)
        shop.emulator.faults.add("billing.attach", Fault(kind="drop", times=1))
        real, asked = shop.way.inner, []

        class Broken:
            async def request(self, method: str, path: str, **options: Any) -> Answer:
                asked.append(path)
                # The look before succeeds, the one after does not.
                if path.endswith("get_or_create") and "/v1/billing.attach" in asked:
                    return Answer(503, {}, b"")
                return await real.request(method, path, **options)

        shop.way.inner = Broken()
        unknown = await buy(client)
        shop.way.inner = real

        assert unknown.status_code == 504
        assert unknown.json()["detail"]["code"] == "outcome_unknown"
        assert "try again" in unknown.json()["detail"]["message"]
        assert "retry-after" not in unknown.headers
        assert (await buy(client)).status_code == 200
        assert await shop.bought() == 1


@pytest.mark.parametrize("key", [None, "k1"])
async def test_a_purchase_that_was_not_made_can_be_tried_again(tmp_path, key):
    """Unknown at first, not in the record later: the second try goes out under the same key, and buys once."""
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        await shop.leave_card(client)
        shop.emulator.faults.add("billing.attach", Fault(kind="fail", status=502, times=1))

        assert (await buy(client, key=key)).status_code == 504
        assert (await buy(client, key=key)).status_code == 200
        assert await shop.bought() == 1


async def test_a_key_that_autumn_has_had_is_an_unknown_outcome(tmp_path):
    """Another worker may have the same wish under way."""
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        shop.way.instead["billing.attach"] = answer(409, "duplicate_idempotency_key")

        assert (await buy(client, key="k1")).json()["detail"]["code"] == "outcome_unknown"


async def test_a_purchase_beside_another_is_refused_and_not_repeated(tmp_path):
    """429 is Autumn's guard against two changes at once: nothing was done, and nothing tries again by itself."""
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        shop.way.instead["billing.attach"] = Answer(429, {"retry-after": "2"}, b"slow down")
        response = await buy(client)

        assert (response.status_code, response.headers["retry-after"]) == (429, "2")
        assert response.json()["detail"]["code"] == "busy"
        assert shop.way.calls.count("billing.attach") == 1


async def test_what_is_left_to_do_reaches_the_front_end(tmp_path):
    """A declined card is not a finished purchase, and the next click tries again."""
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        action = {"code": "payment_failed", "reason": "Your card was declined."}
        body = {"customer_id": "ada", "payment_url": None, "required_action": action}
        shop.way.instead["billing.attach"] = Answer(200, {}, json.dumps(body).encode())
        for _ in range(2):
            assert (await buy(client)).json()["required_action"] == action

        assert shop.way.calls.count("billing.attach") == 2


async def test_who_leaves_does_not_take_the_purchase_along(tmp_path):
    """A browser that is closed during the call to Autumn leaves no half purchase: it ends, and is found later."""
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        await shop.leave_card(client)
        shop.emulator.faults.add("billing.attach", Fault(kind="delay", delay_ms=100, times=1))
        leaving = asyncio.create_task(buy(client))
        while "billing.attach" not in shop.way.calls:
            await asyncio.sleep(0.001)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)

        assert (await buy(client)).status_code == 200
        assert await shop.bought() == 1


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


async def test_what_costs_nothing_is_given_once(tmp_path):
    """A free plan can be neither taken twice nor cancelled and taken again, nor taken once more for each seat."""
    shop = Shop(tmp_path, plans=["free", "gift"])
    async with shop.calling() as client:
        items = [{"feature_id": "ai_credits", "included": 500}]
        gift = {"plan_id": "gift", "name": "Gift", "add_on": True, "items": items}
        await shop.autumn.client.call("plans.create", gift)

        async def take(path: str, *, key: str, **body: Any) -> Any:
            headers = ADA | {"idempotency-key": key}
            answer = await client.post(f"/billing/{path}", json={"plan_id": "gift"} | body, headers=headers)
            return answer.json()["detail"]["code"] if answer.is_error else "done"

        assert await take("attach", key="k1") == "done"
        assert await take("attach", key="k2") == "plan_already_attached"
        assert await take("cancel", key="k3") == "plan_is_free"
        assert await take("cancel", key="k4", plan_id="free") == "plan_is_free"
        assert await take("attach", key="k5", entity_id="seat1") == "plan_not_offered"
        assert await shop.bought() == 1


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


async def test_what_a_seat_bought_is_looked_up_there(tmp_path):
    """A purchase for one entity is not in its customer's record, and one of the customer's is not the entity's."""
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        await shop.leave_card(client)
        feature = {"feature_id": "seats", "name": "Seats", "type": "metered", "consumable": False}
        await shop.autumn.client.call("features.create", feature)
        await shop.autumn.client.entities.create("ada", "seat1", feature_id="seats")
        await client.post("/billing/attach", json={"plan_id": "pro"}, headers=ADA)
        shop.emulator.faults.add("billing.attach", Fault(kind="drop", times=1))
        wish = {"plan_id": "credit_top_up", "feature_quantities": {"ai_credits": 500}, "entity_id": "seat1"}
        first = await client.post("/billing/attach", json=wish, headers=ADA)
        second = await client.post("/billing/attach", json=wish, headers=ADA)
        entities = (await client.get("/billing/entities", headers=ADA)).json()

        assert {first.status_code, second.status_code} == {200}
        assert shop.way.calls.count("billing.attach") == 2
        assert [entity["id"] for entity in entities] == ["seat1"]


async def test_the_addresses_of_the_real_autumn_are_handed_on(tmp_path):
    """Without an emulator in the process, where to pay is where Autumn says."""
    shop = Shop(tmp_path, emulator=False)
    async with shop.calling() as client:
        body = {"customer_id": "ada", "payment_url": "https://checkout.stripe.com/c/pay_1"}
        shop.way.instead["billing.attach"] = Answer(200, {}, json.dumps(body).encode())

        assert (await buy(client)).json()["payment_url"] == "https://checkout.stripe.com/c/pay_1"
        assert (await client.get("/billing-emulator/checkout/x")).status_code == 404
    shop.inside.close()


async def test_the_memory_of_purchases_is_bounded(tmp_path, monkeypatch):
    """Front ends that name every wish do not fill the process; what is forgotten is Autumn's to remember."""
    monkeypatch.setattr("fastapi_autumn._purchases._REMEMBERED", 2)
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        await shop.leave_card(client)
        for key in ("first", "second", "third"):
            assert (await buy(client, key=key)).status_code == 200
        assert (await buy(client, key="first")).status_code == 200

        assert shop.way.calls.count("billing.attach") == 4
        assert await shop.bought() == 3


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
        return SimpleNamespace(client=SimpleNamespace(front_end=front_end))

    one, other = runtime(first), runtime(second)
    asking = asyncio.create_task(cached.get(one))
    await going.wait()
    assert await cached.get(other) == "second"
    slow.set()
    assert await asking == "first"
    assert await cached.get(other) == "second"
