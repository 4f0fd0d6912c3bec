"""Who is not shut out: other customers by one whose calls fail, and other event loops by one that stands still."""

import asyncio
from typing import Any

import pytest
from pydantic_core import from_json, to_json

from client.test_pressure import Clock, Gate, Steady, client_of
from fastapi_autumn.client._pressure import Breakers
from fastapi_autumn.errors import CircuitOpen, Overloaded, ServerFailure
from fastapi_autumn.transports import Answer


class Poisoned:
    """A transport for whose customer `poison` Autumn has only errors."""

    async def request(self, method: str, path: str, *, body: bytes, headers: Any, bearer: Any) -> Answer:
        customer = from_json(body)["customer_id"]
        if customer == "poison":
            return Answer(500, {}, b"")
        return Answer(200, {}, to_json({"customer_id": customer, "allowed": True, "balance": None}))

    async def aclose(self) -> None: ...


async def test_a_customer_whose_calls_alone_fail_shuts_nobody_else_out():
    """They are held back themselves, and the first call of theirs that works frees them."""
    clock = Clock()
    client = client_of(Poisoned(), machine=Steady(clock))
    seen = []
    for _ in range(100):
        with pytest.raises((ServerFailure, Overloaded)) as failure:
            await client.balances.check("poison", "ai_usage")
        seen.append(failure.type)
        assert (await client.balances.check("ada", "ai_usage")).allowed
    for _ in range(100):
        with pytest.raises(Overloaded):
            await client.balances.check("poison", "ai_usage")
    assert seen == [ServerFailure] * 10 + [CircuitOpen] * 90
    assert (await client.balances.check("ada", "ai_usage")).allowed


async def test_customers_who_all_fail_open_the_breaker_for_all():
    """Ten failures in a row are enough where they are not all of one customer."""
    breakers = Breakers(Clock())
    for number in range(10):
        customer = f"customer-{number % 2}"
        breakers.after(customer, breakers.before("balances.check", customer), ServerFailure("balances.check", "500"))
    with pytest.raises(Overloaded):
        breakers.before("balances.check", "somebody else")


def test_what_waits_in_one_event_loop_holds_nobody_up_in_another():
    """A loop that stands still, or was closed in the middle of calls, has their slots; the next loop has its own."""
    gate = Gate()
    client = client_of(gate, max_concurrency=1, max_waiting=0)

    async def ask() -> Any:
        return await client.plans.list()

    async def begin() -> "asyncio.Task[Any]":
        task = asyncio.create_task(ask())
        while not gate.arrived:
            await asyncio.sleep(0)
        return task

    standing = asyncio.new_event_loop()
    left = standing.run_until_complete(begin())
    held, gate.open = gate.open, asyncio.Event()
    gate.open.set()
    assert asyncio.run(ask()) == ()
    standing.call_soon(held.set)
    assert standing.run_until_complete(left) == ()
    standing.close()
