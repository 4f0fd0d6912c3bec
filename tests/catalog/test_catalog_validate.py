"""Validation: each rule once, with the object that it names and what it says to write."""

import pytest

from fastapi_autumn.catalog import validate
from fastapi_autumn.catalog.templates import TEMPLATES

HEAD = """
from fastapi_autumn.catalog import *
usage = feature(id="usage", name="Usage", type="metered", consumable=True)
seats = feature(id="seats", name="Seats", type="metered", consumable=False)
flag = feature(id="flag", name="Flag", type="boolean")
"""

ITEMS = [
    ('item("ghost")', 'items[0] (ghost): feature "ghost" is not defined'),
    ('item("")', "items[0] (no feature)"),
    ('item(flag, reset="month")', "never resets; leave out reset"),
    ("item(flag, included=3)", "has no units"),
    ("item(usage, included=5)", 'what is used up must come back; write reset="month"'),
    ('item(usage, price=price(1, billing_method="prepaid"))', "not how often"),
    ('item(usage, price=price(1, interval="month"))', "→ price: billing_method is missing"),
    ('item(usage, reset="decade")', "reset interval 'decade' is unknown; write one of one_off, minute"),
    ('item(usage, price=price(1, interval="eon", billing_method="prepaid"))', "price interval 'eon' is unknown"),
    ('item(usage, reset=Reset("month", 0))', "interval_count of reset must be at least 1"),
    (
        'item(usage, price=price(1, interval="month", interval_count=1.5, billing_method="prepaid"))',
        "interval_count of price must be a whole number",
    ),
    (
        'item(usage, reset="day", price=price(1, interval="month", billing_method="usage_based"))',
        "resets every day but bills every month; only a prepaid price may differ",
    ),
    ('item(usage, reset="day", price=price(1, billing_method="usage_based"))', "nothing is billed every day"),
    ('item(usage, included=True, reset="month")', "included must be a finite number, not True"),
    ('item(usage, included=float("nan"), reset="month")', "included must be a finite number"),
    ('item(usage, included=-1, reset="month")', "included must be at least 0"),
    ('item(usage, included=10**13 + 1, reset="month")', "at most 10,000,000,000,000"),
    ("item(usage, included=5, unlimited=True)", "unlimited leaves nothing to include"),
    ('item(seats, entity_feature="ghost")', 'entity feature "ghost" is not defined'),
    ('item(seats, rollover=Rollover(expiry_duration_type="forever"))', "there is no cycle"),
    (
        'item(usage, reset="day", rollover=Rollover(max=1, max_percentage=1, expiry_duration_type="forever"))',
        "max and max_percentage; keep one",
    ),
    ('item(usage, reset="day", rollover=Rollover(max=-1, expiry_duration_type="month"))', "the max of rollover"),
    (
        'item(usage, reset="day", rollover=Rollover(max_percentage=101, expiry_duration_type="month"))',
        "max_percentage of rollover must be at most 100",
    ),
    (
        'item(seats, proration=Proration(on_increase="bill_immediately", on_decrease="none"))',
        "proration is for prepaid",
    ),
    (
        (
            'item(seats, price=price(1, interval="month", billing_method="prepaid"),'
            ' proration=Proration(on_increase="prorate", on_decrease="none"))'
        ),
        "the on_increase of proration is 'prorate'; write one of bill_immediately",
    ),
    (
        (
            'item(usage, price=price(1, interval="month", billing_method="usage_based"),'
            ' proration=Proration(on_increase="bill_immediately", on_decrease="none"))'
        ),
        "proration is for prepaid",
    ),
]
PRICES = [
    ("None", "amount is missing"),
    ("-1", "amount must be at least 0"),
    ("1, billing_units=0", "billing_units must be more than 0"),
    ("1, max_purchase=-1", "max_purchase must be at least 0"),
    ('1, tier_behavior="volume"', "tier_behavior is for tiers"),
    ('1, tiers=[Tier("inf", 1)], tier_behavior="volume"', "amount and tiers exclude each other"),
    ('tiers=[], tier_behavior="graduated"', "the last tier must have no end"),
    ('tiers=[Tier(5, 1)], tier_behavior="graduated"', "the last tier must have no end"),
    ('tiers=[Tier("inf", 1)]', "tier_behavior is missing"),
    ('tiers=[Tier("inf")], tier_behavior="graduated"', "tier 1 has no price"),
    ('tiers=[Tier("inf", -1)], tier_behavior="graduated"', "the amount of tier 1 must be"),
    ('tiers=[Tier(9, 1, -1), Tier("inf", 1)], tier_behavior="volume"', "the flat_amount of tier 1 must be"),
    ('tiers=[Tier(9, 1, 1), Tier("inf", 1)], tier_behavior="graduated"', "needs volume and more than one tier"),
    ('tiers=[Tier("inf", 1, 1)], tier_behavior="volume"', "needs volume and more than one tier"),
    ('tiers=[Tier("inf", 1), Tier("inf", 2)], tier_behavior="graduated"', "are never reached"),
    ('tiers=[Tier("x", 1), Tier("inf", 2)], tier_behavior="graduated"', "the end of tier 1 must be"),
    ('tiers=[Tier(5, 1), Tier("inf", 2)], tier_behavior="graduated"', "not beyond what is included (5)"),
    ('tiers=[Tier(9, 1), Tier(8, 1), Tier("inf", 2)], tier_behavior="graduated"', "not beyond tier 1 (9)"),
]
FEATURES = [
    ('feature(id="", name="X", type="boolean")', "id is empty"),
    ('feature(id="bad id!", name="X", type="boolean")', "write 'bad_id'"),
    ('feature(id="x", name=" ", type="boolean")', "name is empty"),
    ('feature(id="x", name="X", type="weird")', "type 'weird' is unknown; write one of boolean, metered"),
    ('feature(id="x", name="X", type="metered")', "consumable is missing; write True"),
    ('feature(id="usage", name="X", type="boolean")', 'feature "usage": the id is used 2 times'),
    ('feature(id="x", name="X", type="credit_system", credit_schema={})', "credit_schema is empty"),
    ('feature(id="x", name="X", type="credit_system", credit_schema={"no": 1})', 'names "no", which the catalog does'),
    ('feature(id="x", name="X", type="credit_system", credit_schema={seats: 1})', "is not metered and consumable"),
    ('feature(id="x", name="X", type="credit_system", credit_schema={usage: 0})', "must be more than 0"),
    ('feature(id="x", name="X", type="boolean", credit_schema={usage: 1})', "belongs to a credit system"),
    ('feature(id="x", name="X", type="boolean", default_markup=1)', "belong to an AI credit system"),
    ('feature(id="x", name="X", type="ai_credit_system", default_markup=-101)', "default_markup must be at least -100"),
    (
        'feature(id="x", name="X", type="ai_credit_system", provider_markups={"openai": "5"})',
        "provider_markups['openai'] must be a finite number",
    ),
    ('feature(id="x", name="X", type="ai_credit_system", model_markups={"gpt": 5})', 'write "provider/gpt"'),
    (
        'feature(id="x", name="X", type="ai_credit_system", model_markups={"custom/x": ModelMarkup(1, -1)})',
        "a cost must be at least 0",
    ),
    (
        'feature(id="x", name="X", type="ai_credit_system", model_markups={"custom/x": 5})',
        "write input_cost and output_cost",
    ),
]
PLANS = [
    ('plan(id="p.q", name="P")', 'plan "p.q": id'),
    ('plan(id="p", name="")', 'plan "p": name is empty'),
    ('plan(id="p", name="P", price=PlanPrice(amount=True, interval="month"))', "→ price: amount must be"),
    ('plan(id="p", name="P", price=price(1, interval="day"))', "→ price: interval 'day' is unknown"),
    ('plan(id="p", name="P", auto_enable=True, price=price(1, interval="month"))', "auto_enable gives a priced plan"),
    (
        'plan(id="p", name="P", auto_enable=True, free_trial=FreeTrial(duration_length=1))',
        "write card_required=False",
    ),
    ('plan(id="p", name="P", free_trial=FreeTrial(duration_length=0))', "duration_length must be at least 1"),
    ('plan(id="p", name="P", free_trial=FreeTrial(duration_length=1, duration_type="week"))', "write day, month or"),
    ('[plan(id="p", name="P"), plan(id="p", name="Q")]', 'plan "p": the id is used 2 times'),
    (
        '[plan(id="p", name="P", auto_enable=True), plan(id="q", name="Q", auto_enable=True)]',
        'plan "q": the group without a name auto-enables "p" already',
    ),
    (
        '[plan(id="p", name="P", group="g", auto_enable=True), plan(id="q", name="Q", group="g", auto_enable=True)]',
        'group "g" auto-enables "p" already',
    ),
    ('plan(id="p", name="P", licenses=[plan_license("p")])', "licenses[0] (p): a plan cannot license itself"),
    ('plan(id="p", name="P", licenses=[plan_license("no")])', 'plan "no" is not defined'),
    (
        '[plan(id="q", name="Q"), plan(id="p", name="P", licenses=[plan_license("q"), plan_license("q")])]',
        "listed twice",
    ),
    (
        '[plan(id="q", name="Q"), plan(id="p", name="P", licenses=[plan_license("q", included=-1)])]',
        "included must be at least 0",
    ),
    (
        (
            '[plan(id="q", name="Q"), plan(id="p", name="P", licenses=[plan_license("q", '
            'customize=customize(add_items=[item("no")]))])]'
        ),
        "licenses[0] (q) → add_items[0] (no)",
    ),
    (
        '[plan(id="p", name="P", licenses=[plan_license("q")]), plan(id="q", name="Q", licenses=[plan_license("p")])]',
        'plan "p": its licences lead back to it',
    ),
    ('plan(id="p", name="P", billing_controls={"limits": []})', "'limits' is unknown; write one of spend_limits"),
    ('plan(id="p", name="P", billing_controls={"usage_limits": [{}]})', "usage_limits[0]: feature_id is missing"),
    ('plan(id="p", name="P", billing_controls={"auto_topups": [{"feature_id": "no"}]})', 'feature "no" is not defined'),
    (
        'plan(id="p", name="P", billing_controls={"spend_limits": [{}, {"feature_id": usage}] * 2})',
        'spend_limits[3]: there is an entry for "usage" already',
    ),
    ('Variant(base_plan_id="no", id="v", name="V")', 'variant "v": its base plan "no" is not defined'),
    ('Variant(base_plan_id="no", id="v v", name="V")', "id 'v v' has other characters"),
    (
        (
            'Variant(base_plan_id="no", id="v", name="V", customize=customize(price=price(-1, interval="month"),'
            ' items=[], add_items=[item("x")], remove_items=[item_filter("y")]))'
        ),
        'remove_items[0]: feature "y" is not defined',
    ),
    (
        'Variant(base_plan_id="no", id="v", name="V", customize=customize(items=[], add_items=[]))',
        "items replaces them all",
    ),
    (
        'Variant(base_plan_id="no", id="v", name="V", customize=customize(price=price(-1, interval="month")))',
        'variant "v" → price: amount must be',
    ),
]


