"""What each operation puts on the wire, and what it makes of the answers that the real Autumn gave."""

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from client import bodies, purchase_bodies
from client.answers import ALLOWED, KEY, TRACKED
from fastapi_autumn import AutumnClient, AutumnSettings, models
from fastapi_autumn.client import Operations, _bodies, _catalog
from fastapi_autumn.errors import ConfigurationError, UnexpectedAnswer
from fastapi_autumn.transports import HttpxTransport

SENT = bodies.SENT | purchase_bodies.SENT
RECORDINGS = Path(__file__).parents[1] / "emulator" / "ground_truth"

MODELS: dict[str, type[Any]] = {
    "customers.get_or_create": models.CustomerRecord,
    "customers.get": models.CustomerRecord,
    "customers.list": models.CustomerPage,
    "customers.update": models.CustomerRecord,
    "customers.delete": _bodies.Done,
    "balances.check": models.CheckResult,
    "balances.track": models.TrackResult,
    "balances.track_tokens": models.TrackResult,
    "balances.batch_track": _bodies.Done,
    "balances.finalize": models.FinalizeResult,
    "balances.create": _bodies.Done,
    "balances.update": _bodies.Done,
    "balances.delete": _bodies.Done,
    "entities.create": models.EntityRecord,
    "entities.get": models.EntityRecord,
    "entities.list": models.EntityPage,
    "entities.update": models.EntityRecord,
    "entities.delete": _bodies.Done,
    "events.list": models.EventPage,
    "events.aggregate": models.EventAggregate,
    "features.list": _catalog._FeatureList,
    "plans.list": _catalog._PlanList,
    "plans.get": models.Plan,
    "billing.attach": models.AttachResult,
    "billing.update": models.AttachResult,
    "billing.preview_attach": models.Preview,
}
NOT_RECORDED = {
    "billing.multi_attach",
    "billing.open_customer_portal",
    "billing.preview_update",
    "billing.setup_payment",
}
NO_RECORDING = {"entities.update", "entities.list", "balances.batch_track", "balances.delete", "customers.delete"}
IN_SEVERAL_STEPS = {"balances.grant", "events.iterate"}
SAME_AS = {"customers.confirm": "customers.get_or_create"}


def recorded_answers() -> list[tuple[str, dict[str, Any]]]:
    """Every success that the real Autumn gave, at API version 2.3.0, to what the client can ask."""
    answers = []
    for file in sorted(RECORDINGS.glob("*.json.gz")):
        for step in json.loads(gzip.decompress(file.read_bytes())):
            request, answer = step.get("request", {}), step.get("response", {})
            operation = request.get("path", "").removeprefix("/v1/")
            version = request.get("headers", {}).get("x-api-version", "2.3.0")
            # A check of a plan instead of a feature has another answer; the client never asks that.
            if "product_id" in str(request.get("json")) or not version.startswith("2.3"):
                continue
            if operation in MODELS and answer["status"] in {200, 202} and isinstance(answer["json"], dict):
                answers.append((operation, answer["json"]))
    return answers


def differences(read: Any, recorded: Any, path: str = "answer") -> list[str]:
    """Where `read` says something else than `recorded`, which may say more."""
    if isinstance(read, dict):
        said = [name for name in read if name in recorded]  # the rest are defaults
        return [found for name in said for found in differences(read[name], recorded[name], f"{path}.{name}")]
    if isinstance(read, list | tuple):
        pairs = zip(read, recorded, strict=True)
        return [found for index, pair in enumerate(pairs) for found in differences(*pair, f"{path}[{index}]")]
    # A field of any JSON holds floats, an amount holds a Decimal.
    same = repr(read) == str(recorded) if isinstance(read, float) else read == recorded
    return [] if same else [f"{path}: {read!r} is not {recorded!r}"]


@pytest.mark.parametrize("name", SENT)
async def test_sends_the_documented_body(name: str, client: AutumnClient, autumn: Any) -> None:
    """Each operation goes to its own path, and its body has what was given and nothing else."""
    call, body, answer = SENT[name]
    route = autumn.post(f"/{name.partition(',')[0]}").respond(json=answer)
    await call(client)
    assert route.call_count == 1
    assert json.loads(route.calls.last.request.content) == body


