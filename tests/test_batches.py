"""A route that sends the parts of a batch through the application itself, on copies of its own scope."""

import asyncio
from typing import Annotated, Any

import pytest
from fastapi import Depends, Request

from fastapi_autumn import Charge, CreditGate
from service import Service


@pytest.mark.parametrize("together", [False, True])
async def test_each_part_has_its_price(tmp_path, together):
    """A part is a request of its own, whatever its scope shares with the others'."""
    service = Service(tmp_path)
    ran = []

    @service.app.post("/ai/chat")
    async def chat(charge: Annotated[Charge, Depends(CreditGate(model=lambda: "large"))]) -> str:
        ran.append(charge.id)
        return "words"

    async def part(request: Request) -> None:
        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None: ...

        await service.app({**request.scope, "path": "/ai/chat", "raw_path": b"/ai/chat"}, receive, send)

    @service.app.post("/ai/batch")
    async def batch(request: Request) -> int:
        parts = [part(request) for _ in range(4)]
        if together:
            await asyncio.gather(*parts)
        else:
            for each in parts:
                await each
        return len(parts)

    async with service.calling() as client:
        assert (await client.post("/ai/batch")).json() == 4
        assert len(set(ran)) == 4
        assert await service.used() == 20
