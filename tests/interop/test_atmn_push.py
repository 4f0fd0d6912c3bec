"""`atmn push`, unmodified, against the emulator: what it says and how it ends is what was recorded beside Autumn."""

from pathlib import Path
from typing import Any

import pytest

from cli.processes import LIVE_KEY, Server
from fastapi_autumn.emulator import EMULATOR_KEY
from interop.clients import Atmn

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

_READING = """\
Loading autumn.config.ts...
  Found 5 features, 3 plans, 0 rewards, 0 referral programs
Validating config...
Analyzing changes against {where}...

"""
_SANDBOX = _READING.format(where="sandbox")
_LIVE = {"AUTUMN_PROD_SECRET_KEY": LIVE_KEY}
_LOOKS = {("POST", "/v1/features.list"), ("POST", "/v1/plans.list"), ("POST", "/v1/catalog.preview_update")}


def test_first_push_creates_everything(atmn: Atmn, config: Path, server: Server, pushed_body: dict[str, Any]) -> None:
    """An empty organisation gets all of it, told in the recorded words, by the recorded body."""
    done = atmn("push", "--yes")

    assert done.returncode == 0, done.stderr
    assert done.stdout == _SANDBOX + (
        "Pushing to sandbox...\n\nPush complete!\n"
        "  Features created: ai_credits, messages, seats, sso, credits\n"
        "  Plans created: free, pro, topup\n"
        "  Plans updated: pro_annual\n"
    )
    assert server.sent("/v1/catalog.update") == [pushed_body]
    assert {plan["id"] for plan in server.call("/v1/plans.list")["list"]} == {"free", "pro", "pro_annual", "topup"}


def test_second_push_has_nothing_to_do(atmn: Atmn, config: Path, seeded: Server) -> None:
    """The emulator tells atmn that what it pushed is what is there; atmn only looks."""
    done = atmn("push", "--yes")

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{_SANDBOX}Already in sync - no changes to push.\n"
    assert {(method, path) for method, path, _ in seeded.requests} == _LOOKS


def test_changes_of_a_feature_a_plan_and_a_variant_are_seen_apart(atmn: Atmn, config: Path, seeded: Server) -> None:
    """The preview names exactly what differs, and the update makes it so."""
    text = config.read_text()
    for before, after in (("name: 'Top up'", "name: 'Refill'"), ("amount: 200", "amount: 180"), ("'SSO'", "'SAML'")):
        assert before in text
        text = text.replace(before, after)
    config.write_text(text)

    done = atmn("push")

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\nPush complete!\n  Features updated: sso\n  Plans updated: pro_annual, topup\n")
    plans = {plan["id"]: plan for plan in seeded.call("/v1/plans.list")["list"]}
    assert (plans["topup"]["name"], plans["pro_annual"]["price"]["amount"]) == ("Refill", 180)
    assert plans["pro"]["price"]["amount"] == 20


def test_variant_follows_its_base_only_where_atmn_is_told_so(atmn: Atmn, config: Path, seeded: Server) -> None:
    """A change of the base alone is reported as propagated, for which atmn demands a choice and sends it."""
    config.write_text(config.read_text().replace("included: 1000", "included: 1500"))

    undecided = atmn("push", "--yes")
    decided = atmn("push", "--yes", "--variant-propagations", '{"pro":[]}')

    assert undecided.returncode == 1
    assert '  - plan "pro" needs variant propagation choices\n' in undecided.stdout
    assert decided.returncode == 0, decided.stderr
    assert decided.stdout.endswith("\nPush complete!\n  Plans updated: pro\n")
    plans = {plan["id"]: plan for plan in seeded.call("/v1/plans.list")["list"]}
    included = {
        name: next(item["included"] for item in plans[name]["items"] if item["feature_id"] == "messages")
        for name in ("pro", "pro_annual")
    }
    assert included == {"pro": 1500, "pro_annual": 1000}


def test_production_wants_a_yes(atmn: Atmn, config: Path, server: Server) -> None:
    """Without `--yes` nothing goes to production; with it everything does, with the production key."""
    refused = atmn("push", "--prod", env=_LIVE)
    pushed = atmn("push", "--prod", "--yes", env=_LIVE)

    assert refused.returncode == 1
    assert "Push requires confirmation for the following:\n  - Pushing to production environment\n" in refused.stdout
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.startswith(f"{_READING.format(where='production')}Pushing to production...\n\nPush complete!")
    assert len(server.sent("/v1/catalog.update")) == 1