def test_the_table_covers_every_operation() -> None:
    """A new operation cannot go without the tests above and below."""
    groups = vars(Operations(AutumnClient(AutumnSettings(_env_file=None), secret_key=KEY).plans._caller))
    operations = {
        f"{group}.{name}"
        for group, kind in groups.items()
        if group not in {"call", "get"}
        for name in vars(type(kind))
        if name[0] != "_"
    }
    operations -= {*IN_SEVERAL_STEPS, *SAME_AS}
    assert {name.partition(",")[0] for name in SENT} == operations
    assert set(MODELS) == operations - NOT_RECORDED


async def test_sends_the_documented_headers(client: AutumnClient, autumn: Any) -> None:
    """The key, the version whose answers are understood, JSON, and an idempotency key where one was given."""
    route = autumn.post("/balances.track").respond(json=TRACKED)
    await client.balances.track("ada", feature_id="ai_usage", idempotency_key="k1")
    sent = route.calls.last.request.headers
    assert sent["authorization"] == f"Bearer {KEY}"
    assert sent["x-api-version"] == "2.3.0"
    assert sent["content-type"] == "application/json"
    assert sent["idempotency-key"] == "k1"
    assert sent["host"] == "autumn.example"
    assert int(sent["content-length"]) == len(route.calls.last.request.content)


@pytest.mark.parametrize("key", [None, ""])
async def test_sends_no_empty_idempotency_key(key: str | None, client: AutumnClient, autumn: Any) -> None:
    """An empty key protects nothing, so it is no key."""
    route = autumn.post("/balances.track").respond(json=TRACKED)
    await client.balances.track("ada", feature_id="ai_usage", idempotency_key=key)
    assert "idempotency-key" not in route.calls.last.request.headers


async def test_sends_json_whatever_the_properties_hold(client: AutumnClient, autumn: Any) -> None:
    """Autumn reads a body that is no JSON as an empty one, so no NaN may get into it; a decimal keeps its digits."""
    route = autumn.post("/balances.track").respond(json=TRACKED)
    properties = {"score": float("nan"), "cost": Decimal("0.10"), "text": "\u2028 🦊"}
    await client.balances.track("ada", feature_id="ai_usage", properties=properties)
    sent = json.loads(route.calls.last.request.content, parse_constant=pytest.fail)
    assert sent["properties"] == {"score": None, "cost": "0.10", "text": "\u2028 🦊"}


async def test_keeps_the_key_of_autumn_on_a_client_with_other_credentials(
    settings: AutumnSettings, autumn: Any
) -> None:
    """An application's client may sign in elsewhere by default; Autumn gets Autumn's key, at Autumn's address."""
    route = autumn.post("/plans.list").respond(json={"list": []})
    async with httpx.AsyncClient(
        base_url="https://elsewhere.example", auth=("user", "password"), headers={"x-api-version": "1"}
    ) as passed_in:
        await AutumnClient(settings, http_client=passed_in).plans.list()
    sent = route.calls.last.request.headers
    assert (sent["authorization"], sent["x-api-version"]) == (f"Bearer {KEY}", "2.3.0")


async def test_leaves_a_client_that_was_passed_in_open(settings: AutumnSettings, autumn: Any) -> None:
    """Who opens a client closes it; its hooks see every call."""
    seen: list[str] = []

    async def hook(request: httpx.Request) -> None:
        seen.append(request.url.path)

    autumn.post("/plans.list").respond(json={"list": []})
    async with httpx.AsyncClient(event_hooks={"request": [hook]}) as passed_in:
        client = AutumnClient(settings, http_client=passed_in)
        await client.plans.list()
        await client.aclose()
        assert not passed_in.is_closed
    assert seen == ["/v1/plans.list"]


