"""Callers who try again: a service whose answers end as they are told to, and a client that leaves and comes back."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from fastapi_autumn import ModelCharge
from service import Service

KEY = {"idempotency-key": "one"}


class Wish(BaseModel):
    model: str = "large"
    how: str = ""


class Talk:
    """A service whose answers end as the body says. The first streams, as many as are `hanging`, wait to go on."""

    def __init__(self, folder: Any, **settings: Any) -> None:
        self.service = Service(folder, **settings)
        self.go_on = asyncio.Event()
        self.ran: list[str] = []
        self.hanging = 1
        app = self.service.app

        @app.post("/ai/chat")
        async def chat(ask: Wish, charge: ModelCharge) -> Any:
            self.ran.append(charge.id)
            if ask.how == "waits":
                await self.go_on.wait()
            if ask.how == "fails" and len(self.ran) == 1:
                raise ValueError(ask.how)
            if ask.how == "is cancelled" and len(self.ran) == 1:
                raise asyncio.CancelledError
            if ask.how == "refunds" and len(self.ran) == 1:
                charge.refund()
            if ask.how == "keeps and fails":
                charge.keep()
                return JSONResponse({"error": "half of it"}, 502)
            return charge.id

        @app.post("/ai/other")
        async def other(ask: Wish, charge: ModelCharge) -> Any:
            return charge.id

        @app.post("/ai/stream")
        async def stream(ask: Wish, charge: ModelCharge) -> StreamingResponse:
            self.ran.append(charge.id)

            waits = len(self.ran) <= self.hanging

            async def words() -> AsyncIterator[bytes]:
                yield b"a word\n" * 2000
                if waits:
                    await self.go_on.wait()
                if ask.how == "settles at the end":
                    charge.settle(8)
                if ask.how == "fails again":
                    raise ValueError(ask.how)
                yield b"the end\n"

            if ask.how == "settles for half":
                charge.settle("2.5")
            return StreamingResponse(words())


def ask(how: str = "") -> Any:
    return {"model": "large", "how": how}


def code(response: httpx.Response) -> Any:
    return response.status_code, response.json()["detail"]["code"]


async def hang_up(client: httpx.AsyncClient, how: str = "", path: str = "/ai/stream") -> None:
    """Leave after the first word."""
    async with asyncio.timeout(20):
        while True:
            async with client.stream("POST", path, json=ask(how), headers=KEY) as response:
                async for _ in response.aiter_raw():
                    break
            if response.status_code == 200:
                return


async def come_back(client: httpx.AsyncClient, how: str = "", path: str = "/ai/stream") -> httpx.Response:
    """Try until the service has noticed that the attempt before has ended."""
    async with asyncio.timeout(20):
        while True:
            response = await client.post(path, json=ask(how), headers=KEY)
            if response.status_code != 409 or response.json()["detail"]["code"] != "in_progress":
                return response
