"""Between catalogs and Autumn's JSON, against what was recorded from the official client and the server."""

from decimal import Decimal

import pytest
from hypothesis import given

from fastapi_autumn.catalog import Catalog, customize, diff, feature, item, plan, price
from fastapi_autumn.errors import CatalogError
from tests.catalog.strategies import catalogs


def test_a_push_sends_what_the_official_client_sends(pushed, pushed_body):
    """The same catalog gives the same body, order of the entries included."""
    assert pushed.to_wire() == pushed_body


def test_what_was_pushed_reads_back_as_the_same_catalog(pushed, pushed_body):
    """A body that the official client sent is the catalog that it came from."""
    read = Catalog.from_wire(pushed_body["features"], pushed_body["plans"])
    assert diff(read, pushed) == []
    assert read.to_wire() == pushed_body


def test_what_the_server_lists_is_what_was_pushed(server_lists):
    """After a push, the server's lists give the catalog that was pushed, without any of the server's defaults."""
    listed = Catalog.from_wire(server_lists["features"], server_lists["plans"])
    sent = Catalog.from_wire(server_lists["pushed"]["features"], server_lists["pushed"]["plans"])
    assert diff(listed, sent) == diff(sent, listed) == []
    assert by_id(listed.to_wire()) == by_id(server_lists["pushed"])


def test_pulled_lists_push_as_the_official_client_pushes_them(pulled, pulled_lists):
    """Pull and push again sends the official body; only allowances of 0, which say nothing, are left out."""
    expected = pulled_lists["pushed"]
    for entry in expected["plans"]:
        del entry["include_versions"], entry["include_variants"]
        for one in entry["items"]:
            if one.get("included") == 0:
                del one["included"]
    assert {key: pulled.to_wire()[key] for key in expected} == expected
    assert pulled.to_wire()["skip_plan_ids"] == ["pro_annual"]


def by_id(body):
    """The entries of a catalog update by their ids."""
    return {entry.get("feature_id") or entry["plan_id"]: entry for entry in body["features"] + body["plans"]}


def test_older_feature_types_are_read():
    """`single_use` and `continuous_use` are metered features, consumable and not."""
    lists = [{"id": "a", "name": "A", "type": "single_use"}, {"id": "b", "name": "B", "type": "continuous_use"}]
    features = Catalog.from_wire(lists, []).features
    assert [(one.type, one.consumable) for one in features] == [("metered", True), ("metered", False)]


def test_a_price_without_interval_bills_at_each_reset():
    """With a reset it is sent as a price with the interval of that reset, which is how the API says it."""
    usage = feature(id="usage", name="Usage", type="metered", consumable=True)
    one = item(usage, included=5, reset="month", price=price(1, billing_method="usage_based"))
    other = item(usage, included=5, price=price(1, interval="month", billing_method="usage_based"))
    assert one == other


def test_a_prepaid_price_may_reset_on_another_interval():
    """Both cycles are sent and read, as only a prepaid price can have them."""
    bought = item("usage", reset="month", price=price(100, interval="year", billing_method="prepaid"))
    wire = Catalog(plans=(plan(id="p", name="P", items=[bought]),)).to_wire()
    (sent,) = wire["plans"][0]["items"]
    assert (sent["reset"], sent["price"]["interval"]) == ({"interval": "month"}, "year")
    assert Catalog.from_wire([], wire["plans"]).plans[0].items == (bought,)


def test_numbers_are_sent_as_json_has_them():
    """A Decimal goes out with its digits; a number that JSON cannot say is refused."""
    sent = Catalog(plans=(plan(id="p", name="P", price=price(Decimal("19.90"), interval="month")),)).to_wire()
    assert sent["plans"][0]["price"]["amount"] == 19.9
    broken = Catalog(plans=(plan(id="p", name="P", price=price(float("nan"), interval="month")),))
    with pytest.raises(CatalogError, match="finite"):
        broken.to_wire()


@pytest.mark.parametrize("lists", [([{}], []), ([{"id": "a", "type": "boolean"}], []), ([], [{"id": 3}]), ([None], [])])
def test_lists_of_another_shape_are_refused(lists):
    """What is not Autumn's list is an error of ours, not a KeyError."""
    with pytest.raises(CatalogError):
        Catalog.from_wire(*lists)


@given(catalogs())
def test_a_catalog_survives_the_wire(catalog):
    """What is sent reads back as the same catalog, and is sent the same again."""
    wire = catalog.to_wire()
    read = Catalog.from_wire(wire["features"], wire["plans"])
    assert {key: read.to_wire()[key] for key in ("features", "plans")} == {
        "features": sorted_like(wire["features"], read.to_wire()["features"]),
        "plans": sorted_like(wire["plans"], read.to_wire()["plans"]),
    }


def sorted_like(entries, others):
    """`entries` in the order of `others`."""
    order = [entry.get("feature_id") or entry["plan_id"] for entry in others]
    return sorted(entries, key=lambda entry: order.index(entry.get("feature_id") or entry["plan_id"]))


def test_a_feature_may_stand_in_billing_controls():
    """It is sent as its id, as everywhere else."""
    usage = feature(id="usage", name="Usage", type="metered", consumable=True)
    controls = {"usage_limits": [{"feature_id": usage, "limit": 5, "interval": "day"}]}
    sent = Catalog((usage,), (plan(id="p", name="P", billing_controls=controls),)).to_wire()
    assert sent["plans"][0]["billing_controls"]["usage_limits"][0]["feature_id"] == "usage"


def test_an_interval_counted_once_is_the_interval():
    """The server may say so; an author would not."""
    lists = {"id": "p", "name": "P", "items": [{"feature_id": "u", "reset": {"interval": "day", "interval_count": 1}}]}
    (one,) = Catalog.from_wire([], [lists]).plans[0].items
    assert one == item("u", reset="day")


def test_what_is_not_given_shows_as_unset():
    """In a repr, a price that is taken away and one that is left alone look different."""
    assert "price=UNSET" in repr(customize())
    assert "price=None" in repr(customize(price=None))
