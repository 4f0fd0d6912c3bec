"""What differs between two catalogs."""

from dataclasses import replace
from pathlib import Path

from fastapi_autumn.catalog import Catalog, FieldChange, Rollover, diff, feature, item, plan, price, render

usage = feature(id="usage", name="Usage", type="metered", consumable=True)
flag = feature(id="flag", name="Flag", type="boolean")
free = plan(id="free", name="Free", items=[item(usage, included=50, reset="month"), item(flag)])
annual = free.variant(id="annual", name="Annual")
catalog = Catalog((usage, flag), (free,), (annual,))


def test_a_catalog_does_not_differ_from_itself():
    """Nor from one that writes the same in another way."""
    explicit = replace(free, items=(item("usage", included=50.0, reset="month"), item("flag", included=0)))
    assert diff(catalog, catalog) == []
    assert diff(replace(catalog, plans=(explicit,)), catalog) == []


def test_a_rollover_comes_back_with_a_length():
    """Autumn answers with a length of 1 where none was sent, and that is no difference to push again and again."""
    for kind in ("month", "forever"):
        sent, back = (
            item(usage, included=50, reset="month", rollover=Rollover(max=5, expiry_duration_type=kind, **length))
            for length in ({}, {"expiry_duration_length": 1})
        )
        local, remote = (replace(catalog, plans=(replace(free, items=(one,)),)) for one in (sent, back))
        assert diff(local, remote) == []


def test_each_kind_of_change_is_told():
    """Creations and updates come in the order of the catalog, deletions last, fields with both values."""
    richer = replace(
        free,
        price=price(5, interval="month"),
        items=(item(usage, included=60, reset="month"), item("new", included=1)),
    )
    new = feature(id="new", name="New", type="metered", consumable=False)
    changes = diff(Catalog((replace(usage, name="Use"), new), (richer,)), catalog)
    assert [(change.action, change.kind, change.id) for change in changes] == [
        ("update", "feature", "usage"),
        ("create", "feature", "new"),
        ("update", "plan", "free"),
        ("delete", "feature", "flag"),
        ("delete", "variant", "annual"),
    ]
    assert changes[0].fields == (FieldChange("name", "Usage", "Use"),)
    assert changes[2].fields == (
        FieldChange("price", None, {"amount": 5, "interval": "month"}),
        FieldChange("items.usage.included", 50, 60),
        FieldChange("items.flag", {"feature_id": "flag"}, None),
        FieldChange("items.new", None, {"feature_id": "new", "included": 1}),
    )


def test_what_is_archived_there_and_unknown_here_is_no_change():
    """An archived feature or plan is gone already; bringing one back is a change."""
    archived = Catalog((usage, replace(flag, archived=True)), (free, plan(id="old", name="Old", archived=True)))
    assert diff(Catalog((usage,), (free,)), replace(archived, plans=(free, archived.plans[1]))) == []
    (change,) = diff(Catalog((usage, flag), (free,)), archived)
    assert change.fields == (FieldChange("archived", True, False),)


def test_repeated_items_are_told_apart():
    """Two items of one feature each have their own path."""
    twice = replace(free, items=(item(usage, included=1, reset="day"), item(usage, included=2, reset="month")))
    other = replace(free, items=(item(usage, included=1, reset="day"), item(usage, included=3, reset="month")))
    (change,) = diff(Catalog((usage,), (other,)), Catalog((usage,), (twice,)))
    assert [field.path for field in change.fields] == ["items.usage (2).included"]


def test_an_archived_variant_is_no_change_and_is_written_as_the_others() -> None:
    """A variant in the archive that a file does not have is where it belongs; a file cannot say that it is there."""
    base = {"id": "pro", "name": "Pro", "items": []}
    details = {"base_plan_id": "pro", "customize": None}
    gone = {"id": "old", "name": "Old", "items": [], "archived": True, "variant_details": details}
    remote = Catalog.from_wire([], [base, gone])
    assert diff(Catalog.from_wire([], [base]), remote) == []
    assert diff(Catalog.from_source(render(remote), Path("autumn_config.py")), remote) == []
