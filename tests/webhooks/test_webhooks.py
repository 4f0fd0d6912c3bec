"""The route that Autumn's webhooks call: what is taken for Autumn's, and that each message is handled once."""

import asyncio
import base64
from typing import Any

import pytest
from pydantic import TypeAdapter
from svix.webhooks import Webhook

from fastapi_autumn import Autumn, AutumnSettings, Customer, ModelCharge
from fastapi_autumn.emulator import EMULATOR_WEBHOOK_SECRET
from fastapi_autumn.errors import ConfigurationError
from fastapi_autumn.webhooks import (
    AutoTopUpFailed,
    AutoTopUpSucceeded,
    BillingUpdated,
    LimitReached,
    ProductsUpdated,
    UsageAlertTriggered,
    WebhookEvent,
)
from service import Service, until
from webhooks.conftest import SAMPLES, SECRET, sample, signed

PATH = "/webhooks/autumn"
REACHED = {
    "type": "balances.limit_reached",
    "data": {"customer_id": "ada", "feature_id": "ai_credits", "limit_type": "included"},
}
OTHER_SECRET = "whsec_" + base64.b64encode(b"another secret of the endpoint").decode()


class Hooked:
    """A service with webhooks, and what its handler got."""

    def __init__(self, folder: Any, **options: Any) -> None:
        self.service = Service(folder, **options)
        self.hooks = self.service.autumn.webhooks(secrets=[SECRET])
        self.got: list[WebhookEvent] = []
        self.failures = 0

        @self.hooks.on()
        async def keep(event: WebhookEvent) -> None:
            self.got.append(event)
            if self.failures:
                self.failures -= 1
                raise RuntimeError("the handler's own failure")

        self.service.app.include_router(self.hooks)

    def calling(self) -> Any:
        return self.service.calling()


@pytest.fixture
def hooked(tmp_path):
    return Hooked(tmp_path)


@pytest.mark.parametrize("names", ["svix", "webhook"])
async def test_what_the_senders_own_library_signs_is_accepted(hooked, names):
    """A message that `svix` signed is handled, under its own header names and those of Standard Webhooks."""
    async with hooked.calling() as client:
        answer = await client.post(PATH, **signed(REACHED, message_id="msg_1", names=names))

    assert (answer.status_code, answer.content) == (204, b"")
    (event,) = hooked.got
    assert isinstance(event, LimitReached)
    assert (event.customer_id, event.limit_type, event.message_id) == ("ada", "included", "msg_1")


def tampered() -> dict[str, Any]:
    message = signed(REACHED)
    return message | {"content": message["content"].replace("ada", "eve")}


def headed(**headers: str) -> dict[str, Any]:
    message = signed(REACHED)
    return message | {"headers": message["headers"] | {f"svix-{name}": value for name, value in headers.items()}}


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(lambda: {"json": REACHED}, id="unsigned"),
        pytest.param(lambda: signed(REACHED, secret=OTHER_SECRET), id="another secret"),
        pytest.param(tampered, id="another body"),
        pytest.param(lambda: headed(id="msg_other"), id="another id"),
        pytest.param(lambda: signed(REACHED, seconds_ago=301), id="old"),
        pytest.param(lambda: signed(REACHED, seconds_ago=-310), id="of the future"),
        pytest.param(lambda: headed(timestamp="nan"), id="a time that is none"),
        pytest.param(lambda: headed(timestamp="-1"), id="a negative time"),
        pytest.param(lambda: headed(signature="v1"), id="a signature without a value"),
        pytest.param(lambda: headed(signature="v1,"), id="an empty signature"),
        pytest.param(lambda: headed(signature="v1,\xff\xff"), id="bytes that are no text"),
        pytest.param(lambda: headed(signature=" ".join(["v1,AAAA"] * 5000)), id="thousands of signatures"),
    ],
)
async def test_what_is_not_autumns_is_refused(hooked, message):
    """No signature, a wrong one, or one of another time is a 401, and nothing is done."""
    sent = message()
    headers = {name: value.encode("latin-1") for name, value in sent.get("headers", {}).items()}
    async with hooked.calling() as client:
        answer = await client.post(PATH, **sent | {"headers": headers})

    assert answer.status_code == 401
    assert answer.json()["detail"]["code"] == "webhook_not_verified"
    assert hooked.got == []


async def test_a_replay_is_refused(hooked):
    """A copy of what was handled is a 401; the sender's own next attempt, signed anew, is told that all is well."""
    first = signed(REACHED, message_id="msg_1", seconds_ago=10)
    async with hooked.calling() as client:
        answers = [
            await client.post(PATH, **message) for message in (first, first, signed(REACHED, message_id="msg_1"), first)
        ]

    assert [answer.status_code for answer in answers] == [204, 401, 204, 401]
    assert answers[1].json()["detail"]["code"] == "webhook_replayed"
    assert len(hooked.got) == 1


