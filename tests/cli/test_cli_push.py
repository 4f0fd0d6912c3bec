"""`autumn diff` and `autumn push`."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.processes import LIVE_KEY, Run, Server
from fastapi_autumn.catalog import Catalog
from fastapi_autumn.cli._pending import preview_body, update_body

_RECORDED = json.loads(Path(__file__).with_name("data").joinpath("atmn-push-decisions.json").read_text())


def _recorded_catalog() -> Catalog:
    return Catalog.from_wire(_RECORDED["undecided"]["features"], _RECORDED["undecided"]["plans"])


@pytest.mark.parametrize("case", _RECORDED["cases"], ids=lambda case: case["name"])
def test_every_decision_is_sent_as_the_official_command_line_sends_it(case: dict[str, Any]) -> None:
    """For each decision about a plan or variant, the body of the update is the recorded one."""
    decided = {plan["plan_id"]: plan for plan in case["update"]["plans"]}
    undecided = _RECORDED["undecided"]
    expected = {
        **undecided,
        "plans": [decided.get(plan["plan_id"], plan) for plan in undecided["plans"]],
        "skip_plan_ids": case["update"]["skip_plan_ids"],
    }
    assert update_body(_recorded_catalog(), case["intents"]) == expected


def test_the_preview_asks_for_versions_and_variants_of_every_plan() -> None:
    """The body of the preview is that of the update, with the two questions of the official command line."""
    plans = [{**plan, "include_versions": True, "include_variants": True} for plan in _RECORDED["undecided"]["plans"]]
    assert preview_body(_recorded_catalog()) == {**_RECORDED["undecided"], "plans": plans}


def test_a_first_push_creates_everything(remote: Run, server: Server, catalog_file: Path) -> None:
    """It shows what it creates, sends the catalog of the file, and leaves both in step."""
    result = remote("push", "--yes")
    assert result.returncode == 0
    assert result.stdout.endswith("Pushed 4 changes to the sandbox.\n")
    assert "create   plan pro" in result.stdout
    assert server.sent("/v1/catalog.update") == [Catalog.load(catalog_file).to_wire()]
    again = remote("push", "--yes")
    assert (again.returncode, again.stdout) == (0, "")
    assert again.stderr == "In step: the file and the sandbox have the same catalog.\n"
    assert len(server.sent("/v1/catalog.update")) == 1


def test_diff_ends_with_3_while_there_is_something_to_push(remote: Run, server: Server, catalog_file: Path) -> None:
    """Scripts can tell the three cases apart, and a diff changes nothing."""
    assert remote("diff").returncode == 3
    assert server.sent("/v1/catalog.update") == []
    remote("push", "--yes")
    result = remote("diff")
    assert (result.returncode, result.stdout) == (0, "")


def test_diff_shows_the_fields_that_change(remote: Run, catalog_file: Path) -> None:
    """A change is shown by the path of the field and both of its values."""
    remote("push", "--yes")
    catalog_file.write_text(catalog_file.read_text().replace("included=2000", "included=3000"))
    result = remote("diff")
    assert result.returncode == 3
    assert "update   plan pro   items.ai_credits.included: 2000 -> 3000" in result.stdout
    (change,) = json.loads(remote("diff", "--format", "json").stdout)["changes"]
    assert change["fields"] == [{"path": "items.ai_credits.included", "before": 2000, "after": 3000}]


def test_what_goes_is_said_before_it_goes(remote: Run, server: Server, catalog_file: Path) -> None:
    """A deletion is in the table and in the question; a plan in use is archived, and that is said."""
    text = catalog_file.read_text()
    old = 'gone = plan(id="gone", name="Gone")\nused = plan(id="used", name="Used")\n'
    catalog_file.write_text(text + old)
    remote("push", "--yes")
    server.call("/v1/customers.get_or_create", {"customer_id": "ada"})
    server.call("/v1/billing.attach", {"customer_id": "ada", "plan_id": "used"})
    catalog_file.write_text(text)
    result = remote("push", "--yes")
    assert result.returncode == 0
    assert "This deletes or archives: plan gone, plan used." in result.stderr
    assert "delete   plan used   archived and not deleted, because it is in use" in result.stdout
    plans = server.call("/v1/plans.list", {"include_archived": True})["list"]
    assert {plan["id"]: plan["archived"] for plan in plans} == {"free": False, "pro": False, "used": True}


def test_without_a_terminal_and_without_yes_nothing_is_pushed(remote: Run, server: Server, catalog_file: Path) -> None:
    """A job in CI that forgot --yes ends with 3 and says so; it neither hangs nor claims success."""
    result = remote("push")
    assert result.returncode == 3
    assert "add --yes" in result.stderr
    assert server.sent("/v1/catalog.update") == []


@pytest.mark.parametrize(("answer", "code", "pushes"), [("y\n", 0, 1), ("n\n", 3, 0)])
def test_on_a_terminal_it_asks(
    answer: str, code: int, pushes: int, remote: Run, server: Server, catalog_file: Path
) -> None:
    """The answer decides."""
    result = remote("push", answers=answer)
    assert result.returncode == code
    assert "Push 4 changes to the sandbox? [y/N]" in result.stderr
    assert len(server.sent("/v1/catalog.update")) == pushes


@pytest.mark.parametrize(("answers", "code"), [("y\ny\n", 0), ("y\nn\n", 3)])
def test_production_is_asked_for_twice(
    answers: str, code: int, remote: Run, server: Server, catalog_file: Path
) -> None:
    """--prod uses the production key, and a second question comes before anything changes."""
    result = remote("push", "--prod", env={"AUTUMN_PROD_SECRET_KEY": LIVE_KEY}, answers=answers)
    assert result.returncode == code
    assert "Push 4 changes to production?" in result.stderr
    assert "This is production, where customers pay." in result.stderr
    assert len(server.sent("/v1/catalog.update")) == (1 if code == 0 else 0)


@pytest.fixture
def with_customers(remote: Run, server: Server, catalog_file: Path) -> Path:
    """Customers are on a plan of which the file has changed since."""
    remote("push", "--yes")
    server.call("/v1/customers.get_or_create", {"customer_id": "ada"})
    catalog_file.write_text(catalog_file.read_text().replace("included=50", "included=60"))
    return catalog_file


def test_a_plan_with_customers_needs_a_decision_even_with_yes(
    with_customers: Path, remote: Run, server: Server
) -> None:
    """What becomes of customers is never guessed: the sentence lists what can be decided."""
    result = remote("push", "--yes")
    assert result.returncode == 3
    assert "--intent free=create_version|update_current|update_current_and_migrate|skip" in result.stderr
    assert len(server.sent("/v1/catalog.update")) == 1


def test_the_decision_can_be_given(with_customers: Path, remote: Run, server: Server) -> None:
    """A new version: customers keep what they have, new ones get the new plan."""
    result = remote("push", "--yes", "--intent", "free=create_version")
    assert result.returncode == 0
    assert server.call("/v1/plans.get", {"plan_id": "free"})["version"] == 2
    assert remote("diff").returncode == 0


def test_the_decision_is_asked_for_on_a_terminal(with_customers: Path, remote: Run, server: Server) -> None:
    """A wrong number is asked for again."""
    result = remote("push", answers="9\n2\ny\n")
    assert result.returncode == 0
    assert "Plan free changes and customers are on it. What now?" in result.stderr
    free = next(plan for plan in server.sent("/v1/catalog.update")[-1]["plans"] if plan["plan_id"] == "free")
    assert free["disable_version"] is True


def test_a_skipped_plan_stays_as_it_is(with_customers: Path, remote: Run, server: Server) -> None:
    """The rest is pushed."""
    assert remote("push", "--yes", "--intent", "free=skip").returncode == 0
    (item,) = server.call("/v1/plans.get", {"plan_id": "free"})["items"]
    assert item["included"] == 50


def test_what_is_archived_comes_back(remote: Run, server: Server, catalog_file: Path) -> None:
    """A plan and a feature that the file has and Autumn has archived are brought back, and then they are in step."""
    catalog_file.write_text(catalog_file.read_text() + 'sso = feature(id="sso", name="SSO", type="boolean")\n')
    remote("push", "--yes")
    server.call("/v1/plans.update", {"plan_id": "pro", "archived": True})
    server.call("/v1/features.update", {"feature_id": "sso", "archived": True})
    result = remote("push", "--yes")
    assert result.returncode == 0
    assert "archived: true -> " in result.stdout
    assert server.sent("/v1/features/sso") == [{"archived": False}]
    assert server.sent("/v1/products/pro") == [{"archived": False}]
    assert remote("diff").returncode == 0


def test_warnings_do_not_stop_a_push(remote: Run, catalog_file: Path) -> None:
    """What only bites later is said, on stderr."""
    catalog_file.write_text(catalog_file.read_text() + 'big = plan(id="big_tier_3", name="Big")\n')
    result = remote("push", "--yes")
    assert result.returncode == 0
    assert 'Warning: autumn_config.py: plan "big_tier_3"' in result.stderr


def test_a_refusal_of_autumn_is_said_in_its_words(remote: Run, server: Server, catalog_file: Path) -> None:
    """A 4xx to the update ends with 1."""
    server.fault("catalog.update", kind="fail", status=400)
    result = remote("push", "--yes")
    assert result.returncode == 1
    assert "Error: catalog.update: Autumn answered 400 injected_fault" in result.stderr
    assert "Pushed" not in result.stdout
