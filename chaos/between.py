"""What stands between a service and Autumn: proxies with answers of their own, and a log that is behind."""

import asyncio
import json
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chaos.settings import COUNTS, LATE_MS, LOG_LAG, report

AUDIT = {"x-audit": "1"}
"""The header with which the audit passes by."""
ODD = {
    "stranger's 4xx, before the work": 4,
    "stranger's 4xx, after the work": 4,
    "redirect, before the work": 2,
    "redirect, after the work": 2,
    "500 after the work": 4,
    "late, then 500 after the work": 4,
    "sent twice": 8,
}
"""What may happen, and in how many of 1000 calls."""


class Between:
    """An ASGI app in front of Autumn's, which is odd now and then until it is told to be steady."""

    def __init__(self, autumn: ASGIApp, folder: Path, chance: random.Random) -> None:
        self.steady = False
        self._autumn = autumn
        self._folder = folder
        self._chance = chance
        self._answers: dict[str, Callable[[Call], Awaitable[Response]]] = {
            "stranger's 4xx, before the work": self._stranger_before,
            "stranger's 4xx, after the work": self._stranger_after,
            "redirect, before the work": self._redirect_before,
            "redirect, after the work": self._redirect_after,
            "500 after the work": self._failure_after,
            "late, then 500 after the work": self._late_failure_after,
            "sent twice": self._twice,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        if scope["type"] != "http" or not scope["path"].startswith("/v1/") or "x-audit" in request.headers:
            await self._autumn(scope, receive, send)
            return
        call = Call(self._autumn, scope, behind(scope["path"], await request.body(), self._chance.uniform(*LOG_LAG)))
        name = None if self.steady else self._draw()
        if name is None:
            await call.work(send)
            return
        report(self._folder, COUNTS, name.replace(" ", "_"))
        answer = await self._answers[name](call)
        await answer(scope, receive, send)

    def _draw(self) -> str | None:
        point = self._chance.uniform(0, 1000)
        for name, share in ODD.items():
            point -= share
            if point < 0:
                return name
        return None

    def _stranger(self) -> Response:
        status = self._chance.choice([400, 403, 404, 408, 409, 499])
        return HTMLResponse(f"<html><body>{status}</body></html>", status)

    async def _stranger_before(self, _: "Call") -> Response:
        return self._stranger()

    async def _stranger_after(self, call: "Call") -> Response:
        await call.work()
        return self._stranger()

    async def _redirect_before(self, _: "Call") -> Response:
        return RedirectResponse("https://login.invalid/", 302)

    async def _redirect_after(self, call: "Call") -> Response:
        await call.work()
        return RedirectResponse("https://login.invalid/", 302)

    async def _failure_after(self, call: "Call") -> Response:
        await call.work()
        return JSONResponse({"message": "after the work", "code": "internal_error", "env": "sandbox"}, 500)

    async def _late_failure_after(self, call: "Call") -> Response:
        await call.work()
        await asyncio.sleep(LATE_MS / 1000)
        return JSONResponse({"message": "after the work", "code": "internal_error", "env": "sandbox"}, 500)

    async def _twice(self, call: "Call") -> Response:
        await call.work()
        status, headers, content = await call.work()
        return Response(content, status, headers)


class Call:
    """One call to Autumn, which can be made any number of times."""

    def __init__(self, autumn: ASGIApp, scope: Scope, body: bytes) -> None:
        self._autumn = autumn
        self._scope = scope
        self._body = body

    async def work(self, send: Send | None = None) -> tuple[int, dict[str, str], bytes]:
        """Have Autumn do it; the answer goes to `send`, or is returned."""
        status, headers, content = 502, dict[str, str](), b""

        async def receive() -> Message:
            return {"type": "http.request", "body": self._body, "more_body": False}

        async def keep(message: Any) -> None:
            nonlocal status, headers, content
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = {name.decode(): value.decode() for name, value in message["headers"]}
            else:
                content += message.get("body", b"")

        try:
            await self._autumn(self._scope, receive, send or keep)
        except ConnectionError:
            # A fault of the emulator's own. In front of it, this proxy answers all the same.
            if send is not None:
                raise
        headers.pop("content-length", None)
        return status, headers, content


def behind(path: str, body: bytes, seconds: float) -> bytes:
    """Have a look at the event log end some time ago."""
    if path.removeprefix("/v1/") not in {"events.list", "events.aggregate"}:
        return body
    asked = json.loads(body)
    span = asked.get("custom_range") or {}
    asked["custom_range"] = span | {"end": min(span.get("end", 2**53), int((time.time() - seconds) * 1000))}
    return json.dumps(asked).encode()
