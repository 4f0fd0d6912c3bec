"""`autumn customers`, `plans`, `features` and `events`."""

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cli.processes import Run, Server, clean_environment
from fastapi_autumn.catalog import Catalog


@pytest.fixture
def filled(server: Server, catalog_file: Path) -> Server:
    """An Autumn with a catalog, three customers, and five events of one of them."""
    server.call("/v1/catalog.update", Catalog.load(catalog_file).to_wire())
    for name in ("Ada", "Bea", "Cleo"):
        server.call("/v1/customers.get_or_create", {"customer_id": name.lower(), "name": name, "email": f"{name}@x.co"})
    for value in range(1, 6):
        server.call("/v1/balances.track", {"customer_id": "ada", "feature_id": "ai_usage", "value": value})
    return server


def test_customers_are_listed_with_their_plans(filled: Server, remote: Run) -> None:
    """The table has a line for each customer, newest first."""
    result = remote("customers")
    assert result.returncode == 0
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["cleo", "bea", "ada"]
    assert lines[2].split()[1:4] == ["Cleo", "Cleo@x.co", "free"]


def test_customers_can_be_searched(filled: Server, remote: Run) -> None:
    """The search is Autumn's own."""
    assert "bea" in remote("customers", "--search", "be").stdout
    assert "ada" not in remote("customers", "--search", "be").stdout
    assert filled.sent("/v1/customers.list")[0] == {"limit": 50, "start_cursor": "", "search": "be"}


def test_customers_of_a_plan(filled: Server, remote: Run) -> None:
    """The filter is Autumn's own."""
    filled.call("/v1/billing.attach", {"customer_id": "bea", "plan_id": "pro", "no_billing_changes": True})
    result = remote("customers", "--plan", "pro", "--format", "csv")
    assert [row["id"] for row in csv.DictReader(result.stdout.splitlines())] == ["bea"]
    assert filled.sent("/v1/customers.list")[-1]["plans"] == [{"id": "pro"}]


def test_a_page_ends_with_the_way_to_the_next(filled: Server, remote: Run) -> None:
    """The cursor that is printed is the one that goes on, and --all follows it to the end."""
    first = remote("customers", "--limit", "2", "--format", "csv")
    assert [row["id"] for row in csv.DictReader(first.stdout.splitlines())] == ["cleo", "bea"]
    cursor = first.stderr.partition("--start-cursor ")[2].split()[0]
    second = remote("customers", "--limit", "2", "--start-cursor", cursor, "--format", "csv")
    assert [row["id"] for row in csv.DictReader(second.stdout.splitlines())] == ["ada"]
    assert second.stderr == ""
    everyone = remote("customers", "--limit", "2", "--all", "--format", "csv")
    assert [row["id"] for row in csv.DictReader(everyone.stdout.splitlines())] == ["cleo", "bea", "ada"]


def test_json_is_what_autumn_answered(filled: Server, remote: Run) -> None:
    """JSON loses no field, and carries the cursor."""
    found = json.loads(remote("customers", "--limit", "1", "--format", "json").stdout)
    assert found["list"] == filled.call("/v1/customers.list", {"limit": 1, "start_cursor": ""})["list"]
    assert found["next_cursor"]


def test_one_customer_is_shown_with_balances(filled: Server, remote: Run) -> None:
    """What support asks for first: the plan, and what is left."""
    shown = remote("customers", "ada").stdout
    assert "plans:    free" in shown
    assert "balances: ai_credits: 35 of 50 left, resets 20" in shown


def test_an_unknown_customer_is_an_error(filled: Server, remote: Run) -> None:
    """Not a table without lines: the id was wrong."""
    result = remote("customers", "nobody")
    assert result.returncode == 1
    assert "customer_not_found" in result.stderr
    assert "autumn customers" in result.stderr


def test_plans_are_listed_with_price_and_features(filled: Server, remote: Run) -> None:
    """The dollars of a plan are dollars."""
    rows = {row["id"]: row for row in csv.DictReader(remote("plans", "--format", "csv").stdout.splitlines())}
    assert list(rows) == ["free", "pro"]
    assert rows["pro"]["price"] == "$20 per month"
    assert rows["free"]["kind"] == "auto-enabled"
    assert rows["free"]["features"] == "ai_credits"


def test_one_plan_is_shown_with_what_it_gives(filled: Server, remote: Run) -> None:
    """The items of one plan are put into words."""
    assert "features: 2,000 ai_credits per month" in remote("plans", "pro").stdout


def test_archived_plans_are_shown_when_asked_for(filled: Server, remote: Run) -> None:
    """What is archived is out of the way, but there."""
    filled.call("/v1/plans.update", {"plan_id": "pro", "archived": True})
    assert "pro" not in remote("plans").stdout
    assert "pro" in remote("plans", "--include-archived").stdout
    assert "archived: yes" in " ".join(remote("plans", "pro").stdout.split())


