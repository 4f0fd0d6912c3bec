"""Updating a catalog file in place: what changes, and all that stays."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from fastapi_autumn.catalog import Catalog, FreeTrial, Tier, diff, feature, item, plan, price, render, update_source
from fastapi_autumn.catalog.templates import TEMPLATES
from fastapi_autumn.errors import CatalogError
from tests.catalog.strategies import catalogs

FILE = Path("autumn_config.py")

SOURCE = '''\
"""Ours."""

import math

from fastapi_autumn.catalog import feature, item, plan, price

LIMIT = 50  # agreed with sales

# What a call uses.
usage = feature(id="ai_usage", name="AI usage", type="metered", consumable=True)
money = feature(id="ai_credits", name="AI credits", type="credit_system", credit_schema={usage: 1})


def helper() -> int:
    """Keep me."""
    return math.floor(2.5)


free = plan(
    id="free",
    name="Free",  # shown on the pricing page
    auto_enable=True,
    items=[
        # the allowance
        item(money, included=LIMIT, reset="month"),
        item(usage, unlimited=True),  # really
    ],
)

# Pays.
pro = plan(id="pro", name="Pro", price=price(20, interval="month"), items=[item(money.id, included=2, reset="month")])
yearly = pro.variant(id="pro_yearly", name="Yearly")
'''


@pytest.fixture
def now():
    """The catalog that `SOURCE` defines."""
    return Catalog.from_source(SOURCE, FILE)


def changed(catalog, plan_id, **fields):
    """`catalog` with `fields` of one plan replaced."""
    plans = tuple(replace(one, **fields) if one.id == plan_id else one for one in catalog.plans)
    return replace(catalog, plans=plans)


def test_nothing_changes_where_nothing_differs(now):
    """The same catalog, also as Autumn lists it, leaves the text as it is."""
    wire = now.to_wire()
    assert update_source(SOURCE, now) == SOURCE
    assert update_source(SOURCE, Catalog.from_wire(wire["features"], wire["plans"])) == SOURCE


def test_a_changed_value_is_replaced_where_it_stands(now):
    """Only the literal changes; the comment behind it stays."""
    updated = update_source(SOURCE, changed(now, "free", name="Gratis"))
    assert updated == SOURCE.replace('name="Free",  # shown', 'name="Gratis",  # shown')


def test_an_expression_stays_while_its_value_is_right(now):
    """A constant is kept where the value is the same and replaced where it is not."""
    free = now.plans[0]
    other = changed(now, "free", items=(replace(free.items[0], included=60), free.items[1]))
    assert update_source(SOURCE, other) == SOURCE.replace("included=LIMIT", "included=60")


def test_arguments_come_and_go(now):
    """New arguments are added at the end, removed ones leave with their comma, on one line or on several."""
    updated = update_source(SOURCE, changed(changed(now, "free", auto_enable=False, group="main"), "pro", price=None))
    assert updated == (
        SOURCE.replace("    auto_enable=True,\n", "")
        .replace("  # really\n    ],\n", '  # really\n    ],\n    group="main",\n')
        .replace(' price=price(20, interval="month"),', "")
    )


def test_items_come_and_go(now):
    """Entries of a list are changed, removed and appended one by one, with the comments of the others."""
    free = now.plans[0]
    without = update_source(SOURCE, changed(now, "free", items=free.items[:1]))
    assert without == SOURCE.replace("        item(usage, unlimited=True),  # really\n", "")
    flag = feature(id="sso", name="SSO", type="boolean")
    more = changed(replace(now, features=(*now.features, flag)), "free", items=(*free.items, item(flag)))
    assert update_source(SOURCE, more) == SOURCE.replace(
        "credit_schema={usage: 1})\n",
        'credit_schema={usage: 1})\nsso = feature(id="sso", name="SSO", type="boolean")\n',
    ).replace("# really\n", "# really\n        item(sso),\n")
    pro = now.plans[1]
    inline = update_source(SOURCE, changed(now, "pro", items=(*pro.items, item("ai_usage", unlimited=True))))
    assert 'reset="month"), item(usage, unlimited=True)])' in inline


def test_what_is_new_is_imported_and_appended(now):
    """New plans follow the last one, under names that are free, and the import grows by what they use."""
    trial = plan(id="pro", name="x").variant(id="helper", name="H")
    tiers = price(tiers=[Tier("inf", 1)], tier_behavior="graduated", interval="month", billing_method="usage_based")
    extra = plan(id="LIMIT", name="Extra", items=[item("ai_credits", price=tiers)])
    wanted = replace(now, plans=(*now.plans, extra), variants=(*now.variants, trial))
    updated = update_source(SOURCE, wanted)
    assert updated.startswith(SOURCE.replace("import feature", "import Tier, feature"))
    assert "\nlimit = plan(" in updated
    assert "\nhelper_variant = pro.variant(" in updated
    assert diff(Catalog.from_source(updated, FILE), wanted) == []


def test_what_is_gone_is_removed_and_comments_stay(now):
    """A removed plan takes its statement along; comments and other statements are the author's."""
    updated = update_source(SOURCE, replace(now, plans=now.plans[:1], variants=()))
    assert updated == SOURCE[: SOURCE.index("pro = plan(")]