@pytest.mark.parametrize("given", [(SECRET,), (OTHER_SECRET,)])
async def test_a_secret_may_be_rotated(tmp_path, given):
    """While both secrets are set, what either of them signed is accepted."""
    service = Service(tmp_path, webhook_secret=f"{SECRET}, {OTHER_SECRET}")
    service.app.include_router(service.autumn.webhooks())
    async with service.calling() as client:
        answer = await client.post(PATH, **signed(REACHED, secret=given[0]))

    assert answer.status_code == 204


@pytest.mark.parametrize("secret", ["", "C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_", "whsec_not base64"])
def test_a_secret_that_is_none_stops_the_service(secret):
    """A missing or mistyped secret is said at start-up, without its value."""
    settings = AutumnSettings(_env_file=None, secret_key="am_sk_test_0123456789")
    with pytest.raises(ConfigurationError, match="AUTUMN_WEBHOOK_SECRET") as raised:
        Autumn(settings, prices={"small": 1}).webhooks(secrets=[secret] if secret else None)

    assert "C2FV" not in str(raised.value)
    assert "base64" not in str(raised.value)


async def test_a_message_sent_thrice_to_two_workers_is_handled_once(tmp_path):
    """Two workers on one database, one message at each three times at once: one handler runs, once."""
    first, second = Hooked(tmp_path), Hooked(tmp_path)
    entered, leave = asyncio.Event(), asyncio.Event()

    @first.hooks.on()
    @second.hooks.on()
    async def stay(event: WebhookEvent) -> None:
        entered.set()
        await leave.wait()

    message = signed(REACHED, message_id="msg_1", seconds_ago=2)
    async with first.calling() as one, second.calling() as two:
        sent = [asyncio.create_task(client.post(PATH, **message)) for client in (one, two) * 3]
        await entered.wait()
        refused = [task for task in sent if task.done()]
        while len(refused) < 5:
            await asyncio.sleep(0.01)
            refused = [task for task in sent if task.done()]
        leave.set()
        answers = await asyncio.gather(*sent)
        again = await two.post(PATH, **signed(REACHED, message_id="msg_1"))

    assert sorted(answer.status_code for answer in answers) == [204, 503, 503, 503, 503, 503]
    assert {answer.headers.get("retry-after") for answer in answers if answer.status_code == 503} == {"5"}
    assert again.status_code == 204
    assert len(first.got) + len(second.got) == 1


async def test_a_handler_that_raises_gets_the_message_again(hooked):
    """The sender hears of the failure, and its next attempt is handled anew; then it is done."""
    hooked.failures = 2
    async with hooked.calling() as client:
        answers = [
            await client.post(PATH, **signed(REACHED, message_id="msg_1", seconds_ago=ago)) for ago in (9, 6, 3, 0)
        ]

    assert [answer.status_code for answer in answers] == [500, 500, 204, 204]
    assert answers[0].json()["detail"]["code"] == "webhook_failed"
    assert "own failure" not in answers[0].text
    assert len(hooked.got) == 3


async def test_a_handler_that_is_cancelled_gets_the_message_again(hooked):
    """A server that stops in the middle of a handler leaves the message to be handled at the next attempt."""
    entered = asyncio.Event()

    @hooked.hooks.on()
    async def stay(event: WebhookEvent) -> None:
        if not entered.is_set():
            entered.set()
            await asyncio.Event().wait()

    async with hooked.calling() as client:
        sent = asyncio.create_task(client.post(PATH, **signed(REACHED, message_id="msg_1", seconds_ago=5)))
        await entered.wait()
        sent.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sent
        answer = await client.post(PATH, **signed(REACHED, message_id="msg_1"))

    assert answer.status_code == 204
    assert len(hooked.got) == 2


async def test_without_the_database_nothing_is_handled(hooked):
    """A message that cannot be noted is not handled: the sender is told to come back."""
    from sqlalchemy.exc import OperationalError

    async with hooked.calling() as client:
        store = hooked.service.autumn.outbox.store
        begin = store.begin

        def away() -> Any:
            raise OperationalError("BEGIN", {}, Exception("postgresql://user:password@host is away"))

        store.begin = away
        answer = await client.post(PATH, **signed(REACHED))
        store.begin = begin

    assert answer.status_code == 503
    assert answer.json()["detail"]["code"] == "webhook_not_noted"
    assert hooked.got == []


def test_every_message_of_a_running_autumn_has_its_class():
    """The recorded messages are read as what they are, with their own fields."""
    from fastapi_autumn.webhooks._events import read_event

    classes = {kind.TYPE: kind for kind in (BillingUpdated, LimitReached, UsageAlertTriggered, ProductsUpdated)}
    for message in SAMPLES:
        event = read_event("msg_1", TypeAdapter(Any).dump_json(message))
        assert type(event) is classes[message["type"]]
        assert event.about in {message["data"].get("customer_id"), message["data"].get("customer", {}).get("id")}
        assert event.data == message["data"]
    updated = read_event("msg_1", TypeAdapter(Any).dump_json(sample("billing.updated")))
    assert isinstance(updated, BillingUpdated)
    (change,) = updated.plan_changes
    assert (change.action, change.subscription and change.subscription.plan_id) == ("activated", "free")


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (AutoTopUpSucceeded, {"quantity_granted": 100, "threshold": 10, "balance_after": 104.5, "invoice_mode": False}),
        (AutoTopUpFailed, {"reason": "charge_failed", "quantity": 100, "threshold": 10, "balance": 4}),
    ],
)
async def test_top_ups_have_their_classes(hooked, kind, more):
    """What is told of an automatic top-up is read, although more stands beside type and data."""
    data = {"customer_id": "ada", "feature_id": "ai_credits", **more}
    async with hooked.calling() as client:
        await client.post(PATH, **signed({"id": "evt_1", "occurred_at": 1, "type": kind.TYPE, "data": data}))

    (event,) = hooked.got
    assert type(event) is kind
    assert event.threshold == 10


