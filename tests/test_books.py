"""The books balance: under concurrency, under any sequence of outcomes, and outside of HTTP."""

import asyncio
import contextlib
import sqlite3
from collections import Counter
from decimal import ROUND_UP, Decimal
from typing import Any

import pytest
from fastapi import HTTPException
from fastapi.responses import StreamingResponse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from fastapi_autumn import Charge, Customer, ModelCharge
from fastapi_autumn.emulator import Fault
from fastapi_autumn.errors import AmountError, ConfigurationError, InsufficientCredits, UnknownModel
from service import Service


class Question(BaseModel):
    model: str
    how: str = "succeeds"


def service_with_outcomes(tmp_path: Any, **options: Any) -> Service:
    service = Service(tmp_path, **options)

    async def words(how: str) -> Any:
        yield b"first"
        if how == "stream breaks":
            raise ValueError(how)
        yield b"last"

    @service.app.post("/ai/chat")
    async def chat(ask: Question, charge: ModelCharge) -> Any:
        match ask.how:
            case "raises":
                raise ValueError(ask.how)
            case "answers 502":
                raise HTTPException(502)
            case "refunds":
                charge.refund()
            case "settles":
                charge.settle(charge.credits / 4)
            case "streams" | "stream breaks":
                return StreamingResponse(words(ask.how))
        return "served"

    return service


@pytest.mark.parametrize("charging", ["deduct", "hold"])
async def test_two_hundred_at_once_on_fifty_credits(tmp_path, charging):
    """200 requests at once on 50 credits are exactly 50 answers 200 and 150 answers 402, and nothing is left."""
    service = service_with_outcomes(tmp_path, charging=charging)
    async with service.calling() as client:
        calls = (client.post("/ai/chat", json={"model": "small"}) for _ in range(200))
        statuses = Counter(response.status_code for response in await asyncio.gather(*calls))

        assert statuses == {200: 50, 402: 150}
        assert await service.used() == 50


PRICES = {"a": 1, "b": "0.1", "c": "2.5", "d": "0.0000000001", "e": "7.77"}
KEPT_SHARE = {
    "succeeds": Decimal(1),
    "streams": Decimal(1),
    "settles": Decimal("0.25"),
    "raises": Decimal(0),
    "answers 502": Decimal(0),
    "refunds": Decimal(0),
    "stream breaks": Decimal(0),
}


@pytest.mark.parametrize("charging", ["deduct", "hold"])
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(calls=st.lists(st.tuples(st.sampled_from(sorted(PRICES)), st.sampled_from(sorted(KEPT_SHARE))), max_size=25))
def test_books_balance_to_the_last_decimal(tmp_path_factory, charging, calls):
    """After any sequence of calls, failures and refunds, what is used is what the calls that succeeded cost."""

    async def run() -> None:
        service = service_with_outcomes(tmp_path_factory.mktemp("books"), prices=PRICES, charging=charging)
        expected = Decimal(0)
        async with service.calling() as client:
            for model, how in calls:
                response = await client.post("/ai/chat", json={"model": model, "how": how})
                if response.status_code != 402:
                    share = Decimal(PRICES[model]) * KEPT_SHARE[how]
                    expected += share.quantize(Decimal("1e-10"), ROUND_UP)
                await service.settled()

            record = await service.autumn.client.customers.get_or_create(Customer("ada"))
            balance = record.balances["ai_credits"]
            assert balance.granted - balance.remaining == expected

    asyncio.run(run())


async def test_context_manager_charges_outside_of_http(tmp_path):
    """`async with autumn.charge(...)` keeps on success, gives back on an exception, and creates the customer."""
    service = Service(tmp_path)
    async with service.autumn.running():
        async with service.autumn.charge("ada", model="large") as charge:
            assert charge.balance.remaining == 45
        with pytest.raises(ValueError, match="model"):
            async with service.autumn.charge(Customer("ada"), model="large"):
                raise ValueError("model")

        assert await service.used() == 5


async def test_context_manager_without_a_lifespan(tmp_path):
    """In a script, where nothing was started, the charge starts what it needs and settles it before it returns."""
    service = Service(tmp_path, emulator_path=tmp_path / "emulator.db")
    async with service.autumn.charge("ada", model="large"):
        pass
    with pytest.raises(ValueError, match="model"):
        async with service.autumn.charge("ada", model="large"):
            raise ValueError("model")

    async with service.autumn.running():
        assert await service.used() == 5


async def test_cancelled_context_is_given_back(tmp_path):
    """A task that is cancelled inside its charge has failed."""
    service = Service(tmp_path)
    inside = asyncio.Event()

    async def work() -> None:
        async with service.autumn.charge("ada", model="large"):
            inside.set()
            await asyncio.sleep(60)

    async with service.autumn.running():
        task = asyncio.create_task(work())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert await service.used() == 0


