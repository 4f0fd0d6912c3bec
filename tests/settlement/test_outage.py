"""Autumn is down for ten minutes: the service answers in time all the while, and everything is settled afterwards."""

import asyncio
import time
from decimal import Decimal

import pytest
from fastapi import HTTPException
from pydantic import BaseModel

from fastapi_autumn import ModelCharge
from fastapi_autumn.emulator import Fault
from service import Service, until
from settlement.entries import FakeMachine

TIMEOUT = 0.3
MINUTES = 10
STEP_SECONDS = 10


class Prompt(BaseModel):
    model: str
    fails: bool = False


class WallClock(FakeMachine):
    """A time of day that the test moves; the steady clock is the machine's, for the breaker and the fence."""

    def __init__(self) -> None:
        super().__init__()
        self.ms = int(time.time() * 1000)

    def steady(self) -> float:
        return time.monotonic()


@pytest.mark.parametrize("charging", ["deduct", "hold"])
@pytest.mark.parametrize("kind", ["refuse", "delay"])
async def test_ten_minutes_without_autumn(tmp_path, charging, kind):
    """Refused or not answered at all: calls get their 503 in time, and what was under way is settled to the credit."""
    service = Service(tmp_path, charging=charging, timeout=TIMEOUT, hold_ttl=3600, max_retries=2, prices={"large": 5})
    clock = service.autumn._machine = WallClock()
    under_way = []

    @service.app.post("/ai/chat")
    async def chat(ask: Prompt, charge: ModelCharge) -> str:
        if ask.fails:
            raise HTTPException(502)
        return "served"

    async with service.calling() as client:
        for _ in range(6):
            under_way.append(service.autumn.charge("ada", model="large"))
            await under_way[-1].__aenter__()
        service.emulator.faults.add("*", Fault(kind=kind, delay_ms=60_000))
        for number, charge in enumerate(under_way):
            error = ValueError("model") if number % 2 else None
            await charge.__aexit__(type(error) if error else None, error, None)

        for _ in range(MINUTES * 60 // STEP_SECONDS):
            # Three attempts and the pauses between them, and not the minute after which Autumn would answer.
            async with asyncio.timeout(50):
                response = await client.post("/ai/chat", json={"model": "large"})
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) >= 1
            clock.advance(seconds=STEP_SECONDS)
        service.emulator.faults.clear()

        async def serves() -> bool:
            return (await client.post("/ai/chat", json={"model": "large"})).status_code == 200

        await until(serves)

        async def is_settled() -> bool:
            clock.advance(seconds=30)
            service.autumn.outbox.has_due.set()
            await asyncio.sleep(0.05)
            return not any((await service.autumn.outbox.store.count()).values())

        await until(is_settled)
        assert await service.used() == Decimal(3 * 5 + 5)
