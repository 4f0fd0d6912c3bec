"""Charges whose price is a rate: held at the most, ended at what was used."""

import asyncio
from decimal import Decimal

import pytest

from fastapi_autumn.errors import InsufficientCredits, Unbounded, UnknownUsage
from fastapi_autumn.pricing import CallRequest, Counts, ModelPrices, tokens
from fastapi_autumn.settlement import Outcome

RATE = tokens(input=1000, output=10_000, cached=500)
ASKS = CallRequest({"max_tokens": 1000}, 1000)
"""Holds 1 for what is read, and 10 for what is written."""
USAGE = {"prompt_tokens": 500, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 200}}
"""0.3 + 0.1 for what is read, and 1 for what is written."""


@pytest.fixture
def bench(bench):
    bench.charges._prices = ModelPrices({"metered": RATE, "fixed": 5})
    return bench


async def opened(bench, **options):
    return await bench.open("metered", **{"request": ASKS} | options)


async def ends(bench, charge, outcome=Outcome.DONE):
    charge.finish(outcome)
    await bench.settle()
    assert await bench.rows() == []
    return bench.used


@pytest.mark.parametrize(
    ("outcome", "used"), [(Outcome.DONE, "1.4"), (Outcome.GONE, "1.4"), (Outcome.FAILED, "0")], ids=str
)
async def test_it_costs_what_was_used(bench, outcome, used):
    """Done and gone cost what was used, and a failure nothing; the most was held until then."""
    charge = await opened(bench)
    assert (charge.credits, bench.used, charge.metered) == (11, 11, True)
    assert charge.bounds == Counts(input=1000, output=1000)
    assert charge.used(USAGE)
    assert charge.used_so_far == Decimal("1.4")
    assert await ends(bench, charge, outcome) == Decimal(used)


@pytest.mark.parametrize(("outcome", "used"), [(Outcome.DONE, "11"), (Outcome.GONE, "11"), (Outcome.FAILED, "0")])
async def test_nothing_was_counted(bench, outcome, used):
    """A call that nobody reported on costs what was held, and the event says so."""
    charge = await opened(bench)
    assert await ends(bench, charge, outcome) == Decimal(used)
    if outcome is not Outcome.FAILED:
        (finalized,) = [body for operation, body, _ in bench.line.calls if operation == "balances.finalize"]
        assert finalized["properties"]["counted"] == "held"


async def test_a_failure_that_is_paid(bench):
    """Where the gate says so, a failure costs what was used by then."""
    charge = await opened(bench, failed="used")
    charge.used(USAGE)
    assert await ends(bench, charge, Outcome.FAILED) == Decimal("1.4")


async def test_what_passed_is_counted_where_nobody_reports(bench):
    """A stream that breaks before its usage came costs what passed: a token for four characters, begun or whole."""
    charge = await opened(bench)
    for _ in range(10):
        charge.passed("12345")
    # A quarter of the request's 1000 bytes, and 13 tokens.
    assert await ends(bench, charge, Outcome.GONE) == Decimal("0.25") + Decimal("0.13")
    (finalized,) = [body for operation, body, _ in bench.line.calls if operation == "balances.finalize"]
    assert finalized["properties"] == {
        "charge_id": charge.id,
        "charging": "hold",
        "counted": "characters/4",
        "model": "metered",
        "reason": "client disconnected",
        "used_input": 250,
        "used_output": 13,
    }


async def test_more_than_was_held(bench):
    """What was used beyond the hold is taken as well, and Autumn's log shows all of it."""
    charge = await opened(bench)
    charge.used(input=20_000)
    assert await ends(bench, charge) == 20


async def test_more_than_there_is(bench):
    """What the balance does not cover is a shortfall that is kept: nothing is lost in silence."""
    charge = await opened(bench)
    charge.used(output=6000)
    charge.finish(Outcome.DONE)
    await bench.settle()
    (row,) = await bench.rows()
    assert (row.state, bench.used, row.entry.cost - row.entry.taken) == ("shortfall", 50, 10)


async def test_a_balance_too_small_for_the_most(bench):
    """A balance of 50 opens no call that can cost 60, and the refusal says what it is made of."""
    with pytest.raises(InsufficientCredits) as refused:
        await bench.open("metered", request=CallRequest({"max_tokens": 5900}, 1000))
    assert refused.value.detail["required"] == 60
    assert refused.value.detail["estimate"] == {"of": "most", "input": 1000, "output": 5900}


async def test_a_call_without_bounds(bench):
    """Where nothing says how long the answer can be, nothing is opened, and the refusal names the field."""
    with pytest.raises(Unbounded) as refused:
        await bench.open("metered", request=CallRequest({}, 1000))
    assert refused.value.detail == {"field": "max_tokens", "model": "metered"}
    assert bench.keys_of("balances.check") == []


def half(rate, request):
    return rate.most(request) / 2


async def test_an_estimate_is_a_choice(bench):
    """Less than the most may be held, or an amount that is given."""
    assert (await opened(bench, estimate=half)).credits == Decimal("5.5")
    given = await bench.open("metered", credits=2)
    assert (given.credits, given.metered) == (2, True)
    with pytest.raises(InsufficientCredits) as refused:
        await bench.open("metered", request=CallRequest({"max_tokens": 9900}, 1000), estimate=half)
    assert refused.value.detail["estimate"]["of"] == "half"


async def test_an_amount_for_a_model_without_a_price(bench):
    """`credits` is a price of its own, and follows the settings' way of charging."""
    charge = await bench.open("pictures", credits="2.5")
    assert (charge.metered, charge.finish(Outcome.DONE)) == (False, None)
    await bench.settle()
    assert bench.used == Decimal("2.5")


async def test_reports_come_twice_late_and_in_any_order(bench):
    """Of one response the fullest report holds, those of two add up, and after the end nothing changes."""
    charge = await opened(bench)
    charge.used(output=50, response_id="a")
    charge.used(input=100, output=100, response_id="a")
    charge.used(input=100, output=100, response_id="a")
    charge.used(output=70, response_id="a")
    charge.used({"id": "b", "usage": {"input_tokens": 10, "output_tokens": 5}})
    assert charge.counts == Counts(input=110, output=105)
    assert await ends(bench, charge) == Decimal("1.16")
    assert not charge.used(output=1000)
    assert charge.cost == Decimal("1.16")


async def test_a_report_that_is_none(bench):
    """Chunks without usage report nothing; what has no counts in it is an error of the application's."""
    charge = await opened(bench)
    assert charge.used(None)
    with pytest.raises(UnknownUsage, match="no usage in it"):
        charge.used("many")
    assert await ends(bench, charge) == 11


async def test_reports_from_threads(bench):
    """A thousand reports from eight threads, each counted once."""
    charge = await opened(bench)

    def report(thread):
        for number in range(125):
            charge.used(input=1, response_id=f"{thread}-{number}")

    await asyncio.gather(*(asyncio.to_thread(report, thread) for thread in range(8)))
    assert charge.counts.input == 1000
    assert await ends(bench, charge) == 1


async def test_a_fixed_price_is_what_it_is(bench):
    """Reports of a call with a fixed price change nothing about it."""
    charge = await bench.open("fixed")
    charge.used(USAGE)
    assert (charge.counts.output, charge.used_so_far) == (100, 0)
    assert await ends(bench, charge) == 5
