"""Loading a catalog file: what is collected, and the sentence that each broken file gets."""

import sys

import pytest

from fastapi_autumn.catalog import Catalog
from fastapi_autumn.errors import CatalogError

IMPORTS = "from fastapi_autumn.catalog import feature, item, plan, price\n"


def test_definitions_are_collected_in_order_with_their_variables(run):
    """Module-level features, plans and variants count, once each, whatever else the file does."""
    catalog = run(
        IMPORTS
        + 'usage = feature(id="ai_usage", name="AI usage", type="metered", consumable=True)\n'
        + 'alias = usage\nLIMIT = 5\ndef helper():\n    return feature(id="inner", name="I", type="boolean")\n'
        + 'base = plan(id="base", name="Base", items=[item(usage, included=LIMIT, reset="month")])\n'
        + 'yearly = base.variant(id="late", name="L")\n'
    )
    assert catalog.names == {
        ("feature", "ai_usage"): "usage",
        ("plan", "base"): "base",
        ("variant", "late"): "yearly",
    }
    assert catalog.ids() == list(catalog.names)
    assert catalog.plans[0].items[0].included == 5


def test_a_reference_may_be_the_feature_or_its_id(run):
    """Both give the same catalog, in items, credit schemas, filters and licences."""
    by_object = run(
        "from fastapi_autumn.catalog import *\n"
        'u = feature(id="u", name="U", type="metered", consumable=True)\n'
        'c = feature(id="c", name="C", type="credit_system", credit_schema={u: 1})\n'
        'p = plan(id="p", name="P", items=[item(c, included=1, reset="day", entity_feature=u)])\n'
        'q = plan(id="q", name="Q", licenses=[plan_license(p, included=2)])\n'
        'v = p.variant(id="v", name="V", customize=customize(remove_items=[item_filter(c)]))\n'
    )
    by_id = run(
        "from fastapi_autumn.catalog import *\n"
        'u = feature(id="u", name="U", type="metered", consumable=True)\n'
        'c = feature(id="c", name="C", type="credit_system", credit_schema={"u": 1})\n'
        'p = plan(id="p", name="P", items=[item("c", included=1, reset="day", entity_feature="u")])\n'
        'q = plan(id="q", name="Q", licenses=[plan_license("p", included=2)])\n'
        'v = p.variant(id="v", name="V", customize=customize(remove_items=[item_filter("c")]))\n'
    )
    assert by_object == by_id


def test_a_file_may_import_its_neighbours(tmp_path):
    """Loading leaves neither the path nor a module behind."""
    (tmp_path / "numbers_of_mine.py").write_text("INCLUDED = 7\n")
    file = tmp_path / "autumn_config.py"
    file.write_text(
        IMPORTS + "from numbers_of_mine import INCLUDED\n"
        'seats = feature(id="seats", name="Seats", type="metered", consumable=False)\n'
        'team = plan(id="team", name="Team", items=[item(seats, included=INCLUDED)])\n'
    )
    path = list(sys.path)
    assert Catalog.load(str(file)).plans[0].items[0].included == 7
    assert sys.path == path
    assert "autumn_config" not in sys.modules


def test_the_module_that_was_there_stays(run, monkeypatch):
    """An application that imported its own catalog keeps that module."""
    monkeypatch.setitem(sys.modules, "autumn_config", sys)
    run(IMPORTS)
    assert sys.modules["autumn_config"] is sys


@pytest.mark.parametrize(
    ("source", "line", "reason"),
    [
        (IMPORTS + "usage = feature(\n", 2, "was never closed"),
        ("import nothing_of_that_name\n", 1, "No module named 'nothing_of_that_name'"),
        (IMPORTS + "\nx = 1 / 0\n", 3, "ZeroDivisionError"),
        (IMPORTS + "raise SystemExit(3)\n", 2, "SystemExit: 3"),
        (
            IMPORTS + 'x = feature(id="x", name="X", type="boolean", colour=1)\n',
            2,
            "no argument 'colour'",
        ),
        (
            IMPORTS + 'p = plan(id="p", name="P",\n    price=price(1, interval="month", billing_method="prepaid"))\n',
            2,
            'the price of plan "p" is a PrepaidPrice; write price(20, interval="month"), without a billing_method',
        ),
    ],
)
def test_a_file_that_stops_names_its_line(tmp_path, source, line, reason):
    """Whatever goes wrong while the file runs is one sentence with file and line."""
    file = tmp_path / "autumn_config.py"
    file.write_text(source)
    with pytest.raises(CatalogError) as refused:
        Catalog.load(file)
    assert str(refused.value).startswith(f"{file}, line {line}: ")
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    ("written", "instead"),
    [
        ("items=[usage]", 'number 1 of items of plan "p" is a Feature; write item(feature, included=50'),
        ("items=usage", 'items of plan "p" is a Feature; write a list'),
        ("items=[item(3)]", "the feature of an item is 3; write the feature or its id"),
        ("items=[item(usage, reset=('month', 2))]", 'is a tuple; write "month", or Reset("month", 2)'),
        ("items=[item(usage, price=1)]", 'the price of the item for "usage" is 1; write price('),
        ("items=[item(usage, price=price(tiers=[(100, 1)]))]", "tier 1 of a price is a tuple; write Tier(100"),
        ("price=20", 'the price of plan "p" is 20; write price(20, interval="month")'),
        ("free_trial=14", 'the free_trial of plan "p" is 14; write FreeTrial(duration_length=14'),
        (
            "billing_controls={'spend_limits': {}}",
            'spend_limits in billing_controls of plan "p" is a dict; write a list',
        ),
        ("billing_controls={'spend_limits': [1]}", "number 1 of spend_limits in billing_controls"),
    ],
)
def test_what_is_of_another_type_is_told_what_to_write(run, written, instead):
    """What a type checker would have refused is one sentence, and no traceback."""
    source = IMPORTS + 'usage = feature(id="usage", name="Usage", type="metered", consumable=True)\n'
    with pytest.raises(CatalogError) as refused:
        run(source + f'p = plan(id="p", name="P", {written})\n')
    assert instead in str(refused.value)


@pytest.mark.parametrize("written", ["id=5, name='P'", "id='p', name=None", "id=None, name='P'"])
def test_ids_and_names_are_text(run, written):
    """An id or a name that is no text is refused where it is written."""
    with pytest.raises(CatalogError, match="line 2: "):
        run(IMPORTS + f"p = plan({written})\n")


def test_a_file_that_cannot_be_read(tmp_path):
    """A missing file and one that is no text say so."""
    with pytest.raises(CatalogError, match=r"cannot read the catalog .*No such file"):
        Catalog.load(tmp_path / "autumn_config.py")
    (tmp_path / "binary.py").write_bytes(b"\xff\xfe")
    with pytest.raises(CatalogError, match=r"not UTF-8"):
        Catalog.load(tmp_path / "binary.py")
