"""What `atmn`, unmodified, reads from the emulator: who it is, pull, preview, the lists; and nuke."""

import json
from pathlib import Path
from typing import Any

import pytest

from cli.processes import LIVE_KEY, Server
from interop.clients import Atmn

pytestmark = [pytest.mark.interop, pytest.mark.timeout(300)]

_NO_KEY = "[Error] atmn uses the AUTUMN_SECRET_KEY to call the Autumn sandbox API."


@pytest.fixture
def used(seeded: Server) -> Server:
    """The emulator with two customers, one of whom has used something."""
    seeded.call("/v1/customers.get_or_create", {"customer_id": "ada", "name": "Ada", "email": "ada@example.com"})
    seeded.call("/v1/customers.get_or_create", {"customer_id": "bob"})
    for value in (2, 1):
        body = {"customer_id": "ada", "feature_id": "messages", "value": value, "properties": {"model": "small"}}
        seeded.call("/v1/balances.track", body)
    seeded.requests.clear()
    return seeded


def _read(atmn: Atmn, *arguments: str) -> Any:
    """What a command prints as JSON."""
    done = atmn(*arguments, "--format", "json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("arguments", "environment"), [((), "Sandbox"), (("--prod",), "Production")], ids=["sandbox", "production"]
)
def test_env_names_organisation_and_environment(
    atmn: Atmn, server: Server, arguments: tuple[str, ...], environment: str
) -> None:
    """The environment is that of the key."""
    done = atmn("env", *arguments, env={"AUTUMN_PROD_SECRET_KEY": LIVE_KEY})

    assert done.returncode == 0, done.stderr
    assert done.stdout == f"Organization: Emulator\nSlug: emulator\nEnvironment: {environment}\n"


@pytest.mark.parametrize(
    ("key", "said"),
    [(None, _NO_KEY), ("am_sk_test_revoked", "Error: API request failed: 401 Unauthorized")],
    ids=["no key", "unknown key"],
)
def test_env_without_a_good_key_fails(atmn: Atmn, server: Server, key: str | None, said: str) -> None:
    """No key is atmn's own error, an unknown one the emulator's 401; both end with 1."""
    done = atmn("env", key=key)

    assert done.returncode == 1
    assert said in done.stderr


def test_pull_writes_what_was_pushed(atmn: Atmn, seeded: Server) -> None:
    """The file has each feature, plan and variant as it was written, and pushing it again finds nothing to do."""
    pulled = atmn("pull")
    text = atmn.config.read_text()
    pushed = atmn("push")

    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout == (
        "Pulling config from Autumn (sandbox)...\n"
        "✓ Pulled 5 features, 3 plans, 0 rewards, 0 referral programs from sandbox\n"
        f"✓ Generated SDK types at: {atmn.folder}/@useautumn-sdk.d.ts\n"
    )
    assert "export const proAnnual = pro.variant({" in text
    assert "customize: {\n\t\tprice: { amount: 200, interval: 'year' },\n\t}," in text
    assert "export const pro: Plan;" in (atmn.folder / "@useautumn-sdk.d.ts").read_text()
    assert pushed.stdout.endswith("\nAlready in sync - no changes to push.\n")


def test_pull_changes_an_existing_file_in_place(atmn: Atmn, config: Path, seeded: Server) -> None:
    """Comments stay, and only what the emulator says otherwise changes."""
    config.write_text(config.read_text().replace("export const sso", "// Sign-in.\nexport const sso"))
    seeded.call("/v1/features.update", {"feature_id": "sso", "name": "SAML"})

    done = atmn("pull")

    assert done.returncode == 0, done.stderr
    text = config.read_text()
    assert "// Sign-in.\nexport const sso" in text
    assert "'SAML'" in text
    assert "'SSO'" not in text


def test_preview_shows_each_plan_without_asking_the_emulator(atmn: Atmn, config: Path, server: Server) -> None:
    """The offline table of the file, and the error for a plan that it lacks."""
    shown = atmn("preview")
    missing = atmn("preview", "--plan", "nope")

    assert shown.returncode == 0, shown.stderr
    assert "│ $20/month · 14 days free trial          │" in shown.stdout
    assert "│ └─ 5 Messages per month                 │" in shown.stdout
    assert (missing.returncode, missing.stderr) == (1, "Plan not found: nope\nAvailable plans: free, pro, topup\n")
    assert server.requests == []


