"""Autumn is down for ten minutes: the service answers in time all the while, and everything is settled afterwards."""

import time
from decimal import Decimal

import pytest
from fastapi import HTTPException
from pydantic import BaseModel

from fastapi_autumn import ModelCharge
from fastapi_autumn.emulator import Fault
from service import Service
from settlement.entries import Clock, until

TIMEOUT = 0.3
MINUTES = 10
STEP_SECONDS = 10


class Ask(BaseModel):
    model: str
    fails: bool = False


@pytest.mark.parametrize("settlement", ["deduct", "hold"])
@pytest.mark.parametrize("kind", ["refuse", "delay"])
async def test_ten_minutes_without_autumn(tmp_path, settlement, kind):
    """Refused or not answered at all: calls get their 503 in time, and what was under way is settled to the credit."""
    service = Service(
        tmp_path, settlement=settlement, timeout=TIMEOUT, hold_ttl=3600, max_retries=2, prices={"large": 5}
    )
    clock = Clock()
    clock.ms = int(time.time() * 1000)
    under_way = []

    @service.app.post("/ai/chat")
    async def chat(ask: Ask, charge: ModelCharge) -> str:
        if ask.fails:
            raise HTTPException(502)
        return "served"

    async with service.calling() as client:
        service.autumn.outbox.now = clock
        for _ in range(6):
            under_way.append(service.autumn.charge("ada", model="large"))
            await under_way[-1].__aenter__()
        service.emulator.faults.add("*", Fault(kind=kind, delay_ms=60_000))
        for number, charge in enumerate(under_way):
            error = ValueError("model") if number % 2 else None
            await charge.__aexit__(type(error) if error else None, error, None)

        slowest = 0.0
        for _ in range(MINUTES * 60 // STEP_SECONDS):
            begun = time.monotonic()
            response = await client.post("/ai/chat", json={"model": "large"})
            slowest = max(slowest, time.monotonic() - begun)
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) >= 1
            clock.advance(seconds=STEP_SECONDS)
        # Not all that may be: three attempts and the pauses between them.
        assert slowest < 4 * TIMEOUT + 1
        service.emulator.faults.clear()

        async def serves() -> bool:
            return (await client.post("/ai/chat", json={"model": "large"})).status_code == 200

        await until(serves, seconds=20)

        async def is_settled() -> bool:
            clock.advance(seconds=30)
            await service.settled()
            return not any((await service.autumn.outbox.count()).values())

        await until(is_settled, seconds=20)
        assert await service.used() == Decimal(3 * 5 + 5)