def findings(run, code, severity="error"):
    """What validation says of the definitions in `code`, after `HEAD`."""
    source = HEAD + (f"a, b = {code}\n" if code.startswith("[") else f"a = {code}\n")
    return [str(problem) for problem in validate(run(source)) if problem.severity == severity]


@pytest.mark.parametrize(("code", "expected"), FEATURES + PLANS)
def test_features_and_plans_that_autumn_would_refuse(run, code, expected):
    """Each is named with its place, and the message says what to write."""
    assert any(expected in text for text in findings(run, code)), findings(run, code)


@pytest.mark.parametrize(("code", "expected"), ITEMS)
def test_items_that_autumn_would_refuse(run, code, expected):
    """Each is named with its plan, its index and its feature."""
    found = findings(run, f'plan(id="p", name="P", items=[{code}])')
    assert any(expected in text and 'plan "p" → items[0]' in text for text in found), found


@pytest.mark.parametrize(("code", "expected"), PRICES)
def test_prices_that_autumn_would_refuse(run, code, expected):
    """Each is named with its item."""
    price = f'price({code}, interval="month", billing_method="prepaid")'
    found = findings(run, f'plan(id="p", name="P", items=[item(usage, included=5, price={price})])')
    assert any(expected in text and "(usage) → price: " in text for text in found), found


