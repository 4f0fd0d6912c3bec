"""The application whose ends are tested, in-process and under real servers: every way in which a request can end."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from decimal import Decimal
from typing import Annotated, Any

import httpx
from fastapi import BackgroundTasks, Depends, FastAPI, Header, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from fastapi.sse import EventSourceResponse
from pydantic import BaseModel
from sse_starlette import EventSourceResponse as OtherEventSourceResponse
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware

from fastapi_autumn import Charge, ModelCharge
from service import Service

PRICE = Decimal(5)
KEPT, REFUNDED = PRICE, Decimal(0)


class Handled(Exception):
    """An error for which the application has a handler."""


class HowToEnd(BaseModel):
    model: str
    how: str = ""


async def later_dependency(charge: ModelCharge, x_how: Annotated[str, Header()] = "") -> None:
    if x_how == "later dependency raises":
        raise ValueError(x_how)


async def careful_dependency(x_how: Annotated[str, Header()] = "") -> AsyncIterator[None]:
    yield
    if x_how == "clean-up raises":
        raise ValueError(x_how)
    if x_how == "clean-up's task group raises":
        await fail_in_a_task_group()


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
    async def plain(ask: HowToEnd, charge: ModelCharge, tasks: BackgroundTasks) -> Any:
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
            case "background task group raises":
                tasks.add_task(fail_in_a_task_group)
            case "background raises what has a handler":
                tasks.add_task(fail_handled)
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
                if how == "task group raises mid-stream" and number == 2:
                    await fail_in_a_task_group()
                if how == "context raises on exit mid-stream" and number == 2:
                    async with raising_on_exit(how):
                        pass
                if how == "says so mid-stream" and number == 2:
                    charge.refund("provider failed")
                    yield b"error\n"
                    return
        finally:
            closed.append(how)

    @app.post("/ai/stream", dependencies=[Depends(careful_dependency)])
    async def stream(ask: HowToEnd, charge: ModelCharge) -> StreamingResponse:
        background = BackgroundTask(fail_afterwards) if ask.how == "background raises" else None
        return StreamingResponse(words(ask.how, charge), media_type="text/plain", background=background)

    @app.post("/ai/sse", response_class=EventSourceResponse, dependencies=[Depends(careful_dependency)])
    async def sse(ask: HowToEnd, charge: ModelCharge) -> AsyncIterable[str]:
        async for word in words(ask.how, charge):
            yield word.decode()

    @app.post("/ai/sync-sse", response_class=EventSourceResponse)
    def sync_sse(ask: HowToEnd, charge: ModelCharge) -> Iterable[str]:
        for number in range(5):
            yield f"word {number}\n"
            if ask.how == "raises mid-stream" and number == 2:
                raise ValueError(ask.how)
            if ask.how == "context raises on exit mid-stream" and number == 2:
                with sync_raising_on_exit(ask.how):
                    pass

    @app.post("/ai/other-sse", dependencies=[Depends(careful_dependency)])
    async def other_sse(ask: HowToEnd, charge: ModelCharge) -> OtherEventSourceResponse:
        async def events() -> AsyncIterator[dict[str, str]]:
            async for word in words(ask.how, charge):
                yield {"data": word.decode()}

        background = BackgroundTask(fail_afterwards) if ask.how == "background raises" else None
        return OtherEventSourceResponse(events(), background=background)

    @app.post("/ai/file", dependencies=[Depends(careful_dependency)])
    async def file(ask: HowToEnd, charge: ModelCharge) -> FileResponse:
        path = "/no/such/file" if ask.how == "no file" else __file__
        return FileResponse(
            path, background=BackgroundTask(fail_afterwards) if ask.how == "background raises" else None
        )

    @app.post("/ai/jsonl", dependencies=[Depends(careful_dependency)])
    async def jsonl(ask: HowToEnd, charge: ModelCharge) -> AsyncIterable[str]:
        async for word in words(ask.how, charge):
            yield word.decode()


async def fail_afterwards() -> None:
    raise ValueError("after the answer was delivered")


async def fail_handled() -> None:
    raise Handled


async def fail_in_a_task_group() -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(fail_afterwards())


@contextlib.asynccontextmanager
async def raising_on_exit(how: str) -> AsyncIterator[None]:
    yield
    raise ValueError(how)


@contextlib.contextmanager
def sync_raising_on_exit(how: str) -> Iterator[None]:
    yield
    raise ValueError(how)


class FailingAfterwards:
    """A middleware inside of ours that fails when the answer is out, as one that commits late would."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)
        how = dict(scope.get("headers", [])).get(b"x-how")
        if how == b"inner middleware raises afterwards":
            raise ValueError(how)
        if how == b"inner middleware's task group raises afterwards":
            await fail_in_a_task_group()


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
    ("plain", "background task group raises", 200, True, KEPT),
    ("plain", "background raises what has a handler", 200, True, KEPT),
    ("plain", "clean-up's task group raises", 200, True, KEPT),
    ("plain", "inner middleware raises afterwards", 200, True, KEPT),
    ("plain", "inner middleware's task group raises afterwards", 200, True, KEPT),
    ("stream", "", 200, True, KEPT),
    ("stream", "raises mid-stream", 200, False, REFUNDED),
    ("stream", "says so mid-stream", 200, True, REFUNDED),
    ("stream", "background raises", 200, True, KEPT),
    ("stream", "clean-up raises", 200, True, KEPT),
    ("stream", "task group raises mid-stream", 200, False, REFUNDED),
    ("stream", "context raises on exit mid-stream", 200, False, REFUNDED),
    ("stream", "inner middleware raises afterwards", 200, True, KEPT),
    ("sse", "", 200, True, KEPT),
    ("sse", "task group raises mid-stream", 200, True, REFUNDED),
    ("sse", "context raises on exit mid-stream", 200, True, REFUNDED),
    ("sse", "clean-up's task group raises", 200, True, KEPT),
    ("sse", "inner middleware raises afterwards", 200, True, KEPT),
    ("sync-sse", "", 200, True, KEPT),
    ("sync-sse", "raises mid-stream", 200, True, REFUNDED),
    ("sync-sse", "context raises on exit mid-stream", 200, True, REFUNDED),
    ("other-sse", "", 200, True, KEPT),
    ("other-sse", "raises mid-stream", 200, False, REFUNDED),
    ("other-sse", "background raises", 200, True, KEPT),
    ("file", "", 200, True, KEPT),
    ("file", "no file", 500, True, REFUNDED),
    ("file", "background raises", 200, True, KEPT),
    ("sse", "raises mid-stream", 200, True, REFUNDED),
    ("sse", "says so mid-stream", 200, True, REFUNDED),
    ("sse", "clean-up raises", 200, True, KEPT),
    ("jsonl", "", 200, True, KEPT),
    ("jsonl", "raises mid-stream", 200, False, REFUNDED),
    ("jsonl", "clean-up raises", 200, True, KEPT),
]


def service_with_routes(tmp_path: Any, *, inner: bool, **settings: Any) -> Service:
    service = Service(tmp_path, **settings)
    # Added before ours is not possible any more, so they go to the inside of it by hand.
    middleware = type(service.app.user_middleware[0])
    service.app.user_middleware.append(middleware(FailingAfterwards))
    if inner:
        service.app.user_middleware.append(middleware(BaseHTTPMiddleware, dispatch=pass_on))
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
