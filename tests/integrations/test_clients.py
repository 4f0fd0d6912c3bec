"""`charge.meter(client)` and `budget.meter(client)` with the real clients, before a provider in their transport."""

import asyncio
from decimal import Decimal
from typing import Any

import openai
import pytest
from fastapi.responses import StreamingResponse

from fastapi_autumn import ModelCharge
from fastapi_autumn.errors import BudgetExceeded, ConfigurationError
from fastapi_autumn.pricing import Counts, tokens
from fastapi_autumn.settlement import Outcome
from fastapi_autumn.testing import fake_budget, fake_charge
from integrations.providers import (
    WORDS,
    Provider,
    anthropic_client,
    async_anthropic_client,
    async_openai_client,
    openai_client,
)
from service import Service

RATE = tokens(input=2500, output=10_000, cached=1250)
HI: Any = [{"role": "user", "content": "Hi"}]
ASKS: Any = {"model": "gpt-4o", "messages": HI, "max_tokens": 500}
COUNTS = Counts(input=60, cached=40, output=20)
COST = Decimal("0.4")
"""0.15 and 0.05 for what was read, 0.2 for what was written."""


def metered(**options):
    return fake_charge(credits=10, rate=RATE, request=ASKS, **options)


def ends(charge, outcome=Outcome.DONE):
    charge.finish(outcome)
    return charge.cost


def text_of(chunks):
    return "".join(chunk.choices[0].delta.content for chunk in chunks)


def test_openai_sync():
    """Plain, streamed, raw and parsed, chat and responses: each is counted once, and the client itself is as it was."""
    provider = Provider()
    with openai_client(provider) as client:
        charge = metered()
        ours = charge.meter(client)
        assert isinstance(ours, openai.OpenAI)
        ours.chat.completions.create(**ASKS)
        assert (charge.counts, charge.used_so_far) == (COUNTS, COST)
        assert ends(charge) == COST

        calls = [
            lambda ours: ours.chat.completions.with_raw_response.create(**ASKS).parse(),
            lambda ours: ours.responses.create(model="gpt-4o", input="Hi"),
            lambda ours: list(ours.responses.create(model="gpt-4o", input="Hi", stream=True)),
            lambda ours: list(ours.chat.completions.create(**ASKS, stream=True)),
            lambda ours: list(ours.chat.completions.with_raw_response.create(**ASKS, stream=True).parse()),
            lambda ours: ours.with_options(timeout=5).chat.completions.create(**ASKS),
        ]
        for call in calls:
            charge = metered()
            call(charge.meter(client))
            assert charge.counts == COUNTS
        with charge.meter(client).chat.completions.stream(**ASKS) as stream:
            for _ in stream:
                pass
            assert stream.get_final_completion().choices[0].message.content == "".join(WORDS)
        before = charge.counts
        client.chat.completions.create(**ASKS)
        assert charge.counts == before


