"""`autumn diff` and `autumn push`."""

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cli.processes import LIVE_KEY, Run, Server, clean_environment
from fastapi_autumn import AutumnClient, AutumnSettings
from fastapi_autumn.catalog import Catalog
from fastapi_autumn.cli._pending import Pending, find_pending, preview_body, update_body
from fastapi_autumn.errors import UnexpectedAnswer
from fastapi_autumn.transports import Answer

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


class _Recorded:
    """A transport that answers as Autumn answered the official command line."""

    def __init__(self, **answers: Any) -> None:
        self._answers = {name.replace("__", "."): answer for name, answer in answers.items()}

    async def request(
        self, method: str, path: str, *, body: bytes, headers: Mapping[str, str], bearer: Any = None
    ) -> Answer:
        return Answer(200, {}, json.dumps(self._answers[path.removeprefix("/v1/")]).encode())

    async def aclose(self) -> None:
        """There is nothing to close."""


async def _pending(preview: Any) -> Pending:
    lists = {"features__list": {"list": []}, "plans__list": {"list": []}}
    transport = _Recorded(catalog__preview_update=preview, **lists)
    client = AutumnClient(AutumnSettings(), transport=transport, secret_key="am_sk_test_whatever")
    return await find_pending(client, Catalog())


_CHOICES = {
    "versionable create_version": {"pro": ("create_version", "update_current", "update_current_and_migrate", "skip")},
    "history all versions": {
        "pro": (
            *("create_version", "update_current", "update_current_and_migrate", "skip"),
            *("update_all_versions", "update_all_versions_and_migrate"),
        )
    },
    "variant propagate": {"pro_annual": ("propagate", "skip")},
    "direct variant": {"pro_annual": ("create_version", "update_current")},
}


@pytest.mark.parametrize("name", _CHOICES)
async def test_what_has_to_be_decided_is_read_from_the_recorded_previews(name: str) -> None:
    """Plans with customers or a history, variants that follow or change by themselves: each with its choices."""
    (preview,) = [case["preview"] for case in _RECORDED["cases"] if case["name"] == name]
    pending = await _pending(preview)
    assert {one.plan_id: one.choices for one in pending.decisions} == _CHOICES[name]


async def test_recorded_deletions_say_what_is_only_archived() -> None:
    """What is in use is archived, whether it is a plan or a feature."""
    (preview,) = [case["preview"] for case in _RECORDED["cases"] if case["name"] == "deletions yes"]
    pending = await _pending(preview)
    assert pending.removals == ["feature oldf", "feature usedf", "plan old", "plan oldcust"]
    assert sorted(pending.notes) == [("feature", "usedf"), ("plan", "oldcust")]


async def test_a_change_that_autumn_blocks_is_not_pushed_over() -> None:
    """A blocked feature and a reward in conflict are refusals, and say why."""
    blocked = {"feature_id": "messages", "action": "update", "blocked": True, "blocked_reason": "has_customers"}
    pending = await _pending({"feature_changes": [blocked], "reward_changes": [{"id": "r1", "action": "conflict"}]})
    assert pending.blocked == ("feature messages: has_customers", "reward r1: a conflict")


async def test_rewards_that_a_push_would_delete_are_listed() -> None:
    """A catalog file has no rewards, and a push replaces everything: what Autumn announces is shown."""
    pending = await _pending({"reward_changes": [{"id": "r1", "action": "deleted"}]})
    assert pending.removals == ["reward r1"]


@pytest.mark.parametrize("preview", [{"plan_changes": [{}]}, {"feature_changes": 3}, {"plan_changes": ["pro"]}])
async def test_a_preview_of_another_shape_is_an_error(preview: Any) -> None:
    """A newer Autumn that answers differently stops the push; nothing is guessed."""
    with pytest.raises(UnexpectedAnswer, match=r"catalog\.preview_update"):
        await _pending(preview)


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
    """It does not come back from the archive either; the rest is pushed, and only that is counted."""
    with_customers.write_text(with_customers.read_text() + 'sso = feature(id="sso", name="SSO", type="boolean")\n')
    server.call("/v1/plans.update", {"plan_id": "free", "archived": True})
    result = remote("push", "--yes", "--intent", "free=skip")
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, "Pushed 1 change to the sandbox.")
    assert "Skipped: plan free." in result.stderr
    plan = server.call("/v1/plans.get", {"plan_id": "free"})
    assert (plan["items"][0]["included"], plan["archived"]) == (50, True)


def test_nothing_but_what_is_skipped_is_no_push(with_customers: Path, remote: Run, server: Server) -> None:
    """With every change skipped nothing is asked or sent."""
    result = remote("push", "--intent", "free=skip")
    assert (result.returncode, "Pushed" in result.stdout) == (0, False)
    assert len(server.sent("/v1/catalog.update")) == 1


