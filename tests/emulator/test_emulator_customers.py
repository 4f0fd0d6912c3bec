"""Customers, entities and events: finding them, paging through them, changing them."""

import pytest

from emulator.conftest import START
from fastapi_autumn.emulator.books._clock import DAY


async def ids(autumn, operation="customers.list", **body):
    return [found["id"] for found in (await autumn.ok(operation, **body))["list"]]


@pytest.fixture
async def five(autumn, time):
    for number in range(4):
        time.now += 1_000
        await autumn.ok(
            "customers.get_or_create", customer_id=f"c{number}", name=f"N{number}", email=f"e{number}@x.org"
        )
    return autumn


async def test_cursors_reach_every_customer_once(five):
    """Page after page, the newest first, until there is no cursor."""
    found, cursor = [], ""
    while cursor is not None:
        page = await five.ok("customers.list", limit=2, start_cursor=cursor)
        found += [customer["id"] for customer in page["list"]]
        cursor = page["next_cursor"]
    assert found == ["c3", "c2", "c1", "c0", "ann"]


async def test_offsets_before_2_3(five):
    """Older versions page by offset, and learn how many there are."""
    answer = await five.call("customers/list", headers={"x-api-version": "2.1.0"}, limit=2, offset=1)
    page = answer.json()
    assert [customer["id"] for customer in page["list"]] == ["c2", "c1"]
    assert (page["total_count"], page["has_more"]) == (5, True)


async def test_customers_are_found_by_text_and_by_plan(five):
    """`search` looks at id, name and e-mail; `plans` at what somebody has or had."""
    assert await ids(five, search="e2@") == await ids(five, search="N2") == ["c2"]
    await five.ok("billing.attach", customer_id="c1", plan_id="pro", no_billing_changes=True)
    assert await ids(five, plans=[{"id": "pro"}]) == ["c1"]


async def test_customers_are_found_by_what_they_have(autumn, time):
    """By a plan, its version and its state, by who takes their money, and by when they came."""
    time.now += 1_000
    await autumn.ok("customers.get_or_create", customer_id="bob", stripe_id="cus_1")
    await autumn.ok("billing.attach", customer_id="bob", plan_id="pro", no_billing_changes=True)
    await autumn.ok("billing.attach", customer_id="bob", plan_id="free", no_billing_changes=True)
    assert await ids(autumn, plans=[{"id": "pro"}]) == ["bob"]
    assert await ids(autumn, plans=[{"id": "pro", "versions": [2]}]) == []
    assert await ids(autumn, plans=[{"id": "free"}]) == ["bob", "ann"]
    assert await ids(autumn, plans=[{"id": "free"}], subscription_status="active") == ["ann"]
    assert await ids(autumn, subscription_status="scheduled") == ["bob"]
    assert await ids(autumn, processors=["stripe"]) == ["bob"]
    assert await ids(autumn, processors=["vercel"]) == []
    assert await ids(autumn, created_at_range={"end": time.now - 1}) == ["ann"]
    assert await ids(autumn, created_at_range={"start": time.now}) == ["bob"]


async def test_customers_can_be_listed_the_oldest_first(five):
    """A cursor goes on in the order that was asked for."""
    first = await five.ok("customers.list", sort_order="asc", limit=2)
    then = await five.ok("customers.list", sort_order="asc", limit=5, start_cursor=first["next_cursor"])
    found = [shown["created_at"] for shown in first["list"] + then["list"]]
    assert found == sorted(found)
    assert len(found) == 5


async def test_entities_of_all_customers_are_listed(autumn, time):
    """Without a customer all entities come, the newest first; with a plan those who have it by themselves or others."""
    for customer_id, entity_id in (("ann", "a1"), ("bob", "b1"), ("bob", "b2")):
        time.now += 1_000
        await autumn.ok("customers.get_or_create", customer_id=customer_id)
        await autumn.ok("entities.create", customer_id=customer_id, entity_id=entity_id, feature_id="seats")
    pro = {"customer_id": "bob", "plan_id": "pro", "no_billing_changes": True}
    await autumn.ok("billing.attach", **pro, entity_id="b1")
    assert await ids(autumn, "entities.list") == ["b2", "b1", "a1"]
    assert await ids(autumn, "entities.list", search="B") == ["b2", "b1"]
    assert await ids(autumn, "entities.list", plans=[{"id": "pro"}]) == ["b1"]
    first = await autumn.ok("entities.list", limit=2)
    then = await ids(autumn, "entities.list", start_cursor=first["next_cursor"])
    assert [shown["id"] for shown in first["list"]] + then == ["b2", "b1", "a1"]


async def test_a_customer_can_get_another_id(five):
    """A new id keeps everything; one that is taken is refused."""
    assert (await five.call("customers.update", customer_id="c1", new_customer_id="c2")).status_code == 409
    await five.ok("customers.update", customer_id="c1", new_customer_id="renamed")
    assert await five.remaining("renamed") == 50


async def test_a_customer_without_id_is_known_by_e_mail(autumn):
    """Null is an id as long as there is an e-mail address; the real id is filled in later by nobody else."""
    first = await autumn.ok("customers.get_or_create", customer_id=None, email="n@x.org")
    again = await autumn.ok("customers.get_or_create", customer_id=None, email="n@x.org", name="Nobody")
    assert (again["created_at"], again["name"]) == (first["created_at"], "Nobody")
    assert (await autumn.call("customers.get_or_create", customer_id=None)).status_code == 400