def test_what_the_stream_is_asked_for_and_shows():
    """OpenAI is asked for the usage; whoever did not ask for it sees no chunk without choices, and who did sees it."""
    provider = Provider()
    with openai_client(provider) as client:
        charge = metered()
        chunks = list(charge.meter(client).chat.completions.create(**ASKS, stream=True))
        assert provider.bodies[-1]["stream_options"] == {"include_usage": True}
        assert text_of(chunks) == "".join(WORDS)
        asked = charge.meter(client).chat.completions.create(
            **ASKS, stream=True, stream_options={"include_usage": True, "include_obfuscation": False}
        )
        assert list(asked)[-1].usage.total_tokens == 120
        assert provider.bodies[-1]["stream_options"] == {"include_usage": True, "include_obfuscation": False}

        charge = metered()
        list(charge.meter(client, ask_for_usage=False).chat.completions.create(**ASKS, stream=True))
        assert "stream_options" not in provider.bodies[-1]
        # What passed: 70 characters, for which no report came.
        assert charge.counts.output == -(-len("".join(WORDS)) // 4)


async def test_openai_async():
    """The same for the async client, whose streams are read, closed early, or break."""
    async with async_openai_client(Provider()) as client:
        charge = metered()
        ours = charge.meter(client)
        await ours.chat.completions.create(**ASKS)
        assert charge.counts == COUNTS
        # The same response, reported again: it replaces itself.
        chunks = [chunk async for chunk in await ours.chat.completions.create(**ASKS, stream=True)]
        assert text_of(chunks) == "".join(WORDS)
        assert charge.counts == COUNTS
        embedding = metered()
        await embedding.meter(client).embeddings.create(model="embed", input="Hi", encoding_format="float")
        await embedding.meter(client).moderations.create(input="Hi")
        assert embedding.counts == Counts(input=100)

        left = metered()
        async with await left.meter(client).chat.completions.create(**ASKS, stream=True) as stream:
            for _ in range(4):
                await anext(stream)
        assert left.counts.output == len("".join(WORDS[:4])) // 4
        assert 0 < ends(left, Outcome.GONE) < COST

        failed = metered()
        async with async_openai_client(Provider(breaks=3)) as breaking:
            with pytest.raises(openai.APIConnectionError):
                async for _ in await failed.meter(breaking).chat.completions.create(**ASKS, stream=True):
                    pass
        assert failed.counts.output > 0
        assert ends(failed, Outcome.FAILED) == 0


def test_anthropic_sync():
    """Anthropic counts its output as it grows, and cached tokens beside the input."""
    with anthropic_client(Provider()) as client:
        for call in (
            lambda ours: ours.messages.create(model="claude", max_tokens=50, messages=HI),
            lambda ours: list(ours.messages.create(model="claude", max_tokens=50, messages=HI, stream=True)),
        ):
            charge = metered()
            call(charge.meter(client))
            assert charge.counts == COUNTS
        charge = metered()
        with charge.meter(client).messages.stream(model="claude", max_tokens=50, messages=HI) as stream:
            assert "".join(stream.text_stream) == "".join(WORDS)
        assert ends(charge) == COST


async def test_anthropic_async():
    """The async client: read to its end, and left after the first words, when the start has told what was read."""
    async with async_anthropic_client(Provider()) as client:
        charge = metered()
        await charge.meter(client).messages.create(model="claude", max_tokens=50, messages=HI)
        async with charge.meter(client).messages.stream(model="claude", max_tokens=50, messages=HI) as stream:
            await stream.get_final_message()
        assert charge.counts == COUNTS

        left = metered()
        stream = await left.meter(client).messages.create(model="claude", max_tokens=50, messages=HI, stream=True)
        for _ in range(5):
            await anext(stream)
        await stream.close()
        assert (left.counts.input, left.counts.cached) == (60, 40)
        assert 1 < left.counts.output < 20


async def test_each_call_of_a_budgets_client_is_a_step():
    """Reserved before it is made and given back beyond its use; what does not fit is not sent."""
    provider = Provider()
    budget = fake_budget(10, prices={"gpt-4o": RATE, "claude": RATE})
    async with async_openai_client(provider) as client, async_anthropic_client(provider) as claude:
        ours = budget.meter(client)
        await ours.chat.completions.create(**ASKS)
        assert [(step.model, step.cost) for step in budget.steps] == [("gpt-4o", COST)]
        stream = await ours.chat.completions.create(**ASKS, stream=True)
        assert budget.left < 10 - COST - 5
        async for _ in stream:
            pass
        await budget.meter(claude).messages.create(model="claude", max_tokens=50, messages=HI)
        assert [step.cost for step in budget.steps] == [COST] * 3
        assert budget.left == 10 - 3 * COST

        sent = len(provider.bodies)
        with pytest.raises(BudgetExceeded):
            await ours.chat.completions.create(**ASKS | {"max_tokens": 2000})
        assert len(provider.bodies) == sent
        async with budget.budget(1) as part:
            with pytest.raises(BudgetExceeded):
                await part.meter(client).chat.completions.create(**ASKS)

        async with await ours.chat.completions.create(**ASKS, stream=True) as left:
            await anext(left)
        assert 0 < budget.steps[-1].cost < COST
    for broken in (Provider(status=500), Provider(breaks=2)):
        async with async_openai_client(broken) as client:
            with pytest.raises(openai.APIError):
                async for _ in await budget.meter(client).chat.completions.create(**ASKS, stream=True):
                    pass
    assert len(budget.steps) == 6
    assert ends(budget) == sum(step.cost for step in budget.steps)


def test_what_cannot_be_metered_is_said():
    """Another kind of client, and a sync client of a budget's."""
    with pytest.raises(ConfigurationError, match=r"A Provider cannot be metered: .* used\(\.\.\.\)"):
        metered().meter(Provider())
    with openai_client(Provider()) as client, pytest.raises(ConfigurationError, match="A budget meters async clients"):
        fake_budget().meter(client)


@pytest.mark.parametrize(
    ("breaks", "reads", "cost"),
    [(None, 10, COST), (None, 3, None), (3, 10, Decimal(0))],
    ids=["ends well", "hangs up", "breaks"],
)
async def test_a_route_costs_what_its_stream_used(tmp_path, breaks, reads, cost):
    """The whole way, over a socket: what was used, what had passed when the caller left, and nothing when it broke."""
    service = Service(tmp_path, prices={"gpt-4o": RATE})
    provider = Provider(breaks=breaks)
    client = async_openai_client(provider)

    @service.app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> StreamingResponse:
        stream = await charge.meter(client).chat.completions.create(**ASKS, stream=True)

        async def words():
            for number in range(reads + 1):
                chunk = await anext(stream, None)
                if chunk is None:
                    return
                yield chunk.choices[0].delta.content
                if number == reads - 1 and reads < 10:
                    left.set()
                    await service_stops.wait()

        return StreamingResponse(words())

    left, service_stops = asyncio.Event(), asyncio.Event()
    async with client, service.serving() as caller:
        try:
            async with caller.stream("POST", "/ai/chat", json=ASKS) as response:
                if reads < 10:
                    await left.wait()
                else:
                    await response.aread()
        except Exception:  # noqa: BLE001 - a broken answer is a broken answer
            assert breaks
        service_stops.set()
        used = await service.used()
    assert used == cost if cost is not None else 0 < used < COST


async def test_over_the_balance_is_refused_before_the_provider_is_asked(tmp_path):
    """What the call can cost at most is more than there is: 402, and nothing was sent."""
    service = Service(tmp_path, prices={"gpt-4o": RATE})
    provider = Provider()

    @service.app.post("/ai/chat")
    async def chat(charge: ModelCharge) -> str:
        async with async_openai_client(provider) as client:
            await charge.meter(client).chat.completions.create(**ASKS)
        return "answered"

    async with service.calling() as caller:
        assert (await caller.post("/ai/chat", json=ASKS | {"max_tokens": 50_000})).status_code == 402
        assert provider.bodies == []
        assert (await caller.post("/ai/chat", json=ASKS)).status_code == 200
        assert await service.used() == COST
