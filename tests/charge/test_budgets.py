"""Budgets: one hold, many model calls, each taken from it before it is made."""

import asyncio
from decimal import Decimal

import pytest

from charge.bench import ADA
from fastapi_autumn.errors import BudgetExceeded, ConfigurationError, InsufficientCredits
from fastapi_autumn.pricing import CallRequest, Counts, ModelPrices, tokens
from fastapi_autumn.settlement import Outcome

ASKS = CallRequest({"max_tokens": 100}, 1000)
"""Reserves 2: 1 for what is read, 1 for what is written."""


@pytest.fixture
def bench(bench):
    bench.charges._prices = ModelPrices({"metered": tokens(input=1000, output=10_000), "fixed": 5})
    return bench


async def opened(bench, amount=10, **options):
    return await bench.charges.open_budget(ADA, amount, **options)


async def ends(bench, budget, outcome=Outcome.DONE):
    budget.finish(outcome)
    await bench.settle()
    assert await bench.rows() == []
    return bench.used


async def test_steps_are_charged_for_what_they_used(bench):
    """One hold, one settlement; each step is a row of model, cost, and what was left."""
    budget = await opened(bench)
    async with budget.step("fixed") as step:
        assert (step.credits, budget.left) == (5, 5)
    async with budget.step("metered", request=ASKS) as step:
        assert (step.credits, budget.left, step.bounds) == (2, 3, Counts(input=1000, output=100))
        step.used({"id": "r1", "usage": {"prompt_tokens": 200, "completion_tokens": 30}})
    async with budget.step("search", credits="0.25"):
        pass
    assert [tuple(record) for record in budget.steps] == [
        ("fixed", 5, 5),
        ("metered", Decimal("0.5"), Decimal("4.5")),
        ("search", Decimal("0.25"), Decimal("4.25")),
    ]
    assert await ends(bench, budget) == Decimal("5.75")
    (finalized,) = [body for operation, body, _ in bench.line.calls if operation == "balances.finalize"]
    assert finalized["properties"] | {"charge_id": ""} == {
        "charge_id": "",
        "charging": "hold",
        "counted": "steps",
        "model": "budget",
        "models": ["fixed", "metered", "search"],
        "reason": "done",
        "response_ids": ["r1"],
        "responses": 1,
        "steps": 3,
        "used_input": 200,
        "used_output": 30,
    }


async def test_a_step_that_does_not_fit(bench):
    """It is refused before it is made, and the run can go on with a cheaper one."""
    budget = await opened(bench, 6)
    async with budget.step("fixed"):
        pass
    with pytest.raises(BudgetExceeded) as refused:
        async with budget.step("fixed"):
            raise AssertionError("the call was made")
    assert refused.value.detail == {"model": "fixed", "required": 5, "left": 1.0}
    async with budget.step("search", credits=1):
        pass
    assert await ends(bench, budget) == 6