async def test_does_not_follow_redirects(settings: AutumnSettings, autumn: Any) -> None:
    """A redirect would carry the key elsewhere, so it is an error, even on a client that follows them."""
    autumn.post("/plans.list").respond(302, headers={"location": "https://elsewhere.example/"})
    async with httpx.AsyncClient(follow_redirects=True) as passed_in:
        client = AutumnClient(settings, http_client=passed_in)
        with pytest.raises(UnexpectedAnswer, match="status 302 that is not Autumn's"):
            await client.plans.list()


def test_reads_every_recorded_answer() -> None:
    """The models take each answer that the real Autumn gave, and each field holds what was recorded, to the digit."""
    answers = recorded_answers()
    assert len(answers) > 800
    unrecorded = set(MODELS) - {operation for operation, _ in answers}
    assert unrecorded <= NO_RECORDING
    for operation, answer in answers:
        text = json.dumps(answer)
        read = MODELS[operation].model_validate_json(text).model_dump(mode="python", exclude_unset=True)
        assert differences(read, json.loads(text, parse_float=Decimal)) == []


async def test_reads_a_check(client: AutumnClient, autumn: Any) -> None:
    """A recorded answer, field by field: one name for one thing, decimals for amounts, milliseconds for times."""
    autumn.post("/balances.check").respond(
        content=b'{"allowed":true,"customer_id":"c3","required_balance":5,"balance":{"feature_id":"ai_credits",'
        b'"granted":50,"remaining":45,"usage":5,"unlimited":false,"overage_allowed":false,"max_purchase":null,'
        b'"next_reset_at":1798024643040,"breakdown":[{"id":"cus_ent_3MVPD","plan_id":"free","included_grant":50,'
        b'"prepaid_grant":0,"remaining":45,"usage":5,"unlimited":false,"reset":{"interval":"month",'
        b'"resets_at":1798024643040},"price":null,"expires_at":null}]},"balances":{"ai_usage":null},"flag":null}'
    )
    result = await client.balances.check("c3", "ai_usage", required_balance=5, send_event=True)
    assert result == models.CheckResult(
        allowed=True,
        customer_id="c3",
        required_balance=Decimal(5),
        balance=models.Balance(
            feature_id="ai_credits",
            granted=Decimal(50),
            remaining=Decimal(45),
            usage=Decimal(5),
            unlimited=False,
            overage_allowed=False,
            next_reset_at=1798024643040,
            breakdown=(
                models.BalanceBreakdown(
                    id="cus_ent_3MVPD",
                    plan_id="free",
                    included_grant=Decimal(50),
                    remaining=Decimal(45),
                    usage=Decimal(5),
                    reset=models.Reset(interval="month", resets_at=1798024643040),
                ),
            ),
        ),
    )


async def test_tolerates_fields_it_does_not_know(client: AutumnClient, autumn: Any) -> None:
    """A newer Autumn may say more, at any depth, without breaking an older package."""
    balance = {**ALLOWED["balance"], "colour": "green", "breakdown": [{"shade": 1}]}
    autumn.post("/balances.check").respond(json={**ALLOWED, "balance": balance, "moon": {"phase": 3}})
    result = await client.balances.check("ada", "ai_usage")
    assert result.balance is not None
    assert result.balance.remaining == 45


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b'{"customer_id": "ada@private.example", "balance": null}', "allowed"),
        (b'{"allowed": true, "balance": null}', "customer_id"),
        (b'{"allowed": true, "customer_id": "ada@private.example"}', "balance"),
        (b'{"allowed": "ada@private.example", "customer_id": null}', "allowed, balance"),
        (b'{"allowed": true, "customer_id": "ada", "balance": {"granted": "ada@private.example"}}', "balance.granted"),
        (b'{"allowed": true, "customer_id": "ada", "balance": {"granted": NaN}}', "balance.granted"),
        (b'["ada@private.example"]', "the body"),
        (b"<html>ada@private.example</html>", "the body"),
        (b'{"allowed": true, "customer_id": "ada@private.exam', "the body"),
        (b"\xff\xfe", "the body"),
        (b"", "the body"),
    ],
)
async def test_names_the_fields_of_an_answer_that_is_not_as_documented(
    content: bytes, named: str, client: AutumnClient, autumn: Any
) -> None:
    """What is missing or of another type is named, so that it can be reported; what a customer typed is not."""
    autumn.post("/balances.check").respond(content=content)
    with pytest.raises(UnexpectedAnswer) as refused:
        await client.balances.check("ada@private.example", "ai_usage")
    assert named in str(refused.value)
    assert "private" not in str(refused.value)
    assert refused.value.__cause__ is None


