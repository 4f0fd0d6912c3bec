"""Routes that charge by use: the issue's example against a fake provider that streams usage, and budgets."""

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Annotated, Any

import pytest
from fastapi import Body, Depends
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from fastapi_autumn import Charge, CreditGate, ModelCharge
from fastapi_autumn.charge import Budget
from fastapi_autumn.errors import BudgetExceeded
from fastapi_autumn.gate import with_cost
from fastapi_autumn.pricing import images, tokens
from service import Service, until

PRICES = {
    "gpt-4o-mini": 1,
    "gpt-4o": tokens(input=2500, output=10_000, cached=1250),
    "dall-e-3": images({"1024x1024": 4, "1792x1024": 8}, default="1024x1024"),
}
ASKS = {"model": "gpt-4o", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 500}
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 40},
}
"""0.15 + 0.05 for what is read, 0.2 for what is written."""


class AskedOfModel(BaseModel):
    model: str = "gpt-4o"
    messages: list[dict[str, Any]] = []
    max_tokens: int = 500


class StreamOfModel:
    """A model that streams as OpenAI does, and ends as the test says."""

    def __init__(self, end: str) -> None:
        self.end = end

    async def chunks(self) -> AsyncIterator[dict[str, Any]]:
        for number in range(10):
            yield {"id": "chatcmpl-1", "choices": [{"delta": {"content": f"word {number} "}}], "usage": None}
        if self.end == "breaks":
            raise ConnectionError("the provider went away")
        if self.end != "no usage":
            yield {"id": "chatcmpl-1", "choices": [], "usage": USAGE}


def chat_service(tmp_path: Any, end: str, gate: CreditGate | None = None) -> Service:
    service = Service(tmp_path, prices=PRICES)
    provider = StreamOfModel(end)

    @service.app.post("/ai/chat")
    async def chat(body: AskedOfModel, charge: Annotated[Charge, Depends(gate or CreditGate())]) -> StreamingResponse:
        async def words() -> AsyncIterator[str]:
            async for chunk in provider.chunks():
                charge.used(chunk["usage"], response_id=chunk["id"])
                for choice in chunk["choices"]:
                    charge.passed(choice["delta"]["content"], response_id=chunk["id"])
                    yield choice["delta"]["content"]

        return StreamingResponse(words(), media_type="text/plain")

    return service


