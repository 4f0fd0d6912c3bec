"""A small metered service to test through: the emulator behind it, everything else real."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI

from fastapi_autumn import Autumn, AutumnMiddleware, AutumnSettings, Customer

PRICES = {"small": 1, "large": 5, "fraction": "0.1"}


class Service:
    """An application with the middleware, and the emulator that it charges.

    Args:
        folder: Where the outbox lives.
        paths: The prefixes that the middleware covers.
        identify: Default: the header `x-user`.
        transport: Something else that carries the calls to Autumn.
        settings: Anything else of `AutumnSettings`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        paths: tuple[str, ...] = ("/ai",),
        identify: Callable[..., Any] | None = lambda connection: connection.headers.get("x-user"),
        prices: Any = None,
        transport: Any = None,
        **settings: Any,
    ) -> None:
        self.settings = AutumnSettings(
            _env_file=None,
            **{
                "emulator": True,
                "emulator_path": ":memory:",
                "outbox_url": f"sqlite+aiosqlite:///{folder}/outbox.db",
                "paths": paths,
                "event_delay": 0.0,
            }
            | settings,
        )
        self.autumn = Autumn(self.settings, prices=prices or PRICES, transport=transport)
        self.app = FastAPI(lifespan=self.autumn.lifespan)
        self.app.add_middleware(AutumnMiddleware, autumn=self.autumn, identify=identify)
        self.closed: list[str] = []

    @property
    def emulator(self) -> Any:
        return self.autumn.emulator

    @contextlib.asynccontextmanager
    async def calling(self) -> AsyncIterator[httpx.AsyncClient]:
        """Call the application in-process, its lifespan around."""
        transport = httpx.ASGITransport(app=self.app, raise_app_exceptions=False)
        async with (
            self.autumn.lifespan(self.app),
            httpx.AsyncClient(transport=transport, base_url="http://service", headers={"x-user": "ada"}) as client,
        ):
            yield client

    @contextlib.asynccontextmanager
    async def serving(self, **config: Any) -> AsyncIterator[httpx.AsyncClient]:
        """Serve the application with uvicorn on a port of its own, and call it over the socket."""
        server = uvicorn.Server(
            uvicorn.Config(self.app, port=0, log_level="critical", timeout_graceful_shutdown=5, **config)
        )
        task = asyncio.create_task(server.serve())
        try:
            while not server.started:
                await asyncio.sleep(0.005)
            port = server.servers[0].sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}"
            async with httpx.AsyncClient(base_url=url, headers={"x-user": "ada"}, timeout=60) as client:
                yield client
        finally:
            server.should_exit = True
            await task

    async def settled(self) -> None:
        """Wait until Autumn has been told everything."""
        # A server ends a request a moment after its client has read the answer.
        await asyncio.sleep(0.05)
        await self.autumn.settled()

    async def used(self, customer: str = "ada") -> Decimal:
        """How many credits the customer has used, by Autumn's books."""
        await self.settled()
        record = await self.autumn.client.customers.get_or_create(Customer(customer))
        return record.balances["ai_credits"].usage


async def until(condition: Any, *, seconds: float = 60) -> None:
    """Wait until `condition()` is true, or true once awaited."""
    async with asyncio.timeout(seconds):
        while True:
            result = condition()
            if asyncio.iscoroutine(result):
                result = await result
            if result:
                return
            await asyncio.sleep(0.01)


async def request_raw(
    app: Any, path: str, *, method: str = "POST", body: bytes = b""
) -> tuple[int, dict[bytes, bytes]]:
    """One ASGI request with a path that no HTTP client would send as it is; status and headers of the answer."""
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(errors="surrogateescape"),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"x-user", b"ada"), (b"content-type", b"application/json")],
        "server": ("service", 80),
        "client": ("127.0.0.1", 1),
    }
    await app(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])
