"""How every way in which a request can end is charged: under a real server and, where it can show it, a test client.

Each row says what the customer gets on the wire and whether the call is paid.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from decimal import Decimal
from typing import Annotated, Any

import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.sse import EventSourceResponse
from fastapi.testclient import TestClient
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware

from fastapi_autumn import Charge, ModelCharge
from service import Service, until

PRICE = Decimal(5)
KEPT, REFUNDED = PRICE, Decimal(0)


class Handled(Exception):
    """An error for which the application has a handler."""


class Ask(BaseModel):
    model: str
    how: str = ""


async def later_dependency(charge: ModelCharge, x_how: Annotated[str, Header()] = "") -> None:
    if x_how == "later dependency raises":
        raise ValueError(x_how)


async def careful_dependency(x_how: Annotated[str, Header()] = "") -> AsyncIterator[None]:
    yield
    if x_how == "clean-up raises":
        raise ValueError(x_how)


def careful_sync_dependency(x_how: Annotated[str, Header()] = "") -> Any:
    yield
    if x_how == "sync clean-up raises":
        raise ValueError(x_how)


def install_routes(app: FastAPI, closed: list[str]) -> None:
    @app.exception_handler(Handled)
    async def handle(request: Request, error: Handled) -> JSONResponse:
        return JSONResponse({"handled": True}, 502)

    @app.post(
        "/ai/plain",
        dependencies=[Depends(later_dependency), Depends(careful_dependency), Depends(careful_sync_dependency)],
    )
    async def plain(ask: Ask, charge: ModelCharge, tasks: BackgroundTasks) -> Any:
        match ask.how:
            case "raises":
                raise ValueError(ask.how)
            case "HTTPException":
                raise HTTPException(503, "model overloaded")
            case "handled":
                raise Handled
            case "returns 500":
                return JSONResponse({"error": "model"}, 500)
            case "returns 404":
                return JSONResponse({"error": "model"}, 404)
            case "time-out":
                async with asyncio.timeout(0.01):
                    await asyncio.sleep(5)
            case "cancelled":
                raise asyncio.CancelledError
            case "background raises":
                return JSONResponse({"ok": True}, background=BackgroundTask(fail_afterwards))
            case "background tasks raise":
                tasks.add_task(fail_afterwards)
            case "redirect":
                return JSONResponse({}, 307, headers={"location": "/elsewhere"})
            case "slow":
                await asyncio.sleep(0.5)
            case "refunds":
                charge.refund("the model said nothing")
            case "keeps, then raises":
                charge.keep()
                raise ValueError(ask.how)
            case "settles":
                charge.settle("1.5")
            case "settles, then raises":
                charge.settle(2)
                raise ValueError(ask.how)
        return {"ok": True}

    async def words(how: str, charge: Charge) -> AsyncIterator[bytes]:
        try:
            for number in range(5 if how != "endless" else 10_000):
                yield f"word {number}\n".encode()
                await asyncio.sleep(0.01)
                if how == "raises mid-stream" and number == 2:
                    raise ValueError(how)
                if how == "says so mid-stream" and number == 2:
                    charge.refund("provider failed")
                    yield b"error\n"
                    return
        finally:
            closed.append(how)

    @app.post("/ai/stream", dependencies=[Depends(careful_dependency)])
    async def stream(ask: Ask, charge: ModelCharge) -> StreamingResponse:
        background = BackgroundTask(fail_afterwards) if ask.how == "background raises" else None
        return StreamingResponse(words(ask.how, charge), media_type="text/plain", background=background)

    @app.post("/ai/sse", response_class=EventSourceResponse, dependencies=[Depends(careful_dependency)])
    async def sse(ask: Ask, charge: ModelCharge) -> AsyncIterable[str]:
        async for word in words(ask.how, charge):
            yield word.decode()

    @app.post("/ai/jsonl", dependencies=[Depends(careful_dependency)])
    async def jsonl(ask: Ask, charge: ModelCharge) -> AsyncIterable[str]:
        async for word in words(ask.how, charge):
            yield word.decode()


async def fail_afterwards() -> None:
    raise ValueError("after the answer was delivered")


async def pass_on(request: Request, call_next: Any) -> Any:
    return await call_next(request)


# path, how, status on the wire, whether the body arrives whole, what is paid
ROWS = [
    ("plain", "", 200, True, KEPT),
    ("plain", "raises", 500, True, REFUNDED),
    ("plain", "HTTPException", 503, True, REFUNDED),
    ("plain", "handled", 502, True, REFUNDED),
    ("plain", "returns 500", 500, True, REFUNDED),
    ("plain", "returns 404", 404, True, REFUNDED),
    ("plain", "later dependency raises", 500, True, REFUNDED),
    ("plain", "time-out", 500, True, REFUNDED),
    ("plain", "redirect", 307, True, KEPT),
    ("plain", "background raises", 200, True, KEPT),
    ("plain", "background tasks raise", 200, True, KEPT),
    ("plain", "clean-up raises", 200, True, KEPT),
    ("plain", "sync clean-up raises", 200, True, KEPT),
    ("plain", "refunds", 200, True, REFUNDED),
    ("plain", "keeps, then raises", 500, True, KEPT),
    ("plain", "settles", 200, True, Decimal("1.5")),
    ("plain", "settles, then raises", 500, True, Decimal(2)),
    ("stream", "", 200, True, KEPT),
    ("stream", "raises mid-stream", 200, False, REFUNDED),
    ("stream", "says so mid-stream", 200, True, REFUNDED),
    ("stream", "background raises", 200, True, KEPT),
    ("stream", "clean-up raises", 200, True, KEPT),
    ("sse", "", 200, True, KEPT),
    ("sse", "raises mid-stream", 200, True, REFUNDED),
    ("sse", "says so mid-stream", 200, True, REFUNDED),
    ("sse", "clean-up raises", 200, True, KEPT),
    ("jsonl", "", 200, True, KEPT),
    ("jsonl", "raises mid-stream", 200, False, REFUNDED),
    ("jsonl", "clean-up raises", 200, True, KEPT),
]


def service_with_routes(tmp_path: Any, *, inner: bool, **settings: Any) -> Service:
    service = Service(tmp_path, **settings)
    if inner:
        # Added before ours is not possible any more, so it goes to the inside of it by hand.
        service.app.user_middleware.append(type(service.app.user_middleware[0])(BaseHTTPMiddleware, dispatch=pass_on))
    install_routes(service.app, service.closed)
    return service


async def call(client: httpx.AsyncClient, path: str, how: str) -> tuple[int, bool]:
    """The status, and whether the answer arrived whole."""
    async with client.stream(
        "POST", f"/ai/{path}", json={"model": "large", "how": how}, headers={"x-how": how}
    ) as response:
        try:
            await response.aread()
        except httpx.RemoteProtocolError:
            return response.status_code, False
        return response.status_code, True


@pytest.mark.parametrize("inner", [False, True], ids=["alone", "around a BaseHTTPMiddleware"])
@pytest.mark.parametrize("http", ["h11", "httptools"])
async def test_outcomes_under_uvicorn(tmp_path, inner, http):
    """Under uvicorn every row gives the customer what the table says, and costs what it says."""
    service = service_with_routes(tmp_path, inner=inner)
    async with service.serving(http=http) as client:
        for number, (path, how, status, whole, paid) in enumerate(ROWS):
            client.headers["x-user"] = customer = f"customer-{number}"
            seen = await call(client, path, how)
            # A BaseHTTPMiddleware ends the body of a failed stream as if nothing had happened.
            assert (path, how, *seen) == (path, how, status, whole or inner)
            assert (path, how, await service.used(customer)) == (path, how, paid)


@pytest.mark.parametrize(("path", "how", "status", "whole", "paid"), ROWS)
def test_outcomes_under_a_test_client(tmp_path, path, how, status, whole, paid):
    """Under TestClient, which hides what the wire shows of a broken stream, every row costs the same."""
    service = service_with_routes(tmp_path, inner=False)
    with TestClient(service.app, raise_server_exceptions=False, headers={"x-user": "ada"}) as client:
        body = {"model": "large", "how": how}
        response = client.post(f"/ai/{path}", json=body, headers={"x-how": how}, follow_redirects=False)

        assert status == response.status_code
        assert paid == client.portal.call(service.used)


@pytest.mark.parametrize("path", ["plain", "stream"])
def test_outcomes_without_a_lifespan(tmp_path, path):
    """Where no lifespan runs, each request is settled before it returns."""
    service = service_with_routes(tmp_path, inner=False, emulator_path=tmp_path / "emulator.db")
    client = TestClient(service.app, raise_server_exceptions=False, headers={"x-user": "ada"})
    hows = {"plain": "raises", "stream": "raises mid-stream"}
    for how in ("", hows[path], "", hows[path]):
        client.post(f"/ai/{path}", json={"model": "large", "how": how}, headers={"x-how": how})

    async def used() -> Decimal:
        async with service.autumn.running():
            return await service.used()

    assert Decimal(10) == asyncio.run(used())


async def hang_up(client: httpx.AsyncClient, path: str) -> None:
    """Leave after the first words."""
    async with client.stream("POST", f"/ai/{path}", json={"model": "large", "how": "endless"}) as response:
        async for _ in response.aiter_raw():
            break


@pytest.mark.parametrize(("refund_on_disconnect", "paid"), [(False, KEPT), (True, REFUNDED)])
@pytest.mark.parametrize("inner", [False, True], ids=["alone", "around a BaseHTTPMiddleware"])
@pytest.mark.parametrize("path", ["stream", "sse", "jsonl"])
async def test_hang_up(tmp_path, path, inner, refund_on_disconnect, paid):
    """A client that leaves in mid-stream pays unless the service says otherwise, and the model's stream is closed."""
    service = service_with_routes(tmp_path, inner=inner, refund_on_disconnect=refund_on_disconnect)
    async with service.serving() as client:
        await hang_up(client, path)
        await until(lambda: service.closed, seconds=20)

        assert service.closed == ["endless"]
        assert paid == await service.used()


async def test_cancelled_handler(tmp_path):
    """A handler that is cancelled from inside the service is a failure and is given back."""
    service = service_with_routes(tmp_path, inner=False)
    async with service.serving() as client:
        status, _ = await call(client, "plain", "cancelled")

        assert status == 500
        assert await service.used() == REFUNDED
