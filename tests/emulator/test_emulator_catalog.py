"""Pushing a whole catalog, and what happens to what is no longer in it."""

import copy

import pytest

from emulator.conftest import CATALOG
from fastapi_autumn.emulator import ApiError, Emulator


def without(kind, identifier):
    changed = copy.deepcopy(CATALOG)
    changed[kind] = [body for body in changed[kind] if identifier not in (body.get("plan_id"), body.get("feature_id"))]
    return changed | {"skip_deletions": False}


async def actions(autumn, body):
    preview = await autumn.ok("catalog.preview_update", **body)
    changes = preview["plan_changes"] + preview["feature_changes"]
    return {change.get("plan_id") or change["feature_id"]: change["action"] for change in changes}


async def test_the_same_catalog_again_changes_nothing(autumn):
    """A second push has nothing to do, and a plan with customers gets no new version from it."""
    assert set((await actions(autumn, CATALOG)).values()) == {"none"}
    await autumn.ok("catalog.update", **CATALOG)
    assert (await autumn.ok("plans.get", plan_id="free"))["version"] == 1


async def test_a_changed_plan_that_customers_have_becomes_a_new_version(autumn):
    """Old customers keep what they got; new ones get the new version."""
    changed = copy.deepcopy(CATALOG)
    changed["plans"][0]["items"][0]["included"] = 80
    preview = (await autumn.ok("catalog.preview_update", **changed))["plan_changes"][0]
    assert (preview["action"], preview["versionable"], preview["customer_count"]) == ("updated", True, 1)
    await autumn.ok("catalog.update", **changed)
    await autumn.ok("customers.get_or_create", customer_id="bob")
    assert [await autumn.remaining("ann"), await autumn.remaining("bob")] == [50, 80]


async def test_a_plan_without_customers_is_deleted(autumn):
    """What nobody has and nobody mentions goes away."""
    body = without("plans", "top_up")
    assert (await actions(autumn, body))["top_up"] == "deleted"
    await autumn.ok("catalog.update", **body)
    assert (await autumn.call("plans.get", plan_id="top_up")).status_code == 404


async def test_a_plan_with_customers_is_archived(autumn):
    """What somebody has stays, out of sight."""
    body = without("plans", "free")
    changes = (await autumn.ok("catalog.preview_update", **body))["plan_changes"]
    assert next(change for change in changes if change["plan_id"] == "free")["will_archive"] is True
    await autumn.ok("catalog.update", **body)
    assert (await autumn.ok("plans.get", plan_id="free"))["archived"] is True
    assert await autumn.remaining() == 50


async def test_nothing_is_deleted_unless_asked_to(autumn):
    """Without `skip_deletions: false` a push adds and changes only."""
    await autumn.ok("catalog.update", features=[], plans=[])
    assert len((await autumn.ok("plans.list"))["list"]) == 3


async def test_a_variant_is_a_plan_of_its_own(autumn):
    """A variant carries its base's items, its own price, and the name of its base."""
    body = copy.deepcopy(CATALOG["plans"][1])
    body["variants"] = [
        {"variant_plan_id": "pro_year", "name": "Pro", "customize": {"price": {"amount": 200, "interval": "year"}}}
    ]
    await autumn.ok("catalog.update", plans=[body])
    variant = await autumn.ok("plans.get", plan_id="pro_year")
    assert (variant["base_variant_id"], variant["price"]["amount"]) == ("pro", 200)
    assert len(variant["items"]) == 3
    customize = body["variants"][0]["customize"]
    assert variant["variant_details"] == {"base_plan_id": "pro", "customize": customize}


async def test_a_variant_adds_and_drops_items(autumn):
    """Items are dropped by what they are about and how they are billed, then the new ones come in."""
    pro = copy.deepcopy(CATALOG["plans"][1])
    customize = {
        "add_items": [{"feature_id": "seats", "included": 9}],
        "remove_items": [{"feature_id": "seats"}, {"billing_method": "usage_based", "interval": "month"}],
    }
    pro["variants"] = [{"variant_plan_id": "pro_flat", "name": "Flat", "customize": customize}]
    await autumn.ok("catalog.update", plans=[pro])
    items = (await autumn.ok("plans.get", plan_id="pro_flat"))["items"]
    assert [(item["feature_id"], item["included"]) for item in items] == [("seats", 9), ("support", 0)]


