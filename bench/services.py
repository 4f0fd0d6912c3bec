"""The services that are measured: one route, with and without billing.

`python -m bench.services httptools-deduct --port 8001 --upstream http://127.0.0.1:9100 --directory /tmp/x`
"""

import argparse
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import uvicorn
from fastapi import BackgroundTasks, FastAPI, Header, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import BaseModel, SecretStr
from starlette.middleware.base import BaseHTTPMiddleware

from bench.measures import OURS
from fastapi_autumn import Autumn, AutumnMiddleware, AutumnSettings, ModelCharge
from fastapi_autumn.settlement.outbox import Outbox
from fastapi_autumn.transports import Transport

SECRET_KEY = "am_sk_test_benchmark"
PRICES = {"gpt-4o": 5}
NAMES = ["unbilled", *OURS, "plain-port", "no-journal"]


class ChatBody(BaseModel):
    model: str
    prompt: str


async def _stream() -> AsyncIterator[bytes]:
    yield b"data: first\n\n"
    await asyncio.Event().wait()


def unbilled(app: FastAPI | None = None) -> FastAPI:
    """FastAPI with no billing: the limit. Identifies its caller all the same."""
    app = app or FastAPI()

    @app.post("/ai/chat")
    async def chat(body: ChatBody, x_customer: Annotated[str, Header()]) -> dict[str, str]:
        return {"answer": body.prompt}

    @app.post("/ai/stream")
    async def stream(body: ChatBody, x_customer: Annotated[str, Header()]) -> StreamingResponse:
        return StreamingResponse(_stream(), media_type="text/event-stream")

    return app


def billed(settings: AutumnSettings, *, transport: Transport | None = None) -> FastAPI:
    """The same with this package."""
    autumn = Autumn(settings, prices=PRICES, transport=transport)
    app = FastAPI(lifespan=autumn.lifespan)
    app.add_middleware(
        AutumnMiddleware, autumn=autumn, identify=lambda connection: connection.headers.get("x-customer")
    )

    @app.post("/ai/chat")
    async def chat(body: ChatBody, charge: ModelCharge) -> dict[str, str]:
        return {"answer": body.prompt}

    @app.post("/ai/stream")
    async def stream(body: ChatBody, charge: ModelCharge) -> StreamingResponse:
        return StreamingResponse(_stream(), media_type="text/event-stream")

    return app


def plain_port(upstream: str) -> FastAPI:
    """What one writes first: BaseHTTPMiddleware around the official client."""
    # Only here: the other columns do not carry its 17,000 objects through every garbage collection.
    import autumn_sdk  # noqa: PLC0415

    app = unbilled()
    autumn = autumn_sdk.Autumn(SECRET_KEY, server_url=upstream, use_edge=False)

    async def bill(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        customer = request.headers["x-customer"]
        price = PRICES[(await request.json())["model"]]
        await autumn.customers.get_or_create_async(customer_id=customer)
        check = await autumn.check_async(
            customer_id=customer, feature_id="ai_usage", required_balance=price, send_event=True
        )
        if not check.allowed:
            return JSONResponse({"detail": "insufficient credits"}, 402)
        response = await call_next(request)
        if response.status_code >= 400:
            response.background = BackgroundTasks()
            response.background.add_task(autumn.track_async, customer_id=customer, feature_id="ai_usage", value=-price)
        return response

    app.add_middleware(BaseHTTPMiddleware, dispatch=bill)
    return app


def settings_for(name: str, *, upstream: str, directory: Path) -> AutumnSettings:
    """Return the settings of a variant such as `httptools-hold`."""
    transport, _, settlement = name.partition("-")
    values: dict[str, Any] = {"transport": transport, "charging": settlement}
    if name == "no-journal":
        values = {"transport": "httptools", "charging": "deduct"}
    return AutumnSettings(
        _env_file=None,
        secret_key=SecretStr(SECRET_KEY),
        base_url=upstream,
        outbox_url=f"sqlite+aiosqlite:///{directory}/{name}.db",
        **values,
    )


def application(name: str, *, upstream: str, directory: Path) -> FastAPI:
    """Make the service called `name`."""
    if name == "unbilled":
        return unbilled()
    if name == "plain-port":
        return plain_port(upstream)
    if name == "no-journal":
        # What the journal costs is the difference to httptools-deduct. Nothing would survive a crash without it.
        Outbox.open = lambda self, _: None
    return billed(settings_for(name, upstream=upstream, directory=directory))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--directory", type=Path, required=True)
    options = parser.parse_args()
    app = application(options.name, upstream=options.upstream, directory=options.directory)
    uvicorn.run(app, port=options.port, log_level="warning", access_log=False, loop="uvloop", http="httptools")


if __name__ == "__main__":
    main()