async def test_the_paths_of_the_older_api(autumn):
    """What the official command line still calls: customers, features and products by path."""
    assert [found["id"] for found in (await autumn.get("/v1/customers?limit=100")).json()["list"]] == ["ann"]
    assert (await autumn.get("/v1/customers/ann?expand=entities,invoices,rewards,referrals")).json()["rewards"] is None
    assert (await autumn.delete("/v1/customers/ann")).json() == {"success": True}
    assert (await autumn.post("/v1/features/support", json={"archived": True})).json()["archived"] is True
    assert (await autumn.post("/v1/products/top_up", json={"archived": True})).json()["archived"] is True
    for product in ("free", "pro", "top_up"):
        assert (await autumn.delete(f"/v1/products/{product}?all_versions=true")).status_code == 200
    for feature in ("credits", "usage"):
        assert (await autumn.delete(f"/v1/features/{feature}")).status_code == 200


async def test_entities_are_listed_and_changed(autumn, time):
    """The newest first, page by page; name and limits can be changed."""
    for name in ("one", "two", "three"):
        time.now += 1_000
        await autumn.ok("entities.create", customer_id="ann", entity_id=name, feature_id="seats", name=name)
    page = await autumn.ok("entities.list", customer_id="ann", limit=2)
    rest = await autumn.ok("entities.list", customer_id="ann", start_cursor=page["next_cursor"])
    assert [entity["id"] for entity in page["list"] + rest["list"]] == ["three", "two", "one"]
    limit = {"spend_limits": [{"feature_id": "credits", "enabled": True, "overage_limit": 1}]}
    await autumn.ok("entities.update", entity_id="two", name="II", billing_controls=limit)
    shown = await autumn.ok("entities.get", customer_id="ann", entity_id="two")
    assert (shown["name"], shown["billing_controls"]) == ("II", limit)
    assert (await autumn.call("entities.get", entity_id="nobody")).status_code == 404


@pytest.mark.parametrize(("size", "periods"), [("hour", 24 * 7 + 1), ("day", 8), ("week", 2), ("month", 1)])
async def test_bins_cover_the_range(autumn, time, size, periods):
    """Every bin of the range is there, in UTC, and together they hold everything."""
    time.now = START - START % DAY + 12 * 3_600_000  # a Thursday at noon
    for step in range(7):
        await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=step)
        time.now += DAY
    body = {"customer_id": "ann", "feature_id": "usage", "range": "7d", "bin_size": size}
    found = (await autumn.ok("events.aggregate", **body))["list"]
    assert len(found) in (periods, periods + 1)
    assert sum(entry["values"]["usage"] for entry in found) == 21


async def test_events_by_entity(autumn):
    """An event that an entity caused says so, and is found by it."""
    await autumn.ok("entities.create", customer_id="ann", entity_id="desk", feature_id="seats")
    await autumn.ok("balances.track", customer_id="ann", entity_id="desk", feature_id="usage", value=2)
    await autumn.ok("balances.track", customer_id="ann", feature_id="usage", value=3)
    found = await autumn.ok("events.list", customer_id="ann", entity_id="desk")
    assert [(event["value"], event["entity_id"]) for event in found["list"]] == [(2, "desk")]


async def test_balances_can_be_granted_corrected_and_taken_away(autumn, time):
    """create, update and delete: an expiring grant, a new total, and the end of it."""
    grant = {"customer_id": "ann", "feature_id": "images", "included_grant": 9, "balance_id": "gift"}
    await autumn.ok("balances.create", **grant, expires_at=time.now + DAY)
    assert await autumn.remaining(feature_id="images") == 9
    body = {"customer_id": "ann", "feature_id": "images", "balance_id": "gift"}
    await autumn.ok("balances.update", **body, usage=4)
    assert await autumn.remaining(feature_id="images") == 5
    await autumn.ok("balances.update", **body, included_grant=20, expires_at=time.now + 2 * DAY)
    shown = await autumn.ok("balances.check", customer_id="ann", feature_id="images")
    assert [shown["balance"][key] for key in ("granted", "remaining", "usage")] == [20, 5, 15]
    time.now += DAY
    assert await autumn.remaining(feature_id="images") == 5
    await autumn.ok("balances.delete", **body)
    shown = await autumn.ok("balances.check", customer_id="ann", feature_id="images")
    assert shown["balance"]["feature_id"] == "credits"


async def test_a_grant_that_is_used_up_is_gone(autumn):
    """What came with no plan and is at zero takes no refund, even if it resets; the answer that emptied it shows it."""
    monthly = {"reset": {"interval": "month"}}
    await autumn.ok("balances.create", customer_id="ann", feature_id="images", included_grant=2, **monthly)
    use = {"customer_id": "ann", "feature_id": "images", "value": 2}
    assert (await autumn.ok("balances.track", **use))["balance"]["usage"] == 2
    refund = await autumn.ok("balances.track", **use | {"value": -2})
    assert (refund["deductions"], refund["balances"]["images"]) == ([], None)