def test_variants_go_with_a_base_that_is_skipped(with_customers: Path, remote: Run, server: Server) -> None:
    """They travel inside of it: a change of theirs is skipped with it, and cannot be asked for."""
    text = with_customers.read_text()
    variant = 'free_year = free.variant(id="free_year", name="{}", customize=customize(add_items=[]))\n'
    imports = "from fastapi_autumn.catalog import customize\n"
    with_customers.write_text(imports + text + variant.format("A year"))
    remote("push", "--yes", "--intent", "free=update_current")
    with_customers.write_text(imports + text.replace("included=60", "included=70") + variant.format("Twelve months"))
    asked_for = remote("push", "--yes", "--intent", "free=skip", "--intent", "free_year=update_current")
    assert asked_for.returncode == 2
    assert "free_year goes with its base, which is skipped" in asked_for.stderr
    result = remote("push", "--yes", "--intent", "free=skip")
    assert result.returncode == 0
    assert "Skipped: plan free, variant free_year." in result.stderr
    assert server.call("/v1/plans.get", {"plan_id": "free_year"})["name"] == "A year"


def test_json_has_what_was_pushed(remote: Run, server: Server, catalog_file: Path) -> None:
    """A program reads the changes, and an empty list when there are none."""
    first = json.loads(remote("push", "--yes", "--format", "json").stdout)
    assert [(change["action"], change["id"]) for change in first["changes"]] == [
        ("create", name) for name in ("ai_usage", "ai_credits", "free", "pro")
    ]
    assert json.loads(remote("push", "--yes", "--format", "json").stdout) == {"changes": []}


def test_an_intent_for_no_plan_is_refused(remote: Run, server: Server, catalog_file: Path) -> None:
    """A misspelt plan is no decision."""
    result = remote("push", "--yes", "--intent", "fre=skip")
    assert result.returncode == 2
    assert "'fre' is no plan of" in result.stderr


def test_ctrl_c_ends_the_question(here: Path, tmp_path: Path, server: Server, catalog_file: Path) -> None:
    """Nothing is pushed, and nobody has to press it twice."""
    ours, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fastapi_autumn.cli", "push"],
        cwd=here,
        env=clean_environment(tmp_path) | server.environment,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    said = b""
    while b"[y/N]" not in said:
        said += os.read(process.stderr.fileno(), 1_000)
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=60)
    os.close(ours)
    os.close(terminal)
    assert process.returncode == 3
    assert b"Nothing was done." in rest
    assert b"Traceback" not in rest
    assert server.sent("/v1/catalog.update") == []


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


@pytest.mark.slow
def test_a_hundred_features_and_plans_take_as_many_calls_as_one(
    remote: Run, catalog_file: Path, server: Server
) -> None:
    """Pushing and pulling a catalog takes the same few calls, however large it is."""
    catalog_file.write_text(_catalog_of(1))
    few = _calls_to_push_and_pull(remote, catalog_file, server)
    catalog_file.write_text(_catalog_of(100))
    many = _calls_to_push_and_pull(remote, catalog_file, server)
    # The first three are asked for at the same time.
    assert sorted(many) == sorted(few)
    assert len(Catalog.load(catalog_file).plans) == 100


def _catalog_of(size: int) -> str:
    lines = ["from fastapi_autumn.catalog import feature, item, plan, price"]
    for number in range(1, size + 1):
        name = f'id="number_{number}_x", name="Number {number}"'
        items = f'[item(f{number}, included={number}, reset="month")]'
        lines.append(f'f{number} = feature({name}, type="metered", consumable=True)')
        lines.append(f'p{number} = plan({name}, price=price({number}, interval="month"), items={items})')
    return "\n".join(lines) + "\n"


def _calls_to_push_and_pull(remote: Run, catalog_file: Path, server: Server) -> list[str]:
    server.requests.clear()
    assert remote("push", "--yes").returncode == 0
    catalog_file.unlink()
    assert remote("pull").returncode == 0
    return [path for _, path, _ in server.requests]


def test_an_update_that_was_done_all_the_same_is_no_failure(remote: Run, server: Server, catalog_file: Path) -> None:
    """Autumn may write everything and answer with an error: what it has now decides."""
    server.fault("catalog.update", kind="drop", times=1)
    result = remote("push", "--yes")
    assert result.returncode == 0
    assert "has the catalog of the file all the same" in result.stderr
    assert remote("diff").returncode == 0


def test_an_update_that_was_not_done_is_a_failure(remote: Run, server: Server, catalog_file: Path) -> None:
    """Where the difference is still there, the error stands."""
    server.fault("catalog.update", kind="fail", status=500, times=1)
    result = remote("push", "--yes")
    assert result.returncode not in (0, 3)
    assert remote("diff").returncode == 3


def test_an_archived_feature_settles(remote: Run, catalog_file: Path) -> None:
    """catalog.update does not archive features, so the push does, and nothing is left to push."""
    source = catalog_file.read_text().replace('name="AI usage",', 'name="AI usage", archived=True,')
    catalog_file.write_text(source)
    assert remote("push", "--yes").returncode == 0
    assert remote("diff").returncode == 0
