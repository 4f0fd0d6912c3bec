"""`AUTUMN_MODE=observe`: all is looked up, logged and counted; nobody is refused and nothing is taken."""

import asyncio
import logging
from typing import Annotated

import pytest
from fastapi import Depends, HTTPException, WebSocket

from fastapi_autumn import Charge, CreditGate, ModelCharge
from fastapi_autumn.charge import Budget
from fastapi_autumn.emulator import Fault
from fastapi_autumn.pricing import tokens
from service import Service

PRICES = {"small": 1, "dear": 500, "metered": tokens(input=1000, output=1000)}


def observing(folder, **options):
    """A service that observes, with a route that says which model it was charged for."""
    service = Service(folder, prices=PRICES, mode="observe", **options)

    @service.app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> str:
        if charge.model == "small":
            charge.settle(3)
        charge.used(input=10, output=5)
        return charge.model

    return service


@pytest.fixture
def service(tmp_path):
    return observing(tmp_path)


async def moved(service):
    """What Autumn's books say has moved: usage, events and holds."""
    usage = await service.used()
    events = service.emulator.call("events.list", {"customer_id": "ada"})["list"]
    return usage, events


@pytest.mark.parametrize(
    ("body", "user", "told"),
    [
        ({"model": "small"}, "ada", "allowed"),
        ({"model": "metered", "max_tokens": 5}, "ada", "allowed"),
        ({"model": "dear"}, "ada", "insufficient_credits"),
        ({"model": "metered", "max_tokens": 90_000}, "ada", "insufficient_credits"),
        ({"model": "metered"}, "ada", "unbounded"),
        ({"model": "nonsense"}, "ada", "unknown_model"),
        ({"model": ["small"]}, "ada", "invalid_model"),
        ({"model": "small"}, "", "not_authenticated"),
    ],
)
async def test_nobody_is_refused_and_nothing_moves(service, caplog, body, user, told):
    """Each call is served; the header and the log say what would have become of it, and the books stay as they were."""
    with caplog.at_level(logging.WARNING, "fastapi_autumn"):
        async with service.calling() as client:
            response = await client.post("/ai/chat", json=body, headers={"x-user": user})
            assert (response.status_code, response.headers["autumn-observed"]) == (200, told)
            assert "autumn-credits-charged" not in response.headers
            assert await moved(service) == (0, [])
    refusals = [record.getMessage() for record in caplog.records if record.getMessage().startswith("observed: a ")]
    assert all(told in line for line in refusals)
    assert bool(refusals) is (told != "allowed")


async def test_it_says_so_at_the_start(service, caplog):
    """Nobody observes by accident: a warning stands in the log of each start."""
    async with service.calling():
        assert "AUTUMN_MODE is observe: nobody is refused and nothing is taken." in caplog.text


async def test_what_a_call_would_have_cost_is_in_the_log(service, caplog):
    """A settled call at what it was settled at, a metered one at what it used, a failed one at nothing."""

    @service.app.post("/ai/fail")
    async def fail(charge: ModelCharge) -> str:
        raise HTTPException(500)

    with caplog.at_level(logging.INFO, "fastapi_autumn"):
        async with service.calling() as client:
            await client.post("/ai/chat", json={"model": "small"})
            await client.post("/ai/chat", json={"model": "metered", "max_tokens": 5})
            await client.post("/ai/fail", json={"model": "small"})
    lines = [record.getMessage() for record in caplog.records if "would have cost" in record.getMessage()]
    assert [line.split("would have cost ")[1].split(" ")[0] for line in lines] == ["3", "0.015", "0"]


@pytest.mark.parametrize("kind", ["fail", "unverified", "drop"])
async def test_an_outage_of_autumn_refuses_nobody(service, kind):
    """A service that only observes does not depend on Autumn."""
    async with service.calling() as client:
        service.emulator.faults.add("balances.check", Fault(kind=kind))
        response = await client.post("/ai/chat", json={"model": "small"})
        assert (response.status_code, response.headers["autumn-observed"]) == (200, "billing_unavailable")
        service.emulator.faults.clear()
        assert await moved(service) == (0, [])


