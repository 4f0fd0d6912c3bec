"""A credit system in which one unit of the feature comes to two and a half credits."""

import contextlib
from decimal import Decimal

import pytest

from charge.bench import bench_of
from fastapi_autumn.catalog.templates import TEMPLATES
from fastapi_autumn.errors import Unavailable
from fastapi_autumn.pricing import ModelPrices
from fastapi_autumn.settlement import Outcome


@pytest.fixture(autouse=True)
def dear_units(monkeypatch):
    monkeypatch.setitem(TEMPLATES, "credits", TEMPLATES["credits"].replace("{ai_usage: 1}", "{ai_usage: 2.5}"))


@pytest.mark.parametrize("rate_fault", ["none", "answer lost", "held back"])
@pytest.mark.parametrize("fault", ["none", "answer lost", "202 with the work"])
async def test_what_a_lost_check_took_is_given_back_exactly(fault, rate_fault):
    """The rate stood in the answer that was lost; nothing is a shortfall for that, and nothing is moved twice."""
    async with bench_of() as bench:
        (await bench.open("large")).keep()
        bench.line.fault("balances.check", fault, "none", rate_fault)
        with contextlib.suppress(Unavailable):
            (await bench.open("large")).refund()
        await bench.settle()

        assert bench.used == Decimal("12.5")
        assert await bench.rows() == []


async def test_what_was_served_unverified_is_charged_exactly():
    """No check was answered, so nobody knows the rate when the call is charged afterwards."""
    async with bench_of(on_unavailable="allow") as bench:
        bench.line.fault("balances.check", "held back")
        (await bench.open("large")).keep()
        await bench.settle()

        assert bench.used == Decimal("12.5")
        assert await bench.rows() == []


async def test_a_late_settlement_with_more_digits_than_a_number_keeps():
    """What a handler says after its caller left is told as a number that Autumn reads, whatever the rate is."""
    async with bench_of() as bench:
        bench.charges._prices = ModelPrices({"large": 10_000_000})
        await bench.client.balances.create("ada", "ai_credits", included_grant=30_000_000)
        charge = await bench.open()
        charge.finish(Outcome.GONE)
        charge.settle(Decimal(1) / 3)
        await bench.settle()

        assert round(bench.used, 5) == Decimal("0.83333")


@pytest.mark.parametrize("cost", ["1.5", "8"])
async def test_what_is_settled_is_exact(cost):
    """A hold that comes to less, or to more, than was held is moved at the rate."""
    async with bench_of(charging="hold") as bench:
        (await bench.open("large")).settle(cost)
        await bench.settle()

        assert bench.used == Decimal(cost) * Decimal("2.5")
        assert await bench.rows() == []