def test_deletions_want_a_yes_and_spare_what_is_in_use(atmn: Atmn, config: Path, seeded: Server) -> None:
    """What the file lacks is deleted, and archived where a customer has it; both only after a yes."""
    item = {"feature_id": "used", "included": 5, "reset": {"interval": "month"}}
    for name in ("used", "unused"):
        seeded.call("/v1/features.create", {"feature_id": name, "name": name, "type": "metered", "consumable": True})
    seeded.call("/v1/plans.create", {"plan_id": "gone", "name": "Gone"})
    seeded.call("/v1/plans.create", {"plan_id": "kept", "name": "Kept", "add_on": True, "items": [item]})
    seeded.call("/v1/customers.get_or_create", {"customer_id": "ada"})
    seeded.call("/v1/billing.attach", {"customer_id": "ada", "plan_id": "kept"})

    refused = atmn("push")
    pushed = atmn("push", "--yes")

    assert refused.returncode == 1
    asked = refused.stdout.partition("Push requires confirmation for the following:\n")[2].partition("\n\n")[0]
    assert sorted(asked.splitlines()) == [
        '  - Feature "unused" will be deleted',
        '  - Feature "used" is used by products and cannot be deleted',
        '  - Plan "gone" will be deleted',
        '  - Plan "kept" needs to be removed but has customers',
    ]
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.endswith(
        "\nPush complete!\n  Features deleted: unused\n  Features archived: used\n"
        "  Plans deleted: gone\n  Plans archived: kept\n"
    )
    archived = seeded.call("/v1/plans.list", {"include_archived": True})["list"]
    assert {plan["id"] for plan in archived if plan["archived"]} == {"kept"}


def test_what_is_archived_comes_back(atmn: Atmn, config: Path, seeded: Server) -> None:
    """Features and plans of the file that are archived are taken out of the archive by their older routes."""
    seeded.call("/v1/features.update", {"feature_id": "messages", "archived": True})
    seeded.call("/v1/plans.update", {"plan_id": "pro", "archived": True})

    done = atmn("push", "--yes")

    assert done.returncode == 0, done.stderr
    assert "  Un-archiving feature: messages\n  Un-archiving plan: pro\n\nPush complete!\n" in done.stdout
    listed = seeded.call("/v1/plans.list")["list"] + seeded.call("/v1/features.list")["list"]
    assert {"messages", "pro"} <= {entry["id"] for entry in listed}


def test_plan_with_customers_wants_a_decision(atmn: Atmn, config: Path, seeded: Server) -> None:
    """A plan that customers have is versionable: atmn will not go on without an intent, and then makes version 2."""
    seeded.call("/v1/customers.get_or_create", {"customer_id": "ada"})
    config.write_text(config.read_text().replace("included: 5,", "included: 6,"))

    undecided = atmn("push", "--yes")
    decided = atmn("push", "--yes", "--plan-intents", '{"free":"create_version"}')

    assert undecided.returncode == 1
    assert (
        'Push requires update-flow decisions:\n  - plan "free" needs an update intent\n'
        '  - plan "free" needs a migration draft choice\n'
    ) in undecided.stdout
    assert decided.returncode == 0, decided.stderr
    assert decided.stdout.endswith("\nPush complete!\n  Plans updated: free\n")
    assert seeded.call("/v1/plans.get", {"plan_id": "free"})["version"] == 2


def test_refusals_of_the_emulator_reach_the_terminal(atmn: Atmn, config: Path, server: Server) -> None:
    """A wrong key and a server error end with 1 and the emulator's message."""
    unknown = atmn("push", key="am_sk_test_revoked", env={"ATMN_DISABLE_AUTH_RECOVERY": "1"})
    server.fault("catalog.update", kind="fail", status=500)
    broken = atmn("push", "--yes")

    assert unknown.returncode == 1
    assert unknown.stderr == "\nError: Invalid secret key: am_sk_test_revo********\n"
    assert broken.returncode == 1
    assert broken.stderr == "\nError: A fault that was asked for\n"


@pytest.mark.parametrize(
    ("source", "key", "said"),
    [
        (None, EMULATOR_KEY, "Error: Config file not found at {config}. Run 'atmn pull' first.\n"),
        ("export const a = ;", EMULATOR_KEY, "Error: ParseError: Unexpected token"),
        ("export {};", None, "Error: No sandbox API key found. Run 'atmn login' to authenticate.\n"),
    ],
    ids=["no config", "syntax error", "no key"],
)
def test_what_atmn_refuses_by_itself_never_reaches_the_emulator(
    atmn: Atmn, server: Server, source: str | None, key: str | None, said: str
) -> None:
    """Without a file, with a broken one, and without a key it ends with 1 and sends nothing."""
    if source is not None:
        atmn.config.write_text(source)

    done = atmn("push", key=key)

    assert done.returncode == 1
    assert done.stderr.startswith("\n" + said.format(config=atmn.config))
    assert server.requests == []


def test_invalid_config_is_explained(atmn: Atmn, server: Server) -> None:
    """A catalog that atmn finds wrong is listed mistake by mistake, and not sent."""
    atmn.config.write_text(
        "import { feature, plan } from 'atmn';\n"
        "export const a = feature({ id: 'a', name: 'A', type: 'metered' });\n"
        "export const p = plan({ id: 'p', name: 'P', items: [{ featureId: 'b' }] });\n"
    )

    done = atmn("push")

    assert done.returncode == 1
    assert '  feature "a"\n    "consumable" is required for metered features.' in done.stdout
    assert 'Feature "b" is referenced by this item but is not exported from your config.' in done.stdout
    assert server.requests == []