async def test_plans_keys_and_large_bodies(tmp_path):
    """What a plan does not include, a key that was answered, and a body over the limit go through as well."""
    service = observing(tmp_path, max_body_bytes=30)
    OnPro = Annotated[Charge, Depends(CreditGate(plans=["pro"]))]  # noqa: N806 - a type

    @service.app.post("/ai/pro")
    async def pro(charge: OnPro) -> str | None:
        return charge.would_refuse

    async with service.calling() as client:
        response = await client.post("/ai/pro", json={"model": "small"})
        assert (response.json(), response.headers["autumn-observed"]) == ("not_entitled", "not_entitled")
        for _ in range(2):
            body = {"model": "small", "prompt": "x" * 100}
            response = await client.post("/ai/chat", json=body, headers={"Idempotency-Key": "one"})
            assert (response.status_code, response.headers["autumn-observed"]) == (200, "allowed")
        assert await moved(service) == (0, [])


async def test_budgets_let_their_steps_through(service, caplog):
    """A budget that nobody could pay, and steps that do not fit into one, are noted and go through."""

    @service.app.post("/ai/run")
    async def run(budget: Annotated[Budget, Depends(CreditGate(budget=2))]) -> int:
        for _ in range(3):
            async with budget.step("small"):
                pass
        return len(budget.steps)

    @service.app.post("/ai/nobody")
    async def nobody(budget: Annotated[Budget, Depends(CreditGate(budget=900))]) -> int:
        async with budget.step("dear"):
            pass
        return len(budget.steps)

    async with service.calling() as client:
        assert (await client.post("/ai/run")).json() == 3
        assert caplog.text.count("budget_exceeded") == 1
        response = await client.post("/ai/nobody")
        assert (response.json(), response.headers["autumn-observed"]) == (1, "insufficient_credits")
        assert (await client.post("/ai/nobody", headers={"x-user": ""})).json() == 1
        assert await moved(service) == (0, [])


async def test_the_other_doors_observe_as_well(service):
    """`autumn.charge`, `autumn.budget` and a WebSocket of nobody's take nothing and refuse nobody."""

    @service.app.websocket("/ai/talk")
    async def talk(socket: WebSocket, charge: Annotated[Charge, Depends(CreditGate(model=lambda: "dear"))]) -> None:
        await socket.accept()
        await socket.send_json(charge.would_refuse)

    async with service.calling():
        async with service.autumn.charge("ada", "dear") as charge:
            assert (charge.would_refuse, charge.credits) == ("insufficient_credits", 500)
        async with service.autumn.budget("ada", 900) as budget, budget.step("dear"):
            assert budget.would_refuse == "insufficient_credits"
        with pytest.raises(ZeroDivisionError):
            async with service.autumn.charge("ada", "small"):
                _ = 1 / 0
        sent: asyncio.Queue[dict] = asyncio.Queue()
        scope = {"type": "websocket", "path": "/ai/talk", "raw_path": b"/ai/talk", "query_string": b"", "headers": []}
        incoming = iter([{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1000}])

        async def receive():
            return next(incoming)

        await service.app({**scope, "app": service.app, "subprotocols": [], "root_path": ""}, receive, sent.put)
        kinds = [(await sent.get())["type"] for _ in range(2)]
        assert kinds == ["websocket.accept", "websocket.send"]
        assert await moved(service) == (0, [])


async def test_an_identify_that_refuses_is_noted_too(tmp_path):
    """What `identify` raises for a caller would refuse them, so it does not while the service observes."""

    def nobody(connection):
        raise HTTPException(403, "not you")

    service = observing(tmp_path, identify=nobody)
    async with service.calling() as client:
        response = await client.post("/ai/chat", json={"model": "small"})
        assert (response.status_code, response.headers["autumn-observed"]) == (200, "not_authenticated")