def test_customers_are_listed_searched_and_shown(atmn: Atmn, used: Server) -> None:
    """The list pages by offset, the search narrows it, and one customer comes with plans and balances."""
    listed = _read(atmn, "customers")
    found = _read(atmn, "customers", "--search", "ada@")
    shown = atmn("customers", "--id", "ada")
    missing = atmn("customers", "--id", "nope")

    assert [customer["id"] for customer in listed["customers"]] == ["bob", "ada"]
    assert listed["pagination"] == {"page": 1, "pageSize": 50, "hasMore": False, "count": 2}
    assert [customer["id"] for customer in found["customers"]] == ["ada"]
    assert "Subscriptions:\n  - Free (active)\n" in shown.stdout
    assert "Feature Balances:\n  - Messages: 3/" in shown.stdout
    assert (missing.returncode, missing.stderr.strip()) == (1, "Error: Customer not found: nope")


def test_plans_are_listed(atmn: Atmn, seeded: Server) -> None:
    """Plans and variants come with what the table of atmn shows of them."""
    done = atmn("plans", "--format", "csv")

    assert done.returncode == 0, done.stderr
    header, *rows = done.stdout.splitlines()
    assert header == "id,name,version,type,price,items_count,created_at"
    assert [row.rpartition(",")[0] for row in rows] == [
        "free,Free,1,Default,0,1",
        "topup,Top up,1,Add-on,0,1",
        "pro,Pro,1,Plan,20,4",
        "pro_annual,Pro Annual,1,Plan,200,4",
    ]


def test_features_are_listed(atmn: Atmn, seeded: Server) -> None:
    """Each kind of feature is told apart; an unknown one is an error."""
    done = atmn("features", "--format", "csv")
    missing = atmn("features", "--id", "nope")

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "id,name,type,consumable,archived",
        "messages,Messages,metered,true,false",
        "seats,Seats,metered,false,false",
        "sso,SSO,boolean,false,false",
        "ai_credits,AI Credits,ai_credit_system,true,false",
        "credits,Credits,credit_system,true,false",
    ]
    assert (missing.returncode, missing.stderr.strip()) == (1, "Error: Feature not found: nope")


def test_events_are_listed(atmn: Atmn, used: Server) -> None:
    """The newest event comes first; filters and pages are honoured."""
    listed = _read(atmn, "events")
    second = _read(atmn, "events", "--customer", "ada", "--feature", "messages,seats", "--page", "2", "--limit", "1")

    assert [(event["customer_id"], event["value"]) for event in listed["events"]] == [("ada", 1), ("ada", 2)]
    assert [event["value"] for event in second["events"]] == [2]
    assert used.sent("/v1/events/list")[1]["offset"] == 1


def test_events_are_added_up(atmn: Atmn, used: Server) -> None:
    """The totals of the week are those of the two events, also by a property; a customer has to be named."""
    added = _read(atmn, "events", "--mode", "aggregate", "--customer", "ada", "--feature", "messages")
    grouped = _read(atmn, "events", "--mode", "aggregate", "--customer", "ada", "--group-by", "model", "--time", "24h")
    nobody = atmn("events", "--mode", "aggregate")

    assert added["totals"] == {"messages": {"count": 2, "sum": 3}}
    assert sum(period["values"]["messages"] for period in added["timeSeries"]) == 3
    assert [period["grouped_values"]["messages"] for period in grouped["timeSeries"]][-1] == {"small": 3}
    assert used.sent("/v1/events/aggregate")[1]["group_by"] == "properties.model"
    assert nobody.returncode == 1


def test_nuke_leaves_nothing(atmn: Atmn, used: Server) -> None:
    """Customers, plans with their variants, and features are deleted over the older routes."""
    done = atmn("nuke", "--dangerously-skip-all-confirmation-prompts")

    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("Nuking sandbox...\nSandbox nuked successfully!\n")
    for group in ("customers", "plans", "features"):
        assert used.call(f"/v1/{group}.list")["list"] == [], group


def test_nuke_spares_production(atmn: Atmn, used: Server) -> None:
    """Atmn refuses `--prod`, and a production key in the place of the sandbox one."""
    flag = atmn("nuke", "--prod", env={"AUTUMN_PROD_SECRET_KEY": LIVE_KEY})
    key = atmn("nuke", "--dangerously-skip-all-confirmation-prompts", key=LIVE_KEY)

    assert (flag.returncode, key.returncode) == (1, 1)
    assert "ERROR: nuke command is only available for sandbox!" in flag.stderr
    assert "You can't nuke a prod environment!" in key.stdout
    assert len(used.call("/v1/customers.list")["list"]) == 2
