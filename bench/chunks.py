"""What a streamed chunk costs more with the middleware, inside one process and without a socket.

Prints nanoseconds per chunk with and without it.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from bench.services import ChatBody, billed, settings_for
from bench.upstream import answer_body
from fastapi_autumn import ModelCharge
from fastapi_autumn.transports import Answer

_BODY = b'{"model":"gpt-4o","prompt":""}'
_CHUNK = b"data: a token\n\n"


class _Constant:
    """An Autumn without a network."""

    async def request(self, method: str, path: str, *, body: bytes, **_: Any) -> Answer:
        return Answer(200, {}, answer_body(path.encode(), body) or b"")

    async def aclose(self) -> None:
        """Nothing is open."""


def _chunks(count: int) -> StreamingResponse:
    async def generate() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield _CHUNK

    return StreamingResponse(generate())


def _plain(count: int) -> FastAPI:
    app = FastAPI()

    @app.post("/ai/chunks")
    async def chunks(body: ChatBody) -> StreamingResponse:
        return _chunks(count)

    return app


def _with_middleware(count: int, directory: Path) -> FastAPI:
    app = billed(settings_for("httpx-deduct", upstream="http://autumn", directory=directory), transport=_Constant())

    @app.post("/ai/chunks")
    async def chunks(body: ChatBody, charge: ModelCharge) -> StreamingResponse:
        return _chunks(count)

    return app


async def _seconds(app: FastAPI) -> float:
    """Stream once and return how long the chunks took, from the first to the last."""
    times: list[float] = []
    body = iter([{"type": "http.request", "body": _BODY, "more_body": False}])

    async def receive() -> dict[str, Any]:
        message = next(body, None)
        if message is None:
            await asyncio.Event().wait()
        return message or {}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            assert message["status"] == 200, message
            times.append(time.perf_counter())
        elif not message.get("more_body", False):
            times.append(time.perf_counter())

    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/ai/chunks",
        "raw_path": b"/ai/chunks",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"x-customer", b"customer-1")],
        "client": ("127.0.0.1", 1),
        "server": ("bench", 80),
    }
    await app(scope, receive, send)
    return times[1] - times[0]


async def _measure(count: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as directory:
        plain, watched = _plain(count), _with_middleware(count, Path(directory))
        async with watched.router.lifespan_context(watched):
            await _seconds(plain)
            await _seconds(watched)
            without, with_it = await _seconds(plain), await _seconds(watched)
    return {"without_ns": without / count * 1e9, "with_ns": with_it / count * 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    print(json.dumps(asyncio.run(_measure(parser.parse_args().count))))


if __name__ == "__main__":
    main()