def test_a_definition_that_cannot_be_edited_is_replaced_as_a_whole():
    """Arguments in a dict, and definitions by a helper, become plain calls when they differ."""
    source = (
        "from fastapi_autumn.catalog import plan\n"
        'common = {"group": "main"}\n'
        'a = plan(id="a", name="A", **common)\n'
        "def make(id_):\n    return plan(id=id_, name=id_.title())\n"
        'b = make("b")\n'
    )
    now = Catalog.from_source(source, FILE)
    updated = update_source(source, changed(changed(now, "a", group="other"), "b", name="Bee"))
    assert 'a = plan(id="a", name="A", group="other")\n' in updated
    assert 'b = plan(id="b", name="Bee")\n' in updated
    assert "common = " in updated


def test_a_file_without_definitions_gets_them_after_its_imports():
    """An empty file, one with a docstring, and one with other names for the builders all work."""
    catalog = Catalog.from_source(TEMPLATES["credits"], FILE)
    for source in ("", '"""Ours."""\n', "import math", "from fastapi_autumn.catalog import plan as p\nx = 1\n"):
        updated = update_source(source, catalog)
        assert diff(Catalog.from_source(updated, FILE), catalog) == []
        assert updated.startswith(source.rstrip("\n")[:10])


def test_definitions_in_a_loop_cannot_be_updated():
    """What has no statement of its own is refused with a sentence, not rewritten wrongly."""
    source = "from fastapi_autumn.catalog import plan\nfor name in ['a']:\n    made = plan(id=name, name='A')\n"
    with pytest.raises(CatalogError, match="cannot be updated in place"):
        update_source(source, Catalog(plans=(plan(id="a", name="B"),)))


def test_a_broken_file_is_refused_with_its_line():
    """What does not run cannot be compared."""
    with pytest.raises(CatalogError, match="line 1"):
        update_source("plan(", Catalog())


@given(catalogs(), catalogs())
def test_any_file_becomes_any_catalog(before, after):
    """From one generated catalog to another, and back to text that changes no more."""
    updated = update_source(render(before), after)
    result = Catalog.from_source(updated, FILE)
    assert diff(result, after) == diff(after, result) == []
    assert update_source(updated, after) == updated


EDGES = """\
from fastapi_autumn.catalog import Plan, Reset, feature, item, plan, price
usage = feature(id="usage", name="Usage", type="metered", consumable=True)
seats = feature(id="seats", name="Seats", type="metered", consumable=False)
a: Plan = plan(id="a", name="A", items=[item(seats, included=1), item(usage, included=2, reset="day")])
b = plan(
    id="b",
    name="B",
    items=[
        item(feature=usage, included=1, reset=Reset("month"), price=price(1, billing_method="prepaid")),
        item(usage, included=2, reset="day"),
        item(usage, included=3, reset="day")
    ]
)
"""