async def test_types_that_nobody_knows_are_tolerated(hooked):
    """A newer Autumn's event is a plain one with all of its data, and one that nobody handles is fine."""
    got = []
    hooked.hooks.on("balances.newer")(got.append)
    async with hooked.calling() as client:
        for kind in ("balances.newer", "vercel.resources.provisioned"):
            answer = await client.post(PATH, **signed({"type": kind, "data": {"a": [1]}, "more": True}))
            assert answer.status_code == 204

    assert [(event.type, event.data) for event in got] == [("balances.newer", {"a": [1]})]
    assert len(hooked.got) == 2


@pytest.mark.parametrize("body", ["[]", "{}", "not JSON", '{"type": "balances.limit_reached", "data": {}}'])
async def test_what_cannot_be_read_is_sent_again(hooked, body):
    """A signed message of a shape that this version does not know is not lost: Autumn goes on sending it."""
    async with hooked.calling() as client:
        assert (await client.post(PATH, **signed(body))).status_code == 500
    assert hooked.got == []


async def test_handlers_are_chosen_by_class_and_may_be_plain_functions(hooked):
    """Each handler gets the events that it asked for, in the order of registration."""
    got: list[str] = []

    @hooked.hooks.on(LimitReached, "balances.usage_alert_triggered")
    def plain(event: Any) -> None:
        got.append(f"plain {event.type}")

    @hooked.hooks.on(BillingUpdated)
    async def billing(event: BillingUpdated) -> None:
        got.append("billing")

    async with hooked.calling() as client:
        for kind in ("balances.limit_reached", "balances.usage_alert_triggered", "billing.updated"):
            await client.post(PATH, **signed(sample(kind)))

    assert got == ["plain balances.limit_reached", "plain balances.usage_alert_triggered", "billing"]


async def test_a_huge_message_is_refused(hooked):
    """A body over a megabyte is not read to its end."""
    async with hooked.calling() as client:
        answer = await client.post(PATH, content=b"x" * (1024 * 1024 + 1))

    assert answer.status_code == 413


async def test_what_changed_at_autumn_is_forgotten_here(tmp_path):
    """After a purchase the customer is looked at anew, and so are the plans on offer, before their time."""
    hooked = Hooked(tmp_path, ensure_ttl=3600.0)
    service = hooked.service
    service.app.include_router(service.autumn.router(public_plans=True))

    @service.app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> str:
        return "served"

    async with hooked.calling() as client:
        await client.post("/ai/chat", json={"model": "small"})
        await client.get("/billing/plans")
        emulator = service.emulator
        emulator.call("plans.update", {"plan_id": "pro", "name": "Pro, renamed"})
        before = {plan["name"] for plan in (await client.get("/billing/plans")).json()}
        known = service.autumn._now_running.customers.has_seen(Customer("ada"))
        updated = {"type": "billing.updated", "data": {"customer_id": "ada", "plan_changes": []}}
        await client.post(PATH, **signed(updated))

        assert known
        assert not service.autumn._now_running.customers.has_seen(Customer("ada"))
        assert "Pro, renamed" not in before

        async def renamed() -> bool:
            return "Pro, renamed" in {plan["name"] for plan in (await client.get("/billing/plans")).json()}

        # Plans are asked for at most once a second, and without the message once a minute.
        await until(renamed, seconds=30)
        assert (await client.post("/ai/chat", json={"model": "small"})).status_code == 200


async def test_what_the_emulator_signs_is_accepted_here_and_by_the_senders_library(tmp_path):
    """A customer uses up what they have: what the emulator would tell of it passes both checks, and is handled."""
    service = Service(tmp_path)
    hooks, got = service.autumn.webhooks(), []
    hooks.on(LimitReached)(got.append)
    service.app.include_router(hooks)

    @service.app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> str:
        return "served"

    async with service.calling() as client:
        for _ in range(10):
            await client.post("/ai/chat", json={"model": "large"})
        (message,) = service.emulator.messages
        headers, body = service.emulator.signed(message)
        Webhook(EMULATOR_WEBHOOK_SECRET).verify(body, headers)
        assert (await client.post(PATH, content=body, headers=headers)).status_code == 204

    assert [(event.customer_id, event.limit_type) for event in got] == [("ada", "included")]
