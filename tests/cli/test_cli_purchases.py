"""`autumn grant`, `attach` and `cancel`."""

import json
from pathlib import Path

import pytest

from cli.processes import Run, Server
from fastapi_autumn.catalog import Catalog


@pytest.fixture
def shop(server: Server, catalog_file: Path) -> Server:
    """An Autumn with plans, and a customer without a card."""
    server.call("/v1/catalog.update", Catalog.load(catalog_file).to_wire())
    server.call("/v1/customers.get_or_create", {"customer_id": "ada"})
    return server


def test_a_grant_is_given_once(shop: Server, remote: Run) -> None:
    """The second grant under the same key says that it gave nothing, and is no error."""
    first = remote("grant", "ada", "ai_credits", "100", "--key", "welcome")
    again = remote("grant", "ada", "ai_credits", "100", "--key", "welcome")
    assert (first.returncode, again.returncode) == (0, 0)
    assert first.stdout == "ada has 100 ai_credits more.\n"
    assert again.stdout == "ada has had the grant welcome before; nothing more was given.\n"
    assert shop.call("/v1/customers.get", {"customer_id": "ada"})["balances"]["ai_credits"]["granted"] == 150


def test_a_grant_needs_a_key(shop: Server, remote: Run) -> None:
    """Without a reason nothing could tell a repetition from a second grant."""
    result = remote("grant", "ada", "ai_credits", "100")
    assert result.returncode == 2
    assert "--key" in result.stderr


def test_attach_shows_what_it_costs_and_asks(shop: Server, remote: Run) -> None:
    """The price comes first; no terminal is no yes, and nothing is bought."""
    result = remote("attach", "ada", "pro")
    assert result.returncode == 3
    assert "It costs $20 now." in result.stderr
    assert shop.sent("/v1/billing.attach") == []


def test_attach_prints_where_to_pay(shop: Server, remote: Run) -> None:
    """A customer without a card has to go to the check-out."""
    result = remote("attach", "ada", "pro", "--yes")
    assert result.returncode == 0
    assert result.stdout.startswith("http")


def test_attach_without_billing_and_cancel(shop: Server, remote: Run) -> None:
    """Support puts a customer on a plan, ends it with its cycle, takes that back, and ends it at once."""
    assert remote("attach", "ada", "pro", "--no-billing-changes", "--yes").stdout == "ada is on pro.\n"
    assert remote("cancel", "ada", "pro", "--yes").stdout == "pro of ada ends with its cycle.\n"
    assert remote("cancel", "ada", "pro", "--undo", "--yes").stdout == "ada keeps pro.\n"
    assert remote("cancel", "ada", "pro", "--now", "--yes").stdout == "pro of ada has ended.\n"
    record = shop.call("/v1/customers.get", {"customer_id": "ada"})
    assert [plan["plan_id"] for plan in record["subscriptions"]] == ["free"]


def test_what_is_bought_in_advance_needs_a_number(shop: Server, remote: Run) -> None:
    """A misspelt quantity is wrong usage, with an example."""
    result = remote("attach", "ada", "pro", "--quantity", "ai_credits")
    assert result.returncode == 2
    assert "ai_credits=500" in result.stderr


def test_json_has_the_result(shop: Server, remote: Run) -> None:
    """A program sees whether a grant was given."""
    command = ("grant", "ada", "ai_credits", "2.5", "--key", "ticket-1", "--format", "json")
    assert json.loads(remote(*command).stdout) == {
        "customer_id": "ada", "feature_id": "ai_credits", "amount": "2.5", "key": "ticket-1", "granted": True,
    }  # fmt: skip
