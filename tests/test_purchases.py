"""One wish becomes one purchase, whatever happens to clicks and answers on the way."""

import asyncio
import json
from typing import Any

import pytest

from fastapi_autumn.emulator import Fault
from fastapi_autumn.transports import Answer
from shop import ADA, TOP_UP, Shop, answer, buy, by_token


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


@pytest.mark.parametrize("written", [True, False])
async def test_a_failure_of_stripe_is_a_no_only_where_nothing_was_written(tmp_path, written):
    """Autumn may answer 400 although it has attached the plan; the record tells."""
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        await shop.leave_card(client)
        real = shop.way.inner

        class StripeFails:
            async def request(self, method: str, path: str, **options: Any) -> Answer:
                is_purchase = path.endswith("billing.attach")
                done = await real.request(method, path, **options) if written or not is_purchase else None
                return answer(400, "stripe_error") if is_purchase or done is None else done

        shop.way.inner = StripeFails()
        response = await buy(client)

        assert response.status_code == (200 if written else 400)
        assert await shop.bought() == int(written)


async def test_what_is_wrong_with_the_key_is_not_for_customers(tmp_path, caplog):
    """Autumn's words about a wrong key show its beginning: the log has them, the browser does not."""
    shop = Shop(tmp_path)
    async with shop.calling() as client:
        body = {"code": "invalid_secret_key", "message": "Invalid secret key: am_sk_live_abcd****"}
        shop.way.instead["billing.attach"] = Answer(401, {}, json.dumps(body).encode())
        response = await buy(client)

        assert response.status_code == 502
        assert response.json()["detail"]["code"] == "billing_refused"
        assert "am_sk" not in response.text
        assert "check the key" in caplog.text


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


async def test_what_is_included_is_granted_once(tmp_path):
    """A pack that costs nothing in the amount asked for is had once, under whatever keys and amounts."""
    shop = Shop(tmp_path)
    price = {"amount": 5, "billing_units": 100, "billing_method": "prepaid", "interval": "one_off"}
    items = [{"feature_id": "ai_credits", "included": 100, "price": price}]
    async with shop.calling() as client:
        await shop.autumn.client.call("plans.create", {"plan_id": "pack", "name": "P", "add_on": True, "items": items})
        await shop.leave_card(client)
        for amounts in ({}, {"ai_credits": 0}, {"ai_credits": 100}):
            tries = (buy(client, key=f"{amounts}{n}", plan_id="pack", feature_quantities=amounts) for n in range(3))
            await asyncio.gather(*tries)
        assert (await shop.autumn.client.customers.get("ada")).balances["ai_credits"].granted == 150

        await buy(client, key="paid", plan_id="pack", feature_quantities={"ai_credits": 200})
        assert (await shop.autumn.client.customers.get("ada")).balances["ai_credits"].granted == 350