async def test_other_operations_go_through_call(client: AutumnClient, autumn: Any) -> None:
    """What has no method here is still one line away, with the same errors."""
    route = autumn.post("/entities.get").respond(json={"id": "e1"})
    answer = await client.call("entities.get", {"customer_id": "ada", "entity_id": "e1"})
    assert answer.body == b'{"id":"e1"}'
    assert json.loads(route.calls.last.request.content) == {"customer_id": "ada", "entity_id": "e1"}


async def test_reads_paths_too(client: AutumnClient, autumn: Any) -> None:
    """The few things that Autumn answers to a GET come with the key, and without a body."""
    route = autumn.get("/organization/me").respond(json={"name": "Acme"})
    assert (await client.get("organization/me")).body == b'{"name":"Acme"}'
    sent = route.calls.last.request
    assert (sent.content, sent.headers["authorization"]) == (b"", f"Bearer {KEY}")


async def test_reads_the_events_of_one_charge(client: AutumnClient, autumn: Any) -> None:
    """Count and sum come as Autumn adds them up, and a charge without events is none and nothing."""
    autumn.post("/events.aggregate").respond(json={"list": [], "total": {"ai_usage": {"count": 2, "sum": -0.1}}})
    found = await client.events.aggregate("ada", "ai_usage", filter_by={"charge_id": "c1"}, start=0, end=1)
    assert found.of("ai_usage") == models.EventTotal(count=2, sum=Decimal("-0.1"))
    assert found.of("ai_credits") == models.EventTotal(count=0, sum=Decimal(0))


@pytest.mark.parametrize("span", [{"start": 0}, {"end": 1}, {"start": 0, "end": 1, "range": "7d"}])
async def test_aggregates_over_one_span(span: Any, client: AutumnClient) -> None:
    """Half a span, or two of them, would silently add up something else."""
    with pytest.raises(ValueError, match="a range, or a start and an end"):
        await client.events.aggregate("ada", "ai_usage", **span)


async def test_closes_what_it_opened_when_its_block_ends(settings: AutumnSettings, autumn: Any) -> None:
    """`async with` is how a script has a client for a while."""
    autumn.post("/plans.list").respond(json={"list": []})
    async with AutumnClient(settings) as client:
        assert await client.plans.list() == ()
        closed: list[str] = []
        close = client._transport.aclose

        async def aclose() -> None:
            closed.append("closed")
            await close()

        client._transport.aclose = aclose  # type: ignore[method-assign]
    assert closed == ["closed"]


def test_needs_a_key() -> None:
    """A client that could only be refused is not made."""
    with pytest.raises(ConfigurationError, match="set AUTUMN_SECRET_KEY"):
        AutumnClient(AutumnSettings(_env_file=None))


def test_takes_one_way_to_autumn(settings: AutumnSettings) -> None:
    """With a client and a transport nobody could tell which one is used."""
    transport = HttpxTransport("http://localhost", timeout=1, connect_timeout=1)
    with pytest.raises(ConfigurationError, match="not both"):
        AutumnClient(settings, http_client=httpx.AsyncClient(), transport=transport)


async def test_leaves_a_transport_that_was_passed_in_open(settings: AutumnSettings) -> None:
    """As with a client: who opens it closes it."""
    closed: list[str] = []

    class Counting(HttpxTransport):
        async def aclose(self) -> None:
            closed.append("closed")

    await AutumnClient(settings, transport=Counting("http://localhost", timeout=1, connect_timeout=1)).aclose()
    assert closed == []


def test_takes_a_key_of_its_own(settings: AutumnSettings) -> None:
    """The key that is passed in wins over that of the settings, which may have none."""
    client = AutumnClient(AutumnSettings(_env_file=None), secret_key=KEY)
    assert client.customers is not None
    assert SecretStr(KEY) == settings.secret_key