async def test_the_preview_tells_why_a_variant_changes(autumn):
    """By itself (`direct`), because of its base (`propagated`), or not at all."""

    async def source(amount, included):
        pro = copy.deepcopy(CATALOG["plans"][1])
        pro["items"][0]["included"] = included
        customize = {"price": {"amount": amount, "interval": "year"}}
        pro["variants"] = [{"variant_plan_id": "pro_year", "name": "Pro", "customize": customize}]
        preview = await autumn.ok("catalog.preview_update", plans=[pro])
        if amount == 200 and included == 2000:
            await autumn.ok("catalog.update", plans=[pro])
        return preview["plan_changes"][0]["variants"][0]["update_source"]

    assert await source(200, 2000) == "direct"
    assert await source(200, 2000) is None
    assert await source(180, 2000) == "direct"
    assert await source(200, 1000) == "propagated"


@pytest.mark.parametrize(
    "variant", [1, {}, {"variant_plan_id": "v", "customize": 1}, {"variant_plan_id": "v", "customize": {"items": "x"}}]
)
async def test_a_variant_that_is_none_is_refused(autumn, variant):
    """What is not a variant is a 400 of both operations."""
    plan = CATALOG["plans"][1] | {"variants": [variant]}
    for operation in ("catalog.preview_update", "catalog.update"):
        assert (await autumn.call(operation, plans=[plan])).status_code == 400


def test_a_catalog_object_is_asked_for_its_bodies():
    """Anything with `to_wire` seeds an emulator."""

    class Written:
        def to_wire(self):
            return CATALOG

    emulator = Emulator(":memory:", catalog=Written())
    emulator.reset()
    emulator.close()


def test_a_seed_that_autumn_would_refuse_is_refused():
    """A plan for a feature that does not exist is an error at once."""
    plan = {"plan_id": "p", "name": "P", "items": [{"feature_id": "missing", "included": 1}]}
    with pytest.raises(ApiError, match="Feature missing not found"):
        Emulator(":memory:", catalog={"features": [], "plans": [plan]})


async def test_the_official_clients_versions_are_accepted(autumn):
    """2.1.0 to 2.5.0 get answers of 2.3.0; what nobody sends is refused."""
    for version in ("2.1.0", "2.2.0", "2.3.0", "2.4.0", "2.5.0", "2.5"):
        headers = {"x-api-version": version}
        answer = await autumn.call("balances.check", headers=headers, customer_id="ann", feature_id="usage")
        assert answer.json()["balance"]["remaining"] == 50
    assert (await autumn.call("features.list", headers={"x-api-version": "3.0.0"})).status_code == 400


async def test_features_and_plans_can_be_renamed_while_nobody_uses_them(autumn):
    """A new id is taken over; one that is in use or taken is refused."""
    await autumn.ok("features.create", feature_id="draft", name="Draft", type="metered", consumable=True)
    await autumn.ok("features.update", feature_id="draft", new_feature_id="final")
    assert (await autumn.call("features.get", feature_id="draft")).status_code == 404
    assert (await autumn.call("features.update", feature_id="final", new_feature_id="usage")).status_code == 409
    await autumn.ok("plans.update", plan_id="top_up", new_plan_id="refill")
    assert (await autumn.ok("plans.get", plan_id="refill"))["name"] == "Top-up"
    assert (await autumn.call("plans.update", plan_id="free", new_plan_id="gratis")).status_code == 400


async def test_a_preview_names_what_changes(autumn):
    """Items that come, go and change, the price before and after, and features."""
    changed = copy.deepcopy(CATALOG)
    pro = changed["plans"][1]
    pro["price"]["amount"] = 25
    pro["items"] = [pro["items"][0] | {"included": 3000}, {"feature_id": "images", "included": 5}, pro["items"][2]]
    changed["features"][0]["name"] = "Use"
    preview = await autumn.ok("catalog.preview_update", **changed)
    change = preview["plan_changes"][1]
    found = {(item["action"], item["feature_id"]) for item in change["item_changes"]}
    assert found == {("deleted", "support"), ("created", "images"), ("updated", "credits")}
    assert (change["price_change"]["previous"]["amount"], change["price_change"]["current"]["amount"]) == (20, 25)
    assert preview["feature_changes"][0]["previous_attributes"] == {"name": "Usage"}


async def test_features_go_with_the_plans_that_used_them(autumn):
    """Deleting plans and credit systems in one push frees their features; what is still used is archived."""
    kept = {"plans": [CATALOG["plans"][0]], "features": [], "skip_deletions": False}
    preview = (await autumn.ok("catalog.preview_update", **kept))["feature_changes"]
    assert {change["feature_id"]: change["will_archive"] for change in preview} == {
        "usage": True, "images": True, "seats": False, "support": False, "credits": True,
    }  # fmt: skip
    await autumn.ok("catalog.update", **kept)
    left = {feature["id"]: feature["archived"] for feature in (await autumn.ok("features.list"))["list"]}
    assert left == {"usage": True, "images": True, "credits": True}
