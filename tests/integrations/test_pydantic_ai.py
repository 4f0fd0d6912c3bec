"""PydanticAI with its own test models: each request is a step of a budget."""

from decimal import Decimal

import pytest
from pydantic_ai import Agent
from pydantic_ai.models.function import DeltaToolCall, FunctionModel
from pydantic_ai.models.test import TestModel
from pydantic_ai.settings import ModelSettings

from fastapi_autumn.errors import BudgetExceeded, Unbounded
from fastapi_autumn.integrations.pydantic_ai import BudgetModel
from fastapi_autumn.pricing import tokens
from fastapi_autumn.settlement import Outcome
from fastapi_autumn.testing import fake_budget
from service import Service

PRICES = {"test": tokens(input=1000, output=1000), "fixed": 5, "words": tokens(input=1000, output=1000)}
LIMITED = ModelSettings(max_tokens=500)


@pytest.fixture
def agent():
    agent = Agent(model_settings=LIMITED)

    @agent.tool_plain
    def weather(city: str) -> str:
        return f"rain in {city}"

    return agent


async def test_each_request_of_a_run_is_a_step(agent):
    """A run with a tool asks the model twice; each request costs what PydanticAI counted."""
    budget = fake_budget(20, prices=PRICES)
    result = await agent.run("What is the weather?", model=BudgetModel(TestModel(), budget))
    assert [step.model for step in budget.steps] == ["test", "test"]
    usage = result.usage
    assert (budget.counts.input, budget.counts.output) == (usage.input_tokens, usage.output_tokens)
    budget.finish(Outcome.DONE)
    assert budget.cost == Decimal(usage.input_tokens + usage.output_tokens) / 1000


async def test_a_request_that_does_not_fit_is_not_made(agent):
    """The run ends with `BudgetExceeded`, and pays for the requests before; a part of a budget is a limit as well."""
    budget = fake_budget(9, prices=PRICES)
    with pytest.raises(BudgetExceeded):
        await agent.run("What is the weather?", model=BudgetModel(TestModel(), budget, model="fixed"))
    assert [step.cost for step in budget.steps] == [5]
    budget = fake_budget(9, prices=PRICES)
    async with budget.budget(4) as part:
        with pytest.raises(BudgetExceeded):
            await agent.run("Hi", model=BudgetModel(TestModel(), part, model="fixed"))
    with pytest.raises(Unbounded):
        await Agent().run("Hi", model=BudgetModel(TestModel(), budget))


async def words(messages, info):
    for number in range(10):
        yield f"word {number} "


async def test_streams_read_left_and_broken(agent):
    """A stream costs what had come when it was read to its end, was left, or broke."""
    budget = fake_budget(90, prices=PRICES)
    model = BudgetModel(FunctionModel(stream_function=words), budget, model="words")
    async with agent.run_stream("Hi", model=model) as run:
        assert "word 9" in await run.get_output()
    whole = budget.steps[-1].cost
    async with agent.run_stream("Hi", model=model) as run:
        async for _ in run.stream_text(debounce_by=None):
            break
    assert len(budget.steps) == 2
    assert 0 < budget.steps[-1].cost <= whole

    async def breaks(messages, info):
        yield "word"
        raise ConnectionError("the provider went away")
        yield DeltaToolCall()

    broken = BudgetModel(FunctionModel(stream_function=breaks), budget, model="words")
    with pytest.raises(ConnectionError):
        async with agent.run_stream("Hi", model=broken) as run:
            await run.get_output()
    assert len(budget.steps) == 3
    assert 0 <= budget.steps[-1].cost < whole


async def test_the_whole_way(tmp_path, agent):
    """With Autumn behind it: a run costs what its requests used, and one that fails what it had used by then."""
    service = Service(tmp_path, prices=PRICES)
    async with service.calling():
        async with service.autumn.budget("ada", 20) as budget:
            result = await agent.run("What is the weather?", model=BudgetModel(TestModel(), budget))
        cost = Decimal(result.usage.input_tokens + result.usage.output_tokens) / 1000
        assert await service.used() == cost
        with pytest.raises(BudgetExceeded):
            async with service.autumn.budget("ada", 6) as budget:
                await agent.run("What is the weather?", model=BudgetModel(TestModel(), budget, model="fixed"))
        assert await service.used() == cost + 5
