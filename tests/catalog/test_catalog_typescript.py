"""Catalogs as autumn.config.ts, against the file that the official `atmn pull` wrote."""

import json
from pathlib import Path

from fastapi_autumn.catalog import Catalog, customize, feature, item, plan, plan_license, render_typescript

DATA = Path(__file__).parent / "data"


def test_the_file_is_the_official_one(pulled):
    """For the same lists the text is the same to the last character."""
    assert render_typescript(pulled) == (DATA / "pulled_config.ts").read_text()


def test_texts_with_quotes_are_escaped():
    """An apostrophe in a name, which breaks the file that the original writes, is a string here."""
    names = {"a": "Ada's", "b": 'the "best"', "c": "both ' and \"", "d": "line\u2028end\\"}
    catalog = Catalog(tuple(feature(id=id_, name=name, type="boolean") for id_, name in names.items()))
    text = render_typescript(catalog)
    assert """name: "Ada's",""" in text
    assert """name: 'the "best"',""" in text
    assert """name: 'both \\' and "',""" in text
    assert "name: 'line\\u2028end\\\\'," in text


def test_names_that_are_data_stay_as_they_are():
    """Only Autumn's own field names become camelCase, not those of providers and models, nor billing controls."""
    credits_ = feature(
        id="credits",
        name="Credits",
        type="ai_credit_system",
        provider_markups={"my_provider": 5},
        model_markups={"a/b": 3},
        archived=True,
    )
    controls = {"overage_allowed": [{"feature_id": "credits", "enabled": True}]}
    base = plan(id="base", name="Base", items=[item(credits_, unlimited=True)])
    top = plan(id="top", name="Top", licenses=[plan_license(base, included=2)])
    variant = base.variant(id="v", name="V", customize=customize(billing_controls=controls, free_trial=None, items=[]))
    plain = base.variant(id="w", name="W")
    text = render_typescript(Catalog((credits_,), (base, top), (variant, plain)))
    for part in (
        "providerMarkups: { my_provider: { markup: 5 } },",
        "modelMarkups: { 'a/b': { markup: 3 } },",
        "archived: true,",
        "licenses: [{ licensePlanId: 'base', included: 2 }],",
        "export const v = base.variant({",
        "overage_allowed: [{ feature_id: 'credits', enabled: true }],",
        "freeTrial: null,",
        "items: [],",
        "export const w = base.variant({\n\tid: 'w',\n\tname: 'W',\n});",
    ):
        assert part in text, text


def test_json_is_what_the_numbers_are():
    """Amounts are written as JSON has them."""
    catalog = Catalog(plans=(plan(id="p", name="P", items=[item("m", included=0.1)]),))
    assert f"included: {json.dumps(0.1)}," in render_typescript(catalog)