def test_a_prepaid_price_may_reset_on_its_own_cycle(run):
    """Bought by the year and reset by the month is fine, with tiers by volume, too."""
    tiers = 'tiers=[Tier(9, 1, 5), Tier("inf", 1)], tier_behavior="volume"'
    price = f'price({tiers}, interval="year", billing_method="prepaid")'
    assert findings(run, f'plan(id="p", name="P", items=[item(usage, reset="month", price={price})])') == []


def test_volume_tiers_need_a_prepaid_price(run):
    """The server refuses them on usage-based prices."""
    price = 'price(tiers=[Tier("inf", 1)], tier_behavior="volume", interval="month", billing_method="usage_based")'
    (found,) = findings(run, f'plan(id="p", name="P", items=[item(usage, price={price})])')
    assert "volume tiers are for prepaid prices" in found


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ('feature(id="aiUsage", name="X", type="boolean")', "write 'ai_usage'"),
        ('plan(id="ai_tier_1", name="X")', "numbers a tier"),
        (
            (
                'feature(id="ai_chat_fast", name="X", type="metered", consumable=True), feature(id="c", name="C",'
                ' type="credit_system", credit_schema={"ai_chat_fast": 1})'
            ),
            "ties credits to one feature of the product; with a neutral one such as 'ai_chat_usage'",
        ),
        ('plan(id="p", name="P", items=[item(usage, included=1, reset="minute")])', "refuses a reset every minute"),
        (
            (
                'plan(id="p", name="P", auto_enable=True,'
                ' items=[item(usage, price=price(1, interval="month", billing_method="usage_based"))])'
            ),
            "may have no card to bill",
        ),
    ],
)
def test_what_is_taken_but_bites_later_is_a_warning(run, code, expected):
    """Conventions and traps are told without stopping a push."""
    source = HEAD + (f"a, b = {code}\n" if "), feature(" in code else f"a = {code}\n")
    problems = validate(run(source))
    assert any(expected in problem.message for problem in problems), problems
    assert {problem.severity for problem in problems} == {"warning"}