def test_unusual_spellings_are_understood():
    """Annotations, arguments by keyword, a missing last comma, and several items of one feature."""
    now = Catalog.from_source(EDGES, FILE)
    first, second = now.plans
    one, two, three = second.items
    inline = changed(now, "a", items=first.items[1:])
    assert update_source(EDGES, inline) == EDGES.replace("item(seats, included=1), ", "")
    last = changed(now, "a", items=first.items[:1])
    assert update_source(EDGES, last) == EDGES.replace(', item(usage, included=2, reset="day")', "")
    third = changed(now, "b", items=(one, two, replace(three, included=9)))
    assert update_source(EDGES, third) == EDGES.replace("included=3", "included=9")
    more = changed(now, "b", items=(*second.items, item("seats", included=1)))
    assert update_source(EDGES, more) == EDGES.replace(
        'included=3, reset="day")\n', 'included=3, reset="day"),\n        item(seats, included=1),\n'
    )


def test_a_change_of_shape_is_written_anew():
    """Where the cycle was said by `reset` and is said by the price now, the definition is replaced as a whole."""
    now = Catalog.from_source(EDGES, FILE)
    one, *others = now.plans[1].items
    assert one.price is not None
    wanted = changed(now, "b", items=(replace(one, price=replace(one.price, interval="year")), *others))
    updated = update_source(EDGES, wanted)
    assert 'price=price(1, interval="year", billing_method="prepaid")' in updated
    assert updated.startswith(EDGES[: EDGES.index("b = plan(")])


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ('a = plan(id="a", name="A"); b = plan(id="b", name="B")\n', 'b = plan(id="b", name="B")\n'),
        ('b = plan(id="b", name="B"); a = plan(id="a", name="A")  # both\n', 'b = plan(id="b", name="B")  # both\n'),
        ('L = 3; a = plan(id="a", name="A"); b = plan(id="b", name="B")', 'L = 3; b = plan(id="b", name="B")'),
    ],
)
def test_other_statements_of_a_line_stay(line, left):
    """A definition that shares its line is taken out by itself."""
    imports = "from fastapi_autumn.catalog import plan\n"
    now = Catalog.from_source(imports + line, FILE)
    wanted = replace(now, plans=tuple(one for one in now.plans if one.id == "b"))
    assert update_source(imports + line, wanted) == imports + left


def test_a_star_import_needs_no_other():
    """A file that imports everything is updated without another import."""
    source = 'from fastapi_autumn.catalog import *\na = plan(id="a", name="A")\n'
    now = Catalog.from_source(source, FILE)
    wanted = changed(now, "a", free_trial=FreeTrial(duration_length=14))
    assert update_source(source, wanted).startswith("from fastapi_autumn.catalog import *\na = plan(")


def test_what_cannot_be_written_in_place_is_refused():
    """What other statements use is not removed."""
    source = 'from fastapi_autumn.catalog import plan\na = plan(id="a", name="A")\n'
    source += 'b = plan(id="b", name="B")\nprint(b.id)\n'
    now = Catalog.from_source(source, FILE)
    with pytest.raises(CatalogError, match="cannot be updated in place"):
        update_source(source, replace(now, plans=now.plans[:1]))


def test_a_definition_taken_from_elsewhere_is_replaced():
    """What is no call at all becomes one when it differs."""
    source = 'from fastapi_autumn.catalog import plan\nplans = {"a": plan(id="a", name="A")}\na = plans["a"]\n'
    now = Catalog.from_source(source, FILE)
    assert 'a = plan(id="a", name="B")' in update_source(source, changed(now, "a", name="B"))