@pytest.mark.parametrize(
    ("end", "status", "used"),
    [
        ("well", 200, "0.4"),
        ("no usage", 200, "a quarter of the body's bytes, and 18 tokens for 70 characters"),
        ("breaks", 200, "0"),
    ],
)
async def test_a_stream_is_charged_for_what_it_used(tmp_path, end, status, used):
    """Ends well: what was used, cached tokens apart. No usage: what passed. Breaks: nothing."""
    service = chat_service(tmp_path, end)
    async with service.calling() as client:
        response = await client.post("/ai/chat", json=ASKS)
        assert response.status_code == status
        # What a stream will use cannot be said when it begins.
        assert "autumn-credits-charged" not in response.headers
        body_bytes = len(json.dumps(ASKS, separators=(",", ":")).encode())
        passed = -(-body_bytes // 4) * Decimal("0.0025") + Decimal("0.18")
        expected = passed if end == "no usage" else Decimal(used)
        assert await service.used() == expected


async def test_a_stream_that_breaks_and_is_paid(tmp_path):
    """Where the gate says so, a failure costs what passed by then."""
    service = chat_service(tmp_path, "breaks", CreditGate(failed="used"))
    async with service.calling() as client:
        await client.post("/ai/chat", json=ASKS)
        assert await service.used() > Decimal("0.18")


async def test_a_caller_who_hangs_up(tmp_path):
    """They pay what was used so far: what the first report said, and what passed since."""
    service = Service(tmp_path, prices=PRICES)
    left = asyncio.Event()

    @service.app.post("/ai/chat")
    async def chat(body: AskedOfModel, charge: ModelCharge) -> StreamingResponse:
        async def words() -> AsyncIterator[str]:
            try:
                charge.used({"type": "message_start", "message": {"id": "m", "usage": {"input_tokens": 100}}})
                while True:
                    charge.passed("word", response_id="m")
                    yield "word"
                    await asyncio.sleep(0.01)
            finally:
                left.set()

        return StreamingResponse(words(), media_type="text/plain")

    async with service.serving() as client:
        async with client.stream("POST", "/ai/chat", json=ASKS) as response:
            await anext(aiter(response.aiter_raw()))
        await left.wait()
        await until(lambda: service.emulator.call("customers.get", {"customer_id": "ada"}))
        used = await service.used()
        events = await service.autumn.client.events.list(customer_id="ada")
        (settled,) = [event for event in events.list if "reason" in event.properties]
    assert (settled.properties["reason"], settled.properties["counted"]) == ("client disconnected", "characters/4")
    assert (settled.properties["used_input"], settled.properties["response_ids"]) == (100, ["m"])
    assert used == Decimal("0.25") + settled.properties["used_output"] * Decimal("0.01")


async def test_a_whole_answer_says_what_it_cost(tmp_path):
    """Its cost is known when it begins, so the header is there, and true: what was used, or what was held."""
    service = Service(tmp_path, prices=PRICES)

    @service.app.post("/ai/chat")
    async def chat(body: AskedOfModel, charge: ModelCharge, report: bool = True) -> str:
        if report:
            charge.used({"id": "r", "usage": USAGE})
        return "Hello"

    async with service.calling() as client:
        response = await client.post("/ai/chat", json=ASKS)
        assert response.headers["autumn-credits-charged"] == "0.4"
        assert response.headers["autumn-credits-remaining"] == "49.6"
        response = await client.post("/ai/chat", json=ASKS, params={"report": False})
        assert Decimal(response.headers["autumn-credits-charged"]) > 5


@pytest.mark.parametrize(
    ("body", "code", "field"),
    [
        ({"model": "gpt-4o"}, "unbounded", "max_tokens"),
        ({"model": "gpt-4o", "max_tokens": -1}, "unbounded", "max_tokens"),
        ({"model": "gpt-4o", "max_tokens": 5, "n": "many"}, "unbounded", "n"),
    ],
)
async def test_a_call_without_bounds(tmp_path, body, code, field):
    """It is a 422 that names the field, and nothing is held."""
    service = Service(tmp_path, prices=PRICES)

    @service.app.post("/ai/raw")
    async def raw(charge: ModelCharge) -> str:
        return "never"

    async with service.calling() as client:
        response = await client.post("/ai/raw", json=body)
        assert response.status_code == 422
        assert (response.json()["detail"]["code"], response.json()["detail"]["field"]) == (code, field)
        assert await service.used() == 0


async def test_a_call_that_could_cost_too_much(tmp_path):
    """The 402 says what was asked for, and what it is made of."""
    service = chat_service(tmp_path, "well")
    async with service.calling() as client:
        response = await client.post("/ai/chat", json=ASKS | {"max_tokens": 10_000})
        detail = response.json()["detail"]
        assert (response.status_code, detail["code"], detail["required"] > 100) == (402, "insufficient_credits", True)
        assert (detail["estimate"]["of"], detail["estimate"]["output"]) == ("most", 10_000)
        assert await service.used() == 0


@pytest.mark.parametrize(
    ("body", "used"),
    [
        ({"model": "dall-e-3"}, 4),
        ({"model": "dall-e-3", "size": "1792x1024", "n": 2}, 16),
        ({"model": "dall-e-3", "size": "9x9"}, None),
    ],
)
async def test_pictures(tmp_path, body, used):
    """Size and number are in the request, so what is held is what it costs; another size has no price."""
    service = Service(tmp_path, prices=PRICES)

    @service.app.post("/ai/images")
    async def draw(charge: ModelCharge) -> str:
        return "a picture"

    async with service.calling() as client:
        response = await client.post("/ai/images", json=body)
        assert response.status_code == (422 if used is None else 200)
        assert await service.used() == (used or 0)


async def test_an_amount_from_a_dependency(tmp_path):
    """It sees the validated body, and needs no price."""
    service = Service(tmp_path, prices=PRICES)

    class SoundBody(BaseModel):
        seconds: float

    def by_length(body: SoundBody) -> Decimal:
        return Decimal(str(body.seconds)) / 10

    gate = CreditGate(credits=by_length, default_model="whisper-1")

    @service.app.post("/ai/sound")
    async def transcribe(body: SoundBody, charge: Annotated[Charge, Depends(gate)]) -> str:
        return charge.model

    async with service.calling() as client:
        response = await client.post("/ai/sound", json={"seconds": 25})
        assert (response.json(), response.headers["autumn-credits-charged"]) == ("whisper-1", "2.5")
        assert (await client.post("/ai/sound", json={"seconds": "long"})).status_code == 422
        assert await service.used() == Decimal("2.5")


@pytest.mark.parametrize(
    ("sent", "status", "used"),
    [
        ({"body": {"model": "gpt-4o-mini"}, "options": {}}, 200, 1),
        ({"body": {}, "options": {}}, 200, 1),
        ({"model": "free", "body": {"model": "gpt-4o-mini"}, "options": {}}, 200, 1),
        ({"model": "gpt-4o-mini", "body": {"model": "dear"}, "options": {}}, 400, 0),
        ({"body": {"model": "gpt-4o-mini"}, "options": {"model": "dear"}}, 422, 0),
        ({"body": {"model": "gpt-4o-mini", "model ": 1}, "other": {"model": "dear"}, "options": {}}, 200, 1),
    ],
)
async def test_several_body_parameters(tmp_path, sent, status, used):
    """The model is that of the parameter that the handler gets; what nobody reads does not count, and two are none."""
    service = Service(tmp_path, prices=PRICES)
    gate = CreditGate(default_model="gpt-4o-mini")

    @service.app.post("/ai/two")
    async def two(
        body: AskedOfModel, options: Annotated[dict[str, Any], Body()], charge: Annotated[Charge, Depends(gate)]
    ) -> str:
        return charge.model

    async with service.calling() as client:
        assert (await client.post("/ai/two", json=sent)).status_code == status
        assert await service.used() == used


async def test_a_route_with_a_budget(tmp_path):
    """The route holds once, its steps are charged, and a step that does not fit is the handler's to catch."""
    service = Service(tmp_path, prices=PRICES)

    @service.app.post("/ai/agent")
    async def run(budget: Annotated[Budget, Depends(CreditGate(budget=3))]) -> str:
        try:
            for _ in range(5):
                async with budget.step("gpt-4o-mini"):
                    pass
        except BudgetExceeded as error:
            return error.code
        return "done"

    async with service.calling() as client:
        response = await client.post("/ai/agent")
        assert (response.json(), response.headers["autumn-credits-charged"]) == ("budget_exceeded", "3")
        assert await service.used() == 3


async def test_a_budget_that_is_not_billed(tmp_path):
    """Bypassed, its steps are counted all the same, and nothing is charged."""
    service = Service(tmp_path, prices=PRICES)
    gate = CreditGate(budget=3, bypass=lambda request: True)

    @service.app.post("/ai/agent")
    async def run(budget: Annotated[Budget, Depends(gate)]) -> str:
        async with budget.step("gpt-4o-mini"):
            pass
        return str(budget.left)

    async with service.calling() as client:
        assert (await client.post("/ai/agent")).json() == "2"
        assert await service.used() == 0


async def test_budgets_outside_of_http(tmp_path):
    """`autumn.budget` is the same without a request."""
    service = Service(tmp_path, prices=PRICES)
    async with service.autumn.running():
        async with service.autumn.budget("ada", 10) as budget, budget.step("gpt-4o", request=ASKS) as step:
            step.used(USAGE)
        async with service.autumn.charge("ada", "gpt-4o", request=ASKS) as charge:
            charge.used(USAGE)
        assert await service.used() == Decimal("0.8")


async def test_a_stream_ends_with_its_cost(tmp_path):
    """The last event of the stream says what the headers could not, and the books agree."""
    service = Service(tmp_path, prices=PRICES)

    @service.app.post("/ai/events")
    async def events(body: AskedOfModel, charge: ModelCharge) -> StreamingResponse:
        async def words() -> AsyncIterator[str]:
            yield "data: Hello\n\n"
            charge.used({"id": "r", "usage": USAGE})

        return StreamingResponse(with_cost(words(), charge), media_type="text/event-stream")

    async with service.calling() as client:
        response = await client.post("/ai/events", json=ASKS)
        said = json.loads(response.text.rpartition("data: ")[2])
        assert said == {"charged": 0.4, "used": {"input": 60, "cached": 40, "output": 20}}
        assert await service.used() == Decimal("0.4")
