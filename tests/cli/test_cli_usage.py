"""`autumn check` and `autumn track`."""

import json
from pathlib import Path

import pytest

from cli.processes import Run, Server
from fastapi_autumn.catalog import Catalog


@pytest.fixture
def filled(server: Server, catalog_file: Path) -> Server:
    """An Autumn with one customer on the free plan: 50 credits."""
    server.call("/v1/catalog.update", Catalog.load(catalog_file).to_wire())
    server.call("/v1/customers.get_or_create", {"customer_id": "ada"})
    server.requests.clear()
    return server


def test_check_says_what_is_left(filled: Server, remote: Run) -> None:
    """A check takes nothing."""
    result = remote("check", "ada", "ai_usage", "--required-balance", "50")
    assert result.returncode == 0
    assert result.stdout.split()[-6:] == ["yes", "50", "ai_credits", "50", "0", "50"]
    assert filled.sent("/v1/balances.check") == [
        {"customer_id": "ada", "feature_id": "ai_usage", "required_balance": 50}
    ]


def test_a_refused_check_ends_with_3(filled: Server, remote: Run) -> None:
    """A script can ask without reading the output."""
    result = remote("check", "ada", "ai_usage", "--required-balance", "50.5")
    assert result.returncode == 3
    assert result.stdout.splitlines()[2].split()[:2] == ["no", "50.5"]


def test_check_can_take_the_amount_in_the_same_step(filled: Server, remote: Run) -> None:
    """--send-event deducts."""
    result = remote("check", "ada", "ai_usage", "-r", "20", "--send-event", "--format", "json")
    assert json.loads(result.stdout)["balance"]["remaining"] == 30


def test_track_says_what_really_moved(filled: Server, remote: Run) -> None:
    """More than there is cannot be taken; the line says both."""
    rows = remote("track", "ada", "ai_usage", "--value", "60", "--format", "csv").stdout.splitlines()
    assert rows == ["value,moved,balance_of,remaining,usage,granted", "60,50,ai_credits,0,50,50"]


def test_track_gives_back(filled: Server, remote: Run) -> None:
    """A negative value is a refund."""
    remote("track", "ada", "ai_usage", "--value", "10")
    result = remote("track", "ada", "ai_usage", "--value", "-4")
    assert result.returncode == 0
    assert filled.call("/v1/customers.get", {"customer_id": "ada"})["balances"]["ai_credits"]["remaining"] == 44


def test_a_key_makes_it_happen_once(filled: Server, remote: Run) -> None:
    """The second call under a key is refused and takes nothing."""
    arguments = ("track", "ada", "ai_usage", "--value", "5", "--idempotency-key", "by-hand-1")
    assert remote(*arguments).returncode == 0
    second = remote(*arguments)
    assert second.returncode == 1
    assert "duplicate_idempotency_key" in second.stderr
    assert filled.call("/v1/customers.get", {"customer_id": "ada"})["balances"]["ai_credits"]["remaining"] == 45


def test_an_unknown_customer_is_named(filled: Server, remote: Run) -> None:
    """A check never creates a customer, and says where to look."""
    result = remote("check", "nobody", "ai_usage")
    assert result.returncode == 1
    assert "customer_not_found" in result.stderr
    assert "See which there are with autumn customers." in result.stderr


def test_an_answer_that_failed_open_is_not_a_yes(filled: Server, remote: Run) -> None:
    """Autumn answers 202 without having looked: that is no success."""
    filled.fault("balances.check", kind="unverified")
    result = remote("check", "ada", "ai_usage")
    assert result.returncode == 1
    assert "without looking at the balance" in result.stderr
