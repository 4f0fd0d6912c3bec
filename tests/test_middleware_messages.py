"""What the middleware makes of the messages that pass it: bodies over the limit, junk, and servers that cannot send."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import Depends, Request
from fastapi.responses import StreamingResponse
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from fastapi_autumn import AutumnMiddleware, Charge, CreditGate, ModelCharge
from outcome_routes import service_with_routes
from service import Service


async def test_large_bodies_are_refused_before_they_are_parsed(tmp_path):
    """A body over the limit is a 413, whether it announces its length or not, and nothing is charged."""
    service = Service(tmp_path, max_body_bytes=1000)

    @service.app.post("/ai/chat")
    async def chat(body: dict[str, Any], charge: ModelCharge) -> Any:
        return "served"

    async def chunks() -> Any:
        for _ in range(30):
            yield b" " * 100
        yield b'{"model": "large"}'

    async with service.serving() as client:
        announced = await client.post("/ai/chat", json={"model": "large", "x": "y" * 1000})
        streamed = await client.post("/ai/chat", content=chunks(), headers={"content-type": "application/json"})

        for response in (announced, streamed):
            assert response.status_code == 413
            assert response.json()["detail"]["code"] == "body_too_large"
        assert await service.used() == 0


def bodies(size: int) -> Any:
    """A body of so many bytes, in chunks, so that it does not announce its length."""

    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(size // 1000):
            yield b" " * 1000

    return chunks()


@pytest.mark.parametrize("inner", [None, BaseHTTPMiddleware], ids=["alone", "around a BaseHTTPMiddleware"])
@pytest.mark.parametrize("how", ["starlette", "raises", "answers"])
async def test_large_body_is_413_whatever_the_application_makes_of_it(tmp_path, inner, how):
    """The 413 is sent by the middleware itself, because an application may turn the exception into anything."""
    service = Service(tmp_path, max_body_bytes=2000)

    async def read(request: Request) -> PlainTextResponse:
        try:
            await request.body()
        except Exception as error:
            if how == "raises":
                raise ValueError(how) from error
            if how == "answers":
                return PlainTextResponse("I could not read that.")
            raise
        return PlainTextResponse("read")

    async def pass_on(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    app: Any = Starlette(routes=[Route("/ai/read", read, methods=["POST"])])
    app = AutumnMiddleware(inner(app, pass_on) if inner else app, autumn=service.autumn, identify=lambda _: "ada")
    async with (
        service.autumn.running(),
        httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://x") as client,
    ):
        response = await client.post("/ai/read", content=bodies(3000))

        assert response.status_code == 413
        assert response.json()["detail"]["code"] == "body_too_large"
        assert (await client.post("/ai/read", content=bodies(1000))).text == "read"


async def test_junk_after_the_answer_has_begun_is_paid(tmp_path):
    """A caller who gets the words and then sends a body over the limit has got the words."""
    service = Service(tmp_path, max_body_bytes=2000)
    begun = asyncio.Event()

    @service.app.post("/ai/stream")
    async def stream(charge: Annotated[Charge, Depends(CreditGate(model=lambda: "large"))]) -> StreamingResponse:
        async def words() -> AsyncIterator[str]:
            for _ in range(20):
                yield "word "
                await asyncio.sleep(0.01)

        return StreamingResponse(words())

    async def receive() -> Any:
        await begun.wait()
        await asyncio.sleep(0)
        return {"type": "http.request", "body": b" " * 1000, "more_body": True}

    sent = []

    async def send(message: Any) -> None:
        sent.append(message.get("body", b""))
        if len(sent) > 2:
            begun.set()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": "POST",
        "path": "/ai/stream",
        "query_string": b"",
        "headers": [(b"x-user", b"ada")],
    }
    async with service.autumn.running():
        await service.app(scope, receive, send)

        assert b"".join(sent) == b"word " * 20
        assert await service.used() == 5


@pytest.mark.parametrize("path", ["/ai/stream", "/ai/sse", "/ai/jsonl", "/ai/other-sse"])
async def test_servers_whose_send_fails(tmp_path, path):
    """A server that reports a hang-up by failing to send (ASGI 2.4) makes it a hang-up, which is paid."""
    service = service_with_routes(tmp_path, inner=False)
    body = b'{"model": "large", "how": "endless"}'
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    parts = 0

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        nonlocal parts
        parts += 1
        if parts > 3:
            raise OSError("the peer has closed the connection")

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"x-user", b"ada"), (b"content-type", b"application/json")],
    }
    async with service.autumn.running():
        with pytest.raises((OSError, ClientDisconnect, ExceptionGroup)):
            await service.app(scope, receive, send)

        assert await service.used() == 5


@pytest.mark.parametrize("waits_for", ["the caller", "the model"])
async def test_limit_on_time_in_mid_stream(tmp_path, waits_for):
    """A service that is too slow gives the credits back, and not to a caller who stops reading until it gives up."""
    service = Service(tmp_path)
    stopped = asyncio.Event()

    @service.app.post("/ai/stream")
    async def stream(charge: Annotated[Charge, Depends(CreditGate(model=lambda: "large"))]) -> StreamingResponse:
        async def words() -> AsyncIterator[str]:
            yield "word "
            if waits_for == "the model":
                stopped.set()
                await asyncio.Event().wait()
            while True:
                yield "word "

        return StreamingResponse(words())

    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        return messages.pop() if messages else await asyncio.get_running_loop().create_future()

    parts = 0

    async def send(message: Any) -> None:
        nonlocal parts
        parts += 1
        if parts > 3:
            stopped.set()
            await asyncio.Event().wait()

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": "POST",
        "path": "/ai/stream",
        "query_string": b"",
        "headers": [(b"x-user", b"ada")],
    }
    async with service.autumn.running():
        answering = asyncio.create_task(service.app(scope, receive, send))
        await stopped.wait()
        answering.cancel()
        await asyncio.wait([answering])

        assert await service.used() == (5 if waits_for == "the caller" else 0)