def test_features_are_listed_with_what_they_cost_in_credits(filled: Server, remote: Run) -> None:
    """A credit system says what it counts."""
    rows = {row["id"]: row for row in csv.DictReader(remote("features", "--format", "csv").stdout.splitlines())}
    assert rows["ai_credits"]["credits"] == "ai_usage: 1"
    assert remote("features", "--search", "CREDITS", "--format", "csv").stdout.count("\n") == 2


def test_archived_features_are_shown_when_asked_for(filled: Server, remote: Run) -> None:
    """Autumn lists archived features always; the command only when asked."""
    filled.call("/v1/features.create", {"feature_id": "old", "name": "Old", "type": "boolean"})
    filled.call("/v1/features.update", {"feature_id": "old", "archived": True})
    assert "old" not in remote("features").stdout
    assert "old" in remote("features", "--include-archived").stdout


@pytest.mark.parametrize("kind", ["plan", "feature"])
def test_an_unknown_plan_or_feature_is_an_error(kind: str, filled: Server, remote: Run) -> None:
    """The sentence says which command shows those that are there."""
    result = remote(f"{kind}s", "nope")
    assert result.returncode == 1
    assert result.stderr == f"Error: There is no {kind} 'nope'; see which there are with autumn {kind}s.\n"


def test_events_are_listed_newest_first(filled: Server, remote: Run) -> None:
    """A line for each event, with a time that people can read."""
    rows = [*csv.DictReader(remote("events", "--customer", "ada", "--format", "csv").stdout.splitlines())]
    assert [row["value"] for row in rows] == ["5", "4", "3", "2", "1"]
    assert rows[0]["time"].startswith("20")
    assert rows[0]["feature_id"] == "ai_usage"


def test_events_are_filtered_by_autumn(filled: Server, remote: Run) -> None:
    """Every filter reaches Autumn, the range in milliseconds."""
    filled.requests.clear()
    arguments = ["--customer", "ada", "--feature", "ai_usage", "--feature", "other", "--limit", "7"]
    arguments += ["--entity", "seat-1"]
    result = remote("events", *arguments, "--since", "2026-01-01", "--until", "2026-01-02T12:00:00+02:00")
    assert result.returncode == 0
    assert result.stderr == "There are none.\n"
    assert filled.sent("/v1/events.list") == [
        {
            "limit": 7,
            "start_cursor": "",
            "custom_range": {"start": 1767225600000, "end": 1767348000000},
            "customer_id": "ada",
            "entity_id": "seat-1",
            "feature_id": ["ai_usage", "other"],
        }
    ]


def test_all_events_are_read_page_by_page(filled: Server, remote: Run) -> None:
    """--all gives each event once."""
    result = remote("events", "--limit", "2", "--all", "--format", "json")
    found = json.loads(result.stdout)
    assert [event["value"] for event in found["list"]] == [5, 4, 3, 2, 1]
    assert found["next_cursor"] is None


def test_events_say_what_a_charge_was_for(filled: Server, remote: Run) -> None:
    """Model, reason and charge are columns, and two rows of one charge have the same id."""
    for value, reason in ((5, None), (-5, "failed")):
        properties = {"charge_id": "c-1", "model": "gpt-4o", "reason": reason}
        filled.call(
            "/v1/balances.track",
            {"customer_id": "ada", "feature_id": "ai_usage", "value": value, "properties": properties},
        )
    rows = list(csv.DictReader(remote("events", "--format", "csv").stdout.splitlines()))
    assert [(row["value"], row["model"], row["reason"], row["charge_id"]) for row in rows[:2]] == [
        ("-5", "gpt-4o", "failed", "c-1"),
        ("5", "gpt-4o", "", "c-1"),
    ]


def test_events_can_be_followed(filled: Server, here: Path, tmp_path: Path) -> None:
    """What was there comes first, oldest first; what happens then follows, and Ctrl-C is no error."""
    # Whoever runs the tests in the background may have them ignore Ctrl-C, and a process inherits that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "fastapi_autumn.cli", "events", "--follow", "--format", "json", "--limit", "2"],
        cwd=here,
        env=clean_environment(tmp_path) | filled.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    assert process.stdout is not None
    assert [json.loads(process.stdout.readline())["value"] for _ in range(2)] == [4, 5]
    filled.call("/v1/balances.track", {"customer_id": "ada", "feature_id": "ai_usage", "value": 9})
    assert json.loads(process.stdout.readline())["value"] == 9
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=60)[1] == ""
    assert process.returncode == 0


def test_a_narrow_terminal_breaks_no_id(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Columns that do not fit are left out, which is said; an id is never on two lines."""
    from fastapi_autumn.cli._console import table

    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("NO_COLOR", "1")
    table(["id", "name", "charge_id"], [["credit_top_up_of_500", "Top-up", "3f1c9a2b7d604e58-12"]])
    out, err = capsys.readouterr()
    assert "credit_top_up_of_500" in out
    assert "3f1c9a2b" not in out
    assert "too narrow for charge_id" in err