@pytest.mark.parametrize(
    ("gates", "models", "expected"),
    [
        (["ai_usage"], ["gpt-4o"], []),
        (["ai_credits"], [], []),
        (["tokens"], [], ['feature "tokens": a gate charges it, but the catalog does not define it']),
        (["spare"], [], ['feature "spare": a gate charges it, but no plan grants it']),
        (["spare"], ["gpt-4o"], ["no plan grants it", "price list: no plan grants what its models (gpt-4o)"]),
        ([], ["gpt-4o"], []),
    ],
)
def test_what_gates_charge_must_be_granted(run, gates, models, expected):
    """A feature that a gate charges is granted by a plan, itself or through its credits, or there is a warning."""
    spare = 'spare = feature(id="spare", name="Spare", type="boolean")\n'
    problems = validate(run(TEMPLATES["credits"] + spare), feature_ids=gates, priced_models=models)
    assert len(problems) == len(expected)
    assert all(text in str(problem) for text, problem in zip(expected, problems, strict=True))


def test_a_finding_names_the_file(run, tmp_path):
    """A printed finding starts with the file that has to change."""
    (problem,) = validate(run(HEAD + 'a = plan(id="p", name="")\n'))
    assert str(problem) == f'{tmp_path / "autumn_config.py"}: plan "p": name is empty; write what customers should read'


def test_the_recorded_catalogs_are_fine(pushed):
    """What the official command line accepted has no errors here."""
    assert validate(pushed) == []