async def test_parallel_steps_never_overshoot(bench):
    """32 steps at once on a budget of 10: exactly 10 run, and what is billed is those."""
    budget = await opened(bench, 10)
    started = asyncio.Event()
    ran = 0

    async def one():
        nonlocal ran
        async with budget.step("search", credits=1):
            ran += 1
            await started.wait()

    tasks = [asyncio.create_task(one()) for _ in range(32)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    started.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert (ran, sum(isinstance(result, BudgetExceeded) for result in results)) == (10, 22)
    assert await ends(bench, budget) == 10


async def test_parallel_steps_in_threads(bench):
    """The same from threads with event loops of their own."""
    budget = await opened(bench, 10)

    async def one():
        async with budget.step("search", credits=1):
            await asyncio.sleep(0.2)

    def in_thread():
        try:
            asyncio.run(one())
        except BudgetExceeded:
            return 0
        return 1

    ran = await asyncio.gather(*(asyncio.to_thread(in_thread) for _ in range(16)))
    assert (sum(ran), budget.left) == (10, 0)
    assert await ends(bench, budget) == 10


@pytest.mark.parametrize(
    ("error", "reported", "cost"),
    [(RuntimeError, True, "0.5"), (RuntimeError, False, "0"), (asyncio.CancelledError, True, "0.5")],
)
async def test_a_step_that_fails(bench, error, reported, cost):
    """It costs what was reported by then, and gives the rest back."""
    budget = await opened(bench)

    async def fails():
        async with budget.step("metered", request=ASKS) as step:
            if reported:
                step.used(input=200, output=30)
            raise error

    with pytest.raises(error):
        await fails()
    assert budget.left == 10 - Decimal(cost)
    assert await ends(bench, budget) == Decimal(cost)


@pytest.mark.parametrize(
    ("outcome", "used"), [(Outcome.GONE, "7"), (Outcome.DONE, "5"), (Outcome.FAILED, "5")], ids=str
)
async def test_a_step_that_was_broken_off(bench, outcome, used):
    """Whoever hangs up pays what the last step can have used; whoever stayed does not."""
    budget = await opened(bench)
    async with budget.step("fixed"):
        pass
    with pytest.raises(asyncio.CancelledError):
        async with budget.step("metered", request=ASKS):
            raise asyncio.CancelledError
    assert budget.left == 3
    assert await ends(bench, budget, outcome) == Decimal(used)


@pytest.mark.parametrize(("failed", "used"), [("used", 5), ("nothing", 0)])
async def test_a_run_that_fails(bench, failed, used):
    """It costs what its steps used, unless it was opened to cost nothing then."""

    async def fails():
        async with bench.charges.budget(ADA, 10, failed=failed) as budget:
            async with budget.step("fixed"):
                pass
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await fails()
    await bench.settle()
    assert bench.used == used


async def test_a_run_without_steps(bench):
    """It costs nothing."""
    assert await ends(bench, await opened(bench)) == 0


async def test_nested(bench):
    """A part is taken from what is left, its steps cannot exceed it, and what they leave comes back."""
    budget = await opened(bench, 10)
    async with budget.budget(6) as part:
        assert (part.left, budget.left) == (6, 4)
        async with part.step("fixed"):
            assert (part.left, budget.left) == (1, 4)
        with pytest.raises(BudgetExceeded):
            async with part.step("fixed"):
                pass
        with pytest.raises(BudgetExceeded):
            async with part.budget(2):
                pass
        async with part.budget(1) as inner, inner.step("search", credits="0.5"):
            pass
        assert budget.used_so_far == Decimal("5.5")
    assert budget.left == Decimal("4.5")
    assert [record.model for record in budget.steps] == ["fixed", "search"]
    assert await ends(bench, budget) == Decimal("5.5")


async def test_more_than_was_reserved(bench):
    """A step that used more than it could is charged for it, and nothing is left then."""
    budget = await opened(bench, 2)
    async with budget.step("metered", request=ASKS) as step:
        step.used(output=300)
    assert budget.left == 0
    assert await ends(bench, budget) == 3


async def test_steps_that_still_run_at_the_end(bench):
    """They cost what they have reported, or what was reserved; afterwards nothing begins and nothing is reported."""
    budget = await opened(bench)
    reported = await budget.open_step("metered", request=ASKS)
    reported.used(output=10)
    silent = await budget.open_step("metered", request=ASKS)
    assert await ends(bench, budget) == Decimal("2.1")
    assert not silent.used(output=10)
    with pytest.raises(ConfigurationError, match="has ended"):
        await budget.open_step("fixed")


async def test_the_balance_does_not_cover_it(bench):
    """It is refused as a call is, and says that a budget was asked for."""
    with pytest.raises(InsufficientCredits) as refused:
        await opened(bench, 51)
    assert (refused.value.detail["required"], refused.value.detail["estimate"]) == (51, {"of": "budget"})


async def test_use_is_reported_to_steps(bench):
    """A report that no step takes would be lost, so it is an error."""
    budget = await opened(bench)
    with pytest.raises(ConfigurationError, match="open a step"):
        budget.used(input=5)
    await ends(bench, budget)


async def test_a_run_that_dies_is_billed_for_its_steps(bench):
    """The outbox knows what the steps came to; whoever takes over finds a row that says so, and finalizes the hold."""
    budget = await opened(bench)
    assert await bench.rows() == []
    async with budget.step("fixed"):
        pass
    async with budget.step("metered", request=ASKS) as step:
        step.used(output=100)
        await bench.outbox.flush()
        (row,) = await bench.rows()
        assert (row.state, row.entry.cost, row.entry.held) == ("open", 6, True)
        # The process dies here. Another one takes its rows.
        store = bench.outbox.store
        (worker,) = [one for one in await store.workers() if one.id == bench.outbox.worker_id]
        assert await store.take_over(worker, by="another", unwritten=(), now=bench.outbox.now()) == 1
        await bench.round()
    assert bench.used == 6


async def test_a_run_that_was_taken_for_dead(bench):
    """A worker that lives on after another has settled its run comes to what the run costs in the end, once."""
    budget = await opened(bench)
    async with budget.step("fixed"):
        pass
    await bench.outbox.flush()
    store = bench.outbox.store
    (worker,) = [one for one in await store.workers() if one.id == bench.outbox.worker_id]
    await store.take_over(worker, by="another", unwritten=(), now=bench.outbox.now())
    await bench.round()
    assert bench.used == 5
    async with budget.step("search", credits=2):
        pass
    assert await ends(bench, budget) == 7