async def test_refusals_outside_of_http(tmp_path):
    """Outside of HTTP a refusal is an error with the same content, and nothing is taken."""
    service = Service(tmp_path, prices={"huge": 51})
    async with service.autumn.running():
        with pytest.raises(InsufficientCredits) as refused:
            async with service.autumn.charge("ada", model="huge"):
                pytest.fail("not reached")
        with pytest.raises(UnknownModel):
            async with service.autumn.charge("ada", model="unheard-of"):
                pytest.fail("not reached")

        assert refused.value.detail["balance"]["remaining"] == 50
        assert await service.used() == 0


CALLS = {
    "refund": lambda charge: charge.refund(),
    "keep": lambda charge: charge.keep(),
    "settle": lambda charge: charge.settle(2),
}
COST = {"refund": 0, "keep": 5, "settle": 2, None: 5}


@pytest.mark.parametrize("charging", ["deduct", "hold"])
@pytest.mark.parametrize(
    "order", [["refund", "keep"], ["keep", "refund"], ["settle", "refund"], ["refund", "settle", "refund"], []]
)
async def test_one_outcome_per_charge(tmp_path, charging, order):
    """Whatever is called and in whatever order, the first decision counts, once."""
    service = Service(tmp_path, charging=charging)
    async with service.autumn.running():
        async with service.autumn.charge("ada", model="large") as charge:
            results = [CALLS[name](charge) for name in order]
        assert results == [number == 0 for number in range(len(order))]
        assert charge.refund() is False

        assert await service.used() == COST[order[0] if order else None]


@pytest.mark.parametrize("value", [-1, "NaN", float("inf"), "1e40", True])
async def test_impossible_settlements_never_reach_autumn(tmp_path, value):
    """A negative, infinite or huge value is refused, and the charge stays open."""
    service = Service(tmp_path)
    async with service.autumn.running():
        async with service.autumn.charge("ada", model="large") as charge:
            with pytest.raises(AmountError):
                charge.settle(value)
            assert not charge.closed

        assert await service.used() == 5


async def test_a_settlement_of_a_quotient_is_rounded_up(tmp_path):
    """An amount with more places than Autumn keeps is rounded up at the tenth, and the answer goes out."""
    service = Service(tmp_path)
    async with service.autumn.running():
        async with service.autumn.charge("ada", model="large") as charge:
            assert charge.settle(Decimal(1) / 3)

        assert await service.used() == Decimal("0.3333333334")


@pytest.mark.parametrize("price", [0, -1, "NaN", float("inf"), True, "1e40"])
async def test_impossible_prices_from_code_never_reach_autumn(tmp_path, price):
    """A price function that returns nonsense charges nobody."""
    service = Service(tmp_path, prices=lambda _: price)
    async with service.autumn.running():
        with pytest.raises(AmountError):
            async with service.autumn.charge("ada", model="any"):
                pytest.fail("not reached")

        assert await service.used() == 0


async def test_client_outside_of_the_lifespan_is_loud(tmp_path):
    """Using the client before anything runs says how to run it."""
    with pytest.raises(ConfigurationError, match="lifespan"):
        _ = Service(tmp_path).autumn.client


def test_repr_of_a_charge(tmp_path):
    """A charge shows what it is about and nothing secret."""
    service = Service(tmp_path)

    async def show() -> tuple[str, Charge]:
        async with service.autumn.charge("ada", model="large") as charge:
            return repr(charge), charge

    shown, charge = asyncio.run(show())

    assert shown == f"<Charge {charge.id} open: 5 credits of ada for large>"


async def test_what_a_shutdown_cannot_deliver_waits_for_the_next_start(tmp_path):
    """A shutdown while Autumn is down ends all the same, and the refund is delivered by the next process."""
    options = {"emulator_path": tmp_path / "emulator.db", "shutdown_timeout": 0.3, "max_retries": 0}
    service = service_with_outcomes(tmp_path, **options)
    async with service.calling() as client:
        service.emulator.faults.add("balances.track", Fault(kind="fail", status=503))
        await client.post("/ai/chat", json={"model": "large", "how": "raises"})

    with contextlib.closing(sqlite3.connect(tmp_path / "outbox.db")) as database:
        assert database.execute("SELECT customer_id, state, taken, cost FROM autumn_charges").fetchall() == [
            ("ada", "due", "5", "0")
        ]

    service.emulator.faults.clear()
    successor = service_with_outcomes(tmp_path, **options)
    async with successor.calling(), asyncio.timeout(60):
        while True:
            record = await successor.autumn.client.customers.get("ada")
            if record.balances["ai_credits"].usage == 0:
                break
            await asyncio.sleep(0.05)
