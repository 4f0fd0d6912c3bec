"""`autumn init` and `autumn preview`."""

import csv
import json
from pathlib import Path

import pytest

from cli.processes import Run
from fastapi_autumn.catalog import Catalog, validate
from fastapi_autumn.catalog.templates import TEMPLATES


@pytest.mark.parametrize("template", TEMPLATES)
def test_init_writes_a_catalog_that_works(template: str, autumn: Run, here: Path) -> None:
    """Each template is a valid catalog, and can be previewed."""
    assert autumn("init", template).returncode == 0
    path = here / "autumn_config.py"
    assert path.read_text() == TEMPLATES[template]
    assert [problem for problem in validate(Catalog.load(path)) if problem.severity == "error"] == []
    assert autumn("preview").returncode == 0


def test_init_leaves_a_file_that_is_there(autumn: Run, catalog_file: Path) -> None:
    """Nobody loses a catalog to a second init."""
    before = catalog_file.read_text()
    result = autumn("init")
    assert result.returncode == 1
    assert "autumn_config.py is there already" in result.stderr
    assert catalog_file.read_text() == before


def test_preview_says_what_plans_give_and_cost(autumn: Run) -> None:
    """The example of the documentation, without key and network."""
    autumn("init")
    assert [line.rstrip() for line in autumn("preview").stdout.splitlines()[2:]] == [
        "free            Free (for every new customer)   free            50 AI credits per month",
        "pro             Pro                             $20 per month   2,000 AI credits per month",
        "                                                                then $1 per 100 AI credits per month",
        "credit_top_up   Credit top-up (add-on)                          $5 per 500 AI credits once (prepaid)",
    ]


_RICH = """\
from fastapi_autumn.catalog import FreeTrial, Tier, customize, feature, item, item_filter, plan, price

calls = feature(id="calls", name="Calls", type="metered", consumable=True)
seats = feature(id="seats", name="Seats", type="metered", consumable=False)
sso = feature(id="sso", name="SSO", type="boolean")
team = plan(
    id="team",
    name="Team",
    price=price(12.5, interval="quarter"),
    free_trial=FreeTrial(duration_length=14, duration_type="day", card_required=False),
    items=[
        item(calls, unlimited=True, reset="month"),
        item(seats, included=3, price=price(10, interval="month", billing_method="prepaid", max_purchase=50)),
        item(sso),
    ],
)
team_annual = team.variant(
    id="team_annual",
    name="Team, yearly",
    customize=customize(
        price=price(100, interval="year"),
        remove_items=[item_filter(sso)],
        add_items=[item(calls, included=5, reset="day")],
    ),
)
metered = plan(
    id="metered",
    name="Metered",
    items=[
        item(
            calls,
            included=1000,
            price=price(
                tiers=[Tier(100_000, 0.001), Tier("inf", 0.0005)],
                tier_behavior="graduated",
                interval="month",
                billing_method="usage_based",
            ),
        )
    ],
)
"""


def test_preview_puts_every_kind_of_item_into_words(autumn: Run, catalog_file: Path) -> None:
    """Trials, unlimited items, seats, flags, tiers, and variants as the plans that they become."""
    catalog_file.write_text(_RICH)
    result = autumn("preview", "--format", "csv", "--currency", "EUR")
    rows = {row["plan"]: row for row in csv.DictReader(result.stdout.splitlines())}
    assert {name: row["costs"] for name, row in rows.items()} == {
        "team": "€12.50 per quarter, 14-day trial, no card",
        "team_annual": "€100 per year, 14-day trial, no card",
        "metered": "",
    }
    seats = "3 Seats; then €10 each per month (prepaid, up to 50)"
    assert rows["team"]["gives"] == f"unlimited Calls per month; {seats}; SSO"
    assert rows["team_annual"]["gives"] == f"unlimited Calls per month; {seats}; 5 Calls per day"
    assert rows["metered"]["gives"].split("; ") == [
        "1,000 Calls per month",
        "then by tier, each per month",
        "  up to 100,000: €0.001",
        "  above 100,000: €0.0005",
    ]


def test_preview_of_one_plan(autumn: Run, catalog_file: Path) -> None:
    """One plan, and JSON with the numbers."""
    (pro,) = json.loads(autumn("preview", "pro", "--format", "json").stdout)["plans"]
    assert pro["price"] == {"amount": 20, "interval": "month"}


def test_preview_of_a_plan_that_is_not_there(autumn: Run, catalog_file: Path) -> None:
    """The sentence lists those that are."""
    result = autumn("preview", "max")
    assert result.returncode == 1
    assert result.stderr == "Error: autumn_config.py has no plan 'max'; it has: free, pro.\n"
